import type { Arena, Continue } from './arena.ts';
import { fold, pseudoSum4, pseudoSum6, putIpv4Checksum } from './checksum.ts';
import { isExtensionHeader } from './ipv6-headers.ts';
import { IP_FLAG_MF, IP_OFFSET_MASK, IPV4_MIN_HEADER, IPV6_HEADER, VNET_GSO_TCPV4, VNET_GSO_TCPV6 } from './wire.ts';

/** What putting packets together needs to know of the IP header of a family. */
export interface FlowFamily {
  /** Length of an IP header without options or extension headers. */
  readonly header: number;
  /** Offset of the byte that names the transport protocol. */
  readonly protocolAt: number;
  /** Longest packet that the kernel takes. */
  readonly mostBytes: number;
  readonly tcpGso: number;
  /** Whether the transport header lies right behind the IP header, and is of the whole packet. */
  isPlain(view: DataView, ip: number): boolean;
  /** Whether a packet of that protocol may be of a flow although its ports cannot be read where they mostly are. */
  mayHideFlow(protocol: number): boolean;
  /** Whether two packets have the same source and destination address. */
  sameAddresses(view: DataView, a: number, b: number): boolean;
  /** What counts up from packet to packet; 0 where nothing does. */
  identification(view: DataView, ip: number): number;
  readonly isValid: (arena: Arena) => (offset: number, length: number) => number;
  readonly continues: (arena: Arena) => Continue;
  /** Sets the length of a packet that has become longer. Returns the sum of its pseudo header. */
  lengthen(arena: Arena, ip: number, length: number, protocol: number): number;
}

export const IPV4_FLOWS: FlowFamily = {
  header: IPV4_MIN_HEADER,
  protocolAt: 9,
  mostBytes: 65_535,
  tcpGso: VNET_GSO_TCPV4,
  isPlain: (view, ip) => view.getUint8(ip) === 0x45 && (view.getUint16(ip + 6) & (IP_FLAG_MF | IP_OFFSET_MASK)) === 0,
  // Options and fragments leave the protocol where it is.
  mayHideFlow: () => false,
  sameAddresses: (view, a, b) =>
    view.getUint32(a + 12) === view.getUint32(b + 12) && view.getUint32(a + 16) === view.getUint32(b + 16),
  identification: (view, ip) => view.getUint16(ip + 4),
  isValid: ({ valid4 }) => valid4,
  continues: ({ continue4 }) => continue4,
  lengthen: (arena, ip, length, protocol) => {
    arena.view.setUint16(ip + 2, length);
    putIpv4Checksum(arena, ip, IPV4_MIN_HEADER);
    return fold(pseudoSum4(arena, ip, protocol, length - IPV4_MIN_HEADER));
  },
};

export const IPV6_FLOWS: FlowFamily = {
  header: IPV6_HEADER,
  protocolAt: 6,
  // Its payload may be as long; longer than any packet of IPv4 it is never made.
  mostBytes: 65_535,
  tcpGso: VNET_GSO_TCPV6,
  isPlain: () => true,
  mayHideFlow: (protocol) => isExtensionHeader(protocol),
  sameAddresses: (view, a, b) => {
    for (let at = 8; at < IPV6_HEADER; at += 4) if (view.getUint32(a + at) !== view.getUint32(b + at)) return false;
    return true;
  },
  identification: () => 0,
  isValid: ({ valid6 }) => valid6,
  continues: ({ continue6 }) => continue6,
  lengthen: (arena, ip, length, protocol) => {
    arena.view.setUint16(ip + 4, length - IPV6_HEADER);
    return fold(pseudoSum6(arena, ip, protocol, length - IPV6_HEADER));
  },
};
