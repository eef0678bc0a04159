import type { Arena, ArenaLayout } from './arena.ts';
import { IOVEC_SIZE, putIovec } from './arena.ts';
import { decrementTtl } from './checksum.ts';
import { Coalescer } from './coalescer.ts';
import { type Counters, GAUGE_RX_DATAGRAMS, GAUGE_RX_RECEIVES, GAUGE_RX_SIGNS } from './counters.ts';
import type { DestinationCheck } from './destination-check.ts';
import {
  DROP_FOREIGN_DESTINATION,
  DROP_FOREIGN_SOURCE,
  DROP_MALFORMED,
  DROP_NONE,
  DROP_SPOOFED_SOURCE,
  DROP_TTL_EXCEEDED,
  DROP_UNKNOWN_SOURCE,
} from './drop-reason.ts';
import type { PeerSignals } from './fast-path/peer-signals.ts';
import { isSign } from './fast-path/sign.ts';
import { IPV4_FLOWS, IPV6_FLOWS } from './flow-family.ts';
import type { IcmpErrors } from './icmp-error.ts';
import type { Icmp6Errors } from './icmp6-error.ts';
import { Inbound6 } from './inbound6.ts';
import { RECEIVE_BUFFER, RECEIVE_MESSAGES } from './limits.ts';
import type { LocalAddresses } from './local-addresses.ts';
import type { LocalAddresses6 } from './local-addresses6.ts';
import {
  armForReceive,
  CONTROL_SIZE,
  initMessage,
  MESSAGE_SIZE,
  NAME_STRIDE,
  receivedLength,
  receivedSegmentSize,
  setVector,
} from './mmsghdr.ts';
import { reasonNotIpv4 } from './not-ipv4.ts';
import type { Slot } from './peer-table-layout.ts';
import type { PeerTableReader } from './peer-table-reader.ts';
import type { Conn, Tun } from './ports.ts';
import type { RefusedSenders } from './refused-senders.ts';
import type { SourceCheck } from './source-check.ts';
import type { Underlay } from './underlay.ts';
import { ICMP_TIME_EXCEEDED, ICMP_TTL_EXCEEDED, IPV4_MIN_HEADER, IPV6_HEADER } from './wire.ts';

export interface InboundParts {
  readonly layout: ArenaLayout;
  readonly tun: Tun;
  readonly conn: Conn;
  readonly table: PeerTableReader;
  readonly counters: Counters;
  readonly icmp: IcmpErrors;
  readonly icmp6: Icmp6Errors;
  readonly underlay: Underlay;
  readonly sourceCheck: SourceCheck;
  readonly destinationCheck: DestinationCheck;
  /** What `loose` lets peers reach besides this host's own subnet. */
  readonly localAddresses: LocalAddresses;
  readonly localAddresses6: LocalAddresses6;
  /** Who is refused for an address is noted here. */
  readonly refusedSenders?: RefusedSenders | undefined;
  /** Whether the TUN takes UDP super-packets. */
  readonly joinUdp: boolean;
  /** Of a fast path. */
  readonly signals?: PeerSignals | undefined;
}

/** From the underlay to the overlay: one raw IP packet a datagram, checked, put together by flow, written to the TUN. */
export class Inbound {
  readonly #arena: Arena;
  readonly #conn: Conn;
  readonly #table: PeerTableReader;
  readonly #counters: Counters;
  readonly #icmp: IcmpErrors;
  readonly #coalescer: Coalescer;
  readonly #coalescer6: Coalescer;
  readonly #ipv6: Inbound6;
  readonly #underlay: Underlay;
  readonly #sourceCheck: SourceCheck;
  readonly #destinationCheck: DestinationCheck;
  readonly #localAddresses: LocalAddresses;
  readonly #refusedSenders: RefusedSenders | undefined;
  readonly #signals: PeerSignals | undefined;
  readonly #messages: number;
  readonly #names: number;
  readonly #controls: number;
  readonly #buffers: number;
  #drained = false;
  #stepBytes = 0;

  constructor(parts: InboundParts) {
    const { layout, tun, conn, table, counters, icmp, underlay, signals, joinUdp } = parts;
    const { sourceCheck, destinationCheck, localAddresses } = parts;
    const { arena } = layout;
    this.#arena = arena;
    this.#conn = conn;
    this.#table = table;
    this.#counters = counters;
    this.#icmp = icmp;
    this.#sourceCheck = sourceCheck;
    this.#destinationCheck = destinationCheck;
    this.#localAddresses = localAddresses;
    this.#refusedSenders = parts.refusedSenders;
    this.#signals = signals;
    this.#underlay = underlay;
    this.#coalescer = new Coalescer(layout, tun, counters, joinUdp, IPV4_FLOWS);
    this.#coalescer6 = new Coalescer(layout, tun, counters, joinUdp, IPV6_FLOWS);
    this.#ipv6 = new Inbound6({ ...parts, arena, icmp: parts.icmp6, coalescer: this.#coalescer6 });
    this.#messages = layout.take(RECEIVE_MESSAGES * MESSAGE_SIZE);
    this.#names = layout.take(RECEIVE_MESSAGES * NAME_STRIDE);
    this.#controls = layout.take(RECEIVE_MESSAGES * CONTROL_SIZE);
    const iovecs = layout.take(RECEIVE_MESSAGES * IOVEC_SIZE);
    this.#buffers = layout.take(RECEIVE_MESSAGES * RECEIVE_BUFFER);
    for (let index = 0; index < RECEIVE_MESSAGES; index++) {
      const message = this.#messages + index * MESSAGE_SIZE;
      const name = this.#names + index * NAME_STRIDE;
      initMessage(arena, message, name, underlay.nameBytes, this.#controls + index * CONTROL_SIZE);
      putIovec(arena, iovecs + index * IOVEC_SIZE, this.#buffers + index * RECEIVE_BUFFER, RECEIVE_BUFFER);
      setVector(arena, message, iovecs + index * IOVEC_SIZE, 1);
      armForReceive(arena, message, underlay.nameBytes);
    }
  }

  /** Whether the last step left nothing behind: time to wait for the socket. */
  get drained(): boolean {
    return this.#drained;
  }

  /** Bytes received in the last step. */
  get stepBytes(): number {
    return this.#stepBytes;
  }

  /** Moves what the socket holds now, at most one batch. Returns the messages received, or −errno when there were none. */
  step(): number {
    this.#table.enter();
    const received = this.#conn.receive(this.#messages, RECEIVE_MESSAGES);
    this.#stepBytes = 0;
    for (let index = 0; index < received; index++) this.#accept(index);
    this.#coalescer.flush();
    this.#coalescer6.flush();
    this.#drained = received < RECEIVE_MESSAGES;
    this.#table.leave();
    if (received > 0) this.#counters.gauge(GAUGE_RX_RECEIVES, 1);
    return received;
  }

  #accept(index: number): void {
    const { view } = this.#arena;
    const message = this.#messages + index * MESSAGE_SIZE;
    const length = receivedLength(this.#arena, message);
    this.#stepBytes += length;
    const segment = receivedSegmentSize(this.#arena, message, this.#controls + index * CONTROL_SIZE);
    const underlay = this.#underlay;
    armForReceive(this.#arena, message, underlay.nameBytes);
    const name = this.#names + index * NAME_STRIDE;
    const slot = underlay.senderOf(this.#table, view, name);
    const outerSource = underlay.endpointOf(view, name, slot);
    const size = segment === 0 ? length : segment;
    const start = this.#buffers + index * RECEIVE_BUFFER;
    const datagrams = length === 0 ? 1 : Math.ceil(length / size);
    this.#counters.gauge(GAUGE_RX_DATAGRAMS, datagrams);
    if (slot === 0 && this.#sourceCheck !== 'off') {
      this.#counters.dropped(0, 'rx', DROP_UNKNOWN_SOURCE, datagrams);
      this.#note(name, DROP_UNKNOWN_SOURCE, start, length, datagrams);
      return;
    }
    this.#signals?.received(slot, outerSource);
    if (length === 0) {
      this.#counters.dropped(slot, 'rx', DROP_MALFORMED, 1);
      return;
    }
    for (let from = 0; from < length; ) {
      const ip = start + from;
      const available = Math.min(size, length - from);
      if (this.#table.carriesIpv6 && view.getUint8(ip) >>> 4 === 6 && available >= IPV6_HEADER) {
        const reason = this.#ipv6.deliver(ip, available, slot, outerSource);
        if (reason !== DROP_NONE) this.#refuse(reason, ip, available, slot, name);
        from += size;
        from += this.#coalescer6.follow(start + from, start + length, size, slot) * size;
        continue;
      }
      const reason = this.#deliver(ip, available, slot, outerSource);
      if (reason !== DROP_NONE) this.#refuse(reason, ip, available, slot, name);
      from += size;
      from += this.#coalescer.follow(start + from, start + length, size, slot) * size;
    }
  }

  #refuse(reason: number, ip: number, available: number, slot: Slot, name: number): void {
    this.#counters.dropped(slot, 'rx', reason, 1);
    if (reason === DROP_SPOOFED_SOURCE || reason === DROP_FOREIGN_SOURCE || reason === DROP_FOREIGN_DESTINATION) {
      this.#note(name, reason, ip, available, 1);
    }
  }

  /** Notes who has sent what is refused, and the address inside that bears on it. */
  #note(name: number, reason: number, ip: number, available: number, packets: number): void {
    if (this.#refusedSenders === undefined) return;
    const { view } = this.#arena;
    const version = available === 0 ? 0 : view.getUint8(ip) >>> 4;
    const isDestination = reason === DROP_FOREIGN_DESTINATION;
    const { addressAt, version: outer } = this.#underlay;
    const sender = { version: outer, at: name + addressAt };
    if (version === 4 && available >= IPV4_MIN_HEADER) {
      this.#refusedSenders.note(view, sender, reason, { version: 4, at: ip + (isDestination ? 16 : 12) }, packets);
    } else if (version === 6 && available >= IPV6_HEADER) {
      this.#refusedSenders.note(view, sender, reason, { version: 6, at: ip + (isDestination ? 24 : 8) }, packets);
    } else this.#refusedSenders.note(view, sender, reason, undefined, packets);
  }

  #deliver(ip: number, available: number, slot: Slot, outerSource: number): number {
    const { view } = this.#arena;
    if (view.getUint8(ip) >>> 4 !== 4) return reasonNotIpv4(view, ip, available);
    if (available < IPV4_MIN_HEADER) return DROP_MALFORMED;
    if (slot !== 0 && isSign(view, ip, available)) {
      this.#counters.gauge(GAUGE_RX_SIGNS, 1);
      this.#signals?.sign(slot, outerSource, this.#arena.bytes, ip + IPV4_MIN_HEADER);
      return DROP_NONE;
    }
    const headerLength = (view.getUint8(ip) & 15) * 4;
    const total = view.getUint16(ip + 2);
    if (headerLength < IPV4_MIN_HEADER || total < headerLength || total > available) return DROP_MALFORMED;
    if (this.#sourceCheck !== 'off') {
      const refused = this.#checkSource(view.getUint32(ip + 12), slot, outerSource);
      if (refused !== DROP_NONE) return refused;
    }
    if (this.#destinationCheck !== 'off' && !this.#isForUs(view.getUint32(ip + 16))) return DROP_FOREIGN_DESTINATION;
    if (decrementTtl(view, ip) === 0) {
      this.#icmp.send(ip, total, ICMP_TIME_EXCEEDED, ICMP_TTL_EXCEEDED, 0);
      return DROP_TTL_EXCEEDED;
    }
    this.#coalescer.push(ip, total, slot);
    return DROP_NONE;
  }

  /** One host may own several subnets, so owners are compared by their outer address. The sender is known: slot is not 0. */
  #checkSource(innerSource: number, slot: Slot, outerSource: number): number {
    if (this.#table.inNetwork(innerSource | 0)) {
      const owner = this.#table.lookup(innerSource | 0);
      const isOwner = owner === slot || (owner !== 0 && this.#table.endpoint(owner) === outerSource);
      // A host whose address lies in the network, where no subnet can be, answers containers under that address.
      if (owner === 0 && innerSource === outerSource) return DROP_NONE;
      return isOwner ? DROP_NONE : DROP_SPOOFED_SOURCE;
    }
    if (!isHostsSource(innerSource)) return DROP_FOREIGN_SOURCE;
    return this.#sourceCheck === 'strict' && innerSource !== outerSource ? DROP_FOREIGN_SOURCE : DROP_NONE;
  }

  #isForUs(innerDestination: number): boolean {
    if (this.#table.isOwn(innerDestination | 0)) return true;
    return this.#destinationCheck === 'loose' && this.#localAddresses.has(innerDestination);
  }
}

/**
 * Not so: "this network", loopback, multicast and what is reserved. The kernel refuses most of them as martians, but not loopback
 * addresses where kube-proxy has set `route_localnet`.
 */
function isHostsSource(address: number): boolean {
  const first = address >>> 24;
  return first !== 0 && first !== 127 && first < 224;
}
