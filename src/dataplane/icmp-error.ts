import type { Arena, ArenaLayout } from './arena.ts';
import { putIpv4Checksum } from './checksum.ts';
import { type Counters, GAUGE_ICMP_SENT, GAUGE_ICMP_SUPPRESSED } from './counters.ts';
import type { IcmpLimits } from './icmp-limits.ts';
import { ICMP_MAX_LENGTH } from './limits.ts';
import type { Clock, IcmpOut } from './ports.ts';
import { ICMP_FRAGMENTATION_NEEDED, ICMP_UNREACHABLE, IP_OFFSET_MASK, IPV4_MIN_HEADER, PROTO_ICMP } from './wire.ts';

const ICMP_HEADER = 8;
const DEFAULT_TTL = 64;

/**
 * ICMP errors to the sender of a packet that could not be carried (RFC 792, RFC 1122 §3.2.2, RFC 1812 §4.3.2). flannel
 * answers unknown destinations alone, and through the TUN, where the kernel discards the answer because its source is
 * the TUN's own address; these leave by a raw socket and arrive.
 */
export class IcmpErrors {
  readonly #arena: Arena;
  readonly #out: IcmpOut;
  readonly #counters: Counters;
  readonly #clock: Clock;
  readonly #buffer: number;
  #source = 0;
  readonly #limits: IcmpLimits;

  constructor(layout: ArenaLayout, out: IcmpOut, counters: Counters, clock: Clock, limits: IcmpLimits) {
    this.#arena = layout.arena;
    this.#out = out;
    this.#counters = counters;
    this.#clock = clock;
    this.#buffer = layout.take(ICMP_MAX_LENGTH);
    this.#limits = limits;
  }

  /** The router's own address on the overlay: the base address of its subnet. Without one nothing is sent. */
  setSource(address: number): void {
    this.#source = address;
  }

  /**
   * Answers the IPv4 packet of `length` available bytes at `ip`, unless the RFCs say to keep silent or the rate is exceeded.
   * @param rest the second word of the ICMP header: the next-hop MTU for "fragmentation needed", else 0.
   */
  send(ip: number, length: number, type: number, code: number, rest: number): void {
    const isFragmentationNeeded = type === ICMP_UNREACHABLE && code === ICMP_FRAGMENTATION_NEEDED;
    if (!this.#mayAnswer(ip, length) || !this.#mayLeave(ip, isFragmentationNeeded)) {
      this.#counters.gauge(GAUGE_ICMP_SUPPRESSED, 1);
      return;
    }
    const { view, bytes, sum16 } = this.#arena;
    const to = this.#buffer;
    const quoted = Math.min(length, view.getUint16(ip + 2), ICMP_MAX_LENGTH - IPV4_MIN_HEADER - ICMP_HEADER);
    const total = IPV4_MIN_HEADER + ICMP_HEADER + quoted;
    bytes.fill(0, to, to + IPV4_MIN_HEADER + ICMP_HEADER);
    view.setUint8(to, 0x45);
    view.setUint8(to + 1, 0xc0); // internetwork control, as routers mark their errors (RFC 1812 §4.3.2.5)
    view.setUint16(to + 2, total);
    view.setUint8(to + 8, DEFAULT_TTL);
    view.setUint8(to + 9, PROTO_ICMP);
    view.setUint32(to + 12, this.#source);
    view.setUint32(to + 16, view.getUint32(ip + 12));
    putIpv4Checksum(this.#arena, to, IPV4_MIN_HEADER);
    const icmp = to + IPV4_MIN_HEADER;
    view.setUint8(icmp, type);
    view.setUint8(icmp + 1, code);
    view.setUint32(icmp + 4, rest);
    bytes.copyWithin(icmp + ICMP_HEADER, ip, ip + quoted);
    view.setUint16(icmp + 2, ~sum16(icmp, ICMP_HEADER + quoted) & 0xffff, true);
    const sent = this.#out.send(to, total);
    this.#counters.gauge(sent > 0 ? GAUGE_ICMP_SENT : GAUGE_ICMP_SUPPRESSED, 1);
  }

  /** Never about an ICMP error, a later fragment, or a packet from or to an address that is not one host's. */
  #mayAnswer(ip: number, length: number): boolean {
    if (this.#source === 0) return false;
    const { view } = this.#arena;
    const headerLength = (view.getUint8(ip) & 15) * 4;
    if ((view.getUint16(ip + 6) & IP_OFFSET_MASK) !== 0) return false;
    if (!isUnicast(view.getUint32(ip + 12)) || !isUnicast(view.getUint32(ip + 16))) return false;
    if (view.getUint8(ip + 9) !== PROTO_ICMP) return true;
    if (length <= headerLength) return false;
    const type = view.getUint8(ip + headerLength);
    return type === 0 || type === 8 || (type >= 13 && type <= 18); // queries and their replies (RFC 792, 950)
  }

  #mayLeave(ip: number, isFragmentationNeeded: boolean): boolean {
    return this.#limits.take(this.#arena.view.getUint32(ip + 12), isFragmentationNeeded, this.#clock());
  }
}

function isUnicast(address: number): boolean {
  const first = address >>> 24;
  return first !== 0 && first !== 127 && first < 224;
}
