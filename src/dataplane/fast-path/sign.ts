import { type IpAddr, isIpv4 } from '../../ip/address.ts';
import { internetChecksum } from '../../ip/internet-checksum.ts';
import { type Ipv6Addr, putIpv6 } from '../../ip/ipv6.ts';
import { IP_FLAG_DF, IPV4_MIN_HEADER, IPV6_HEADER, PROTO_UDP, UDP_HEADER } from '../wire.ts';

interface Endpoint6 {
  readonly addr: Ipv6Addr;
  readonly port: number;
}

/**
 * What two hosts with a fast path tell each other, by the forwarders' sockets: "here is a number; if you got it, send it back",
 * and what the peer needs to know. On the wire it is a datagram of the tunnel like any other, with a valid IPv4 packet whose
 * TTL ends with its receiver: flannel's loop takes the TTL down and drops it without a word (docs of its proxy: `udp_to_tun`).
 */
export interface Sign {
  /** To be sent back; 0n when no answer is wanted. */
  readonly nonce: bigint;
  /** The number that this answers; 0n for none. */
  readonly echo: bigint;
  /** The sender takes packets of a fast path that are not what a socket would send. */
  readonly takes: boolean;
  /** Super-packets of the one addressed arrive at the sender in one piece. */
  readonly arrives: boolean;
  /** The same two of IPv6 inside; a host that does not know of it says neither. */
  readonly takes6: boolean;
  readonly arrives6: boolean;
  /** The sender takes super-packets that were cut on the way before its kernel joins packets, so that it joins what is inside. */
  readonly takesCut: boolean;
  /** The sender is a program whose agent is away. */
  readonly alone: boolean;
  /** Tags of outer headers that the sender wants to see, see `EXPECT_TAG` of layout.ts; 16 bits each. */
  readonly tag: number;
  readonly tagWhole: number;
}

/** u32 magic, u8 version, u8 flags, be16 tag, be16 tag for whole, 2 bytes 0, be64 nonce, be64 echo. */
export const SIGN_PAYLOAD_BYTES = 28;
export const SIGN_BYTES: number = IPV4_MIN_HEADER + SIGN_PAYLOAD_BYTES;
/** Of {@link unsummedDatagram} with a sign. */
export const UNSUMMED_SIGN_BYTES: number = IPV6_HEADER + UDP_HEADER + SIGN_BYTES;
/** "WEFT" */
export const SIGN_MAGIC = 0x57454654;
export const SIGN_VERSION = 1;
export const TAKES = 1;
export const ARRIVES = 2;
export const ALONE = 4;
export const TAKES_6 = 8;
export const ARRIVES_6 = 16;
export const TAKES_CUT = 32;
/** For how long a super-packet that arrived is said to have arrived: TCP sees within its own time-out when they do not any more. */
export const ARRIVED_HOLDS_MS = 10_000;
/** "Use for experimentation and testing" (RFC 3692). */
export const PROTO_EXPERIMENT = 253;
export const SIGN_TTL = 1;
/** Of datagrams, the kernel's default. */
const HOP_LIMIT = 64;

/** A whole inner packet, of IPv4 also between hosts that have IPv6 alone: no address of theirs is in it then. */
export function encodeSign(sign: Sign, source: IpAddr, destination: IpAddr): Uint8Array {
  const view = new DataView(new ArrayBuffer(SIGN_BYTES));
  view.setUint8(0, 0x45);
  view.setUint16(2, SIGN_BYTES);
  view.setUint16(6, IP_FLAG_DF);
  view.setUint8(8, SIGN_TTL);
  view.setUint8(9, PROTO_EXPERIMENT);
  view.setUint32(12, isIpv4(source) ? source : 0);
  view.setUint32(16, isIpv4(destination) ? destination : 0);
  view.setUint16(10, internetChecksum(view, IPV4_MIN_HEADER));
  const at = IPV4_MIN_HEADER;
  view.setUint32(at, SIGN_MAGIC);
  view.setUint8(at + 4, SIGN_VERSION);
  view.setUint8(at + 5, flagsOf(sign));
  view.setUint16(at + 6, sign.tag);
  view.setUint16(at + 8, sign.tagWhole);
  view.setBigUint64(at + 12, sign.nonce);
  view.setBigUint64(at + 20, sign.echo);
  return new Uint8Array(view.buffer);
}

/**
 * A whole IPv6 packet: a datagram from socket to socket, without a UDP checksum, as those of a fast path are. Who answers what is in it
 * shows that such datagrams come through, and that its socket takes them (RFC 6935, RFC 6936).
 */
export function unsummedDatagram(from: Endpoint6, to: Endpoint6, payload: Uint8Array): Uint8Array {
  const length = UDP_HEADER + payload.length;
  const view = new DataView(new ArrayBuffer(IPV6_HEADER + length));
  view.setUint8(0, 0x60);
  view.setUint16(4, length);
  view.setUint8(6, PROTO_UDP);
  view.setUint8(7, HOP_LIMIT);
  putIpv6(view, 8, from.addr);
  putIpv6(view, 24, to.addr);
  view.setUint16(IPV6_HEADER, from.port);
  view.setUint16(IPV6_HEADER + 2, to.port);
  view.setUint16(IPV6_HEADER + 4, length);
  const bytes = new Uint8Array(view.buffer);
  bytes.set(payload, IPV6_HEADER + UDP_HEADER);
  return bytes;
}

const flagsOf = ({ takes, arrives, takes6, arrives6, takesCut, alone }: Sign): number =>
  (takes ? TAKES : 0) |
  (arrives ? ARRIVES : 0) |
  (alone ? ALONE : 0) |
  (takes6 ? TAKES_6 : 0) |
  (arrives6 ? ARRIVES_6 : 0) |
  (takesCut ? TAKES_CUT : 0);

/** Whether the inner packet at `ip`, `available` bytes long, is a sign and no packet; of any version. Never throws. */
export function isSign(view: DataView, ip: number, available: number): boolean {
  return (
    available >= SIGN_BYTES &&
    view.getUint8(ip) === 0x45 &&
    view.getUint8(ip + 8) === SIGN_TTL &&
    view.getUint8(ip + 9) === PROTO_EXPERIMENT &&
    view.getUint16(ip + 2) === available &&
    view.getUint32(ip + IPV4_MIN_HEADER) === SIGN_MAGIC
  );
}

/** From SIGN_PAYLOAD_BYTES behind the inner header; `undefined` for a version that we do not know. */
export function decodeSign(payload: Uint8Array): Sign | undefined {
  if (payload.length < SIGN_PAYLOAD_BYTES) return undefined;
  const view = new DataView(payload.buffer, payload.byteOffset, payload.byteLength);
  if (view.getUint32(0) !== SIGN_MAGIC || view.getUint8(4) !== SIGN_VERSION) return undefined;
  const flags = view.getUint8(5);
  return {
    nonce: view.getBigUint64(12),
    echo: view.getBigUint64(20),
    takes: (flags & TAKES) !== 0,
    arrives: (flags & ARRIVES) !== 0,
    takes6: (flags & TAKES_6) !== 0,
    arrives6: (flags & ARRIVES_6) !== 0,
    takesCut: (flags & TAKES_CUT) !== 0,
    alone: (flags & ALONE) !== 0,
    tag: view.getUint16(6),
    tagWhole: view.getUint16(8),
  };
}
