import type { Arena, Segment } from './arena.ts';
import { decrementHopLimit } from './checksum.ts';
import type { Counters } from './counters.ts';
import {
  DROP_IPV6_MULTICAST,
  DROP_MALFORMED,
  DROP_NO_ROUTE,
  DROP_TOO_BIG,
  DROP_TTL_EXCEEDED,
  DROP_UNSUPPORTED_OFFLOAD,
} from './drop-reason.ts';
import type { Icmp6Errors } from './icmp6-error.ts';
import { HEADER_STRIDE } from './limits.ts';
import type { Slot } from './peer-table-layout.ts';
import type { PeerTableReader } from './peer-table-reader.ts';
import {
  ICMPV6_HOP_LIMIT_EXCEEDED,
  ICMPV6_NO_ROUTE,
  ICMPV6_PACKET_TOO_BIG,
  ICMPV6_TIME_EXCEEDED,
  ICMPV6_UNREACHABLE,
  IPV6_HEADER,
  IPV6_MIN_MTU,
  PROTO_TCP,
  PROTO_UDP,
  TCP_MIN_HEADER,
  UDP_HEADER,
  VNET_F_NEEDS_CSUM,
  VNET_GSO_ECN,
  VNET_GSO_NONE,
  VNET_GSO_TCPV6,
  VNET_GSO_UDP_L4,
} from './wire.ts';

const UDP_CHECKSUM_OFFSET = 6;

export interface Outbound6Parts {
  readonly arena: Arena;
  readonly table: PeerTableReader;
  readonly counters: Counters;
  readonly icmp: Icmp6Errors;
  /** To what leaves, for packets of both families leave together: a whole packet. */
  readonly add: (slot: Slot, ip: number, total: number) => void;
  /** The same, a super-packet in pieces of `size` bytes of payload. */
  readonly addSegments: (
    cut: Segment,
    slot: Slot,
    ip: number,
    headerLength: number,
    headers: number,
    total: number,
    size: number,
  ) => void;
}

/**
 * The part of Outbound for IPv6. Routers do not fragment IPv6: a packet longer than the path is refused, unless every link must take
 * one of its length; then the datagram around it is fragmented (RFC 2473 §7.1).
 */
export class Outbound6 {
  readonly #arena: Arena;
  readonly #table: PeerTableReader;
  readonly #counters: Counters;
  readonly #icmp: Icmp6Errors;
  readonly #add: Outbound6Parts['add'];
  readonly #addSegments: Outbound6Parts['addSegments'];

  constructor({ arena, table, counters, icmp, add, addSegments }: Outbound6Parts) {
    this.#arena = arena;
    this.#table = table;
    this.#counters = counters;
    this.#icmp = icmp;
    this.#add = add;
    this.#addSegments = addSegments;
  }

  /** @param available bytes from `ip` on, a whole IPv6 header at least. */
  forward(vnet: number, ip: number, available: number): void {
    const { view } = this.#arena;
    if (view.getUint8(ip + 24) === 0xff) {
      this.#drop(0, DROP_IPV6_MULTICAST);
      return;
    }
    const total = IPV6_HEADER + view.getUint16(ip + 4);
    if (total > available) {
      this.#drop(0, DROP_MALFORMED);
      return;
    }
    const slot = this.#table.lookup6(view, ip + 24);
    if (slot === 0) {
      this.#drop(0, DROP_NO_ROUTE);
      this.#icmp.send(ip, total, ICMPV6_UNREACHABLE, ICMPV6_NO_ROUTE, 0);
      return;
    }
    const gsoType = view.getUint8(vnet + 1) & ~VNET_GSO_ECN;
    const isWhole = gsoType === VNET_GSO_NONE;
    const gsoSize = isWhole ? 0 : view.getUint16(vnet + 4, true);
    const transport = isWhole ? 0 : view.getUint16(vnet + 6, true);
    const headers = isWhole ? 0 : this.#segmentHeaders(vnet, ip, transport, total, gsoType);
    if (!isWhole && (gsoSize === 0 || headers === 0)) {
      this.#drop(slot, DROP_UNSUPPORTED_OFFLOAD);
      return;
    }
    if (view.getUint8(ip + 7) <= 1) {
      this.#drop(slot, DROP_TTL_EXCEEDED);
      this.#icmp.send(ip, total, ICMPV6_TIME_EXCEEDED, ICMPV6_HOP_LIMIT_EXCEEDED, 0);
      return;
    }
    const packetLength = isWhole ? total : Math.min(total, headers + gsoSize);
    const mtu = this.#table.mtu(slot);
    if (packetLength > mtu && packetLength > IPV6_MIN_MTU) {
      this.#drop(slot, DROP_TOO_BIG);
      this.sayTooBig(ip, total, mtu);
      return;
    }
    decrementHopLimit(view, ip);
    if (isWhole) {
      if ((view.getUint8(vnet) & VNET_F_NEEDS_CSUM) !== 0 && !this.#finishChecksum(vnet, ip, total)) {
        this.#drop(slot, DROP_MALFORMED);
        return;
      }
      this.#add(slot, ip, total);
    } else {
      this.#addSegments(this.#arena.segment6, slot, ip, transport, headers, total, gsoSize);
    }
  }

  /** @param present bytes of the packet that lie in one piece. */
  sayTooBig(ip: number, present: number, mtu: number): void {
    this.#icmp.send(ip, present, ICMPV6_PACKET_TOO_BIG, 0, Math.max(mtu, IPV6_MIN_MTU));
  }

  /** Protocol, addresses and ports; what has extension headers is taken for a flow of its own. */
  isSameFlow(a: number, b: number): boolean {
    const { view } = this.#arena;
    const protocol = view.getUint8(a + 6);
    if (view.getUint8(b) >>> 4 !== 6 || protocol !== view.getUint8(b + 6)) return false;
    if (protocol !== PROTO_TCP && protocol !== PROTO_UDP) return false;
    for (let at = 8; at <= IPV6_HEADER; at += 4) if (view.getUint32(a + at) !== view.getUint32(b + at)) return false;
    return true;
  }

  #drop(slot: Slot, reason: number): void {
    this.#counters.dropped(slot, 'tx', reason, 1);
  }

  /**
   * Length of all headers of a super-packet, which every segment gets; 0 when they and the segmentation type do not agree, nothing is
   * behind them, or they are longer than there is room for. Extension headers are those that the kernel has skipped.
   */
  #segmentHeaders(vnet: number, ip: number, transport: number, total: number, gsoType: number): number {
    const { view } = this.#arena;
    if ((view.getUint8(vnet) & VNET_F_NEEDS_CSUM) === 0 || transport < IPV6_HEADER) return 0;
    const protocol = view.getUint8(ip + 6);
    let headers = 0;
    if (gsoType === VNET_GSO_TCPV6 && total >= transport + TCP_MIN_HEADER) {
      const tcpLength = (view.getUint8(ip + transport + 12) >>> 4) * 4;
      if (tcpLength >= TCP_MIN_HEADER) headers = transport + tcpLength;
    } else if (gsoType === VNET_GSO_UDP_L4) {
      headers = transport + UDP_HEADER;
    }
    const plain = gsoType === VNET_GSO_TCPV6 ? PROTO_TCP : PROTO_UDP;
    if ((transport === IPV6_HEADER) !== (protocol === plain)) return 0;
    return headers < total && headers <= HEADER_STRIDE ? headers : 0;
  }

  /** The kernel left the transport checksum to us: the field holds the pseudo-header sum (virtio 1.2 §5.1.6.2). */
  #finishChecksum(vnet: number, ip: number, total: number): boolean {
    const { view, sum16 } = this.#arena;
    const start = view.getUint16(vnet + 6, true);
    const offset = view.getUint16(vnet + 8, true);
    if (start < IPV6_HEADER || start + offset + 2 > total) return false;
    const checksum = ~sum16(ip + start, total - start) & 0xffff;
    // 0 means "none" in UDP (RFC 768), which alone has its checksum there; and IPv6 has no datagrams without one.
    view.setUint16(ip + start + offset, checksum === 0 && offset === UDP_CHECKSUM_OFFSET ? 0xffff : checksum, true);
    return true;
  }
}
