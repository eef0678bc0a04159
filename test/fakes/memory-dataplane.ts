import { type Arena, ArenaLayout, createArena, IOVEC_SIZE } from '../../src/dataplane/arena.ts';
import { Counters } from '../../src/dataplane/counters.ts';
import type { DestinationCheck } from '../../src/dataplane/destination-check.ts';
import { IcmpErrors } from '../../src/dataplane/icmp-error.ts';
import { IcmpLimits } from '../../src/dataplane/icmp-limits.ts';
import { Icmp6Errors } from '../../src/dataplane/icmp6-error.ts';
import { Inbound } from '../../src/dataplane/inbound.ts';
import { LocalAddresses } from '../../src/dataplane/local-addresses.ts';
import { LocalAddresses6 } from '../../src/dataplane/local-addresses6.ts';
import { armForReceive, MESSAGE_SIZE, putReceivedSegmentSize, setReceivedLength } from '../../src/dataplane/mmsghdr.ts';
import { Outbound } from '../../src/dataplane/outbound.ts';
import { type Ipv4Peer, type Peer, PeerTable, type PeerTableContent } from '../../src/dataplane/peer-table.ts';
import type { Conn, IcmpOut, Tun } from '../../src/dataplane/ports.ts';
import type { RefusedSenders } from '../../src/dataplane/refused-senders.ts';
import type { SourceCheck } from '../../src/dataplane/source-check.ts';
import { IPV4_UNDERLAY, IPV6_UNDERLAY } from '../../src/dataplane/underlay.ts';
import { ipv4Of } from '../../src/ip/ipv4.ts';
import { parseIpv6 } from '../../src/ip/ipv6.ts';
import { parsePrefix4, parsePrefix6 } from '../../src/ip/prefix.ts';
import { RefusedFrame, readFrame } from './kernel-offload.ts';
import { address } from './packets.ts';
import { address6 } from './packets6.ts';

/**
 * The forwarder's devices in memory. They keep to what the kernel does with the same structures: what it would refuse
 * is refused with the same errno, and a pointer out of the memory that was handed out is an error of the test.
 */

export const EIO = 5;
export const EAGAIN = 11;
export const EINVAL = 22;
export const EMSGSIZE = 90;
const ENETDOWN = 100;
const ENOBUFS = 105;

export { ENETDOWN, ENOBUFS };

/**
 * Where arenas pretend to lie: not below 4 GiB and across a multiple of it, so that a pointer put together wrongly does
 * not pass for a right one.
 */
const PRETENDED_BASE = 0x7ffe_ffe0_0000;

/** More than any test sends or writes before it looks: a core that loops fails here before it has taken all memory. */
const MOST_RECORDS = 2_000_000;

const CANARY = 0xc5;
/** Bytes behind the last region that are watched too. */
const TAIL = 4_096;

/** Leaves a gap around every region that is handed out, and tells when a byte of a gap was written. */
export class GuardedLayout extends ArenaLayout {
  readonly #regions: { readonly offset: number; readonly end: number }[] = [];
  readonly #gap: number;
  /** The gaps as 32-bit words: start and end index. */
  readonly #gaps: number[] = [];
  readonly #words: Int32Array;
  #end = 0;
  /** Offset and end of bytes inside the regions that nobody may write until the next check. */
  readonly #zones: number[] = [];

  constructor(arena: Arena, gap = 192) {
    super(arena);
    this.#gap = gap;
    this.#words = new Int32Array(arena.bytes.buffer);
    arena.bytes.fill(CANARY, 0, TAIL);
  }

  override take(length: number, align = 64): number {
    const offset = super.take(length, align);
    const after = super.take(this.#gap, 4);
    const end = offset + length;
    if (after < end) throw new Error('regions overlap');
    this.arena.bytes.fill(CANARY, this.#end, offset);
    this.arena.bytes.fill(0, offset, Math.min(end, this.#end + TAIL));
    this.arena.bytes.fill(CANARY, end, end + TAIL);
    this.#regions.push({ offset, end });
    this.#gaps.push(Math.ceil(this.#end / 4), Math.floor(offset / 4));
    this.#end = end;
    return offset;
  }

  /** The region that holds all of `offset … offset + length`. @throws Error when there is none. */
  check(offset: number, length: number, what: string): void {
    for (const region of this.#regions) if (offset >= region.offset && offset + length <= region.end) return;
    throw new Error(`${what}: bytes ${offset} … ${offset + length} were not handed out`);
  }

  /** A packet as a device puts it down; whoever handles it has no business in the bytes behind it, as far as `end`. */
  layDown(offset: number, packet: Uint8Array, end: number): void {
    this.#checkZones(offset, end);
    this.arena.bytes.set(packet, offset);
    this.arena.bytes.fill(CANARY, offset + packet.length, end);
    this.#zones.push(offset + packet.length, end);
  }

  /** Zones that touch the range are checked for the last time. */
  #checkZones(from: number, to: number): void {
    const zones = this.#zones;
    let kept = 0;
    for (let index = 0; index < zones.length; index += 2) {
      const start = zones[index]!;
      const end = zones[index + 1]!;
      if (start < to && from < end) {
        for (let at = start; at < end; at++) {
          if (this.arena.bytes[at] !== CANARY) throw new Error(`byte ${at}, behind a packet, was overwritten`);
        }
      } else {
        zones[kept++] = start;
        zones[kept++] = end;
      }
    }
    zones.length = kept;
  }

  /** @throws Error when a byte was written that is outside the regions or behind a packet. */
  checkGuards(): void {
    this.#checkZones(0, this.arena.size);
    const pattern = CANARY * 0x0101_0101 - 0x1_0000_0000;
    const words = this.#words;
    const last = Math.floor(Math.min(words.length * 4, this.#end + TAIL) / 4);
    for (let gap = 0; gap <= this.#gaps.length; gap += 2) {
      const from = this.#gaps[gap] ?? Math.ceil(this.#end / 4);
      const to = this.#gaps[gap + 1] ?? last;
      for (let word = from; word < to; word++) {
        if (words[word] !== pattern) throw new Error(`a byte at ${word * 4} … ${word * 4 + 4} was overwritten`);
      }
    }
  }
}

function pointer(arena: Arena, at: number): number {
  return arena.view.getUint32(at, true) + arena.view.getUint32(at + 4, true) * 0x1_0000_0000 - arena.base;
}

function word64(arena: Arena, at: number): number {
  return arena.view.getUint32(at, true) + arena.view.getUint32(at + 4, true) * 0x1_0000_0000;
}

/** One or more errnos that a device answers next, each once. */
type Failures = number[];

/** The overlay side: frames (virtio header and packet) in and out. */
export class MemoryTun implements Tun {
  readonly #layout: GuardedLayout;
  readonly incoming: Uint8Array[] = [];
  readonly written: Uint8Array[] = [];
  /** errnos for the next reads and writes. */
  readonly readFailures: Failures = [];
  readonly writeFailures: Failures = [];
  /** What the device takes: without USO a UDP super-packet is refused. */
  takesUdp = true;

  constructor(layout: GuardedLayout) {
    this.#layout = layout;
  }

  read(offset: number, capacity: number): number {
    this.#layout.check(offset, capacity, 'tun read');
    const failure = this.readFailures.shift();
    if (failure !== undefined) return -failure;
    const next = this.incoming.shift();
    if (next === undefined) return 0;
    const length = Math.min(next.length, capacity);
    // The next packet may begin two bytes behind the next multiple of 64.
    const end = Math.min(offset + capacity, Math.ceil((offset + length) / 64) * 64 + 2);
    this.#layout.layDown(offset, next.subarray(0, length), end);
    return length;
  }

  writev(iovecs: number, count: number): number {
    const { arena } = this.#layout;
    this.#layout.check(iovecs, count * IOVEC_SIZE, 'tun vector');
    if (count < 1 || count > 1_024) return -EINVAL;
    const failure = this.writeFailures.shift();
    if (failure !== undefined) return -failure;
    const bytes = gather(this.#layout, iovecs, count);
    if (arena.view.getUint32(iovecs + 8, true) !== 10) throw new Error('the first entry is not a virtio header');
    try {
      const { gsoType } = readFrame(bytes);
      if (gsoType === 5 && !this.takesUdp) return -EINVAL;
    } catch (error) {
      if (error instanceof RefusedFrame) return -EINVAL;
      throw error;
    }
    this.written.push(bytes);
    if (this.written.length > MOST_RECORDS) throw new Error('frames are written without end');
    return bytes.length;
  }
}

function gather(layout: GuardedLayout, iovecs: number, count: number): Uint8Array {
  const { arena } = layout;
  let total = 0;
  for (let index = 0; index < count; index++) total += word64(arena, iovecs + index * IOVEC_SIZE + 8);
  const bytes = new Uint8Array(total);
  let at = 0;
  for (let index = 0; index < count; index++) {
    const offset = pointer(arena, iovecs + index * IOVEC_SIZE);
    const length = word64(arena, iovecs + index * IOVEC_SIZE + 8);
    layout.check(offset, length, 'vector entry');
    bytes.set(arena.bytes.subarray(offset, offset + length), at);
    at += length;
  }
  return bytes;
}

export interface Datagram {
  /** A bigint where the underlay is IPv6. */
  readonly address: number | bigint;
  readonly port: number;
  readonly data: Uint8Array;
}

/** What one message asked the kernel for, beside the datagrams that it became. */
export interface SentMessage {
  readonly datagrams: number;
  readonly fragmentable: boolean;
}

/** The underlay side, a socket of IPv4 or IPv6. */
export class MemoryConn implements Conn {
  readonly #layout: GuardedLayout;
  readonly #version: 4 | 6;
  readonly #nameBytes: number;
  /** What left, datagram by datagram, as a peer's socket would receive it. */
  readonly sent: (Datagram & { readonly fragmentable: boolean })[] = [];
  readonly messages: SentMessage[] = [];
  /** Messages to be received: `segment` is the size of equal datagrams put together by UDP_GRO, 0 for a datagram alone. */
  readonly incoming: (Datagram & { readonly segment: number })[] = [];
  /** errnos for the next messages (0: none) and the next receives. */
  readonly sendFailures: Failures = [];
  readonly receiveFailures: Failures = [];
  /** Bytes, outer headers included, that the way to everybody takes. */
  mtu = 65_535;
  /** What the kernel says when it is asked; undefined for `mtu`. */
  claimedMtu: number | undefined;
  /** errno for every message with UDP_SEGMENT, 0 when they are taken. */
  segmentationRefused = 0;
  /** EINVAL until Linux 6.14, then EMSGSIZE. */
  segmentTooBig: number = EINVAL;
  /** Messages taken in one call at most. */
  takes = 1_024;
  /** Answers waitWritable; false is a worker that is told to stop. */
  writable: () => boolean = () => true;
  waits = 0;

  constructor(layout: GuardedLayout, version: 4 | 6 = 4) {
    this.#layout = layout;
    this.#version = version;
    this.#nameBytes = version === 4 ? 16 : 28;
  }

  /** Bytes that the kernel puts before a datagram. */
  get #overhead(): number {
    return this.#version === 4 ? 28 : 48;
  }

  #addressIn(name: number): number | bigint {
    const { view } = this.#layout.arena;
    if (this.#version === 4) return view.getUint32(name + 4);
    if (view.getUint32(name + 4) !== 0 || view.getUint32(name + 24) !== 0) throw new Error('a flow label or a scope');
    return (view.getBigUint64(name + 8) << 64n) | view.getBigUint64(name + 16);
  }

  send(messages: number, count: number): number {
    return this.#send(messages, count, false);
  }

  sendFragmentable(message: number): number {
    return this.#send(message, 1, true);
  }

  #send(messages: number, count: number, fragmentable: boolean): number {
    this.#layout.check(messages, count * MESSAGE_SIZE, 'messages');
    for (let index = 0; index < Math.min(count, this.takes); index++) {
      // An error of a later message is not told: the caller meets it again when it sends the rest.
      const injected = this.sendFailures[0] ?? 0;
      if (injected !== 0 && index > 0) return index;
      this.sendFailures.shift();
      const errno = injected !== 0 ? injected : this.#sendOne(messages + index * MESSAGE_SIZE, fragmentable);
      if (errno !== 0) return index > 0 ? index : -errno;
    }
    return Math.min(count, this.takes);
  }

  /** One message by the rules of udp_sendmsg and udp_send_skb; 0 or the errno. */
  #sendOne(message: number, fragmentable: boolean): number {
    const { arena } = this.#layout;
    const { view } = arena;
    const name = pointer(arena, message);
    this.#layout.check(name, this.#nameBytes, 'name');
    if (view.getUint32(message + 8, true) !== this.#nameBytes) return EINVAL;
    if (view.getUint16(name, true) !== (this.#version === 4 ? 2 : 10)) return EINVAL;
    const port = view.getUint16(name + 2);
    if (port === 0) return EINVAL;
    const iovecs = pointer(arena, message + 16);
    const count = word64(arena, message + 24);
    if (count > 1_024) return EMSGSIZE;
    this.#layout.check(iovecs, count * IOVEC_SIZE, 'vector');
    const data = gather(this.#layout, iovecs, count);
    const controlLength = word64(arena, message + 40);
    let segment = 0;
    if (controlLength > 0) {
      const control = pointer(arena, message + 32);
      this.#layout.check(control, controlLength, 'control');
      const isSegment = view.getUint32(control + 8, true) === 17 && view.getUint32(control + 12, true) === 103;
      if (!isSegment || word64(arena, control) !== 18) return EINVAL;
      segment = view.getUint16(control + 16, true);
    }
    if (data.length > 65_507) return EMSGSIZE;
    if (segment === 0 && !fragmentable && data.length + this.#overhead > this.mtu) return EMSGSIZE;
    if (segment > 0) {
      if (this.segmentationRefused !== 0) return this.segmentationRefused;
      if (Math.min(segment, data.length) + this.#overhead > this.mtu) return this.segmentTooBig;
      if (data.length > segment * 64) return EINVAL;
      this.#checkBoundaries(iovecs, count, segment);
    }
    const size = segment === 0 ? Math.max(1, data.length) : segment;
    const to = this.#addressIn(name);
    for (let from = 0; from < Math.max(1, data.length); from += size) {
      this.sent.push({ address: to, port, data: data.subarray(from, from + size), fragmentable });
    }
    if (this.sent.length > MOST_RECORDS) throw new Error('datagrams are sent without end');
    this.messages.push({ datagrams: Math.max(1, Math.ceil(data.length / size)), fragmentable });
    return 0;
  }

  /** The kernel cuts by bytes alone; a cut that does not fall between two vector entries went through a packet. */
  #checkBoundaries(iovecs: number, count: number, segment: number): void {
    let at = 0;
    for (let index = 0; index < count; index++) {
      const length = word64(this.#layout.arena, iovecs + index * IOVEC_SIZE + 8);
      if (Math.floor(at / segment) !== Math.floor((at + length - 1) / segment)) {
        throw new Error(`UDP_SEGMENT ${segment} cuts through vector entry ${index}`);
      }
      at += length;
    }
  }

  waitWritable(): boolean {
    this.waits++;
    return this.writable();
  }

  pathMtu(): number {
    return this.claimedMtu ?? this.mtu;
  }

  /** Puts datagrams on the receive queue; equal ones of one sender that follow each other together when `group` is set. */
  deliver(datagrams: readonly Datagram[], group = false): void {
    let index = 0;
    while (index < datagrams.length) {
      const first = datagrams[index]!;
      let end = index + 1;
      let total = first.data.length;
      while (group && first.data.length > 0 && end < datagrams.length && end - index < 64) {
        const next = datagrams[end]!;
        const isSame = next.address === first.address && next.port === first.port;
        if (!isSame || next.data.length > first.data.length || next.data.length === 0) break;
        if (total + next.data.length > 65_507) break;
        total += next.data.length;
        end++;
        if (next.data.length < first.data.length) break;
      }
      const data = new Uint8Array(total);
      let at = 0;
      for (const datagram of datagrams.slice(index, end)) {
        data.set(datagram.data, at);
        at += datagram.data.length;
      }
      this.incoming.push({ ...first, data, segment: end - index > 1 ? first.data.length : 0 });
      index = end;
    }
  }

  receive(messages: number, count: number): number {
    const { arena } = this.#layout;
    this.#layout.check(messages, count * MESSAGE_SIZE, 'messages');
    const failure = this.receiveFailures.shift();
    if (failure !== undefined) return -failure;
    let received = 0;
    while (received < count) {
      const next = this.incoming.shift();
      if (next === undefined) break;
      const message = messages + received * MESSAGE_SIZE;
      const name = pointer(arena, message);
      const control = pointer(arena, message + 32);
      const iovecs = pointer(arena, message + 16);
      const buffer = pointer(arena, iovecs);
      const length = Math.min(next.data.length, word64(arena, iovecs + 8));
      this.#layout.check(name, this.#nameBytes, 'name');
      this.#layout.check(control, word64(arena, message + 40), 'control');
      this.#layout.check(buffer, word64(arena, iovecs + 8), 'receive buffer');
      if (word64(arena, message + 24) !== 1) throw new Error('a receive vector has one entry');
      if (arena.view.getUint32(message + 8, true) < this.#nameBytes)
        throw new Error('the name was not armed for receive');
      if (word64(arena, message + 40) < 20) throw new Error('the control message was not armed for receive');
      armForReceive(arena, message, this.#nameBytes);
      arena.view.setUint16(name, this.#version === 4 ? 2 : 10, true);
      arena.view.setUint16(name + 2, next.port);
      if (typeof next.address === 'number') arena.view.setUint32(name + 4, next.address);
      else {
        arena.view.setBigUint64(name + 8, next.address >> 64n);
        arena.view.setBigUint64(name + 16, next.address & 0xffff_ffff_ffff_ffffn);
      }
      const end = buffer + Math.min(word64(arena, iovecs + 8), length + 64);
      this.#layout.layDown(buffer, next.data.subarray(0, length), end);
      setReceivedLength(arena, message, length);
      putReceivedSegmentSize(arena, message, control, next.segment);
      received++;
    }
    return received;
  }
}

/** Where ICMP errors leave. */
export class MemoryIcmp implements IcmpOut {
  readonly #layout: GuardedLayout;
  readonly sent: Uint8Array[] = [];
  failure = 0;

  constructor(layout: GuardedLayout) {
    this.#layout = layout;
  }

  send(offset: number, length: number): number {
    this.#layout.check(offset, length, 'icmp packet');
    if (this.failure !== 0) return -this.failure;
    this.sent.push(this.#layout.arena.bytes.slice(offset, offset + length));
    return length;
  }
}

export class ManualClock {
  nowMs = 1_000;
  readonly read = (): number => this.nowMs;
}

export interface PeerText {
  readonly slot: number;
  readonly subnet: string;
  readonly publicIp: string;
  readonly ipv6Subnet?: string;
  readonly publicIpv6?: string;
  readonly port?: number;
}

/** Host 1 of a lab: it owns 10.244.1.0/24, hosts 2 and 3 are its peers. */
export const OWN_ADDRESS: number = address('10.244.1.0');
export const TWO_PEERS: readonly PeerText[] = [
  { slot: 1, subnet: '10.244.2.0/24', publicIp: '192.168.77.2' },
  { slot: 2, subnet: '10.244.3.0/24', publicIp: '192.168.77.3' },
];

/** This host's part of an IPv6 network, and the same two peers with both families. */
export const OWN_IPV6 = { network: 'fd00:244::/48', own: 'fd00:244:0:1::/64' } as const;
export const TWO_DUAL_PEERS: readonly PeerText[] = [
  { ...TWO_PEERS[0]!, ipv6Subnet: 'fd00:244:0:2::/64', publicIpv6: 'fd00:77::2' },
  { ...TWO_PEERS[1]!, ipv6Subnet: 'fd00:244:0:3::/64', publicIpv6: 'fd00:77::3' },
];

export function peerOf(text: PeerText): Ipv4Peer {
  const { slot, subnet, publicIp, port = 8_285 } = text;
  const { subnets, publicAddresses } = peer6Of(text);
  const prefix = parsePrefix4(subnet);
  if (prefix === undefined) throw new Error(`not a prefix: ${subnet}`);
  return {
    ...{ slot, port, subnets: { ...subnets, ipv4: prefix } },
    publicAddresses: { ...publicAddresses, ipv4: ipv4Of(address(publicIp)) },
  };
}

/** The same peer in a network of IPv6 alone. */
export function peer6Of({ slot, ipv6Subnet, publicIpv6, port = 8_285 }: PeerText): Peer {
  return {
    ...{
      slot,
      port,
      subnets: { ipv4: undefined, ipv6: ipv6Subnet === undefined ? undefined : parsePrefix6(ipv6Subnet) },
    },
    publicAddresses: { ipv4: undefined, ipv6: publicIpv6 === undefined ? undefined : parseIpv6(publicIpv6) },
  };
}

export interface MemoryHostOptions {
  readonly peers?: readonly PeerText[];
  readonly network?: string;
  readonly mtu?: number;
  readonly sourceCheck?: SourceCheck;
  readonly destinationCheck?: DestinationCheck;
  /** This host's own subnet and the addresses of its devices. */
  readonly own?: string;
  readonly localAddresses?: readonly string[];
  /** Its IPv6 network; none by default. */
  readonly ipv6?: { readonly network: string; readonly own: string };
  readonly localAddresses6?: readonly string[];
  /** IPv6 has IPv6 alone inside, too. */
  readonly underlay?: 4 | 6;
  readonly refusedSenders?: RefusedSenders;
  readonly joinUdp?: boolean;
  readonly capacity?: number;
}

/** One direction of a forwarder with devices of its own, as one worker thread has it. */
export interface MemorySide<Core> {
  readonly core: Core;
  readonly layout: GuardedLayout;
  readonly tun: MemoryTun;
  readonly conn: MemoryConn;
  readonly icmp: MemoryIcmp;
  readonly icmp6: MemoryIcmp;
}

export interface MemoryHost {
  readonly tx: MemorySide<Outbound>;
  readonly rx: MemorySide<Inbound>;
  readonly table: PeerTable;
  readonly counters: Counters;
  readonly clock: ManualClock;
  publish(peers: readonly PeerText[]): void;
  /** Steps until everything on the queues has been moved; memory that was not handed out is untouched then. */
  run(): void;
}

export function memoryHost(options: MemoryHostOptions = {}): MemoryHost {
  const { network = '10.244.0.0/16', own = '10.244.1.0/24', mtu = 1_472, joinUdp = true, capacity = 64 } = options;
  const { sourceCheck = 'loose', destinationCheck = 'loose', refusedSenders } = options;
  const localAddresses = LocalAddresses.allocate();
  localAddresses.replace((options.localAddresses ?? ['192.168.77.1']).map((text) => ipv4Of(address(text))));
  const localAddresses6 = LocalAddresses6.allocate();
  localAddresses6.replace((options.localAddresses6 ?? ['fd00:77::1']).flatMap((text) => parseIpv6(text) ?? []));
  const table = PeerTable.allocate(capacity);
  const counters = Counters.allocate(capacity);
  const clock = new ManualClock();
  const { underlay = 4 } = options;
  const prefixes6 = options.ipv6 && [parsePrefix6(options.ipv6.network), parsePrefix6(options.ipv6.own)];
  const publish = (peers: readonly PeerText[]): void => {
    const [prefix, ownSubnet] = [parsePrefix4(network), parsePrefix4(own)];
    if (prefix === undefined || ownSubnet === undefined) throw new Error(`not a prefix: ${network}, ${own}`);
    const [network6, own6] = prefixes6 ?? [];
    const content: PeerTableContent = {
      ipv4: underlay === 4 ? { network: prefix, own: ownSubnet } : undefined,
      ipv6: network6 && own6 && { network: network6, own: own6 },
      peers: peers.map(underlay === 4 ? peerOf : peer6Of),
      mtu,
    };
    table.publish(content);
  };
  publish(options.peers ?? (options.ipv6 === undefined ? TWO_PEERS : TWO_DUAL_PEERS));
  const side = <Core>(index: number, make: (parts: SideParts) => Core): MemorySide<Core> => {
    const layout = new GuardedLayout(createArena(() => PRETENDED_BASE));
    const tun = new MemoryTun(layout);
    const conn = new MemoryConn(layout, underlay);
    const [icmp, icmp6] = [new MemoryIcmp(layout), new MemoryIcmp(layout)];
    const limits = IcmpLimits.create();
    const errors = new IcmpErrors(layout, icmp, counters, clock.read, limits);
    errors.setSource(OWN_ADDRESS);
    const errors6 = new Icmp6Errors(layout, icmp6, counters, clock.read, limits);
    if (options.ipv6 !== undefined) errors6.setSource(address6(options.ipv6.own.split('/')[0]!));
    const core = make({
      ...{ layout, tun, conn, table: table.reader(index), counters, icmp: errors, icmp6: errors6 },
      underlay: underlay === 4 ? IPV4_UNDERLAY : IPV6_UNDERLAY,
    });
    return { core, layout, tun, conn, icmp, icmp6 };
  };
  const tx = side(0, (parts) => new Outbound(parts));
  const checks = { sourceCheck, destinationCheck, localAddresses, localAddresses6, refusedSenders, joinUdp };
  const rx = side(1, (parts) => new Inbound({ ...parts, ...checks }));
  const run = (): void => {
    while (tx.tun.incoming.length > 0) tx.core.step();
    while (rx.conn.incoming.length > 0) rx.core.step();
    tx.layout.checkGuards();
    rx.layout.checkGuards();
  };
  return { tx, rx, table, counters, clock, publish, run };
}

type SideParts = ConstructorParameters<typeof Outbound>[0];
