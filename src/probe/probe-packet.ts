/**
 * What probes look like on the wire: ICMP echo (RFC 792, RFC 4443) of a chosen size, and what ICMP messages say about one.
 * Pure, total: every input gives a value or `undefined`, nothing is read past the end.
 */
import type { IpAddr, IpFamily } from '../ip/address.ts';
import { ICMP, type IcmpReason, icmpReasonOf } from '../ip/icmp.ts';
import { internetChecksum } from '../ip/internet-checksum.ts';
import { ipv4Of } from '../ip/ipv4.ts';
import { ipv6At } from '../ip/ipv6.ts';

/** How answers to this process's probes are told from those to others'. */
export interface ProbeIdentity {
  /** Identifier of its echo requests, 1 … 65535. */
  readonly id: number;
  /** Source ports of its latest UDP probes. */
  readonly udpPorts: ReadonlySet<number>;
}

/** Which probe an ICMP error is about, as the packet that it quotes says. */
export type ProbeMention =
  | { readonly kind: 'echo'; readonly to: IpAddr; readonly sequence: number }
  /** To that port of the peer. */
  | { readonly kind: 'udp'; readonly to: IpAddr; readonly port: number };

export type ProbeMessage =
  | { readonly kind: 'reply'; readonly sequence: number }
  /** A probe of another agent, to this host. */
  | { readonly kind: 'request' }
  | {
      readonly kind: 'error';
      readonly reason: IcmpReason;
      /** Of `too-big`: what the next link takes, 0 where the router does not say. */
      readonly mtuBytes: number;
      readonly about: ProbeMention;
    };

/** First bytes of an echo's payload: by them an agent knows the probes of others. */
const MAGIC: readonly number[] = [...new TextEncoder().encode('weft-probe')];
const ICMP_HEADER_BYTES = 8;
const UDP = 17;
const IP_HEADER_BYTES: Readonly<Record<IpFamily, number>> = { 4: 20, 6: 40 };

/** The smallest IP packet that is a probe, in bytes. */
export const SMALLEST_PROBE_BYTES = 84;

/**
 * An ICMP message without its IP header, so that the packet has `totalBytes`. The checksum is in place for IPv4; for IPv6 the
 * kernel sets it, which knows the source address.
 */
export function echoRequest(family: IpFamily, id: number, sequence: number, totalBytes: number): Uint8Array {
  const length = totalBytes - IP_HEADER_BYTES[family];
  if (totalBytes < SMALLEST_PROBE_BYTES || totalBytes > 65_535)
    throw new RangeError(`no probe has ${totalBytes} bytes`);
  const bytes = new Uint8Array(length);
  const view = new DataView(bytes.buffer);
  view.setUint8(0, ICMP[family].request);
  view.setUint16(4, id);
  view.setUint16(6, sequence);
  bytes.set(MAGIC, ICMP_HEADER_BYTES);
  if (family === 4) view.setUint16(2, internetChecksum(view, length));
  return bytes;
}

/**
 * What a raw ICMP socket has received: with the IP header for IPv4, without it for IPv6 (raw(7), ipv6(7)). `undefined` when it
 * has nothing to do with probes.
 */
export function readProbeMessage(
  family: IpFamily,
  packet: Uint8Array,
  identity: ProbeIdentity,
): ProbeMessage | undefined {
  const at = family === 6 ? 0 : ((packet[0] ?? 0) & 15) * 4;
  if (packet.length < at + ICMP_HEADER_BYTES) return undefined;
  const view = new DataView(packet.buffer, packet.byteOffset + at, packet.byteLength - at);
  const [type, code] = [view.getUint8(0), view.getUint8(1)];
  if (type === ICMP[family].reply) {
    return view.getUint16(4) === identity.id ? { kind: 'reply', sequence: view.getUint16(6) } : undefined;
  }
  if (type === ICMP[family].request) return hasMagic(packet.subarray(at)) ? { kind: 'request' } : undefined;
  const reason = icmpReasonOf(family, type, code);
  if (reason === undefined) return undefined;
  const about = mentionOf(family, view, identity);
  if (about === undefined) return undefined;
  const mtuBytes = reason !== 'too-big' ? 0 : family === 4 ? view.getUint16(6) : view.getUint32(4);
  return { kind: 'error', reason, mtuBytes, about };
}

function hasMagic(icmp: Uint8Array): boolean {
  return MAGIC.every((byte, i) => icmp[ICMP_HEADER_BYTES + i] === byte);
}

/** The packet that an ICMP error quotes, if it is a probe of this process. */
function mentionOf(family: IpFamily, icmp: DataView, identity: ProbeIdentity): ProbeMention | undefined {
  const ip = ICMP_HEADER_BYTES;
  if (icmp.byteLength < ip + IP_HEADER_BYTES[family] + 8) return undefined;
  const protocol = icmp.getUint8(ip + (family === 4 ? 9 : 6));
  const quoted = ip + (family === 4 ? (icmp.getUint8(ip) & 15) * 4 : IP_HEADER_BYTES[6]);
  if (icmp.byteLength < quoted + 8) return undefined;
  const to = family === 4 ? ipv4Of(icmp.getUint32(ip + 16)) : ipv6At(icmp, ip + 24);
  if (protocol === UDP) {
    return identity.udpPorts.has(icmp.getUint16(quoted))
      ? { kind: 'udp', to, port: icmp.getUint16(quoted + 2) }
      : undefined;
  }
  const isOwn = protocol === ICMP[family].protocol && icmp.getUint8(quoted) === ICMP[family].request;
  return isOwn && icmp.getUint16(quoted + 4) === identity.id
    ? { kind: 'echo', to, sequence: icmp.getUint16(quoted + 6) }
    : undefined;
}
