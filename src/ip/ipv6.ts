import { isIPv6 } from 'node:net';
import { parseIpv4 } from './ipv4.ts';

declare const brand: unique symbol;

/** An IPv6 address as an unsigned 128-bit integer. */
export type Ipv6Addr = bigint & { readonly [brand]: 'Ipv6Addr' };

export const IPV6_MAX: bigint = (1n << 128n) - 1n;

/** RFC 4291 text, an IPv4 tail included, without a zone or a prefix length; `undefined` when it is not one. */
export function parseIpv6(text: string): Ipv6Addr | undefined {
  // Node takes zones as well.
  if (!isIPv6(text) || text.includes('%')) return undefined;
  const [head = '', tail] = text.split('::');
  const left = groupsOf(head);
  const right = tail === undefined ? [] : groupsOf(tail);
  const zeros = Array.from({ length: 8 - left.length - right.length }, () => 0);
  return [...left, ...zeros, ...right].reduce((sum, group) => (sum << 16n) | BigInt(group), 0n) as Ipv6Addr;
}

/** Of one side of `::`, which may be empty. An IPv4 tail is two groups. */
function groupsOf(side: string): number[] {
  if (side === '') return [];
  return side.split(':').flatMap((group) => {
    const ipv4 = group.includes('.') ? parseIpv4(group) : undefined;
    return ipv4 === undefined ? Number.parseInt(group, 16) : [Math.floor(ipv4 / 0x10000), ipv4 % 0x10000];
  });
}

/** @throws RangeError unless `value` is in 0 … 2^128−1. */
export function ipv6Of(value: bigint): Ipv6Addr {
  if (value < 0n || value > IPV6_MAX) throw new RangeError(`not an IPv6 address: ${value}`);
  return value as Ipv6Addr;
}

/** The address in 16 bytes, in network order. @throws RangeError when they are not all there. */
export function ipv6At(view: DataView, offset: number): Ipv6Addr {
  return ((view.getBigUint64(offset) << 64n) | view.getBigUint64(offset + 8)) as Ipv6Addr;
}

/** Writes what {@link ipv6At} reads. */
export function putIpv6(view: DataView, offset: number, addr: bigint): void {
  view.setBigUint64(offset, addr >> 64n);
  view.setBigUint64(offset + 8, BigInt.asUintN(64, addr));
}

/** Canonical text of RFC 5952: lower case, the longest run of two or more zero groups compressed, the first on a tie. */
export function formatIpv6(addr: Ipv6Addr): string {
  const groups = Array.from({ length: 8 }, (_, i) => Number((addr >> BigInt(112 - 16 * i)) & 0xffffn));
  let best = { start: -1, length: 1 };
  for (let start = 0; start < 8; start++) {
    let length = 0;
    while (start + length < 8 && groups[start + length] === 0) length++;
    if (length > best.length) best = { start, length };
  }
  const hex = groups.map((group) => group.toString(16));
  if (best.start < 0) return hex.join(':');
  return `${hex.slice(0, best.start).join(':')}::${hex.slice(best.start + best.length).join(':')}`;
}
