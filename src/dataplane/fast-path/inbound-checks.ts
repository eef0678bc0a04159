// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
/**
 * What a datagram of a peer must be, whichever program takes it from the device: before the kernel joins packets (XDP) or behind that
 * (tcx). The headers lie in the frame, at the same places in both programs.
 */
import { IPV6_HEADER, PROTO_UDP, UDP_HEADER } from '../wire.ts';
import { type Assembler, reg } from './assembler.ts';
import type { Family } from './family.ts';
import { be16, FRAME } from './frame-words.ts';
import {
  ACCEPT_UNTIL,
  DISTRUST_UNTIL,
  EXPECT_TAG,
  EXPECT_TAG_WHOLE,
  GRANT_VALUE_BYTES,
  SUBNET_ENDPOINT,
  TAG_CUT_ARRIVED,
  TAG_SUPER,
  WAY_BACK_UNTIL,
} from './layout.ts';
import { addressWords, familiesOf, OUTER_TTL, type Outer, outerOf } from './outer.ts';
import type { Measured } from './packet-size.ts';
import {
  type Clock,
  CONTEXT,
  ETHERNET_HEADER,
  endpointLookup,
  LONGEST_KEY_BYTES,
  loadBytes,
  loadGrant,
  MS,
  type ProgramOptions,
  SECOND_NS,
  SKB_GSO_SIZE,
  subnetLookup,
} from './skb-program.ts';
import { FIB_BYTES, FIB_LOOKUP_SKIP_NEIGH, findWay } from './underlay-way.ts';

// The frame, below R10.
export const INNER = -IPV6_HEADER;
export const UDP: number = INNER - UDP_HEADER;
export const outerAt = ({ family }: Outer): number => UDP - family.header;
export const KEY: number = UDP - IPV6_HEADER - LONGEST_KEY_BYTES;
export const SLOT: number = KEY - 8;
export const MEASURED: Measured = { packets: SLOT - 8, bytes: SLOT - 16 };
export const NOW: number = SLOT - 24;
export const KNOWN: number = SLOT - 32;
export const CLOCK: Clock = { now: NOW, known: KNOWN };
export const GRANT = KNOWN - GRANT_VALUE_BYTES;
export const FIB = GRANT - FIB_BYTES;
/** A word that is not 0 when nobody reads the socket. */
export const UNREAD = FIB - 8;

/** That our super-packets arrive holds for that long after the peer said so: a pause in a conversation does not end it. */
const WHOLE_HOLDS_SECONDS = 2;
/** That those arrive which are cut does not change while routes and devices stay; for TCP it is watched all the while. */
const CUT_HOLDS_SECONDS = 60;
/** A wrong tag comes from somebody who guesses: nothing is learned for so long that there are too many to guess. */
const DISTRUST_NS = 100 * MS;
/** How far a super-packet that is cut counts on from its tag, at most. */
const SEGMENTS = 128;
/** How often routing is asked about the way back to a peer. */
const WAY_BACK_NS = 100 * MS;

/** Outer headers, and of the inner one what that of any family has. */
export function loadHeaders(asm: Assembler, options: ProgramOptions, load = loadBytes): void {
  const outer = outerOf(options);
  load(asm, ETHERNET_HEADER, outerAt(outer), outer.overhead + innerLoaded(options));
}

const innerLoaded = (options: ProgramOptions): number => Math.min(...familiesOf(options).map(({ header }) => header));

/** What is no whole datagram of UDP to the forwarder's socket passes. The outer headers are in the frame. */
export function requireOuterHeaders(asm: Assembler, options: ProgramOptions): void {
  const outer = outerOf(options);
  const at = outerAt(outer);
  outer.requirePlain(asm, at);
  asm.load(1, 1, FRAME, at + outer.family.protocolAt);
  asm.jumpIf('ne', 1, PROTO_UDP, 'pass');
  asm.load(2, 1, FRAME, UDP + 2);
  asm.jumpIf('ne', 1, be16(options.ownPort), 'pass');
  for (const [index, word] of addressWords(options.ownAddress).entries()) {
    asm.load(4, 1, FRAME, at + outer.family.destinationAt + 4 * index);
    asm.op32('mov', 2, word);
    asm.jumpIf('ne', 1, reg(2), 'pass');
  }
  // Nobody has checked this header yet; the inner one will be by the kernel, as any that arrives.
  outer.requireSum(asm, at);
}

/**
 * The inner packet's header behind the outer ones, which are in the frame with the first bytes of it. Goes to `label` when its version
 * is another one.
 */
export function loadInnerOf(
  asm: Assembler,
  options: ProgramOptions,
  family: Family,
  label: string,
  load = loadBytes,
): void {
  asm.load(1, 1, FRAME, INNER);
  asm.op('and', 1, 0xf0);
  asm.jumpIf('ne', 1, family.version, label);
  const loaded = innerLoaded(options);
  if (family.header === loaded) return;
  const at = ETHERNET_HEADER + outerOf(options).overhead + loaded;
  load(asm, at, INNER + loaded, family.header - loaded);
}

/**
 * The sender's datagrams reach the forwarder's socket, as the agent knows, and the way back to it leads through the device that
 * they come from: a forged outer source is refused as by rp_filter=1, and our own address, which routing has no way to, too.
 * R8 = what is known of the sender.
 */
export function requireGrant(asm: Assembler, options: ProgramOptions): void {
  loadGrant(asm, options.maps, outerSource(options), GRANT);
  endpointLookup(asm, options.maps, outerSource(options));
  asm.load(8, 2, FRAME, KNOWN);
  asm.load(8, 1, FRAME, GRANT + ACCEPT_UNTIL);
  asm.jumpIf('le', 1, reg(2), 'pass');
  requireWayBack(asm, options, 'way-back-known');
}

/** Where in the frame the sender's address is. */
export const outerSource = (options: ProgramOptions): number => {
  const outer = outerOf(options);
  return outerAt(outer) + outer.family.sourceAt;
};

/** In: R8 what is known of the sender. */
export function requireWayBack(asm: Assembler, options: ProgramOptions, label: string): void {
  asm.load(8, 0, FRAME, NOW);
  asm.load(8, 1, 8, WAY_BACK_UNTIL);
  asm.jumpIf('gt', 1, reg(0), label);
  for (let offset = 0; offset < FIB_BYTES; offset += 8) asm.store(8, FRAME, FIB + offset, 0);
  findWay(asm, options, { fib: FIB, address: outerSource(options), flags: FIB_LOOKUP_SKIP_NEIGH });
  asm.load(8, 1, FRAME, NOW);
  asm.op('add', 1, WAY_BACK_NS);
  asm.store(8, 8, WAY_BACK_UNTIL, reg(1));
  asm.label(label);
}

/**
 * The tag of the outer header is one of two numbers that the agent gave the sender, by the forwarder's socket. Only who has them
 * is believed that it is heard, that our super-packets arrive, or that one of its own has: whoever forges its address, or a
 * middlebox that writes numbers of its own there, teaches us nothing. Nor does a datagram of a socket, which is taken only while
 * this host has no agent. Where super-packets cannot arrive in one piece, nothing is learned of that. In: R8 what is known of the sender.
 */
export function learnFromTag(
  asm: Assembler,
  outer: Outer,
  { known }: Family,
  whole: 'may-be-whole' | 'never-whole',
): void {
  asm.load(2, 1, FRAME, UDP + 6);
  asm.jumpIf('ne', 1, 0, 'learned');
  asm.load(8, 2, FRAME, NOW);
  asm.load(8, 1, 8, DISTRUST_UNTIL);
  asm.jumpIf('gt', 1, reg(2), 'learned');
  asm.load(2, 1, FRAME, outerAt(outer) + outer.tagAt);
  asm.load(2, 3, FRAME, GRANT + EXPECT_TAG);
  asm.jumpIf('eq', 1, reg(3), 'tagged');
  asm.load(2, 4, FRAME, GRANT + EXPECT_TAG_WHOLE);
  asm.jumpIf('ne', 1, reg(4), 'untagged');
  oursArrive(asm, known, known.wholeUntil, WHOLE_HOLDS_SECONDS);
  asm.label('tagged');
  asm.store(8, 8, known.unheardSince, 0);
  if (whole === 'may-be-whole') learnFromArrival(asm, outer, known);
  asm.jump('learned');

  asm.label('untagged');
  asm.toBig16(1);
  for (const tag of [3, 4] as const) {
    asm.toBig16(tag);
    asm.op('mov', 5, reg(1));
    asm.op('sub', 5, reg(tag));
    asm.op('and', 5, 0xffff);
    if (tag === 3) learnOfCut(asm, known, whole);
    asm.jumpIf('lt', 5, SEGMENTS, 'learned');
  }
  asm.op('add', 2, DISTRUST_NS);
  asm.store(8, 8, DISTRUST_UNTIL, reg(2));
  asm.label('learned');
}

/**
 * In: R5 how far a tag is from the one that is expected. One of `TAG_SUPER` and `TAG_CUT_ARRIVED`, or both, say what they mean, on the first
 * segment of a super-packet; those behind that say nothing. R3 is lost.
 */
function learnOfCut(asm: Assembler, known: Family['known'], whole: 'may-be-whole' | 'never-whole'): void {
  asm.op('mov', 3, reg(5));
  asm.op('and', 3, 0xffff ^ (TAG_SUPER | TAG_CUT_ARRIVED));
  asm.jumpIf('ge', 3, SEGMENTS, 'not-of-cut');
  asm.jumpIf('ne', 3, 0, 'learned');
  // What arrives in one piece is not cut, and behind GRO it is of no use.
  if (whole === 'never-whole') {
    asm.op('mov', 3, reg(5));
    asm.op('and', 3, TAG_SUPER);
    asm.jumpIf('eq', 3, 0, 'no-super-packet');
    asm.store(8, 8, known.cutArrivedAt, reg(2));
    asm.label('no-super-packet');
  }
  asm.op('and', 5, TAG_CUT_ARRIVED);
  asm.jumpIf('eq', 5, 0, 'cut-told');
  oursArrive(asm, known, known.cutUntil, CUT_HOLDS_SECONDS);
  asm.label('cut-told');
  asm.store(8, 8, known.unheardSince, 0);
  asm.jump('learned');
  asm.label('not-of-cut');
}

/** Our super-packets arrive there, in one piece or cut, which holds for so long. In: R2 the time, R8 what is known of the peer's host. R1 is lost. */
function oursArrive(asm: Assembler, known: Family['known'], until: number, seconds: number): void {
  asm.op('mov', 1, SECOND_NS);
  asm.op('mul', 1, seconds);
  asm.op('add', 1, reg(2));
  asm.store(8, 8, until, reg(1));
  asm.store(8, 8, known.unansweredSince, 0);
  asm.store(8, 8, known.nextTrial, 0);
  asm.store(8, 8, known.trialPause, 0);
}

/** A router, which shows in the TTL, looks into what it forwards and would misread the long MAC header of `PREPEND`. */
function learnFromArrival(asm: Assembler, outer: Outer, { arrivedAt }: Family['known']): void {
  asm.load(4, 1, CONTEXT, SKB_GSO_SIZE);
  asm.jumpIf('eq', 1, 0, 'learned');
  asm.load(1, 1, FRAME, outerAt(outer) + outer.ttlAt);
  asm.jumpIf('ne', 1, OUTER_TTL, 'learned');
  asm.store(8, 8, arrivedAt, reg(2));
}

/** In: R9 length of the frame, out: of the inner packet. Padding behind it, or several datagrams put together, are the forwarder's. */
export function requireLengths(asm: Assembler, outer: Outer, family: Family): void {
  asm.op('sub', 9, ETHERNET_HEADER);
  requireLength(asm, outerAt(outer) + outer.family.lengthAt, outer.family.lengthLacks);
  asm.op('sub', 9, outer.family.header);
  requireLength(asm, UDP + 4);
  asm.op('sub', 9, UDP_HEADER);
  family.requirePlain(asm, INNER);
  requireLength(asm, INNER + family.lengthAt, family.lengthLacks);
}

function requireLength(asm: Assembler, offset: number, lacks = 0): void {
  asm.load(2, 1, FRAME, offset);
  asm.toBig16(1);
  if (lacks !== 0) asm.op('add', 1, lacks);
  asm.jumpIf('ne', 1, reg(9), 'pass');
}

/** The inner source must be of a subnet whose host sent this: the strictest of what `--source-check` may ask for. */
export function requireSource(asm: Assembler, options: ProgramOptions, family: Family): void {
  const { layout } = outerOf(options);
  subnetLookup(asm, options.maps, family, KEY, INNER + family.sourceAt);
  for (let word = 0; word < layout.addressBytes; word += 4) {
    asm.load(4, 1, 0, SUBNET_ENDPOINT + word);
    asm.load(4, 2, FRAME, outerSource(options) + word);
    asm.jumpIf('ne', 1, reg(2), 'pass');
  }
  asm.load(4, 1, 0, layout.subnetSlot);
  asm.store(8, FRAME, SLOT, reg(1));
}
