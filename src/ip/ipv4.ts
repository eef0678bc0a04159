declare const brand: unique symbol;

/** An IPv4 address as an unsigned 32-bit integer in host order: 10.0.0.1 is 0x0a000001. */
export type Ipv4Addr = number & { readonly [brand]: 'Ipv4Addr' };

/** Strict dotted quad, four decimal octets without leading zeros, as Go's net/netip reads it; `undefined` when it is not one. */
export function parseIpv4(text: string): Ipv4Addr | undefined {
  if (!/^(?:0|[1-9]\d{0,2})(?:\.(?:0|[1-9]\d{0,2})){3}$/.test(text)) return undefined;
  let value = 0;
  for (const octet of text.split('.')) {
    if (Number(octet) > 255) return undefined;
    value = value * 256 + Number(octet);
  }
  return value as Ipv4Addr;
}

/** @throws RangeError unless `value` is an integer in 0 … 2^32−1. */
export function ipv4Of(value: number): Ipv4Addr {
  if (!Number.isInteger(value) || value < 0 || value > 0xffffffff)
    throw new RangeError(`not an IPv4 address: ${value}`);
  return value as Ipv4Addr;
}

export function formatIpv4(addr: Ipv4Addr): string {
  return `${addr >>> 24}.${(addr >>> 16) & 255}.${(addr >>> 8) & 255}.${addr & 255}`;
}
