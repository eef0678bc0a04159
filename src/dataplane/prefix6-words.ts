import { type Ipv6Addr, ipv6Of } from '../ip/ipv6.ts';
import { mask6 } from '../ip/prefix.ts';

/**
 * IPv6 prefixes in the shared words of the peer table: an address is four 32-bit words, the first one the highest. Lookup is by longest
 * prefix, one hash probe for each length that occurs, as for IPv4.
 */

/** Four words of the address, then the value (not 0) << 8 | prefix length; a last word of 0 is an empty bucket. */
export const ENTRY6_WORDS = 5;
export const ADDRESS6_WORDS = 4;

/** The word `index` of an address, signed. */
export function word6(address: bigint, index: number): number {
  return Number((address >> BigInt(96 - 32 * index)) & 0xffff_ffffn) | 0;
}

/** Writes {@link ADDRESS6_WORDS} words, the first of which has the highest bits. */
export function putAddress6(words: Int32Array, at: number, address: bigint): void {
  for (let index = 0; index < ADDRESS6_WORDS; index++) words[at + index] = word6(address, index);
}

/** Reads what {@link putAddress6} writes. */
export function address6Of(words: Int32Array, at: number): Ipv6Addr {
  let address = 0n;
  for (let index = 0; index < ADDRESS6_WORDS; index++) address = (address << 32n) | BigInt(words[at + index]! >>> 0);
  return ipv6Of(address);
}

/** Network and mask, four words each, so that `inside6` is true of its addresses; of none without a network. */
export function putNetwork6(
  words: Int32Array,
  at: number,
  network: { readonly addr: bigint; readonly length: number } | undefined,
): void {
  // No address has this network under an empty mask.
  putAddress6(words, at, network?.addr ?? 1n);
  putAddress6(words, at + ADDRESS6_WORDS, network === undefined ? 0n : mask6(network.length));
}

/** Whether the address in the 16 bytes at `offset` is of the network that lies at `at`. */
export function inside6(words: Int32Array, at: number, view: DataView, offset: number): boolean {
  for (let index = 0; index < ADDRESS6_WORDS; index++) {
    if ((view.getInt32(offset + 4 * index) & words[at + ADDRESS6_WORDS + index]!) !== words[at + index]) return false;
  }
  return true;
}

function hash6(a: number, b: number, c: number, d: number, length: number): number {
  let mixed = Math.imul(a ^ Math.imul(length + 1, 0x9e3779b1), 0x85ebca6b);
  mixed = Math.imul((mixed ^ (mixed >>> 15)) + b, 0xc2b2ae35);
  mixed = Math.imul((mixed ^ (mixed >>> 13)) + c, 0x85ebca6b);
  mixed = Math.imul((mixed ^ (mixed >>> 15)) + d, 0x9e3779b1);
  return (mixed ^ (mixed >>> 16)) >>> 0;
}

/** The part of word `index` that a prefix of that length has. */
function masked(word: number, length: number, index: number): number {
  const bits = length - 32 * index;
  return bits >= 32 ? word : bits <= 0 ? 0 : word & (-1 << (32 - bits));
}

/** Linear probing in a table with an empty bucket; the first entry of a key stays. @returns the value that is there now. */
export function insert6(
  words: Int32Array,
  table: number,
  bucketMask: number,
  { addr, length }: { readonly addr: bigint; readonly length: number },
  value: number,
): number {
  const [a, b, c, d] = [word6(addr, 0), word6(addr, 1), word6(addr, 2), word6(addr, 3)];
  for (let bucket = hash6(a, b, c, d, length) & bucketMask; ; bucket = (bucket + 1) & bucketMask) {
    const at = table + bucket * ENTRY6_WORDS;
    const present = words[at + 4]!;
    if (present === 0) {
      putAddress6(words, at, addr);
      words[at + 4] = (value << 8) | length;
      return value;
    }
    const isSame = words[at] === a && words[at + 1] === b && words[at + 2] === c && words[at + 3] === d;
    if (isSame && (present & 0xff) === length) return present >>> 8;
  }
}

/** The value of the prefix of that length that has the address in the 16 bytes at `offset`; 0 when there is none. */
export function find6(
  words: Int32Array,
  table: number,
  bucketMask: number,
  view: DataView,
  offset: number,
  length: number,
): number {
  const a = masked(view.getInt32(offset), length, 0);
  const b = masked(view.getInt32(offset + 4), length, 1);
  const c = masked(view.getInt32(offset + 8), length, 2);
  const d = masked(view.getInt32(offset + 12), length, 3);
  let bucket = hash6(a, b, c, d, length) & bucketMask;
  // Bounded: a worker that held a copy for so long that it was filled again may find no empty bucket.
  for (let probes = 0; probes <= bucketMask; probes++, bucket = (bucket + 1) & bucketMask) {
    const at = table + bucket * ENTRY6_WORDS;
    const value = words[at + 4]!;
    if (value === 0) return 0;
    const isSame = words[at] === a && words[at + 1] === b && words[at + 2] === c && words[at + 3] === d;
    if (isSame && (value & 0xff) === length) return value >>> 8;
  }
  return 0;
}
