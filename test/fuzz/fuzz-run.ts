import { DROP_REASONS } from '../../src/dataplane/drop-reason.ts';
import { RECEIVE_MESSAGES, TUN_BATCH_PACKETS } from '../../src/dataplane/limits.ts';
import { cut } from '../fakes/kernel-offload.ts';
import {
  EAGAIN,
  EINVAL,
  EIO,
  EMSGSIZE,
  ENETDOWN,
  ENOBUFS,
  type MemoryHost,
  memoryHost,
  OWN_IPV6,
  type PeerText,
  TWO_DUAL_PEERS,
} from '../fakes/memory-dataplane.ts';
import { hex } from '../fakes/packets.ts';
import { type FuzzDatagram, PacketSource } from './packet-source.ts';
import { Random } from './random.ts';

export interface FuzzTotals {
  /** Frames read from the TUN and datagrams received. */
  readonly packets: number;
  readonly frames: number;
  readonly datagrams: number;
  readonly sent: number;
  readonly written: number;
  readonly joined: number;
  readonly drops: Readonly<Record<string, number>>;
}

/** What was found, with the packets that show it. */
export class FuzzFailure extends Error {
  override readonly name = 'FuzzFailure';
}

export interface FuzzOptions {
  readonly packets: number;
  readonly seed: number;
  /** Called after each batch with the packets so far and the state that makes the next batch again. */
  readonly onBatch?: (packets: number, state: number) => void;
}

const MORE_PEERS: readonly PeerText[] = [
  ...TWO_DUAL_PEERS,
  {
    slot: 7,
    subnet: '10.244.2.128/25',
    publicIp: '192.168.77.3',
    ipv6Subnet: 'fd00:244:0:2:0:0:0:c0/122',
    publicIpv6: 'fd00:77::3',
  },
  {
    slot: 8,
    subnet: '8.0.0.0/8',
    publicIp: '192.168.77.4',
    ipv6Subnet: '2001:db8::/32',
    publicIpv6: 'fd00:77::4',
    port: 1,
  },
];

type Batch =
  | { readonly direction: 'out'; readonly frames: readonly Uint8Array[]; readonly setting: Setting }
  | { readonly direction: 'in'; readonly datagrams: readonly FuzzDatagram[]; readonly setting: Setting };

/** What the devices and the control plane do meanwhile. */
interface Setting {
  readonly host: number;
  readonly peers: readonly PeerText[] | undefined;
  readonly mtu: number;
  readonly sendFailures: readonly number[];
  readonly writeFailures: readonly number[];
  readonly forget: boolean;
}

function settingOf(random: Random): Setting {
  const isTroubled = random.oneIn(10);
  const errnos = [0, 0, 0, EAGAIN, EAGAIN, EMSGSIZE, EINVAL, ENOBUFS, ENETDOWN];
  return {
    host: random.below(4),
    peers: random.oneIn(50)
      ? random.pick([TWO_DUAL_PEERS, MORE_PEERS, []])
      : random.oneIn(10)
        ? TWO_DUAL_PEERS
        : undefined,
    mtu: random.oneIn(20) ? 100 + random.below(1_400) : 65_535,
    sendFailures: isTroubled ? Array.from({ length: random.below(6) }, () => random.pick(errnos)) : [],
    writeFailures: isTroubled ? Array.from({ length: random.below(4) }, () => EIO) : [],
    forget: random.oneIn(5),
  };
}

function batchOf(source: PacketSource, random: Random): Batch {
  const setting = settingOf(random);
  if (!random.oneIn(4)) return { direction: 'out', frames: source.frames(random), setting };
  return { direction: 'in', datagrams: source.datagrams(random), setting };
}

/**
 * One host for each source check and destination check; the second takes no UDP super-packets and its kernel refuses UDP_SEGMENT, the
 * last is in a network of IPv6 alone.
 */
function makeHosts(): MemoryHost[] {
  const hosts = [
    memoryHost({ sourceCheck: 'loose', own: '10.244.0.0/16', ipv6: { ...OWN_IPV6, own: 'fd00:244::/48' } }),
    memoryHost({ sourceCheck: 'off', destinationCheck: 'off', joinUdp: false, ipv6: OWN_IPV6 }),
    memoryHost({ sourceCheck: 'strict', destinationCheck: 'strict', own: '10.244.2.0/23' }),
    memoryHost({ underlay: 6, ipv6: { ...OWN_IPV6, own: 'fd00:244::/48' } }),
  ];
  hosts[1]!.tx.conn.segmentationRefused = EIO;
  hosts[1]!.rx.tun.takesUdp = false;
  return hosts;
}

interface Sum {
  passed: number;
  dropped: number;
  writeFailed: number;
}

const SLOTS = 16;

function sumOf(host: MemoryHost, direction: 'tx' | 'rx'): Sum {
  const sum = { passed: 0, dropped: 0, writeFailed: 0 };
  for (let slot = 0; slot < SLOTS; slot++) {
    const { packets, drops } = host.counters.read(slot, direction);
    sum.passed += packets;
    for (const count of Object.values(drops)) sum.dropped += count;
    sum.writeFailed += drops['tun-write-failed'] ?? 0;
  }
  return sum;
}

function expect(condition: boolean, what: string): void {
  if (!condition) throw new Error(what);
}

interface Outcome {
  readonly packets: number;
  readonly sent: number;
  readonly written: number;
  readonly joined: number;
}

/** Steps until the queue is empty; a core that needs more steps than there are packets does not move on. */
function stepAll(step: () => number, pending: () => number, perStep: number): void {
  let left = 2 + Math.ceil(pending() / perStep) * 3;
  while (pending() > 0) {
    if (left-- === 0) throw new Error(`${pending()} packets were still there after as many steps as should have done`);
    step();
  }
}

/** The most packets a frame can become. */
function mostPackets(bytes: Uint8Array): number {
  if (bytes.length < 12 || bytes[1] === 0) return 1;
  const gsoSize = bytes[4]! | (bytes[5]! << 8);
  return gsoSize === 0 ? 1 : Math.max(1, Math.ceil(bytes.length / gsoSize));
}

function runOut(host: MemoryHost, frames: readonly Uint8Array[], setting: Setting): Outcome {
  const { core, tun, conn, layout } = host.tx;
  const before = sumOf(host, 'tx');
  let most = 0;
  for (const bytes of frames) most += mostPackets(bytes);
  conn.mtu = setting.mtu;
  conn.sendFailures.push(...setting.sendFailures);
  tun.incoming.push(...frames);
  stepAll(
    () => core.step(),
    () => tun.incoming.length,
    TUN_BATCH_PACKETS,
  );
  layout.checkGuards();
  const after = sumOf(host, 'tx');
  const passed = after.passed - before.passed;
  const counted = passed + after.dropped - before.dropped;
  expect(passed === conn.sent.length, `${passed} packets counted as passed, ${conn.sent.length} datagrams sent`);
  expect(counted >= frames.length, `${frames.length} packets in, ${counted} counted`);
  expect(counted <= most, `${frames.length} packets in can become ${most}, ${counted} counted`);
  for (const { data } of conn.sent) {
    const version = data[0]! >>> 4;
    const total = version === 6 ? 40 + ((data[4]! << 8) | data[5]!) : (data[2]! << 8) | data[3]!;
    const isSound = (version === 4 || version === 6) && total === data.length && data[version === 6 ? 7 : 8] !== 0;
    if (!isSound) throw new Error(`sent ${hex(data)}`);
  }
  const sent = conn.sent.length;
  conn.sent.length = 0;
  conn.messages.length = 0;
  conn.sendFailures.length = 0;
  return { packets: frames.length, sent, written: 0, joined: 0 };
}

/** The same datagram in an underlay of IPv6: 192.168.77.2 is fd00:77::2 there. */
function over6(datagram: FuzzDatagram): FuzzDatagram {
  return { ...datagram, address: (0xfd00_0077n << 96n) | (BigInt(datagram.address) & 0xffn) };
}

function runIn(host: MemoryHost, datagrams: readonly FuzzDatagram[], setting: Setting): Outcome {
  const { core, tun, conn, layout } = host.rx;
  const before = sumOf(host, 'rx');
  let arrived = 0;
  for (const { data, segment } of datagrams) {
    arrived += data.length === 0 || segment === 0 ? 1 : Math.ceil(data.length / segment);
  }
  tun.writeFailures.push(...setting.writeFailures);
  conn.incoming.push(...(setting.host === 3 ? datagrams.map(over6) : datagrams));
  stepAll(
    () => core.step(),
    () => conn.incoming.length,
    RECEIVE_MESSAGES,
  );
  layout.checkGuards();
  const after = sumOf(host, 'rx');
  const passed = after.passed - before.passed;
  const dropped = after.dropped - before.dropped;
  expect(passed + dropped === arrived, `${arrived} datagrams in, ${passed} passed and ${dropped} dropped`);
  if (setting.writeFailures.length === 0) {
    expect(after.writeFailed === before.writeFailed, 'the kernel refused a frame that it was told to take');
  }
  let written = 0;
  let joined = 0;
  for (const bytes of tun.written) {
    if (bytes[1] === 0) {
      written++;
      continue;
    }
    const packets = cut(bytes).length;
    written += packets;
    joined += packets;
  }
  expect(written === passed, `${passed} packets counted as passed, ${written} written`);
  tun.written.length = 0;
  tun.writeFailures.length = 0;
  return { packets: arrived, sent: 0, written, joined };
}

function runBatch(hosts: readonly MemoryHost[], batch: Batch): Outcome {
  const { setting } = batch;
  const host = hosts[setting.host]!;
  host.clock.nowMs += 5;
  if (setting.peers !== undefined) host.publish(setting.peers);
  if (setting.forget) host.table.forgetPathMtus();
  const outcome =
    batch.direction === 'out' ? runOut(host, batch.frames, setting) : runIn(host, batch.datagrams, setting);
  host.tx.icmp.sent.length = 0;
  host.rx.icmp.sent.length = 0;
  host.tx.icmp6.sent.length = 0;
  host.rx.icmp6.sent.length = 0;
  return outcome;
}

function describeBatch(batch: Batch): string {
  const lines =
    batch.direction === 'out'
      ? batch.frames.map(hex)
      : batch.datagrams.map(
          (datagram) => `segment ${datagram.segment} from ${datagram.address}: ${hex(datagram.data)}`,
        );
  return `${batch.direction}bound, ${JSON.stringify(batch.setting)}\n${lines.join('\n')}`;
}

/** The one packet of a batch that fails by itself on a new host, or the whole batch. */
function offender(batch: Batch): Batch {
  const count = batch.direction === 'out' ? batch.frames.length : batch.datagrams.length;
  for (let index = 0; index < count; index++) {
    const single: Batch =
      batch.direction === 'out'
        ? { ...batch, frames: batch.frames.slice(index, index + 1) }
        : { ...batch, datagrams: batch.datagrams.slice(index, index + 1) };
    try {
      runBatch(makeHosts(), single);
    } catch {
      return single;
    }
  }
  return batch;
}

/** What the batch after `state` holds, to be shown when it did not come to an end. */
export function batchAt(seed: number, state: number): string {
  return describeBatch(batchOf(new PacketSource(new Random(seed)), new Random(state)));
}

/**
 * Sends random, damaged and valid packets through both directions and checks after each batch that every packet was
 * counted once, that no byte outside the regions in use was written, and that both kernels would take what came out.
 * @throws FuzzFailure with the packets in hex.
 */
export function runFuzz({ packets: wanted, seed, onBatch }: FuzzOptions): FuzzTotals {
  const source = new PacketSource(new Random(seed));
  const random = new Random(seed ^ 0x5bd1_e995);
  const hosts = makeHosts();
  const totals = { packets: 0, frames: 0, datagrams: 0, sent: 0, written: 0, joined: 0 };
  while (totals.packets < wanted) {
    onBatch?.(totals.packets, random.state);
    const batch = batchOf(source, random);
    try {
      const { packets, sent, written, joined } = runBatch(hosts, batch);
      totals.packets += packets;
      totals[batch.direction === 'out' ? 'frames' : 'datagrams'] += packets;
      totals.sent += sent;
      totals.written += written;
      totals.joined += joined;
    } catch (error) {
      const reason = error instanceof Error ? error.stack : String(error);
      throw new FuzzFailure(
        `after ${totals.packets} packets of seed ${seed}: ${reason}\n${describeBatch(offender(batch))}`,
      );
    }
  }
  const drops: Record<string, number> = {};
  for (const host of hosts) {
    for (let slot = 0; slot < SLOTS; slot++) {
      for (const direction of ['tx', 'rx'] as const) {
        const byReason = host.counters.read(slot, direction).drops;
        for (const reason of DROP_REASONS) {
          const count = byReason[reason] ?? 0;
          if (count > 0) drops[reason] = (drops[reason] ?? 0) + count;
        }
      }
    }
  }
  return { ...totals, drops };
}
