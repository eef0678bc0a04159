/** Who sends to whom, as far as the headers of a captured frame say: of both families, and of what a tunnel carries. Pure, total. */
import type { IpAddr } from '../ip/address.ts';
import { ipv6Of } from '../ip/ipv6.ts';
import { decodeIpv4 } from './decode.ts';

export interface Flow {
  readonly source: IpAddr;
  readonly destination: IpAddr;
  /** Of the last header that could be read: 6 TCP, 17 UDP, 1 and 58 ICMP. */
  readonly protocol: number;
  /** Absent without ports, and in a fragment that is not the first. */
  readonly ports?: { readonly source: number; readonly destination: number };
  readonly payload: Uint8Array;
  readonly isFragment: boolean;
}

const ETHERNET_BYTES = 14;
const TAG_BYTES = 4;
const TAGS: readonly number[] = [0x8100, 0x88a8];
const IPV6_BYTES = 40;
const FRAGMENT = 44;
/** Hop-by-hop, routing and destination options (RFC 8200, section 4): next header, length in eights, less one. */
const EXTENSIONS: readonly number[] = [0, 43, 60];
const UDP = 17;
const TCP = 6;
const IP_IN_IP: readonly number[] = [4, 41];
/** RFC 7348: the flag that there is a VNI, and the length of the header. */
const VXLAN_FLAG = 0x08;
const VXLAN_BYTES = 8;

/** `undefined` when the frame carries no complete IP header. */
export function flowOf(linkType: 'ethernet' | 'raw', bytes: Uint8Array): Flow | undefined {
  if (linkType === 'raw') return ipFlow(bytes);
  let offset = ETHERNET_BYTES;
  while (offset + 2 <= bytes.length && TAGS.includes(((bytes[offset - 2] ?? 0) << 8) | (bytes[offset - 1] ?? 0)))
    offset += TAG_BYTES;
  const etherType = ((bytes[offset - 2] ?? 0) << 8) | (bytes[offset - 1] ?? 0);
  return etherType === 0x0800 || etherType === 0x86dd ? ipFlow(bytes.subarray(offset)) : undefined;
}

/** What a tunnel's packet carries: an IP packet as it is, or in a VXLAN frame. `undefined` when it cannot be read, as when it is encrypted. */
export function carriedBy(outer: Flow): Flow | undefined {
  if (outer.isFragment) return undefined;
  const { protocol, payload } = outer;
  if (IP_IN_IP.includes(protocol)) return ipFlow(payload);
  if (protocol !== UDP) return undefined;
  const bare = ipFlow(payload);
  if (bare !== undefined) return bare;
  return ((payload[0] ?? 0) & VXLAN_FLAG) === 0 ? undefined : flowOf('ethernet', payload.subarray(VXLAN_BYTES));
}

function ipFlow(bytes: Uint8Array): Flow | undefined {
  switch ((bytes[0] ?? 0) >>> 4) {
    case 4: {
      const packet = decodeIpv4(bytes);
      if (packet === undefined) return undefined;
      const { ip, transport, payload } = packet;
      const ports =
        transport.kind === 'udp' || transport.kind === 'tcp'
          ? { ports: { source: transport.sourcePort, destination: transport.destinationPort } }
          : {};
      const { source, destination, protocol } = ip;
      return { source, destination, protocol, ...ports, payload, isFragment: ip.fragmentOffset !== 0 };
    }
    case 6:
      return ipv6Flow(bytes);
    default:
      return undefined;
  }
}

function ipv6Flow(bytes: Uint8Array): Flow | undefined {
  if (bytes.length < IPV6_BYTES) return undefined;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const addressAt = (at: number): IpAddr => ipv6Of((view.getBigUint64(at) << 64n) | view.getBigUint64(at + 8));
  let [protocol, at, isFragment] = [bytes[6] ?? 0, IPV6_BYTES, false];
  while (at + 8 <= bytes.length && (protocol === FRAGMENT || EXTENSIONS.includes(protocol))) {
    if (protocol === FRAGMENT) isFragment = (view.getUint16(at + 2) & 0xfff8) !== 0;
    const length = protocol === FRAGMENT ? 8 : ((bytes[at + 1] ?? 0) + 1) * 8;
    [protocol, at] = [bytes[at] ?? 0, at + length];
    if (isFragment) break;
  }
  const body = bytes.subarray(at);
  const base = { source: addressAt(8), destination: addressAt(24), protocol, isFragment };
  if (isFragment || body.length < 8 || (protocol !== UDP && protocol !== TCP)) return { ...base, payload: body };
  const ports = { source: view.getUint16(at), destination: view.getUint16(at + 2) };
  return { ...base, ports, payload: protocol === UDP ? body.subarray(8) : body };
}
