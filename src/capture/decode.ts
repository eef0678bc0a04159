/**
 * Headers of a captured frame, for people to read: Ethernet (with 802.1Q) or a bare IP packet, IPv4, then ICMP, UDP or
 * TCP. Pure, total: every input gives a value or `undefined`, nothing is read past the end and nothing throws.
 */
import { type Ipv4Addr, ipv4Of } from '../ip/ipv4.ts';
import type { LinkType } from './pcap.ts';

export interface EthernetHeader {
  readonly source: string;
  readonly destination: string;
  readonly etherType: number;
}

/** RFC 791. Lengths in bytes. */
export interface Ipv4Header {
  readonly source: Ipv4Addr;
  readonly destination: Ipv4Addr;
  readonly ttl: number;
  readonly protocol: number;
  readonly headerLength: number;
  readonly totalLength: number;
  readonly id: number;
  readonly dontFragment: boolean;
  readonly moreFragments: boolean;
  readonly fragmentOffset: number;
}

export type Transport =
  | { readonly kind: 'udp'; readonly sourcePort: number; readonly destinationPort: number; readonly length: number }
  | {
      readonly kind: 'tcp';
      readonly sourcePort: number;
      readonly destinationPort: number;
      readonly sequence: number;
      readonly acknowledgment: number;
      /** RFC 9293 order, e.g. `SYN ACK`. */
      readonly flags: string;
      readonly window: number;
    }
  | {
      readonly kind: 'icmp';
      readonly type: number;
      readonly code: number;
      /** Of echo and echo reply; `undefined` for other types. */
      readonly echo: { readonly id: number; readonly sequence: number } | undefined;
    }
  /** A protocol without a decoder, a fragment that is not the first, or a transport header that was cut off. */
  | { readonly kind: 'other' };

export interface DecodedPacket {
  readonly ethernet: EthernetHeader | undefined;
  readonly ip: Ipv4Header;
  readonly transport: Transport;
  /** What follows the last decoded header, up to the IP total length or to where the capture was cut. */
  readonly payload: Uint8Array;
}

const ETHERTYPE_IPV4 = 0x0800;
const ETHERTYPE_VLAN = 0x8100;
const ICMP_ECHO_REPLY = 0;
const ICMP_ECHO = 8;
const TCP_FLAGS = ['FIN', 'SYN', 'RST', 'PSH', 'ACK', 'URG', 'ECE', 'CWR'] as const;

/** `undefined` when the frame carries no complete IPv4 header. */
export function decodeFrame(linkType: LinkType, bytes: Uint8Array): DecodedPacket | undefined {
  switch (linkType) {
    case 'raw':
      return decodeIpv4(bytes);
    case 'ethernet': {
      if (bytes.length < 14) return undefined;
      const view = viewOf(bytes);
      let offset = 12;
      let etherType = view.getUint16(offset);
      while (etherType === ETHERTYPE_VLAN && bytes.length >= offset + 6) {
        offset += 4;
        etherType = view.getUint16(offset);
      }
      if (etherType !== ETHERTYPE_IPV4) return undefined;
      const packet = decodeIpv4(bytes.subarray(offset + 2));
      if (packet === undefined) return undefined;
      const ethernet = { source: mac(bytes.subarray(6, 12)), destination: mac(bytes.subarray(0, 6)), etherType };
      return { ...packet, ethernet };
    }
    default:
      return undefined;
  }
}

/** What a tunnel carries. */
export interface Wrapped {
  readonly packet: DecodedPacket;
  /** The network of a VXLAN tunnel. */
  readonly vni: number | undefined;
}

/** RFC 7348, section 5: eight bytes, of which the first says that there is a VNI. */
const VXLAN_HEADER_BYTES = 8;
const VXLAN_HAS_VNI = 0x08;
const IP_IN_IP = 4;

/** The packet inside a datagram of udp mode, a VXLAN datagram or an IP packet in an IP packet; none in any other. */
export function unwrap({ ip, transport, payload }: DecodedPacket): Wrapped | undefined {
  if (transport.kind !== 'udp' && ip.protocol !== IP_IN_IP) return undefined;
  const packet = decodeIpv4(payload);
  if (packet !== undefined) return { packet, vni: undefined };
  if (transport.kind !== 'udp' || payload.length < VXLAN_HEADER_BYTES) return undefined;
  if (((payload[0] ?? 0) & VXLAN_HAS_VNI) === 0) return undefined;
  const frame = decodeFrame('ethernet', payload.subarray(VXLAN_HEADER_BYTES));
  return frame && { packet: frame, vni: viewOf(payload).getUint32(4) >>> 8 };
}

/** A packet that starts with its IPv4 header, such as the payload of a udp-mode datagram. */
export function decodeIpv4(bytes: Uint8Array): DecodedPacket | undefined {
  if (bytes.length < 20 || (bytes[0] ?? 0) >>> 4 !== 4) return undefined;
  const view = viewOf(bytes);
  const headerLength = ((bytes[0] ?? 0) & 15) * 4;
  const totalLength = view.getUint16(2);
  if (headerLength < 20 || headerLength > bytes.length || totalLength < headerLength) return undefined;
  const fragment = view.getUint16(6);
  const ip: Ipv4Header = {
    source: ipv4Of(view.getUint32(12)),
    destination: ipv4Of(view.getUint32(16)),
    ttl: view.getUint8(8),
    protocol: view.getUint8(9),
    headerLength,
    totalLength,
    id: view.getUint16(4),
    dontFragment: (fragment & 0x4000) !== 0,
    moreFragments: (fragment & 0x2000) !== 0,
    fragmentOffset: (fragment & 0x1fff) * 8,
  };
  const body = bytes.subarray(headerLength, Math.min(totalLength, bytes.length));
  const { transport, payload } = decodeTransport(ip, body);
  return { ethernet: undefined, ip, transport, payload };
}

function decodeTransport(ip: Ipv4Header, body: Uint8Array): { transport: Transport; payload: Uint8Array } {
  const other = { transport: { kind: 'other' } as const, payload: body };
  if (ip.fragmentOffset !== 0) return other;
  const view = viewOf(body);
  switch (ip.protocol) {
    case 1: {
      if (body.length < 8) return other;
      const type = view.getUint8(0);
      const isEcho = type === ICMP_ECHO || type === ICMP_ECHO_REPLY;
      const echo = isEcho ? { id: view.getUint16(4), sequence: view.getUint16(6) } : undefined;
      return { transport: { kind: 'icmp', type, code: view.getUint8(1), echo }, payload: body.subarray(8) };
    }
    case 6: {
      const offset = body.length < 20 ? 0 : (view.getUint8(12) >>> 4) * 4;
      if (offset < 20 || offset > body.length) return other;
      const bits = view.getUint8(13);
      return {
        transport: {
          kind: 'tcp',
          sourcePort: view.getUint16(0),
          destinationPort: view.getUint16(2),
          sequence: view.getUint32(4),
          acknowledgment: view.getUint32(8),
          flags: TCP_FLAGS.filter((_, bit) => (bits & (1 << bit)) !== 0).join(' '),
          window: view.getUint16(14),
        },
        payload: body.subarray(offset),
      };
    }
    case 17: {
      if (body.length < 8) return other;
      const length = view.getUint16(4);
      return {
        transport: { kind: 'udp', sourcePort: view.getUint16(0), destinationPort: view.getUint16(2), length },
        payload: body.subarray(8, Math.max(8, Math.min(length, body.length))),
      };
    }
    default:
      return other;
  }
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

function mac(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join(':');
}
