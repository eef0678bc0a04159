/**
 * Addresses and CIDR notation as Go's net package reads and prints them. weft's own (src/ip) lie on an npm package, which
 * the plugin may not load.
 */
export interface Ip {
  readonly bits: 32 | 128;
  readonly value: bigint;
}

export interface Cidr {
  /** As written: host bits are kept. */
  readonly ip: Ip;
  readonly length: number;
}

/** `undefined` when it is no address. An IPv4 address written as IPv6 (::ffff:10.0.0.1) is IPv4, as for Go. */
export function parseIp(text: string): Ip | undefined {
  const bytes = text.includes(':') ? parseIpv6(text) : parseIpv4(text);
  if (bytes === undefined) return undefined;
  const value = bytes.reduce((sum, byte) => (sum << 8n) | BigInt(byte), 0n);
  if (bytes.length === 16 && value >> 32n === 0xffffn) return { bits: 32, value: value & 0xffff_ffffn };
  return { bits: bytes.length === 4 ? 32 : 128, value };
}

/** `undefined` when it is not CIDR notation. */
export function parseCidr(text: string): Cidr | undefined {
  const match = /^([^/]+)\/(\d{1,9})$/.exec(text);
  const ip = match === null ? undefined : parseIp(match[1]!);
  if (match === null || ip === undefined) return undefined;
  // ::ffff:10.0.0.0/104 counts its length in IPv6 bits.
  const mapped = ip.bits === 32 && match[1]!.includes(':');
  const length = Number(match[2]) - (mapped ? 96 : 0);
  return length < 0 || length > ip.bits ? undefined : { ip, length };
}

export function formatCidr({ ip, length }: Cidr): string {
  return `${formatIp(ip)}/${length}`;
}

/** The same with the host bits zero. */
export function networkOf({ ip, length }: Cidr): Cidr {
  const hostBits = BigInt(ip.bits - length);
  return { ip: { bits: ip.bits, value: (ip.value >> hostBits) << hostBits }, length };
}

export function formatIp({ bits, value }: Ip): string {
  if (bits === 32) return [24n, 16n, 8n, 0n].map((shift) => (value >> shift) & 0xffn).join('.');
  const groups = Array.from({ length: 8 }, (_, i) => Number((value >> BigInt(112 - 16 * i)) & 0xffffn));
  const zeros = longestZeroRun(groups);
  const hex = groups.map((group) => group.toString(16));
  if (zeros.length < 2) return hex.join(':');
  return `${hex.slice(0, zeros.start).join(':')}::${hex.slice(zeros.start + zeros.length).join(':')}`;
}

/** The first of the longest runs (RFC 5952). */
function longestZeroRun(groups: readonly number[]): { start: number; length: number } {
  let best = { start: 0, length: 0 };
  for (let start = 0; start < groups.length; start++) {
    let end = start;
    while (groups[end] === 0) end++;
    if (end - start > best.length) best = { start, length: end - start };
    start = Math.max(start, end);
  }
  return best;
}

function parseIpv4(text: string): number[] | undefined {
  const parts = text.split('.');
  // No leading zeros: some programs read those as octal.
  if (parts.length !== 4 || !parts.every((part) => /^(?:0|[1-9]\d{0,2})$/.test(part) && Number(part) < 256)) {
    return undefined;
  }
  return parts.map(Number);
}

function parseIpv6(text: string): number[] | undefined {
  const halves = text.split('::');
  if (halves.length > 2) return undefined;
  const head = parseGroups(halves[0]!, halves.length === 1);
  const tail = halves.length === 2 ? parseGroups(halves[1]!, true) : [];
  if (head === undefined || tail === undefined) return undefined;
  const missing = 16 - head.length - tail.length;
  if (halves.length === 1 ? missing !== 0 : missing < 2) return undefined;
  return [...head, ...new Array<number>(missing).fill(0), ...tail];
}

/** The bytes of groups with colons; the last may be an IPv4 address at the end of the text. */
function parseGroups(text: string, atEnd: boolean): number[] | undefined {
  if (text === '') return [];
  const groups = text.split(':');
  const bytes: number[] = [];
  for (const [i, group] of groups.entries()) {
    if (atEnd && i === groups.length - 1 && group.includes('.')) {
      const ipv4 = parseIpv4(group);
      if (ipv4 === undefined) return undefined;
      bytes.push(...ipv4);
    } else {
      if (!/^[0-9a-fA-F]{1,4}$/.test(group)) return undefined;
      const value = Number.parseInt(group, 16);
      bytes.push(value >> 8, value & 0xff);
    }
  }
  return bytes;
}
