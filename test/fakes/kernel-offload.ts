import { pseudoSum, slowChecksum, transportChecksum } from './packets.ts';
import { pseudoSum6, transportChecksum6 } from './packets6.ts';

/**
 * What Linux does with a packet that carries a virtio-net header: checks it as include/linux/virtio_net.h does and takes a
 * super-packet apart as net/ipv4/tcp_offload.c and udp_offload.c do, written for reading, not for speed. Independent of
 * the data plane, which does the same on its way out.
 */

/** Why the kernel answers EINVAL. */
export class RefusedFrame extends Error {
  override readonly name = 'RefusedFrame';
}

const NEEDS_CSUM = 1;
const GSO_TCPV4 = 1;
const GSO_TCPV6 = 4;
const GSO_UDP_L4 = 5;
const ECN = 0x80;

export interface FrameFields {
  readonly needsChecksum: boolean;
  readonly gsoType: number;
  readonly gsoSize: number;
  readonly checksumStart: number;
  readonly checksumOffset: number;
  readonly packet: Uint8Array;
}

/** @throws RefusedFrame where virtio_net_hdr_to_skb or tun_get_user would. */
export function readFrame(bytes: Uint8Array): FrameFields {
  if (bytes.length < 11) throw new RefusedFrame(`${bytes.length} bytes hold no packet`);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const packet = bytes.subarray(10);
  const needsChecksum = (view.getUint8(0) & NEEDS_CSUM) !== 0;
  const gsoType = view.getUint8(1) & ~ECN;
  const gsoSize = view.getUint16(4, true);
  const checksumStart = view.getUint16(6, true);
  const checksumOffset = view.getUint16(8, true);
  const version = (packet[0] ?? 0) >>> 4;
  if (version !== 4 && version !== 6) throw new RefusedFrame(`IP version ${version}`);
  if (needsChecksum && checksumStart + checksumOffset + 2 > packet.length) throw new RefusedFrame('checksum outside');
  if (view.getUint16(2, true) > packet.length) throw new RefusedFrame('hdr_len longer than the packet');
  if (gsoType !== 0) {
    if (![GSO_TCPV4, GSO_TCPV6, GSO_UDP_L4].includes(gsoType)) throw new RefusedFrame(`gso type ${gsoType}`);
    if (gsoSize === 0 || gsoSize === 0xffff) throw new RefusedFrame(`gso size ${gsoSize}`);
    if (!needsChecksum) throw new RefusedFrame('segmentation without NEEDS_CSUM');
    const protocol = gsoType === GSO_UDP_L4 ? 17 : 6;
    const isOfVersion = gsoType === GSO_UDP_L4 || version === (gsoType === GSO_TCPV4 ? 4 : 6);
    // A header between the two in IPv6 is the kernel's own business: frames of such packets come from it, and never from us.
    const found = version === 4 || checksumStart === 40 ? packet[version === 4 ? 9 : 6] : protocol;
    if (!isOfVersion || found !== protocol) throw new RefusedFrame(`gso type ${gsoType} on protocol ${found}`);
    if (checksumOffset !== (protocol === 6 ? 16 : 6)) throw new RefusedFrame(`checksum offset ${checksumOffset}`);
  }
  return { needsChecksum, gsoType, gsoSize, checksumStart, checksumOffset, packet };
}

/** What the kernel's offloads need to know of a version of IP. */
interface IpRules {
  readonly headerLength: (packet: Uint8Array, checksumStart: number) => number;
  /** Length of the whole, as its header has it. */
  readonly length: (packet: Uint8Array, at: DataView) => number;
  readonly protocol: (packet: Uint8Array, checksumOffset: number) => number;
  readonly pseudoSum: (packet: Uint8Array, protocol: number, length: number) => number;
  /** Of a transport segment with its pseudo header. */
  readonly checksum: (packet: Uint8Array, protocol: number, segment: Uint8Array) => number;
  /** Whether the kernel has found the header wrong. */
  readonly fault: (packet: Uint8Array, checksumStart: number) => string | undefined;
  /** Makes the header of a super-packet that of its `index`-th packet. */
  readonly renew: (one: Uint8Array, at: DataView, index: number) => void;
}

const header4 = (packet: Uint8Array): number => (packet[0]! & 15) * 4;
const addresses4 = ({ buffer }: Uint8Array): [number, number] => {
  const at = new DataView(buffer);
  return [at.getUint32(12), at.getUint32(16)];
};

const IPV4: IpRules = {
  headerLength: header4,
  length: (_, at) => at.getUint16(2),
  protocol: (packet) => packet[9]!,
  pseudoSum: (packet, protocol, length) => pseudoSum(...addresses4(packet), protocol, length),
  checksum: (packet, protocol, segment) => transportChecksum(...addresses4(packet), protocol, segment),
  fault(packet, checksumStart) {
    if (checksumStart !== header4(packet)) return `checksum start ${checksumStart}`;
    return slowChecksum(packet.subarray(0, header4(packet))) === 0 ? undefined : 'IPv4 header checksum';
  },
  renew(one, at, index) {
    at.setUint16(2, one.length);
    at.setUint16(4, (at.getUint16(4) + index) & 0xffff);
    at.setUint16(10, 0);
    at.setUint16(10, slowChecksum(one.subarray(0, header4(one))));
  },
};

const addresses6 = (packet: Uint8Array): [Uint8Array, Uint8Array] => [packet.slice(8, 24), packet.slice(24, 40)];

const IPV6: IpRules = {
  // Headers between the two are the kernel's own business: see readFrame().
  headerLength: (_, checksumStart) => checksumStart,
  length: (_, at) => 40 + at.getUint16(4),
  protocol: (_, checksumOffset) => (checksumOffset === 6 ? 17 : 6),
  pseudoSum: (packet, protocol, length) => pseudoSum6(...addresses6(packet), protocol, length),
  checksum: (packet, protocol, segment) => transportChecksum6(...addresses6(packet), protocol, segment),
  fault: () => undefined,
  renew: (one, at) => at.setUint16(4, one.length - 40),
};

/**
 * The packets that are seen behind the device, checksums complete.
 * @throws RefusedFrame when the kernel would refuse the frame, or pass on packets that are wrong: a partial checksum that is
 *   not the pseudo header's, lengths that disagree.
 */
export function cut(bytes: Uint8Array): Uint8Array[] {
  const { needsChecksum, gsoType, gsoSize, checksumStart, checksumOffset, packet } = readFrame(bytes);
  const whole = Uint8Array.from(packet);
  if (!needsChecksum) return [whole];
  const ip = whole[0]! >>> 4 === 6 ? IPV6 : IPV4;
  const view = new DataView(whole.buffer);
  const protocol = ip.protocol(whole, checksumOffset);
  const total = ip.length(whole, view);
  const field = checksumStart + checksumOffset;
  if (gsoType === 0) {
    const checksum = slowChecksum(whole.subarray(checksumStart, total));
    view.setUint16(field, checksum === 0 && protocol === 17 ? 0xffff : checksum);
    return [whole];
  }
  if (total !== whole.length) throw new RefusedFrame(`length ${total} in ${whole.length} bytes`);
  const fault = ip.fault(whole, checksumStart);
  if (fault !== undefined) throw new RefusedFrame(fault);
  const headerLength = ip.headerLength(whole, checksumStart);
  const partial = view.getUint16(field);
  const wanted = ip.pseudoSum(whole, protocol, total - headerLength);
  if (partial % 0xffff !== wanted % 0xffff) throw new RefusedFrame(`partial checksum ${partial}, not ${wanted}`);
  if (protocol === 17 && view.getUint16(headerLength + 4) !== total - headerLength)
    throw new RefusedFrame('UDP length');
  const headers = headerLength + (protocol === 6 ? (whole[headerLength + 12]! >>> 4) * 4 : 8);
  if (headers >= total) throw new RefusedFrame('no payload');
  const packets: Uint8Array[] = [];
  for (let from = headers; from < total; from += gsoSize) {
    const chunk = whole.subarray(from, Math.min(total, from + gsoSize));
    const one = new Uint8Array(headers + chunk.length);
    one.set(whole.subarray(0, headers));
    one.set(chunk, headers);
    const at = new DataView(one.buffer);
    ip.renew(one, at, packets.length);
    if (protocol === 6) {
      at.setUint32(headerLength + 4, (view.getUint32(headerLength + 4) + from - headers) >>> 0);
      let flags = whole[headerLength + 13]!;
      if (from + chunk.length < total) flags &= ~0x09; // FIN and PSH end the whole
      if (from > headers) flags &= ~0x80; // CWR begins it
      at.setUint8(headerLength + 13, flags);
    } else {
      at.setUint16(headerLength + 4, 8 + chunk.length);
    }
    at.setUint16(field, 0);
    const checksum = ip.checksum(whole, protocol, one.subarray(headerLength));
    at.setUint16(field, checksum === 0 && protocol === 17 ? 0xffff : checksum);
    packets.push(one);
  }
  return packets;
}
