/**
 * Headers of a captured frame, for people to read: Ethernet (with 802.1Q and 802.1ad) or a bare IP packet, of either family, then ICMP,
 * UDP or TCP. Pure, total: every input gives a value or `undefined`, nothing is read past the end and nothing throws.
 */
import type { IpAddr, IpFamily } from '../ip/address.ts';
import { ICMP } from '../ip/icmp.ts';
import { ipv4Of } from '../ip/ipv4.ts';
import { ipv6At } from '../ip/ipv6.ts';
import type { LinkType } from './pcap.ts';

export interface EthernetHeader {
  readonly source: string;
  readonly destination: string;
  readonly etherType: number;
}

/** RFC 791, RFC 8200. Lengths in bytes. */
export interface IpHeader {
  readonly family: IpFamily;
  readonly source: IpAddr;
  readonly destination: IpAddr;
  /** The hop limit of IPv6. */
  readonly ttl: number;
  /** Of what follows the extension headers. */
  readonly protocol: number;
  /** With extension headers. */
  readonly headerLength: number;
  readonly totalLength: number;
  /** 0 in a packet of IPv6 that is not fragmented. */
  readonly id: number;
  /** Nobody on the way fragments IPv6. */
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
  readonly ip: IpHeader;
  readonly transport: Transport;
  /** What follows the last decoded header, up to the IP total length or to where the capture was cut. */
  readonly payload: Uint8Array;
}

const ETHERTYPES_IP: Readonly<Record<IpFamily, number>> = { 4: 0x0800, 6: 0x86dd };
const ETHERTYPES_VLAN: readonly number[] = [0x8100, 0x88a8];
const IPV6_BYTES = 40;
const FRAGMENT = 44;
const FRAGMENT_BYTES = 8;
/** Hop-by-hop, routing and destination options (RFC 8200, section 4): next header, length in eights, less one. */
const EXTENSIONS: readonly number[] = [0, 43, 60];
const TCP_FLAGS = ['FIN', 'SYN', 'RST', 'PSH', 'ACK', 'URG', 'ECE', 'CWR'] as const;

/** `undefined` when the frame carries no complete IP header. */
export function decodeFrame(linkType: LinkType, bytes: Uint8Array): DecodedPacket | undefined {
  const offset = ipOffsetOf(linkType, bytes);
  const packet = offset === undefined ? undefined : decodeIp(bytes.subarray(offset));
  if (packet === undefined || offset === 0) return packet;
  const etherType = ETHERTYPES_IP[packet.ip.family];
  const ethernet = { source: mac(bytes.subarray(6, 12)), destination: mac(bytes.subarray(0, 6)), etherType };
  return { ...packet, ethernet };
}

/** Where the IP header begins; `undefined` when the frame carries something else. */
export function ipOffsetOf(linkType: LinkType, bytes: Uint8Array): number | undefined {
  if (linkType === 'raw') return 0;
  if (linkType !== 'ethernet' || bytes.length < 14) return undefined;
  let offset = 14;
  const etherType = (): number => ((bytes[offset - 2] ?? 0) << 8) | (bytes[offset - 1] ?? 0);
  while (ETHERTYPES_VLAN.includes(etherType()) && bytes.length >= offset + 4) offset += 4;
  return etherType() === ETHERTYPES_IP[4] || etherType() === ETHERTYPES_IP[6] ? offset : undefined;
}

/** What a tunnel carries. */
export interface Wrapped {
  readonly packet: DecodedPacket;
  /** The network of a VXLAN tunnel. */
  readonly vni: number | undefined;
  /** Where it begins, from the IP header of what carries it. */
  readonly offsetBytes: number;
}

/** RFC 7348, section 5: eight bytes, of which the first says that there is a VNI. */
const VXLAN_HEADER_BYTES = 8;
const UDP_HEADER_BYTES = 8;
const VXLAN_HAS_VNI = 0x08;
/** RFC 2003, RFC 2473. */
const IP_IN_IP: readonly number[] = [4, 41];

/** The packet inside a datagram of udp mode, a VXLAN datagram or an IP packet in an IP packet; none in any other. */
export function unwrap({ ip, transport, payload }: DecodedPacket): Wrapped | undefined {
  if (ip.fragmentOffset !== 0 || (transport.kind !== 'udp' && !IP_IN_IP.includes(ip.protocol))) return undefined;
  const packet = decodeIp(payload);
  const payloadAt = ip.headerLength + (transport.kind === 'udp' ? UDP_HEADER_BYTES : 0);
  if (packet !== undefined) return { packet, vni: undefined, offsetBytes: payloadAt };
  if (transport.kind !== 'udp' || payload.length < VXLAN_HEADER_BYTES) return undefined;
  if (((payload[0] ?? 0) & VXLAN_HAS_VNI) === 0) return undefined;
  const frame = payload.subarray(VXLAN_HEADER_BYTES);
  const carried = decodeFrame('ethernet', frame);
  if (carried === undefined) return undefined;
  const offsetBytes = payloadAt + VXLAN_HEADER_BYTES + ipOffsetOf('ethernet', frame)!;
  return { packet: carried, vni: viewOf(payload).getUint32(4) >>> 8, offsetBytes };
}

/** A packet that starts with its IP header, such as the payload of a udp-mode datagram. */
export function decodeIp(bytes: Uint8Array): DecodedPacket | undefined {
  const version = (bytes[0] ?? 0) >>> 4;
  const ip = version === 4 ? ipv4Header(bytes) : version === 6 ? ipv6Header(bytes) : undefined;
  if (ip === undefined) return undefined;
  const body = bytes.subarray(ip.headerLength, Math.min(ip.totalLength, bytes.length));
  return { ethernet: undefined, ip, ...decodeTransport(ip, body) };
}

function ipv4Header(bytes: Uint8Array): IpHeader | undefined {
  if (bytes.length < 20) return undefined;
  const view = viewOf(bytes);
  const headerLength = ((bytes[0] ?? 0) & 15) * 4;
  const totalLength = view.getUint16(2);
  if (headerLength < 20 || headerLength > bytes.length || totalLength < headerLength) return undefined;
  const fragment = view.getUint16(6);
  return {
    family: 4,
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
}

function ipv6Header(bytes: Uint8Array): IpHeader | undefined {
  if (bytes.length < IPV6_BYTES) return undefined;
  const view = viewOf(bytes);
  const length = view.getUint16(4);
  let [protocol, headerLength, fragment, id] = [view.getUint8(6), IPV6_BYTES, 0, 0];
  while (protocol === FRAGMENT || EXTENSIONS.includes(protocol)) {
    if (bytes.length < headerLength + 8) break;
    const next = view.getUint8(headerLength);
    if (protocol === FRAGMENT) {
      fragment = view.getUint16(headerLength + 2);
      id = view.getUint32(headerLength + 4);
      headerLength += FRAGMENT_BYTES;
    } else headerLength += (view.getUint8(headerLength + 1) + 1) * 8;
    protocol = next;
    // What follows is the middle of something.
    if ((fragment & 0xfff8) !== 0) break;
  }
  // The kernel's own packets may be longer than the field can say, which is 0 then.
  const totalLength = length === 0 ? bytes.length : IPV6_BYTES + length;
  if (headerLength > bytes.length || totalLength < headerLength) return undefined;
  return {
    ...{ family: 6, source: ipv6At(view, 8), destination: ipv6At(view, 24), ttl: view.getUint8(7), protocol },
    ...{ headerLength, totalLength, id, dontFragment: true },
    ...{ moreFragments: (fragment & 1) !== 0, fragmentOffset: fragment & 0xfff8 },
  };
}

function decodeTransport(ip: IpHeader, body: Uint8Array): { transport: Transport; payload: Uint8Array } {
  const other = { transport: { kind: 'other' } as const, payload: body };
  if (ip.fragmentOffset !== 0) return other;
  const view = viewOf(body);
  switch (ip.protocol) {
    case ICMP[ip.family].protocol: {
      if (body.length < 8) return other;
      const type = view.getUint8(0);
      const isEcho = type === ICMP[ip.family].request || type === ICMP[ip.family].reply;
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
