import { formatIpv4, type Ipv4Addr, parseIpv4 } from './ipv4.ts';
import { formatIpv6, IPV6_MAX, type Ipv6Addr, parseIpv6 } from './ipv6.ts';

/** A network: host bits are always zero. Made by `prefix4`/`parsePrefix4`, which mask them off. */
export interface Ipv4Prefix {
  readonly addr: Ipv4Addr;
  /** 0 … 32 */
  readonly length: number;
}

export interface Ipv6Prefix {
  readonly addr: Ipv6Addr;
  /** 0 … 128 */
  readonly length: number;
}

/** The netmask of a prefix length 0 … 32 as an unsigned 32-bit number. */
export function mask4(length: number): number {
  return length === 0 ? 0 : (0xffffffff << (32 - length)) >>> 0;
}

/** The netmask of a prefix length 0 … 128. */
export function mask6(length: number): bigint {
  return (IPV6_MAX << BigInt(128 - length)) & IPV6_MAX;
}

/** @throws RangeError unless length is an integer in 0 … 32. */
export function prefix4(addr: Ipv4Addr, length: number): Ipv4Prefix {
  if (!Number.isInteger(length) || length < 0 || length > 32)
    throw new RangeError(`not an IPv4 prefix length: ${length}`);
  return { addr: ((addr & mask4(length)) >>> 0) as Ipv4Addr, length };
}

/** @throws RangeError unless length is an integer in 0 … 128. */
export function prefix6(addr: Ipv6Addr, length: number): Ipv6Prefix {
  if (!Number.isInteger(length) || length < 0 || length > 128) {
    throw new RangeError(`not an IPv6 prefix length: ${length}`);
  }
  return { addr: (addr & mask6(length)) as Ipv6Addr, length };
}

function splitCidr(text: string, maxLength: number): { address: string; length: number } | undefined {
  const match = /^([^/]+)\/(\d{1,9})$/.exec(text);
  const address = match?.[1];
  const length = Number(match?.[2]);
  return address === undefined || length > maxLength ? undefined : { address, length };
}

/**
 * CIDR notation as Go's net.ParseCIDR reads it (the length may have leading zeros); host bits are masked off, as flannel
 * does. `undefined` when it is not IPv4 CIDR.
 */
export function parsePrefix4(text: string): Ipv4Prefix | undefined {
  const split = splitCidr(text, 32);
  const addr = split && parseIpv4(split.address);
  return split === undefined || addr === undefined ? undefined : prefix4(addr, split.length);
}

/** The same of IPv6. */
export function parsePrefix6(text: string): Ipv6Prefix | undefined {
  const split = splitCidr(text, 128);
  const addr = split && parseIpv6(split.address);
  return split === undefined || addr === undefined ? undefined : prefix6(addr, split.length);
}

export function formatPrefix4(prefix: Ipv4Prefix): string {
  return `${formatIpv4(prefix.addr)}/${prefix.length}`;
}

export function formatPrefix6(prefix: Ipv6Prefix): string {
  return `${formatIpv6(prefix.addr)}/${prefix.length}`;
}

export function containsAddr4(prefix: Ipv4Prefix, addr: Ipv4Addr): boolean {
  return (addr & mask4(prefix.length)) >>> 0 === prefix.addr;
}

export function containsAddr6(prefix: Ipv6Prefix, addr: Ipv6Addr): boolean {
  return (addr & mask6(prefix.length)) === prefix.addr;
}

/** Whether `inner` lies wholly inside `outer` (equal counts). */
export function containsPrefix4(outer: Ipv4Prefix, inner: Ipv4Prefix): boolean {
  return inner.length >= outer.length && containsAddr4(outer, inner.addr);
}

export function containsPrefix6(outer: Ipv6Prefix, inner: Ipv6Prefix): boolean {
  return inner.length >= outer.length && containsAddr6(outer, inner.addr);
}
