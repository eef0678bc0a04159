import {
  IPV6_DESTINATION_OPTIONS,
  IPV6_FRAGMENT,
  IPV6_HEADER,
  IPV6_HOP_BY_HOP,
  IPV6_ROUTING,
  PROTO_ICMPV6,
} from './wire.ts';

/** Of a packet that says it has more extension headers, nobody asks what is behind them. */
const MOST_HEADERS = 8;

/** Whether another header may follow (RFC 8200 §4). */
export function isExtensionHeader(protocol: number): boolean {
  return (
    protocol === IPV6_HOP_BY_HOP ||
    protocol === IPV6_ROUTING ||
    protocol === IPV6_FRAGMENT ||
    protocol === IPV6_DESTINATION_OPTIONS
  );
}

/**
 * The type of the ICMPv6 message in an IPv6 packet of `length` available bytes: −1 when it holds none, −2 when that cannot be seen
 * (a later fragment of one, or one that is cut off).
 */
export function icmpv6Type(view: DataView, ip: number, length: number): number {
  let protocol = view.getUint8(ip + 6);
  let at = IPV6_HEADER;
  let isLaterFragment = false;
  for (let headers = 0; isExtensionHeader(protocol); headers++) {
    if (headers === MOST_HEADERS || at + 8 > length) return -2;
    if (protocol === IPV6_FRAGMENT) isLaterFragment ||= (view.getUint16(ip + at + 2) & 0xfff8) !== 0;
    const next = view.getUint8(ip + at);
    at += protocol === IPV6_FRAGMENT ? 8 : (view.getUint8(ip + at + 1) + 1) * 8;
    protocol = next;
    // What follows in a later fragment is data.
    if (isLaterFragment) break;
  }
  if (protocol !== PROTO_ICMPV6) return -1;
  return isLaterFragment || at >= length ? -2 : view.getUint8(ip + at);
}
