/** Who sends to whom, as far as the headers of a captured frame say: of both families, and of what a tunnel carries. Pure, total. */
import type { IpAddr } from '../ip/address.ts';
import { type DecodedPacket, decodeIp, ipOffsetOf, unwrap } from './decode.ts';

export interface Flow {
  readonly source: IpAddr;
  readonly destination: IpAddr;
  /** Of the last header that could be read: 6 TCP, 17 UDP, 1 and 58 ICMP. */
  readonly protocol: number;
  /** Absent without ports, and in a fragment that is not the first. */
  readonly ports?: { readonly source: number; readonly destination: number };
  readonly isFragment: boolean;
  readonly packet: DecodedPacket;
}

const UDP = 17;
const TCP = 6;

/** `undefined` when the frame carries no complete IP header. */
export function flowOf(linkType: 'ethernet' | 'raw', bytes: Uint8Array): Flow | undefined {
  const offset = ipOffsetOf(linkType, bytes);
  const packet = offset === undefined ? undefined : decodeIp(bytes.subarray(offset));
  return packet && flowOfPacket(packet);
}

/** What a tunnel's packet carries: an IP packet as it is, or in a VXLAN frame. `undefined` when it cannot be read, as when it is encrypted. */
export function carriedBy({ packet }: Flow): Flow | undefined {
  const inner = unwrap(packet)?.packet;
  return inner && flowOfPacket(inner);
}

function flowOfPacket(packet: DecodedPacket): Flow {
  const { source, destination, protocol, fragmentOffset } = packet.ip;
  const ports = portsOf(packet);
  return { source, destination, protocol, ...(ports && { ports }), packet, isFragment: fragmentOffset !== 0 };
}

function portsOf({ ip, transport, payload }: DecodedPacket): Flow['ports'] {
  if (transport.kind === 'udp' || transport.kind === 'tcp')
    return { source: transport.sourcePort, destination: transport.destinationPort };
  // A header that was cut off begins with the ports.
  if (ip.fragmentOffset !== 0 || payload.length < 4 || (ip.protocol !== UDP && ip.protocol !== TCP)) return undefined;
  const view = new DataView(payload.buffer, payload.byteOffset, payload.byteLength);
  return { source: view.getUint16(0), destination: view.getUint16(2) };
}
