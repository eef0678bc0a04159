import { parseIpv6 } from '../../src/ip/ipv6.ts';
import {
  ACK,
  be16,
  be32,
  CWR,
  concat,
  frame,
  slowChecksum,
  type TcpFields,
  tcpBytes,
  type UdpFields,
  udpBytes,
} from './packets.ts';

/** Packets of IPv6 as tests write them down, in the way of packets.ts. An address is its 16 bytes. */

export function address6(text: string): Uint8Array {
  const value = parseIpv6(text);
  if (value === undefined) throw new Error(`not an IPv6 address: ${text}`);
  return Uint8Array.from({ length: 16 }, (_, index) => Number((value >> BigInt(120 - 8 * index)) & 0xffn));
}

export interface Ipv6Fields {
  readonly source: Uint8Array;
  readonly destination: Uint8Array;
  readonly nextHeader: number;
  readonly trafficClass?: number;
  readonly flowLabel?: number;
  readonly hopLimit?: number;
  /** Extension headers, each with the number by which it is announced; they name each other and `nextHeader` by themselves. */
  readonly extensions?: readonly (readonly [number, Uint8Array])[];
}

export function ipv6Packet(fields: Ipv6Fields, payload: Uint8Array): Uint8Array {
  const { trafficClass = 0, flowLabel = 0, hopLimit = 64, nextHeader, extensions = [] } = fields;
  const chain = extensions.map(([, bytes], index) => {
    const copy = Uint8Array.from(bytes);
    copy[0] = extensions[index + 1]?.[0] ?? nextHeader;
    return copy;
  });
  const rest = concat(...chain, payload);
  const first = ((6 << 28) | (trafficClass << 20) | flowLabel) >>> 0;
  return concat(
    [...be32(first), ...be16(rest.length), extensions[0]?.[0] ?? nextHeader, hopLimit],
    fields.source,
    fields.destination,
    rest,
  );
}

/** An extension header of options that say nothing, `words` times 8 bytes long. */
export function optionsHeader(words = 1): Uint8Array {
  const bytes = new Uint8Array(8 * words);
  bytes[1] = words - 1;
  bytes.set([1, 8 * words - 4], 2); // PadN
  return bytes;
}

/** @param offset in units of 8 bytes. */
export function fragmentHeader(offset: number, more: boolean, identification = 7): Uint8Array {
  return concat([0, 0, ...be16((offset << 3) | (more ? 1 : 0)), ...be32(identification)]);
}

function pseudoHeader6(source: Uint8Array, destination: Uint8Array, protocol: number, length: number): Uint8Array {
  return concat(source, destination, be32(length), [0, 0, 0, protocol]);
}

/** Checksum of a transport segment with its pseudo header; 0 when the field inside it is right. */
export function transportChecksum6(
  source: Uint8Array,
  destination: Uint8Array,
  protocol: number,
  segment: Uint8Array,
): number {
  return slowChecksum(pseudoHeader6(source, destination, protocol, segment.length), segment);
}

/** The pseudo header's sum alone, not complemented. */
export function pseudoSum6(source: Uint8Array, destination: Uint8Array, protocol: number, length: number): number {
  return 0xffff - slowChecksum(pseudoHeader6(source, destination, protocol, length));
}

export type Ip6Only = Omit<Ipv6Fields, 'nextHeader'>;
export type Tcp6Fields = Omit<TcpFields, 'ip'> & { readonly ip: Ip6Only };
export type Udp6Fields = Omit<UdpFields, 'ip'> & { readonly ip: Ip6Only };

/** A whole IPv6 packet with one TCP segment, checksums right. */
export function tcp6Packet(fields: Tcp6Fields): Uint8Array {
  const segment = tcpBytes(fields);
  segment.set(be16(transportChecksum6(fields.ip.source, fields.ip.destination, 6, segment)), 16);
  return ipv6Packet({ ...fields.ip, nextHeader: 6 }, segment);
}

/** A whole IPv6 packet with one UDP datagram, checksums right. */
export function udp6Packet(fields: Udp6Fields): Uint8Array {
  const datagram = udpBytes(fields);
  if (!fields.withoutChecksum) {
    const checksum = transportChecksum6(fields.ip.source, fields.ip.destination, 17, datagram);
    datagram.set(be16(checksum === 0 ? 0xffff : checksum), 6);
  }
  return ipv6Packet({ ...fields.ip, nextHeader: 17 }, datagram);
}

/** A whole IPv6 packet with an ICMPv6 message, checksums right. */
export function icmp6Packet(ip: Ip6Only, type: number, code: number, rest: number, payload: Uint8Array): Uint8Array {
  const message = concat([type, code, 0, 0, ...be32(rest)], payload);
  message.set(be16(transportChecksum6(ip.source, ip.destination, 58, message)), 2);
  return ipv6Packet({ ...ip, nextHeader: 58 }, message);
}

function offloaded6(
  packet: Uint8Array,
  ip: Ip6Only,
  protocol: number,
  transportHeader: number,
  gsoType: number,
  gsoSize: number,
): Uint8Array {
  const start = 40 + (ip.extensions ?? []).reduce((sum, [, bytes]) => sum + bytes.length, 0);
  const checksumOffset = protocol === 6 ? 16 : 6;
  const view = new DataView(packet.buffer);
  view.setUint16(start + checksumOffset, pseudoSum6(ip.source, ip.destination, protocol, packet.length - start));
  return frame(packet, {
    flags: 1,
    gsoType: gsoSize === 0 ? 0 : gsoType,
    headerLength: start + transportHeader,
    gsoSize,
    checksumStart: start,
    checksumOffset,
  });
}

/** As tcpFrame. */
export function tcp6Frame(fields: Tcp6Fields, gsoSize: number): Uint8Array {
  const type = ((fields.flags ?? ACK) & CWR) === 0 ? 4 : 0x84;
  return offloaded6(tcp6Packet(fields), fields.ip, 6, 20 + (fields.options?.length ?? 0), type, gsoSize);
}

/** As udpFrame. */
export function udp6Frame(fields: Udp6Fields, gsoSize: number): Uint8Array {
  return offloaded6(udp6Packet(fields), fields.ip, 17, 8, 5, gsoSize);
}

/** Where the transport header begins behind extension headers, and of what protocol; undefined in a later fragment. */
export function transportOf6(packet: Uint8Array): { readonly protocol: number; readonly start: number } | undefined {
  let protocol = packet[6]!;
  let start = 40;
  while ([0, 43, 44, 60].includes(protocol) && start + 8 <= packet.length) {
    if (protocol === 44 && ((packet[start + 2]! << 8) | packet[start + 3]!) >= 8) return undefined;
    const length = protocol === 44 ? 8 : (packet[start + 1]! + 1) * 8;
    protocol = packet[start]!;
    start += length;
  }
  return { protocol, start };
}

/** What is wrong with the checksums and lengths of a packet, by the slow way; undefined when nothing is. */
export function packet6Fault(packet: Uint8Array): string | undefined {
  if (packet.length < 40) return `only ${packet.length} bytes`;
  const view = new DataView(packet.buffer, packet.byteOffset, packet.length);
  if (view.getUint16(4) !== packet.length - 40) return `payload length ${view.getUint16(4)} in ${packet.length} bytes`;
  const transport = transportOf6(packet);
  if (transport === undefined || packet.slice(40, transport.start).length > 0) return undefined;
  const { protocol, start } = transport;
  if (protocol !== 6 && protocol !== 17 && protocol !== 58) return undefined;
  if (protocol === 17 && view.getUint16(start + 6) === 0) return 'no UDP checksum';
  const sum = transportChecksum6(packet.subarray(8, 24), packet.subarray(24, 40), protocol, packet.subarray(start));
  return sum === 0 ? undefined : `transport checksum of protocol ${protocol}`;
}

/** The packet as it looks `hops` routers later. */
export function aged6(packet: Uint8Array, hops: number): Uint8Array {
  const copy = Uint8Array.from(packet);
  copy[7]! -= hops;
  return copy;
}

/** A router solicitation, or what has its form. @param first byte of the destination: 0xff is multicast. */
export function solicitation(first: number): Uint8Array {
  const packet = new Uint8Array(48);
  packet[0] = 0x60;
  packet[5] = 8;
  packet[6] = 58; // ICMPv6
  packet[7] = 255;
  packet[8] = 0xfe;
  packet[24] = first;
  packet[25] = 2;
  packet[39] = 2;
  packet[40] = 133;
  return packet;
}
