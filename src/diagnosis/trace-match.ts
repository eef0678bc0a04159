/** Which captured frames show the packet of a trace, its answer, or an ICMP error about it. Pure. */
import { type DecodedPacket, decodeFrame, decodeIp, unwrap } from '../capture/decode.ts';
import type { LinkType } from '../capture/pcap.ts';
import type { IpAddr } from '../ip/address.ts';
import { ICMP, icmpReasonOf } from '../ip/icmp.ts';

/** How the packet is known. */
export interface TraceIdentity {
  readonly protocol: 'icmp' | 'tcp' | 'udp';
  readonly destination: IpAddr;
  /** Of icmp the identifier of the echo, else the source port. */
  readonly mark: number;
  /** Destination port; 0 with icmp. */
  readonly port: number;
}

/** `error`: an ICMP message of somebody on the way, about the packet. */
export type TraceLeg = 'request' | 'answer' | 'error';

export interface TraceMatch {
  readonly leg: TraceLeg;
  readonly packet: DecodedPacket;
  /** The packet inside `packet`, where that is a tunnel's. */
  readonly inner: DecodedPacket | undefined;
  /** Where `inner` begins, from the IP header of `packet`; 0 without. */
  readonly innerOffsetBytes: number;
}

/** `undefined` when the frame has nothing to do with the trace. */
export function matchFrame(identity: TraceIdentity, linkType: LinkType, bytes: Uint8Array): TraceMatch | undefined {
  return matchPacket(identity, decodeFrame(linkType, bytes));
}

/** The same for bytes that start with an IP header. */
export function matchIp(identity: TraceIdentity, bytes: Uint8Array): TraceMatch | undefined {
  return matchPacket(identity, decodeIp(bytes));
}

function matchPacket(identity: TraceIdentity, packet: DecodedPacket | undefined): TraceMatch | undefined {
  if (packet === undefined) return undefined;
  const leg = legOf(identity, packet);
  if (leg !== undefined) return { leg, packet, inner: undefined, innerOffsetBytes: 0 };
  const carried = unwrap(packet);
  const innerLeg = carried && legOf(identity, carried.packet);
  return innerLeg && { leg: innerLeg, packet, inner: carried.packet, innerOffsetBytes: carried.offsetBytes };
}

function legOf(identity: TraceIdentity, packet: DecodedPacket): TraceLeg | undefined {
  const { ip, transport, payload } = packet;
  if (transport.kind === 'icmp' && icmpReasonOf(ip.family, transport.type, transport.code) !== undefined) {
    const quoted = decodeIp(payload);
    return quoted !== undefined && legOf(identity, quoted) === 'request' ? 'error' : undefined;
  }
  const { protocol, destination, mark, port } = identity;
  if (transport.kind !== protocol) return undefined;
  if (transport.kind === 'icmp') {
    if (transport.echo?.id !== mark) return undefined;
    const { request, reply } = ICMP[ip.family];
    if (transport.type === request && ip.destination === destination) return 'request';
    return transport.type === reply && ip.source === destination ? 'answer' : undefined;
  }
  const { sourcePort, destinationPort } = transport;
  if (ip.destination === destination && sourcePort === mark && destinationPort === port) return 'request';
  return ip.source === destination && sourcePort === port && destinationPort === mark ? 'answer' : undefined;
}
