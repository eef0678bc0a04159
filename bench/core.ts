/**
 * What the data plane's core costs, without system calls, root or a network:
 *
 *   node bench/core.ts [--json] [--rounds 9] [--only tx-tcp-64k]
 *
 * Each scenario runs its direction of the forwarder on devices that do next to nothing: packets already lie where they
 * would be read to, and a device only mends the few header bytes that the core changed. What the devices cost by
 * themselves is measured too and taken off. A group of scenarios has a thread of its own, as a direction has in the agent.
 */
import { parseArgs } from 'node:util';
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads';
import { type Arena, ArenaLayout, createArena } from '../src/dataplane/arena.ts';
import { Counters } from '../src/dataplane/counters.ts';
import { IcmpErrors } from '../src/dataplane/icmp-error.ts';
import { IcmpLimits } from '../src/dataplane/icmp-limits.ts';
import { Icmp6Errors } from '../src/dataplane/icmp6-error.ts';
import { Inbound } from '../src/dataplane/inbound.ts';
import { LocalAddresses } from '../src/dataplane/local-addresses.ts';
import { LocalAddresses6 } from '../src/dataplane/local-addresses6.ts';
import { MESSAGE_SIZE, putReceivedSegmentSize, setReceivedLength } from '../src/dataplane/mmsghdr.ts';
import { Outbound } from '../src/dataplane/outbound.ts';
import { type Ipv4Peer, PeerTable } from '../src/dataplane/peer-table.ts';
import type { Conn, Tun } from '../src/dataplane/ports.ts';
import { IPV4_UNDERLAY } from '../src/dataplane/underlay.ts';
import { ipv4Of } from '../src/ip/ipv4.ts';
import { prefix4 } from '../src/ip/prefix.ts';
import { payloadOf, tcpFrame, tcpPacket, udpFrame, udpPacket } from '../test/fakes/packets.ts';

const OWN = 0x0a00_0105;
/** 10.x.y.0/24 from 10.1.0.0 on, one for each peer. */
const subnetOf = (peer: number): number => 0x0a01_0000 + peer * 256;
const outerOf = (peer: number): number => 0x0b00_0001 + peer;

interface Scenario {
  readonly name: string;
  readonly about: string;
  readonly peers: number;
  /** One frame for tx; the datagrams of one message for rx. */
  readonly packets: (peer: number) => Uint8Array[];
  readonly direction: 'tx' | 'rx';
}

const TIMESTAMPS = Uint8Array.from([1, 1, 8, 10, 0, 0, 1, 2, 0, 0, 3, 4]);
const ports = { sourcePort: 40_000, destinationPort: 5_201 };
const outward = (peer: number) => ({ source: OWN, destination: subnetOf(peer) + 5, id: 1, dontFragment: true });
const inward = (peer: number, id: number) => ({ source: subnetOf(peer) + 5, destination: OWN, id, dontFragment: true });

const smallOut = (peer: number): Uint8Array[] => [udpFrame({ ip: outward(peer), ...ports, payload: payloadOf(64) }, 0)];
const smallIn =
  (count: number) =>
  (peer: number): Uint8Array[] =>
    Array.from({ length: count }, (_, id) => udpPacket({ ip: inward(peer, id), ...ports, payload: payloadOf(64, id) }));

/** Scenarios of one group share a thread and are measured in turn. */
const GROUPS: readonly (readonly Scenario[])[] = [
  [
    {
      name: 'tx-tcp-64k',
      about: '64 KiB TCP super-packets, cut into 1,472-byte packets',
      direction: 'tx',
      peers: 1,
      packets: (peer) => [
        tcpFrame({ ip: outward(peer), ...ports, options: TIMESTAMPS, payload: payloadOf(65_320) }, 1_420),
      ],
    },
  ],
  [
    { name: 'tx-udp-64', about: '64-byte UDP packets to one peer', direction: 'tx', peers: 1, packets: smallOut },
    { name: 'tx-udp-64-3', about: 'the same to 3 peers at random', direction: 'tx', peers: 3, packets: smallOut },
    {
      name: 'tx-udp-64-5000',
      about: 'the same to 5,000 peers at random',
      direction: 'tx',
      peers: 5_000,
      packets: smallOut,
    },
  ],
  [
    {
      name: 'rx-tcp-bulk',
      about: 'TCP segments of 1,420 bytes, 44 in a message, put together',
      direction: 'rx',
      peers: 1,
      packets: (peer) =>
        Array.from({ length: 44 }, (_, id) =>
          tcpPacket({
            ip: inward(peer, id),
            ...ports,
            sequence: id * 1_420,
            options: TIMESTAMPS,
            payload: payloadOf(1_420, id),
          }),
        ),
    },
  ],
  [
    {
      name: 'rx-udp-64-gro',
      about: '64-byte UDP, 64 in a message, put together',
      direction: 'rx',
      peers: 1,
      packets: smallIn(64),
    },
  ],
  [
    {
      name: 'rx-udp-64-3',
      about: '64-byte UDP from 3 peers, one in a message',
      direction: 'rx',
      peers: 3,
      packets: smallIn(1),
    },
    { name: 'rx-udp-64-5000', about: 'the same from 5,000 peers', direction: 'rx', peers: 5_000, packets: smallIn(1) },
  ],
];

/** Peers in random order, more than any batch takes, the same every time. */
function order(peers: number): Int32Array {
  const list = new Int32Array(16_384);
  let state = 1;
  for (let index = 0; index < list.length; index++) {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    list[index] = Math.floor((state / 0x1_0000_0000) * peers);
  }
  return list;
}

/** A TUN whose packets already lie where they are read to. */
class BenchTun implements Tun {
  readonly #arena: Arena;
  readonly #frame: Uint8Array;
  readonly #restore: Uint8Array;
  readonly #order: Int32Array;
  readonly #laid: Uint8Array;
  readonly #isSmall: boolean;
  #next = 0;

  constructor(arena: Arena, frame: Uint8Array, peers: number) {
    this.#arena = arena;
    this.#frame = frame;
    this.#restore = frame.slice(0, Math.min(frame.length, 80));
    this.#order = order(peers);
    this.#laid = new Uint8Array(arena.size / 2);
    this.#isSmall = frame.length < 200;
  }

  read(offset: number): number {
    const { view, bytes } = this.#arena;
    if (this.#laid[offset >>> 1] === 0) {
      bytes.set(this.#frame, offset);
      this.#laid[offset >>> 1] = 1;
    }
    const ip = offset + 10;
    if (this.#isSmall) {
      view.setUint8(ip + 8, 64);
      view.setUint16(ip + 26, 0);
      const peer = this.#order[this.#next++ & 16_383]!;
      view.setUint32(ip + 16, subnetOf(peer) + 5);
    } else {
      bytes.set(this.#restore, offset);
    }
    return this.#frame.length;
  }

  writev(): number {
    return 1;
  }
}

/** A socket whose datagrams already lie in the receive buffers. */
class BenchConn implements Conn {
  readonly #arena: Arena;
  readonly #packets: readonly Uint8Array[];
  readonly #order: Int32Array;
  readonly #buffers: number[] = [];
  readonly #lengths: Int32Array;
  readonly #heads: Uint32Array;
  readonly #size: number;
  readonly #total: number;
  #next = 0;

  constructor(arena: Arena, packets: readonly Uint8Array[], peers: number) {
    this.#arena = arena;
    this.#packets = packets;
    this.#order = order(peers);
    this.#lengths = Int32Array.from(packets.map((packet) => packet.length));
    // What the core may have changed: length, TTL with protocol and checksum, the flags, the transport checksum.
    this.#heads = new Uint32Array(packets.length * 4);
    packets.forEach((packet, index) => {
      const view = new DataView(packet.buffer);
      const isTcp = packet[9] === 6;
      this.#heads.set(
        [view.getUint32(0), view.getUint32(8), view.getUint32(isTcp ? 32 : 24), isTcp ? view.getUint32(36) : 0],
        index * 4,
      );
    });
    this.#size = packets[0]!.length;
    this.#total = packets.reduce((sum, packet) => sum + packet.length, 0);
  }

  send(_: number, count: number): number {
    return count;
  }

  sendFragmentable(): number {
    return 1;
  }

  waitWritable(): boolean {
    return true;
  }

  pathMtu(): number {
    return 1_500;
  }

  receive(messages: number, count: number): number {
    const { view } = this.#arena;
    for (let index = 0; index < count; index++) {
      const message = messages + index * MESSAGE_SIZE;
      const buffer = (this.#buffers[index] ??= this.#layDown(message));
      const peer = this.#order[this.#next++ & 16_383]!;
      view.setUint32(view.getUint32(message, true) + 4, outerOf(peer));
      setReceivedLength(this.#arena, message, this.#total);
      putReceivedSegmentSize(
        this.#arena,
        message,
        view.getUint32(message + 32, true),
        this.#lengths.length > 1 ? this.#size : 0,
      );
      let ip = buffer;
      for (let packet = 0; packet < this.#lengths.length; packet++) {
        view.setUint32(ip, this.#heads[packet * 4]!);
        view.setUint32(ip + 8, this.#heads[packet * 4 + 1]!);
        view.setUint32(ip + 12, subnetOf(peer) + 5);
        if (this.#heads[packet * 4 + 3] === 0) {
          view.setUint32(ip + 24, this.#heads[packet * 4 + 2]!);
        } else {
          view.setUint32(ip + 32, this.#heads[packet * 4 + 2]!);
          view.setUint32(ip + 36, this.#heads[packet * 4 + 3]!);
        }
        ip += this.#lengths[packet]!;
      }
    }
    return count;
  }

  #layDown(message: number): number {
    const { view, bytes } = this.#arena;
    const buffer = view.getUint32(view.getUint32(message + 16, true), true);
    let at = buffer;
    for (const packet of this.#packets) {
      bytes.set(packet, at);
      at += packet.length;
    }
    return buffer;
  }
}

const CHECKS = {
  sourceCheck: 'loose',
  destinationCheck: 'loose',
  localAddresses: LocalAddresses.allocate(),
  localAddresses6: LocalAddresses6.allocate(),
} as const;

/** A scenario made ready: both functions do one batch and return the packets on the wire. */
interface Ready {
  readonly scenario: Scenario;
  readonly step: () => number;
  /** The devices alone, called as the core calls them. */
  readonly devices: () => number;
  readonly bytesPerPacket: number;
}

function makeReady(scenario: Scenario): Ready {
  const { direction, peers: peerCount } = scenario;
  const arena = createArena();
  const layout = new ArenaLayout(arena);
  const counters = Counters.allocate(8_192);
  const table = PeerTable.allocate(8_192);
  const peers: Ipv4Peer[] = Array.from({ length: peerCount }, (_, peer) => ({
    slot: peer + 1,
    subnets: { ipv4: prefix4(ipv4Of(subnetOf(peer)), 24), ipv6: undefined },
    publicAddresses: { ipv4: ipv4Of(outerOf(peer)), ipv6: undefined },
    port: 8_285,
  }));
  const all = prefix4(ipv4Of(0), 0);
  const ipv4 = { network: prefix4(ipv4Of(0x0a00_0000), 8), own: all };
  table.publish({ ipv4, ipv6: undefined, peers, mtu: 1_472 });
  const packets = scenario.packets(0);
  const tun = new BenchTun(arena, packets[0]!, peerCount);
  const conn = new BenchConn(arena, packets, peerCount);
  const reader = table.reader(direction === 'tx' ? 0 : 1);
  const parts = { layout, tun, conn, table: reader, counters, ...icmpOf(layout, counters), underlay: IPV4_UNDERLAY };
  const total = (): number => {
    let passed = 0;
    for (let slot = 0; slot <= peerCount; slot++) passed += counters.read(slot, direction).packets;
    return passed;
  };
  const core = direction === 'tx' ? new Outbound(parts) : new Inbound({ ...parts, ...CHECKS, joinUdp: true });
  core.step();
  const perStep = total();
  const reads = counters.readGauges().txReads;
  const device = direction === 'tx' ? new BenchTun(arena, packets[0]!, peerCount) : tun;
  const messages = 64; // the receive vector lies wherever the layout put it: the fresh connection below finds its own
  const step = (): number => {
    core.step();
    return perStep;
  };
  const devices =
    direction === 'tx'
      ? () => {
          for (let read = 0; read < reads; read++)
            device.read(messages + read * Math.ceil((packets[0]!.length + 66) / 64) * 64);
          return perStep;
        }
      : bareReceive(packets, peerCount, perStep);
  for (let warm = 0; warm < 3; warm++) step();
  if (total() !== perStep * 4) throw new Error(`${scenario.name}: ${total()} packets passed instead of ${perStep * 4}`);
  const bytes = packets.reduce((sum, packet) => sum + packet.length, 0);
  const bytesPerPacket = direction === 'tx' ? bytes / (perStep / reads) : bytes / packets.length;
  return { scenario, step, devices, bytesPerPacket };
}

function icmpOf(layout: ArenaLayout, counters: Counters): { readonly icmp: IcmpErrors; readonly icmp6: Icmp6Errors } {
  const limits = IcmpLimits.create();
  const [out, clock] = [{ send: () => 1 }, () => 0];
  return {
    icmp: new IcmpErrors(layout, out, counters, clock, limits),
    icmp6: new Icmp6Errors(layout, out, counters, clock, limits),
  };
}

/** The socket alone: messages and buffers are those that Inbound lays out. */
function bareReceive(packets: readonly Uint8Array[], peers: number, perStep: number): () => number {
  const arena = createArena();
  const layout = new ArenaLayout(arena);
  const conn = new BenchConn(arena, packets, peers);
  let messages = 0;
  const spy: Conn = {
    send: () => 1,
    sendFragmentable: () => 1,
    waitWritable: () => true,
    pathMtu: () => 0,
    receive: (at) => {
      messages = at;
      return 0;
    },
  };
  const counters = Counters.allocate(1);
  const table = PeerTable.allocate(1).reader(0);
  const tun: Tun = { read: () => 0, writev: () => 1 };
  const parts = { layout, tun, conn: spy, table, counters, ...icmpOf(layout, counters), underlay: IPV4_UNDERLAY };
  new Inbound({ ...parts, ...CHECKS, joinUdp: true }).step();
  const count = perStep / packets.length;
  return () => {
    conn.receive(messages, count);
    return perStep;
  };
}

/** Nanoseconds of this thread's processor time a packet, over about `ms` milliseconds. */
function time(run: () => number, ms: number): number {
  const deadline = performance.now() + ms;
  const before = process.threadCpuUsage();
  let packets = 0;
  do for (let batch = 0; batch < 20; batch++) packets += run();
  while (performance.now() < deadline);
  const { user, system } = process.threadCpuUsage(before);
  return ((user + system) * 1e3) / packets;
}

export interface CoreResult {
  readonly name: string;
  readonly about: string;
  readonly nsPerPacket: number;
  readonly lowNs: number;
  readonly highNs: number;
  readonly deviceNs: number;
  readonly millionPacketsPerSecond: number;
  readonly gbitPerSecond: number;
}

const ROUND_MS = 120;

function measure(group: readonly Scenario[], rounds: number): CoreResult[] {
  const ready = group.map(makeReady);
  for (const { step, devices } of ready) {
    time(step, 400);
    time(devices, 100);
  }
  const samples = ready.map(() => [] as number[]);
  const own = ready.map(() => [] as number[]);
  for (let round = 0; round < rounds; round++) {
    ready.forEach(({ step, devices }, index) => {
      samples[index]!.push(time(step, ROUND_MS));
      own[index]!.push(time(devices, ROUND_MS / 4));
    });
  }
  return ready.map(({ scenario, bytesPerPacket }, index) => {
    const deviceNs = middle(own[index]!);
    const net = samples[index]!.map((ns) => ns - deviceNs).sort((a, b) => a - b);
    const nsPerPacket = middle(net);
    return {
      name: scenario.name,
      about: scenario.about,
      nsPerPacket,
      lowNs: net[0]!,
      highNs: net.at(-1)!,
      deviceNs,
      millionPacketsPerSecond: 1_000 / nsPerPacket,
      gbitPerSecond: (bytesPerPacket * 8) / nsPerPacket,
    };
  });
}

function middle(list: readonly number[]): number {
  return list.toSorted((a, b) => a - b)[list.length >> 1]!;
}

async function inThread(group: number, rounds: number): Promise<CoreResult[]> {
  const worker = new Worker(new URL(import.meta.url), { workerData: { group, rounds } });
  return new Promise((resolve, reject) => {
    worker.once('message', resolve);
    worker.once('error', reject);
  });
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: { json: { type: 'boolean' }, rounds: { type: 'string', default: '9' }, only: { type: 'string' } },
  });
  const rounds = Number(values.rounds);
  const results: CoreResult[] = [];
  for (let group = 0; group < GROUPS.length; group++) {
    if (values.only !== undefined && !GROUPS[group]!.some(({ name }) => name === values.only)) continue;
    results.push(...(await inThread(group, rounds)));
  }
  const ns = new Map(results.map(({ name, nsPerPacket }) => [name, nsPerPacket]));
  const ratio = (many: string, few: string): number => (ns.get(few) ?? Number.NaN) / (ns.get(many) ?? Number.NaN);
  const ratios = {
    'tx.peers5000.vsPeers3': ratio('tx-udp-64-5000', 'tx-udp-64-3'),
    'rx.peers5000.vsPeers3': ratio('rx-udp-64-5000', 'rx-udp-64-3'),
  };
  if (values.json === true) {
    console.log(JSON.stringify({ node: process.version, arch: process.arch, results, ratios }, null, 2));
    return;
  }
  console.log(`Node.js ${process.version}, ${rounds} rounds, median (lowest to highest) of the core alone`);
  for (const result of results) {
    const { name, about, nsPerPacket, lowNs, highNs, deviceNs, millionPacketsPerSecond, gbitPerSecond } = result;
    const spread = `${nsPerPacket.toFixed(1)} ns (${lowNs.toFixed(1)} to ${highNs.toFixed(1)}), devices ${deviceNs.toFixed(1)}`;
    console.log(
      `${name.padEnd(15)} ${spread.padEnd(48)} ${millionPacketsPerSecond.toFixed(1).padStart(6)} Mpps ${gbitPerSecond.toFixed(1).padStart(7)} Gbit/s  ${about}`,
    );
  }
  for (const [name, value] of Object.entries(ratios))
    if (!Number.isNaN(value)) console.log(`${name} ${value.toFixed(2)}`);
}

if (isMainThread) {
  await main();
} else {
  const { group, rounds } = workerData as { group: number; rounds: number };
  parentPort?.postMessage(measure(GROUPS[group] ?? [], rounds));
}
