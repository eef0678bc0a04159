import type { Arena, ArenaLayout } from './arena.ts';
import { fold, pseudoSum6 } from './checksum.ts';
import { type Counters, GAUGE_ICMP_SENT, GAUGE_ICMP_SUPPRESSED } from './counters.ts';
import type { IcmpLimits } from './icmp-limits.ts';
import { icmpv6Type } from './ipv6-headers.ts';
import type { Clock, IcmpOut } from './ports.ts';
import {
  ICMPV6_FIRST_INFORMATIONAL,
  ICMPV6_PACKET_TOO_BIG,
  ICMPV6_REDIRECT,
  IPV6_HEADER,
  IPV6_MIN_MTU,
  PROTO_ICMPV6,
} from './wire.ts';

const ICMP_HEADER = 8;
const DEFAULT_HOP_LIMIT = 64;

/** ICMPv6 errors to the sender of a packet that could not be carried (RFC 4443 §2.4), as IcmpErrors sends those of IPv4. */
export class Icmp6Errors {
  readonly #arena: Arena;
  readonly #out: IcmpOut;
  readonly #counters: Counters;
  readonly #clock: Clock;
  readonly #limits: IcmpLimits;
  readonly #buffer: number;
  /** 16 bytes, as they are in a packet. */
  #source: Uint8Array | undefined;

  /** @param limits those of IPv4: together they have no more. */
  constructor(layout: ArenaLayout, out: IcmpOut, counters: Counters, clock: Clock, limits: IcmpLimits) {
    this.#arena = layout.arena;
    this.#out = out;
    this.#counters = counters;
    this.#clock = clock;
    this.#limits = limits;
    this.#buffer = layout.take(IPV6_MIN_MTU);
  }

  /** The router's own address on the overlay in 16 bytes. Without one nothing is sent. */
  setSource(address: Uint8Array | undefined): void {
    this.#source = address;
  }

  /**
   * Answers the IPv6 packet of `length` available bytes (at least a header) at `ip`, unless the RFC says to keep silent or the rate is
   * exceeded. As much of it is quoted as fits 1280 bytes.
   * @param rest the second word of the ICMPv6 header: the MTU for "packet too big", else 0.
   */
  send(ip: number, length: number, type: number, code: number, rest: number): void {
    const source = this.#source;
    if (source === undefined || !this.#mayAnswer(ip, length) || !this.#mayLeave(ip, type)) {
      this.#counters.gauge(GAUGE_ICMP_SUPPRESSED, 1);
      return;
    }
    const { view, bytes, sum16 } = this.#arena;
    const to = this.#buffer;
    const whole = IPV6_HEADER + view.getUint16(ip + 4);
    const quoted = Math.min(length, whole, IPV6_MIN_MTU - IPV6_HEADER - ICMP_HEADER);
    const message = ICMP_HEADER + quoted;
    bytes.fill(0, to, to + IPV6_HEADER + ICMP_HEADER);
    view.setUint8(to, 0x60);
    view.setUint16(to + 4, message);
    view.setUint8(to + 6, PROTO_ICMPV6);
    view.setUint8(to + 7, DEFAULT_HOP_LIMIT);
    bytes.set(source, to + 8);
    bytes.copyWithin(to + 24, ip + 8, ip + 24);
    const icmp = to + IPV6_HEADER;
    view.setUint8(icmp, type);
    view.setUint8(icmp + 1, code);
    view.setUint32(icmp + 4, rest);
    bytes.copyWithin(icmp + ICMP_HEADER, ip, ip + quoted);
    const sum = fold(pseudoSum6(this.#arena, to, PROTO_ICMPV6, message) + sum16(icmp, message));
    view.setUint16(icmp + 2, ~sum & 0xffff, true);
    const sent = this.#out.send(to, IPV6_HEADER + message);
    this.#counters.gauge(sent > 0 ? GAUGE_ICMP_SENT : GAUGE_ICMP_SUPPRESSED, 1);
  }

  /** Never about an ICMPv6 error or a redirect, or what may be one, nor to an address that is not one host's on the overlay. */
  #mayAnswer(ip: number, length: number): boolean {
    const { view } = this.#arena;
    if (!isHost(view, ip + 8) || view.getUint8(ip + 24) === 0xff) return false;
    const type = icmpv6Type(view, ip, length);
    return type === -1 || (type >= ICMPV6_FIRST_INFORMATIONAL && type !== ICMPV6_REDIRECT);
  }

  #mayLeave(ip: number, type: number): boolean {
    const { view } = this.#arena;
    let source = 0;
    for (let at = 8; at < 24; at += 4) source = Math.imul(source ^ view.getInt32(ip + at), 0x85ebca6b);
    return this.#limits.take(source, type === ICMPV6_PACKET_TOO_BIG, this.#clock());
  }
}

/**
 * Whether the 16 bytes at `at` are an address of one host that is meant beyond a link: not ::/96 (unspecified, loopback), ::ffff:0:0/96,
 * link-local or multicast (RFC 4291 §2.4).
 */
export function isHost(view: DataView, at: number): boolean {
  const first = view.getUint32(at);
  if (first >>> 24 === 0xff || first >>> 22 === 0x3fa) return false;
  if (first !== 0 || view.getUint32(at + 4) !== 0) return true;
  const third = view.getUint32(at + 8);
  return third !== 0 && third !== 0xffff;
}
