import { formatAddr, type IpAddr, isIpv4, parseAddr, prefixOf } from '../ip/address.ts';
import { ipv4Of } from '../ip/ipv4.ts';

/** Addresses and CIDR notation as Go's net package reads and prints them. */
export interface Cidr {
  /** As written: host bits are kept. */
  readonly ip: IpAddr;
  /** 0 … 32, or of IPv6 0 … 128. */
  readonly length: number;
}

/** `undefined` when it is no address. An IPv4 address written as IPv6 (::ffff:10.0.0.1) is IPv4, as for Go. */
export function parseIp(text: string): IpAddr | undefined {
  const addr = parseAddr(text);
  const isMapped = addr !== undefined && !isIpv4(addr) && addr >> 32n === 0xffffn;
  return isMapped ? ipv4Of(Number(addr & 0xffff_ffffn)) : addr;
}

/** `undefined` when it is not CIDR notation. */
export function parseCidr(text: string): Cidr | undefined {
  const match = /^([^/]+)\/(\d{1,9})$/.exec(text);
  const ip = match === null ? undefined : parseIp(match[1]!);
  if (match === null || ip === undefined) return undefined;
  // ::ffff:10.0.0.0/104 counts its length in IPv6 bits.
  const length = Number(match[2]) - (isIpv4(ip) && match[1]!.includes(':') ? 96 : 0);
  return length < 0 || length > (isIpv4(ip) ? 32 : 128) ? undefined : { ip, length };
}

/** As {@link parseCidr} reads it, in canonical form. */
export function formatCidr({ ip, length }: Cidr): string {
  return `${formatAddr(ip)}/${length}`;
}

/** The same with the host bits zero. */
export function networkOf({ ip, length }: Cidr): Cidr {
  return { ip: prefixOf(ip, length).addr, length };
}
