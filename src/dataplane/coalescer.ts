import { type Arena, type ArenaLayout, type Continue, IOVEC_SIZE, putIovec } from './arena.ts';
import { type Counters, GAUGE_RX_COALESCED, GAUGE_RX_WRITES } from './counters.ts';
import { DROP_TUN_WRITE_FAILED } from './drop-reason.ts';
import type { FlowFamily } from './flow-family.ts';
import { COALESCE_FLOWS, COALESCE_SEGMENTS } from './limits.ts';
import type { Slot } from './peer-table-layout.ts';
import type { Tun } from './ports.ts';
import {
  PROTO_TCP,
  PROTO_UDP,
  TCP_ACK,
  TCP_MIN_HEADER,
  TCP_PSH,
  UDP_HEADER,
  VNET_F_NEEDS_CSUM,
  VNET_GSO_UDP_L4,
  VNET_HEADER,
} from './wire.ts';

/** UDP_GRO_CNT_MAX (net/ipv4/udp_offload.c). */
const UDP_MAX_SEGMENTS = 64;
const UDP_CHECKSUM_OFFSET = 6;
const TCP_CHECKSUM_OFFSET = 16;

/** Segments of one flow, in order, that will be given to the kernel as one packet. */
interface Run {
  count: number;
  slot: Slot;
  protocol: number;
  /** The first packet's IP header: addresses, ports and options of the flow are read there. */
  first: number;
  /** IP and transport header together; the IP header has no options or extension headers. */
  headers: number;
  segmentSize: number;
  payload: number;
  nextSequence: number;
  identification: number;
  verified: boolean;
  /** A short segment or PSH ended it: nothing may follow. */
  closed: boolean;
  readonly vnet: number;
  readonly iovecs: number;
}

/**
 * Puts consecutive packets of one flow together before they are written to the TUN (generic receive offload, as
 * net/ipv4/tcp_offload.c and udp_offload.c do it), so that the kernel's stack is walked once for up to 64 KiB. Payloads
 * stay where they lie. What was put together can be taken apart again without loss: only packets that differ in length,
 * IP id, sequence number, PSH and checksums alone are joined, and their checksums are verified first, because the kernel
 * is told to trust the sum of the whole. A packet that joins nothing is written as it came, checksums unverified.
 */
export class Coalescer {
  readonly #arena: Arena;
  readonly #tun: Tun;
  readonly #counters: Counters;
  readonly #runs: readonly Run[];
  /** The vector of a packet that joins nothing: an empty virtio header and the packet. */
  readonly #single: number;
  readonly #joinUdp: boolean;
  readonly #family: FlowFamily;
  readonly #header: number;
  readonly #isValid: (offset: number, length: number) => number;
  readonly #continues: Continue;
  /** The run that the last packet was of: packets come in trains. */
  #last: Run;
  #next = 0;
  #open = 0;

  /**
   * @param family of the packets that it is given.
   * @param joinUdp whether the TUN takes UDP super-packets (USO, Linux 6.2).
   */
  constructor(layout: ArenaLayout, tun: Tun, counters: Counters, joinUdp: boolean, family: FlowFamily) {
    this.#arena = layout.arena;
    this.#family = family;
    this.#header = family.header;
    this.#isValid = family.isValid(layout.arena);
    this.#continues = family.continues(layout.arena);
    this.#tun = tun;
    this.#counters = counters;
    this.#joinUdp = joinUdp;
    this.#single = layout.take(2 * IOVEC_SIZE, 16);
    putIovec(this.#arena, this.#single, layout.take(VNET_HEADER, 16), VNET_HEADER);
    this.#runs = Array.from({ length: COALESCE_FLOWS }, () => ({
      count: 0,
      slot: 0,
      protocol: 0,
      first: 0,
      headers: 0,
      segmentSize: 0,
      payload: 0,
      nextSequence: 0,
      identification: 0,
      verified: false,
      closed: false,
      vnet: layout.take(16, 16),
      iovecs: layout.take((COALESCE_SEGMENTS + 1) * IOVEC_SIZE, 16),
    }));
    this.#last = this.#runs[0]!;
    for (const run of this.#runs) putIovec(this.#arena, run.iovecs, run.vnet, VNET_HEADER);
  }

  /** Takes a packet of exactly `length` bytes whose header says the same. It must stay in place until `flush`. */
  push(ip: number, length: number, slot: Slot): void {
    const { view } = this.#arena;
    const header = this.#header;
    const protocol = view.getUint8(ip + this.#family.protocolAt);
    const isPlain =
      this.#family.isPlain(view, ip) &&
      ((protocol === PROTO_TCP && length >= header + TCP_MIN_HEADER) ||
        (protocol === PROTO_UDP && length >= header + UDP_HEADER));
    if (!isPlain) {
      // Fragments and packets with options have no flow to look for, so everything before them goes first.
      if (protocol === PROTO_TCP || protocol === PROTO_UDP || this.#family.mayHideFlow(protocol)) this.flush();
      this.#writeSingle(ip, length, slot);
      return;
    }
    const headers = protocol === PROTO_TCP ? header + (view.getUint8(ip + header + 12) >>> 4) * 4 : header + UDP_HEADER;
    const run = this.#open === 0 ? undefined : this.#find(ip, protocol);
    if (!this.#mayJoin(ip, length, protocol, headers)) {
      if (run !== undefined) this.#flushRun(run);
      this.#writeSingle(ip, length, slot);
      return;
    }
    if (run !== undefined) {
      if (this.#append(run, ip, length, headers, slot)) return;
      this.#flushRun(run);
    }
    this.#start(run ?? this.#freeRun(), ip, length, protocol, headers, slot);
  }

  /**
   * Takes what it can of the train of datagrams from `ip` to `end`, `length` bytes each, a shorter one at the end aside, that
   * came from the peer `slot`, and returns how many: those that continue the flow of the last packet pushed, whose source
   * address was accepted from that peer. They are as they were received, the TTL not taken down. Others are to be pushed.
   */
  follow(ip: number, end: number, length: number, slot: Slot): number {
    const run = this.#last;
    if (run.count === 0 || length <= run.headers || ip + length > end) return 0;
    // Flows that are mixed in one train mostly differ in their ports: no need to look further.
    const { view } = this.#arena;
    if (view.getUint32(ip + this.#header) !== view.getUint32(run.first + this.#header)) return 0;
    return this.#appendTrain(run, ip, length, Math.floor((end - ip) / length), 1, slot);
  }

  /** Writes everything that is still open. */
  flush(): void {
    if (this.#open === 0) return;
    for (const run of this.#runs) if (run.count > 0) this.#flushRun(run);
  }

  /** A data segment with nothing but ACK and PSH; a datagram with a checksum. */
  #mayJoin(ip: number, length: number, protocol: number, headers: number): boolean {
    const { view } = this.#arena;
    const header = this.#header;
    if (length <= headers) return false;
    if (protocol === PROTO_TCP) {
      return headers >= header + TCP_MIN_HEADER && (view.getUint8(ip + header + 13) & ~TCP_PSH) === TCP_ACK;
    }
    return (
      this.#joinUdp &&
      view.getUint16(ip + header + 4) === length - header &&
      view.getUint16(ip + header + UDP_CHECKSUM_OFFSET) !== 0
    );
  }

  #find(ip: number, protocol: number): Run | undefined {
    const ports = this.#arena.view.getUint32(ip + this.#header);
    if (this.#isOf(this.#last, ip, protocol, ports)) return this.#last;
    for (const run of this.#runs) {
      if (this.#isOf(run, ip, protocol, ports)) {
        this.#last = run;
        return run;
      }
    }
    return undefined;
  }

  #isOf(run: Run, ip: number, protocol: number, ports: number): boolean {
    const { view } = this.#arena;
    const { first } = run;
    return (
      run.count > 0 &&
      run.protocol === protocol &&
      view.getUint32(first + this.#header) === ports &&
      this.#family.sameAddresses(view, first, ip)
    );
  }

  #freeRun(): Run {
    let run = this.#nextRun();
    if (this.#open < COALESCE_FLOWS) while (run.count > 0) run = this.#nextRun();
    else this.#flushRun(run);
    return run;
  }

  #nextRun(): Run {
    const run = this.#runs[this.#next]!;
    this.#next = (this.#next + 1) % COALESCE_FLOWS;
    return run;
  }

  #start(run: Run, ip: number, length: number, protocol: number, headers: number, slot: Slot): void {
    const { view } = this.#arena;
    this.#last = run;
    run.count = 1;
    run.slot = slot;
    run.protocol = protocol;
    run.first = ip;
    run.headers = headers;
    run.segmentSize = length - headers;
    run.payload = length - headers;
    const transport = ip + this.#header;
    run.nextSequence = protocol === PROTO_TCP ? (view.getUint32(transport + 4) + length - headers) >>> 0 : 0;
    run.identification = this.#family.identification(view, ip);
    run.verified = false;
    run.closed = protocol === PROTO_TCP && (view.getUint8(transport + 13) & TCP_PSH) !== 0;
    putIovec(this.#arena, run.iovecs + IOVEC_SIZE, ip, length);
    this.#open++;
  }

  /** Returns false when the packet does not continue the run. */
  #append(run: Run, ip: number, length: number, headers: number, slot: Slot): boolean {
    return headers === run.headers && this.#appendTrain(run, ip, length, 1, 0, slot) === 1;
  }

  /**
   * Appends packets of one length, longer than the headers, as far as they continue the run (see continue4, continue6) and at most
   * `available`. Returns how many.
   */
  #appendTrain(run: Run, ip: number, length: number, available: number, older: number, slot: Slot): number {
    const payload = length - run.headers;
    if (run.closed || payload > run.segmentSize) return 0;
    if (slot !== run.slot) return 0; // each peer's packets are counted as its own
    const isTcp = run.protocol === PROTO_TCP;
    const segmentsLeft = (isTcp ? COALESCE_SEGMENTS : UDP_MAX_SEGMENTS) - run.count;
    const bytesLeft = this.#family.mostBytes - run.headers - run.payload;
    if (segmentsLeft <= 0 || bytesLeft < payload) return 0;
    // A shorter one is the last.
    const isOne = available === 1 || payload < run.segmentSize;
    const most = isOne ? 1 : Math.min(available, segmentsLeft, Math.floor(bytesLeft / payload));
    if (!run.verified) {
      if (this.#isValid(run.first, run.headers + run.segmentSize) === 0) return 0;
      run.verified = true;
    }
    const identification = run.identification + run.count;
    const iovec = run.iovecs + (run.count + 1) * IOVEC_SIZE;
    const { first, headers, nextSequence } = run;
    const count = this.#continues(first, headers, ip, length, most, older, nextSequence, identification, iovec);
    if (count === 0) return 0;
    run.count += count;
    run.payload += count * payload;
    if (payload < run.segmentSize) run.closed = true;
    if (isTcp) {
      run.nextSequence = (run.nextSequence + count * payload) >>> 0;
      const { view } = this.#arena;
      const flags = this.#header + 13;
      const push = view.getUint8(ip + (count - 1) * length + flags) & TCP_PSH;
      if (push !== 0) {
        run.closed = true;
        view.setUint8(run.first + flags, view.getUint8(run.first + flags) | push);
      }
    }
    return count;
  }

  #flushRun(run: Run): void {
    const { view } = this.#arena;
    const { count, first } = run;
    run.count = 0;
    this.#open--;
    const length = run.headers + run.payload;
    if (count === 1) {
      this.#writeSingle(first, length, run.slot);
      return;
    }
    const isTcp = run.protocol === PROTO_TCP;
    const checksumOffset = isTcp ? TCP_CHECKSUM_OFFSET : UDP_CHECKSUM_OFFSET;
    const { vnet } = run;
    view.setUint8(vnet, VNET_F_NEEDS_CSUM);
    const header = this.#header;
    view.setUint8(vnet + 1, isTcp ? this.#family.tcpGso : VNET_GSO_UDP_L4);
    view.setUint16(vnet + 2, run.headers, true);
    view.setUint16(vnet + 4, run.segmentSize, true);
    view.setUint16(vnet + 6, header, true);
    view.setUint16(vnet + 8, checksumOffset, true);
    const sum = this.#family.lengthen(this.#arena, first, length, run.protocol);
    if (!isTcp) view.setUint16(first + header + 4, length - header);
    view.setUint16(first + header + checksumOffset, sum, true);
    this.#counters.gauge(GAUGE_RX_COALESCED, count);
    this.#write(run.iovecs, count + 1, run.slot, count, length + (count - 1) * run.headers);
  }

  #writeSingle(ip: number, length: number, slot: Slot): void {
    putIovec(this.#arena, this.#single + IOVEC_SIZE, ip, length);
    this.#write(this.#single, 2, slot, 1, length);
  }

  #write(iovecs: number, entries: number, slot: Slot, packets: number, bytes: number): void {
    this.#counters.gauge(GAUGE_RX_WRITES, 1);
    if (this.#tun.writev(iovecs, entries) > 0) this.#counters.passed(slot, 'rx', packets, bytes);
    else this.#counters.dropped(slot, 'rx', DROP_TUN_WRITE_FAILED, packets);
  }
}
