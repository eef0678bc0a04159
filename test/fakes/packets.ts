import { parseIpv4 } from '../../src/ip/ipv4.ts';

/**
 * Packets as tests write them down, with checksums by the plainest reading of RFC 1071. Nothing here is shared with the
 * data plane: what it computes is judged by this.
 */

/** Internet checksum of the parts laid end to end, big-endian; 0 when the sum, checksum field included, is right. */
export function slowChecksum(...parts: readonly Uint8Array[]): number {
  let sum = 0;
  let isHigh = true;
  for (const part of parts) {
    for (const byte of part) {
      sum += isHigh ? byte * 256 : byte;
      isHigh = !isHigh;
    }
  }
  while (sum > 0xffff) sum = (sum % 0x1_0000) + Math.floor(sum / 0x1_0000);
  return 0xffff - sum;
}

export function address(text: string): number {
  const value = parseIpv4(text);
  if (value === undefined) throw new Error(`not an IPv4 address: ${text}`);
  return value;
}

export function be16(value: number): number[] {
  return [(value >>> 8) & 255, value & 255];
}

export function be32(value: number): number[] {
  return [(value >>> 24) & 255, (value >>> 16) & 255, (value >>> 8) & 255, value & 255];
}

export function concat(...parts: readonly ArrayLike<number>[]): Uint8Array {
  const bytes = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let offset = 0;
  for (const part of parts) {
    bytes.set(part, offset);
    offset += part.length;
  }
  return bytes;
}

/** Bytes that differ from each other, the same for the same seed. */
export function payloadOf(length: number, seed = 1): Uint8Array {
  const bytes = new Uint8Array(length);
  let state = (seed * 2_654_435_761 + 12_345) >>> 0;
  for (let index = 0; index < length; index++) {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    bytes[index] = state >>> 24;
  }
  return bytes;
}

export interface Ipv4Fields {
  readonly source: number;
  readonly destination: number;
  readonly protocol: number;
  readonly tos?: number;
  readonly id?: number;
  readonly dontFragment?: boolean;
  readonly moreFragments?: boolean;
  /** In units of 8 bytes. */
  readonly fragmentOffset?: number;
  readonly ttl?: number;
  /** A multiple of 4 bytes, at most 40. */
  readonly options?: Uint8Array;
}

export function ipv4Packet(fields: Ipv4Fields, payload: Uint8Array): Uint8Array {
  const options = fields.options ?? new Uint8Array(0);
  const fragment =
    (fields.dontFragment ? 0x4000 : 0) | (fields.moreFragments ? 0x2000 : 0) | (fields.fragmentOffset ?? 0);
  const headerLength = 20 + options.length;
  const header = concat(
    [0x40 | (headerLength / 4), fields.tos ?? 0, ...be16(headerLength + payload.length), ...be16(fields.id ?? 0)],
    [...be16(fragment), fields.ttl ?? 64, fields.protocol, 0, 0, ...be32(fields.source), ...be32(fields.destination)],
    options,
  );
  header.set(be16(slowChecksum(header)), 10);
  return concat(header, payload);
}

/** Checksum of a transport segment with its pseudo header; 0 when the field inside it is right. */
export function transportChecksum(source: number, destination: number, protocol: number, segment: Uint8Array): number {
  const pseudo = Uint8Array.from([...be32(source), ...be32(destination), 0, protocol, ...be16(segment.length)]);
  return slowChecksum(pseudo, segment);
}

/** The pseudo header's sum alone, not complemented: what a checksum field holds when the rest is left to the device. */
export function pseudoSum(source: number, destination: number, protocol: number, length: number): number {
  return 0xffff - slowChecksum(Uint8Array.from([...be32(source), ...be32(destination), 0, protocol, ...be16(length)]));
}

export type IpOnly = Omit<Ipv4Fields, 'protocol'>;

export interface TcpFields {
  readonly ip: IpOnly;
  readonly sourcePort: number;
  readonly destinationPort: number;
  readonly sequence?: number;
  readonly acknowledgement?: number;
  /** FIN 1, SYN 2, RST 4, PSH 8, ACK 16, URG 32, ECE 64, CWR 128 */
  readonly flags?: number;
  readonly window?: number;
  readonly urgent?: number;
  /** A multiple of 4 bytes, at most 40. */
  readonly options?: Uint8Array;
  readonly payload?: Uint8Array;
}

export const FIN = 1;
export const SYN = 2;
export const PSH = 8;
export const ACK = 16;
export const ECE = 64;
export const CWR = 128;

/** A TCP segment whose checksum is still 0. */
export function tcpBytes(fields: Omit<TcpFields, 'ip'>): Uint8Array {
  const options = fields.options ?? new Uint8Array(0);
  return concat(
    [...be16(fields.sourcePort), ...be16(fields.destinationPort), ...be32(fields.sequence ?? 0)],
    [...be32(fields.acknowledgement ?? 0), ((20 + options.length) / 4) << 4, fields.flags ?? ACK],
    [...be16(fields.window ?? 1_024), 0, 0, ...be16(fields.urgent ?? 0)],
    options,
    fields.payload ?? new Uint8Array(0),
  );
}

/** A whole IPv4 packet with one TCP segment, checksums right. */
export function tcpPacket(fields: TcpFields): Uint8Array {
  const segment = tcpBytes(fields);
  segment.set(be16(transportChecksum(fields.ip.source, fields.ip.destination, 6, segment)), 16);
  return ipv4Packet({ ...fields.ip, protocol: 6 }, segment);
}

export interface UdpFields {
  readonly ip: IpOnly;
  readonly sourcePort: number;
  readonly destinationPort: number;
  readonly payload?: Uint8Array;
  /** RFC 768: 0 in the field means that the sender made none. */
  readonly withoutChecksum?: boolean;
}

/** A UDP datagram whose checksum is still 0. */
export function udpBytes(fields: Omit<UdpFields, 'ip'>): Uint8Array {
  const payload = fields.payload ?? new Uint8Array(0);
  const ports = [...be16(fields.sourcePort), ...be16(fields.destinationPort)];
  return concat(ports, [...be16(8 + payload.length), 0, 0], payload);
}

/** A whole IPv4 packet with one UDP datagram, checksums right. */
export function udpPacket(fields: UdpFields): Uint8Array {
  const datagram = udpBytes(fields);
  if (!fields.withoutChecksum) {
    const checksum = transportChecksum(fields.ip.source, fields.ip.destination, 17, datagram);
    datagram.set(be16(checksum === 0 ? 0xffff : checksum), 6);
  }
  return ipv4Packet({ ...fields.ip, protocol: 17 }, datagram);
}

/** A whole IPv4 packet with an ICMP message, checksums right. */
export function icmpPacket(ip: IpOnly, type: number, code: number, rest: number, payload: Uint8Array): Uint8Array {
  const message = concat([type, code, 0, 0, ...be32(rest)], payload);
  message.set(be16(slowChecksum(message)), 2);
  return ipv4Packet({ ...ip, protocol: 1 }, message);
}

export interface VirtioHeader {
  readonly flags?: number;
  readonly gsoType?: number;
  readonly headerLength?: number;
  readonly gsoSize?: number;
  readonly checksumStart?: number;
  readonly checksumOffset?: number;
}

/** `struct virtio_net_hdr` in front of a packet, as a TUN device with IFF_VNET_HDR reads and writes it. */
export function frame(packet: Uint8Array, header: VirtioHeader = {}): Uint8Array {
  const bytes = concat(new Uint8Array(10), packet);
  const view = new DataView(bytes.buffer);
  view.setUint8(0, header.flags ?? 0);
  view.setUint8(1, header.gsoType ?? 0);
  view.setUint16(2, header.headerLength ?? 0, true);
  view.setUint16(4, header.gsoSize ?? 0, true);
  view.setUint16(6, header.checksumStart ?? 0, true);
  view.setUint16(8, header.checksumOffset ?? 0, true);
  return bytes;
}

/** A packet whose transport checksum the kernel left to the device; `gsoSize` 0 for one that is not to be cut. */
function offloaded(
  packet: Uint8Array,
  protocol: number,
  transportHeader: number,
  gsoType: number,
  gsoSize: number,
): Uint8Array {
  const view = new DataView(packet.buffer);
  const start = (view.getUint8(0) & 15) * 4;
  const checksumOffset = protocol === 6 ? 16 : 6;
  const sum = pseudoSum(view.getUint32(12), view.getUint32(16), protocol, packet.length - start);
  view.setUint16(start + checksumOffset, sum);
  return frame(packet, {
    flags: 1,
    gsoType: gsoSize === 0 ? 0 : gsoType,
    headerLength: start + transportHeader,
    gsoSize,
    checksumStart: start,
    checksumOffset,
  });
}

/** What the kernel hands to a TUN for a TCP send: header and payload of up to 64 KiB, to be cut every `gsoSize` bytes. */
export function tcpFrame(fields: TcpFields, gsoSize: number): Uint8Array {
  return offloaded(
    tcpPacket(fields),
    6,
    20 + (fields.options?.length ?? 0),
    (fields.flags ?? 0) & CWR ? 0x81 : 1,
    gsoSize,
  );
}

/** The same for UDP (USO). */
export function udpFrame(fields: UdpFields, gsoSize: number): Uint8Array {
  return offloaded(udpPacket(fields), 17, 8, 5, gsoSize);
}

/** What is wrong with the checksums and lengths of a packet, by the slow way; undefined when nothing is. */
export function packetFault(packet: Uint8Array): string | undefined {
  const view = new DataView(packet.buffer, packet.byteOffset, packet.length);
  if (packet.length < 20) return `only ${packet.length} bytes`;
  const headerLength = (view.getUint8(0) & 15) * 4;
  if (view.getUint16(2) !== packet.length) return `total length ${view.getUint16(2)} in ${packet.length} bytes`;
  if (slowChecksum(packet.subarray(0, headerLength)) !== 0) return 'IPv4 header checksum';
  if ((view.getUint16(6) & 0x3fff) !== 0) return undefined; // a fragment's transport cannot be judged alone
  const segment = packet.subarray(headerLength);
  const protocol = view.getUint8(9);
  if (protocol === 1 && slowChecksum(segment) !== 0) return 'ICMP checksum';
  if (protocol !== 6 && protocol !== 17) return undefined;
  if (protocol === 17 && view.getUint16(headerLength + 6) === 0) return undefined;
  const sum = transportChecksum(view.getUint32(12), view.getUint32(16), protocol, segment);
  return sum === 0 ? undefined : `transport checksum of protocol ${protocol}`;
}

/** The packet as it looks `hops` routers later, its header checksum recomputed from nothing. */
export function aged(packet: Uint8Array, hops: number): Uint8Array {
  const copy = Uint8Array.from(packet);
  const view = new DataView(copy.buffer);
  view.setUint8(8, view.getUint8(8) - hops);
  view.setUint16(10, 0);
  view.setUint16(10, slowChecksum(copy.subarray(0, (view.getUint8(0) & 15) * 4)));
  return copy;
}

export function hex(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('hex');
}
