import type { Arena } from './arena.ts';

/**
 * Internet checksum (RFC 1071) arithmetic. Sums are kept in the byte order of memory read as little-endian words, because
 * that is how the SIMD sum reads them; `swap16` turns a host number into that order.
 */

/** Folds a sum below 2^32 to 16 bits. */
export function fold(sum: number): number {
  const once = (sum & 0xffff) + (sum >>> 16);
  return (once & 0xffff) + (once >>> 16);
}

export function swap16(value: number): number {
  return ((value & 0xff) << 8) | ((value >>> 8) & 0xff);
}

/** Sum of the TCP/UDP pseudo header of the IPv4 packet at `ip` for a transport length (RFC 9293 §3.1, RFC 768). */
export function pseudoSum4(arena: Arena, ip: number, protocol: number, transportLength: number): number {
  return arena.sum16(ip + 12, 8) + (protocol << 8) + swap16(transportLength);
}

/** The same of the IPv6 packet at `ip`, where no routing header names another destination (RFC 8200 §8.1). */
export function pseudoSum6(arena: Arena, ip: number, protocol: number, transportLength: number): number {
  return arena.sum16(ip + 8, 32) + (protocol << 8) + swap16(transportLength);
}

/** Computes and stores the IPv4 header checksum. */
export function putIpv4Checksum(arena: Arena, ip: number, headerLength: number): void {
  arena.view.setUint16(ip + 10, 0);
  arena.view.setUint16(ip + 10, ~arena.sum16(ip, headerLength) & 0xffff, true);
}

/**
 * Takes one off the TTL of an IPv4 packet and mends the header checksum by RFC 1624 (HC' = ~(~HC + ~m + m')).
 * Returns the new TTL; a packet with TTL 0 or 1 is left as it is and 0 is returned.
 */
export function decrementTtl(view: DataView, ip: number): number {
  const ttl = view.getUint8(ip + 8);
  if (ttl <= 1) return 0;
  view.setUint8(ip + 8, ttl - 1);
  // The carry comes at 0xffff already, so that the result is the one a fresh sum gives (as ip_decrease_ttl in include/net/ip.h).
  const sum = view.getUint16(ip + 10) + 0x0100;
  view.setUint16(ip + 10, sum >= 0xffff ? sum + 1 : sum);
  return ttl - 1;
}

/**
 * Takes one off the hop limit of an IPv6 packet, which no checksum covers. Returns the new one; a packet with 0 or 1 is left as it
 * is and 0 is returned.
 */
export function decrementHopLimit(view: DataView, ip: number): number {
  const hopLimit = view.getUint8(ip + 7);
  if (hopLimit <= 1) return 0;
  view.setUint8(ip + 7, hopLimit - 1);
  return hopLimit - 1;
}
