import { formatIpv4, type Ipv4Addr, ipv4Of, parseIpv4 } from './ipv4.ts';
import { formatIpv6, type Ipv6Addr, ipv6Of, parseIpv6 } from './ipv6.ts';
import {
  containsAddr4,
  containsAddr6,
  formatPrefix4,
  formatPrefix6,
  type Ipv4Prefix,
  type Ipv6Prefix,
  parsePrefix4,
  parsePrefix6,
  prefix4,
  prefix6,
} from './prefix.ts';

/** An address of either family: IPv4 is a number, IPv6 a bigint, which is how the two are told apart. */
export type IpAddr = Ipv4Addr | Ipv6Addr;
export type IpPrefix = Ipv4Prefix | Ipv6Prefix;
export type IpFamily = 4 | 6;

export function isIpv4(addr: IpAddr): addr is Ipv4Addr {
  return typeof addr === 'number';
}

export function isPrefix4(prefix: IpPrefix): prefix is Ipv4Prefix {
  return typeof prefix.addr === 'number';
}

/** Of IP, as in the first bits of its packets. */
export function versionOf(addr: IpAddr): IpFamily {
  return isIpv4(addr) ? 4 : 6;
}

/** Whether a packet can be sent to one host under that address over a network. */
export function isUnicast(address: IpAddr): boolean {
  if (typeof address === 'bigint') {
    // Not ::, ::1, ff00::/8, nor an IPv4 address in the form ::ffff:a.b.c.d.
    return address > 1n && address >> 120n !== 0xffn && address >> 32n !== 0xffffn;
  }
  const first = address >>> 24;
  // Not 0.0.0.0/8, 127.0.0.0/8, 224.0.0.0/4, 255.255.255.255.
  return first !== 0 && first !== 127 && first >>> 4 !== 14 && address !== 0xffffffff;
}

/** `undefined` when it is an address of neither family. */
export function parseAddr(text: string): IpAddr | undefined {
  return parseIpv4(text) ?? parseIpv6(text);
}

export function formatAddr(addr: IpAddr): string {
  return isIpv4(addr) ? formatIpv4(addr) : formatIpv6(addr);
}

/** The address behind it. @throws RangeError for the last of its family. */
export function nextAddr(addr: IpAddr): IpAddr {
  return isIpv4(addr) ? ipv4Of(addr + 1) : ipv6Of(addr + 1n);
}

/** `192.0.2.1:80`, `[2001:db8::1]:80`. */
export function formatEndpoint({ addr, port }: { readonly addr: IpAddr; readonly port: number }): string {
  return isIpv4(addr) ? `${formatIpv4(addr)}:${port}` : `[${formatIpv6(addr)}]:${port}`;
}

/** CIDR notation of either family; host bits are masked off. */
export function parsePrefix(text: string): IpPrefix | undefined {
  return parsePrefix4(text) ?? parsePrefix6(text);
}

export function formatPrefix(prefix: IpPrefix): string {
  return isPrefix4(prefix) ? formatPrefix4(prefix) : formatPrefix6(prefix);
}

/** False when the families differ. */
export function containsAddr(prefix: IpPrefix, addr: IpAddr): boolean {
  if (isPrefix4(prefix)) return isIpv4(addr) && containsAddr4(prefix, addr);
  return !isIpv4(addr) && containsAddr6(prefix, addr);
}

/** Whether `inner` is `outer` or a part of it. False when the families differ. */
export function containsPrefix(outer: IpPrefix, inner: IpPrefix): boolean {
  return outer.length <= inner.length && containsAddr(outer, inner.addr);
}

/** False when the families differ. */
export function equalPrefix(a: IpPrefix, b: IpPrefix): boolean {
  return a.addr === b.addr && a.length === b.length;
}

/** Whether two prefixes have an address in common. False when the families differ. */
export function overlaps(a: IpPrefix, b: IpPrefix): boolean {
  return containsPrefix(a, b) || containsPrefix(b, a);
}

/** The network of that length around an address. @throws RangeError for a length that the family does not have. */
export function prefixOf(addr: IpAddr, length: number): IpPrefix {
  return isIpv4(addr) ? prefix4(addr, length) : prefix6(addr, length);
}

/** Of that address alone. */
export function singlePrefix(addr: IpAddr): IpPrefix {
  return prefixOf(addr, isIpv4(addr) ? 32 : 128);
}
