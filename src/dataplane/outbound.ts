import type { Arena, ArenaLayout, Segment } from './arena.ts';
import { decrementTtl } from './checksum.ts';
import { type Counters, GAUGE_GSO_FALLBACKS, GAUGE_TX_BATCHES, GAUGE_TX_READS, GAUGE_TX_SENDS } from './counters.ts';
import {
  DROP_MALFORMED,
  DROP_NO_ROUTE,
  DROP_SEND_FAILED,
  DROP_TOO_BIG,
  DROP_TTL_EXCEEDED,
  DROP_UNSUPPORTED_OFFLOAD,
} from './drop-reason.ts';
import type { PeerSignals } from './fast-path/peer-signals.ts';
import type { IcmpErrors } from './icmp-error.ts';
import type { Icmp6Errors } from './icmp6-error.ts';
import { HEADER_STRIDE, MAX_TUN_READ, TUN_BATCH_BYTES, TUN_BATCH_PACKETS } from './limits.ts';
import { reasonNotIpv4 } from './not-ipv4.ts';
import { Outbound6 } from './outbound6.ts';
import type { Slot } from './peer-table-layout.ts';
import type { PeerTableReader } from './peer-table-reader.ts';
import type { Conn, Tun } from './ports.ts';
import { SendBatch } from './send-batch.ts';
import type { Underlay } from './underlay.ts';
import {
  ICMP_FRAGMENTATION_NEEDED,
  ICMP_NET_UNREACHABLE,
  ICMP_TIME_EXCEEDED,
  ICMP_TTL_EXCEEDED,
  ICMP_UNREACHABLE,
  IP_FLAG_DF,
  IPV4_MIN_HEADER,
  IPV6_HEADER,
  IPV6_MIN_MTU,
  PROTO_TCP,
  PROTO_UDP,
  TCP_MIN_HEADER,
  UDP_HEADER,
  VNET_F_NEEDS_CSUM,
  VNET_GSO_ECN,
  VNET_GSO_NONE,
  VNET_GSO_TCPV4,
  VNET_GSO_UDP_L4,
  VNET_HEADER,
} from './wire.ts';

// asm-generic/errno.h, as the ports return them
const EAGAIN = 11;
const EIO = 5;
const EINVAL = 22;
const EMSGSIZE = 90;
const EOPNOTSUPP = 95;

/** Room for a batch: it ends when TUN_BATCH_BYTES are in, and the read after that may be a full one. */
const INPUT_BYTES = TUN_BATCH_BYTES + MAX_TUN_READ + 64;
const INPUT_ALIGN = 64;
/** Smallest MTU IPv4 allows (RFC 791); a path that claims less is not believed. */
const MIN_PATH_MTU = 68;

export interface OutboundParts {
  readonly layout: ArenaLayout;
  readonly tun: Tun;
  readonly conn: Conn;
  readonly table: PeerTableReader;
  readonly counters: Counters;
  readonly icmp: IcmpErrors;
  readonly icmp6: Icmp6Errors;
  readonly underlay: Underlay;
  /** Of a fast path. */
  readonly signals?: PeerSignals | undefined;
}

/**
 * From the overlay to the underlay: reads packets from the TUN, cuts super-packets into packets of the size the sender
 * chose, finishes their checksums and sends each as the payload of one UDP datagram, flannel's wire format.
 */
export class Outbound {
  readonly #arena: Arena;
  readonly #tun: Tun;
  readonly #conn: Conn;
  readonly #table: PeerTableReader;
  readonly #counters: Counters;
  readonly #icmp: IcmpErrors;
  readonly #signals: PeerSignals | undefined;
  readonly #batch: SendBatch;
  readonly #overhead: number;
  readonly #ipv6: Outbound6;
  readonly #input: number;
  #drained = false;
  #stepBytes = 0;

  constructor({ layout, tun, conn, table, counters, icmp, icmp6, underlay, signals }: OutboundParts) {
    const { arena } = layout;
    this.#arena = layout.arena;
    this.#tun = tun;
    this.#conn = conn;
    this.#table = table;
    this.#counters = counters;
    this.#icmp = icmp;
    this.#signals = signals;
    this.#overhead = underlay.overhead;
    this.#batch = new SendBatch(layout, underlay.nameBytes, (at, slot) => underlay.putName(arena, at, table, slot));
    this.#ipv6 = new Outbound6({
      ...{ arena, table, counters, icmp: icmp6 },
      add: (slot, ip, total) => this.#add(slot, ip, total),
      addSegments: (...parts) => this.#addSegments(...parts),
    });
    this.#input = layout.take(INPUT_BYTES);
  }

  /** Whether the last step left nothing behind: time to wait for the TUN. */
  get drained(): boolean {
    return this.#drained;
  }

  /** Bytes read in the last step. */
  get stepBytes(): number {
    return this.#stepBytes;
  }

  /**
   * Moves what the TUN holds now, at most one batch. Returns the packets read, or −errno of the TUN when there were none.
   * @param most packets to take before they are sent: 1 saves a lone packet the look for a second one.
   */
  step(most: number = TUN_BATCH_PACKETS): number {
    this.#table.enter();
    let packets = 0;
    let failure = 0;
    this.#drained = false;
    let offset = this.#input;
    const end = this.#input + TUN_BATCH_BYTES;
    while (packets < most && offset < end) {
      // Two bytes in, the IP header behind the 10-byte virtio header is aligned to 4.
      const length = this.#tun.read(offset + 2, MAX_TUN_READ);
      if (length <= 0) {
        failure = length;
        this.#drained = true;
        break;
      }
      packets++;
      this.#forward(offset + 2, length);
      offset = (offset + 2 + length + INPUT_ALIGN - 1) & -INPUT_ALIGN;
    }
    this.#flush();
    this.#table.leave();
    this.#stepBytes = offset - this.#input;
    if (packets === 0) return failure;
    this.#counters.gauge(GAUGE_TX_READS, packets);
    this.#counters.gauge(GAUGE_TX_BATCHES, 1);
    return packets;
  }

  #forward(vnet: number, length: number): void {
    const ip = vnet + VNET_HEADER;
    const available = length - VNET_HEADER;
    const { view } = this.#arena;
    if (available < 1 || view.getUint8(ip) >>> 4 !== 4) {
      if (this.#table.carriesIpv6 && available >= IPV6_HEADER && view.getUint8(ip) >>> 4 === 6) {
        this.#ipv6.forward(vnet, ip, available);
      } else this.#drop(0, reasonNotIpv4(view, ip, available));
      return;
    }
    const headerLength = (view.getUint8(ip) & 15) * 4;
    if (available < IPV4_MIN_HEADER || headerLength < IPV4_MIN_HEADER) {
      this.#drop(0, DROP_MALFORMED);
      return;
    }
    const total = view.getUint16(ip + 2);
    if (total < headerLength || total > available) {
      this.#drop(0, DROP_MALFORMED);
      return;
    }
    const slot = this.#table.lookup(view.getUint32(ip + 16) | 0);
    if (slot === 0) {
      this.#drop(0, DROP_NO_ROUTE);
      this.#icmp.send(ip, total, ICMP_UNREACHABLE, ICMP_NET_UNREACHABLE, 0);
      return;
    }
    const gsoType = view.getUint8(vnet + 1) & ~VNET_GSO_ECN;
    const isWhole = gsoType === VNET_GSO_NONE;
    const gsoSize = isWhole ? 0 : view.getUint16(vnet + 4, true);
    const headers = isWhole ? 0 : this.#segmentHeaders(ip, headerLength, total, gsoType);
    if (!isWhole && (gsoSize === 0 || headers === 0)) {
      this.#drop(slot, DROP_UNSUPPORTED_OFFLOAD);
      return;
    }
    const packetLength = isWhole ? total : Math.min(total, headers + gsoSize);
    if (view.getUint8(ip + 8) <= 1) {
      this.#drop(slot, DROP_TTL_EXCEEDED);
      this.#icmp.send(ip, total, ICMP_TIME_EXCEEDED, ICMP_TTL_EXCEEDED, 0);
      return;
    }
    const mtu = this.#table.mtu(slot);
    if (packetLength > mtu && (view.getUint16(ip + 6) & IP_FLAG_DF) !== 0) {
      this.#drop(slot, DROP_TOO_BIG);
      this.#icmp.send(ip, total, ICMP_UNREACHABLE, ICMP_FRAGMENTATION_NEEDED, mtu);
      return;
    }
    decrementTtl(view, ip);
    if (isWhole) {
      if ((view.getUint8(vnet) & VNET_F_NEEDS_CSUM) !== 0 && !this.#finishChecksum(vnet, ip, headerLength, total)) {
        this.#drop(slot, DROP_MALFORMED);
        return;
      }
      this.#add(slot, ip, total);
    } else {
      this.#addSegments(this.#arena.segment4, slot, ip, headerLength, headers, total, gsoSize);
    }
  }

  #drop(slot: Slot, reason: number): void {
    this.#counters.dropped(slot, 'tx', reason, 1);
  }

  /**
   * Length of the IP and transport headers of a super-packet together, which every segment gets; 0 when its headers and its
   * segmentation type do not agree, or nothing is behind them.
   */
  #segmentHeaders(ip: number, headerLength: number, total: number, gsoType: number): number {
    const { view } = this.#arena;
    const protocol = view.getUint8(ip + 9);
    let headers = 0;
    if (gsoType === VNET_GSO_TCPV4 && protocol === PROTO_TCP && total >= headerLength + TCP_MIN_HEADER) {
      const tcpLength = (view.getUint8(ip + headerLength + 12) >>> 4) * 4;
      if (tcpLength >= TCP_MIN_HEADER) headers = headerLength + tcpLength;
    } else if (gsoType === VNET_GSO_UDP_L4 && protocol === PROTO_UDP) {
      headers = headerLength + UDP_HEADER;
    }
    return headers < total ? headers : 0;
  }

  /** The kernel left the transport checksum to us: the field holds the pseudo-header sum (virtio 1.2 §5.1.6.2). */
  #finishChecksum(vnet: number, ip: number, headerLength: number, total: number): boolean {
    const { view, sum16 } = this.#arena;
    const start = view.getUint16(vnet + 6, true);
    const field = start + view.getUint16(vnet + 8, true);
    if (start < headerLength || field + 2 > total) return false;
    const checksum = ~sum16(ip + start, total - start) & 0xffff;
    const isUdp = view.getUint8(ip + 9) === PROTO_UDP;
    view.setUint16(ip + field, checksum === 0 && isUdp ? 0xffff : checksum, true); // RFC 768: 0 means "none"
    return true;
  }

  #add(slot: Slot, ip: number, total: number): void {
    if (!this.#batch.hasRoom) this.#flush();
    this.#batch.add(slot, this.#table.endpoint(slot), this.#table.endpointPort(slot), ip, total);
  }

  /** A super-packet becomes datagrams of `size` bytes of payload, all that fit into one message at a time. */
  #addSegments(
    cut: Segment,
    slot: Slot,
    ip: number,
    headerLength: number,
    headers: number,
    total: number,
    size: number,
  ): void {
    const batch = this.#batch;
    const address = this.#table.endpoint(slot);
    const port = this.#table.endpointPort(slot);
    const segments = Math.ceil((total - headers) / size);
    const full = Math.floor((total - headers) / size);
    for (let index = 0; index < segments; ) {
      if (!batch.hasRoom) this.#flush();
      const isFull = index < full;
      const length = isFull ? headers + size : total - full * size;
      const count = batch.reserve(slot, address, port, length, isFull ? full - index : 1);
      cut(ip, headerLength, headers, size, index, count, batch.header, HEADER_STRIDE, batch.iovec);
      batch.commitPairs(count, length);
      index += count;
    }
  }

  #flush(): void {
    const batch = this.#batch;
    if (batch.count === 0) return;
    batch.seal();
    let next = 0;
    while (next < batch.count) {
      const sent = this.#conn.send(batch.message(next), batch.count - next);
      this.#counters.gauge(GAUGE_TX_SENDS, 1);
      if (sent > 0) {
        for (const end = next + sent; next < end; next++) {
          const slot = batch.slot(next);
          this.#counters.passed(slot, 'tx', batch.segments(next), batch.bytes(next));
          this.#signals?.sent(slot, this.#table.endpoint(slot));
        }
      } else if (sent === -EAGAIN) {
        if (!this.#waitWritable()) break;
      } else {
        this.#sendHard(next, -sent);
        next++;
      }
    }
    for (; next < batch.count; next++) {
      this.#counters.dropped(batch.slot(next), 'tx', DROP_SEND_FAILED, batch.segments(next));
    }
    batch.reset();
  }

  /** A full socket can stay full for long: the control plane must not wait for this batch before it publishes a table. */
  #waitWritable(): boolean {
    this.#table.leave();
    const goOn = this.#conn.waitWritable();
    this.#table.enter();
    return goOn;
  }

  /** The kernel refused a message: find out why, do what can be done, count the rest. */
  #sendHard(index: number, errno: number): void {
    const batch = this.#batch;
    const segmented = batch.segments(index) > 1;
    const tooBig = errno === EMSGSIZE || (errno === EINVAL && segmented);
    if (tooBig && this.#learnPathMtu(index)) {
      this.#resend(index, this.#table.mtu(batch.slot(index)));
    } else if (segmented && errno === EMSGSIZE) {
      this.#resend(index, 0); // the path has widened since, or the kernel does not say how wide it is
    } else if (segmented && (errno === EIO || errno === EINVAL || errno === EOPNOTSUPP)) {
      // Before Linux 6.11 a device without checksum offload refuses UDP_SEGMENT with EIO (net/ipv4/udp.c).
      batch.disableSegmentation();
      this.#counters.gauge(GAUGE_GSO_FALLBACKS, 1);
      this.#resend(index, 0);
    } else {
      this.#counters.dropped(batch.slot(index), 'tx', DROP_SEND_FAILED, batch.segments(index));
    }
  }

  #learnPathMtu(index: number): boolean {
    const slot = this.#batch.slot(index);
    const outer = this.#conn.pathMtu(this.#batch.name(index));
    const inner = outer - this.#overhead;
    if (outer < MIN_PATH_MTU || inner >= this.#batch.segmentSize(index)) return false;
    this.#table.learnPathMtu(slot, inner);
    return true;
  }

  /**
   * Sends the datagrams of a refused message one by one. Those longer than `mtu` (0: no limit is known) are fragmented on
   * the underlay, or, where the inner packet forbids fragments, dropped and their sender told once for each flow.
   */
  #resend(index: number, mtu: number): void {
    const { view } = this.#arena;
    const slot = this.#batch.slot(index);
    let told = 0;
    this.#batch.splitMessage(index, (message, bytes, ip, present) => {
      const isTooBig = mtu !== 0 && bytes > mtu;
      const is6 = view.getUint8(ip) >>> 4 === 6;
      if (isTooBig && (is6 ? bytes > IPV6_MIN_MTU : (view.getUint16(ip + 6) & IP_FLAG_DF) !== 0)) {
        this.#drop(slot, DROP_TOO_BIG);
        if (told === 0 || !this.#sameFlow(told, ip)) {
          told = ip;
          if (is6) this.#ipv6.sayTooBig(ip, present, mtu);
          else this.#icmp.send(ip, present, ICMP_UNREACHABLE, ICMP_FRAGMENTATION_NEEDED, mtu);
        }
        return;
      }
      const send = (): number => (isTooBig ? this.#conn.sendFragmentable(message) : this.#conn.send(message, 1));
      let result = send();
      while (result === -EAGAIN && this.#waitWritable()) result = send();
      if (result > 0) this.#counters.passed(slot, 'tx', 1, bytes);
      else this.#drop(slot, DROP_SEND_FAILED);
    });
  }

  /** Addresses and ports; an IP header with options is taken for a flow of its own. */
  #sameFlow(a: number, b: number): boolean {
    const { view } = this.#arena;
    if (view.getUint8(a) >>> 4 === 6) return this.#ipv6.isSameFlow(a, b);
    if (view.getUint8(a) !== 0x45 || view.getUint8(b) !== 0x45) return false;
    for (let at = 12; at <= 20; at += 4) if (view.getUint32(a + at) !== view.getUint32(b + at)) return false;
    return true;
  }
}
