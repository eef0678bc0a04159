import { ADDRESS6_WORDS, ENTRY6_WORDS } from './prefix6-words.ts';

/** How the peer table lies in shared memory; peer-table.ts says what is in it. */

/** 0 = not found. */
export type Slot = number;

// Header words (Int32): the copy in use, then one word a reader: 0 idle, 1 or 2 the copy it reads; whether the writer waits.
export const ACTIVE = 0;
export const READERS = 1;
export const READER_COUNT = 2;
export const WAITING = READERS + READER_COUNT;
export const HEADER_WORDS = 16;

// A copy (Int32 words): fixed fields, prefix lengths, two hash tables.
export const LENGTH_COUNT = 0;
export const PREFIX_MASK = 1; // of both hash tables: number of buckets − 1
export const NETWORK = 2;
export const NETWORK_MASK = 3;
export const MTU = 4;
export const OWN = 5;
export const OWN_MASK = 6;
export const LENGTHS = 8; // up to 33
export const CARRIES_IPV6 = 48;
export const PREFIX6_MASK = 49; // of both hash tables of IPv6
export const LENGTH6_COUNT = 50;
export const NETWORK6 = 52; // with its mask
export const OWN6 = 60;
export const LENGTHS6 = 68; // up to 129
export const FIXED_WORDS = 208;
export const PREFIX_ENTRY = 2; // address, slot << 6 | length; 0 = empty
export const ENDPOINT_ENTRY = 2; // address, slot; 0 = empty
// By slot: outer address (of an IPv6 underlay the first slot that has it), port. Path MTU is apart, because the workers write it.
export const SLOT_ENTRY = 2;

/** Of an IPv4 prefix, for its bucket. */
export function hash(address: number, length: number): number {
  const mixed = Math.imul(address ^ Math.imul(length + 1, 0x9e3779b1), 0x85ebca6b);
  return (mixed ^ (mixed >>> 15)) >>> 0;
}

export interface Shape {
  readonly buckets: number;
  readonly copyWords: number;
  readonly prefixes: number;
  readonly endpoints: number;
  readonly slots: number;
  readonly prefixes6: number;
  readonly endpoints6: number;
  /** By slot: the address of the host in IPv6, 0 for none. */
  readonly addresses6: number;
}

/** Where the parts of one copy of a table begin, in words, with room for `capacity` peers. */
export function shapeOf(capacity: number): Shape {
  const buckets = 2 ** Math.ceil(Math.log2(Math.max(16, capacity * 2)));
  const prefixes = FIXED_WORDS;
  const endpoints = prefixes + buckets * PREFIX_ENTRY;
  const slots = endpoints + buckets * ENDPOINT_ENTRY;
  const prefixes6 = slots + capacity * SLOT_ENTRY;
  const endpoints6 = prefixes6 + buckets * ENTRY6_WORDS;
  const addresses6 = endpoints6 + buckets * ENTRY6_WORDS;
  const copyWords = addresses6 + capacity * ADDRESS6_WORDS;
  return { buckets, prefixes, endpoints, slots, prefixes6, endpoints6, addresses6, copyWords };
}
