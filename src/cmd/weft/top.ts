import { setTimeout as delay } from 'node:timers/promises';
import { Command } from 'commander';
import type { Peer } from '../../api/schema.ts';
import { untilStopped } from '../stop-signal.ts';
import { askAll, clientsOf, type SelfAndPeers, selfAndPeers, type TargetFlags, withTarget } from './agent-target.ts';
import { terminalColumns } from './lists.ts';
import { dropsOf } from './peers.ts';
import { type Column, table } from './table.ts';
import { formatBitRate, formatBytes, formatCount, formatRtt } from './units.ts';

const LOOK_MS = 1_000;
const CLEAR = '\u001b[2J\u001b[H';
/** Without a terminal there are no rows to fill. */
const PLAIN_ROWS = 20;
/** Head of the table and of the screen. */
const HEAD_ROWS = 4;

interface TopFlags extends TargetFlags {
  readonly once?: true;
}

/** `weft top`: rates of the peers that packets flow to, the busiest first; on a terminal again every second. */
export function topCommand(): Command {
  return withTarget(new Command('top'))
    .summary('show live packet rates for each host')
    .description(
      'Show live packet rates, round-trip times, drops and processor time. Without a terminal, print plain text once a second.',
    )
    .option('--once', 'measure for one second, print once and exit')
    .action((flags: TopFlags) => show(flags));
}

async function show(flags: TopFlags): Promise<void> {
  using stopped = untilStopped();
  const { signal } = stopped;
  const clients = await clientsOf(flags, signal);
  const look = () => askAll(clients, (client) => selfAndPeers(client, signal), signal);
  let before = await look();
  do {
    await delay(LOOK_MS, undefined, { signal }).catch(() => {});
    if (signal.aborted) return;
    const now = await look().catch(() => undefined);
    if (now === undefined) return;
    const { isTTY, rows } = process.stdout;
    const room = isTTY ? Math.max(1, Math.floor(rows / clients.length) - HEAD_ROWS) : PLAIN_ROWS;
    const parts = now.map((one, at) => {
      const earlier = before[at]!;
      const head = clients.length > 1 ? `== ${one.name}\n` : '';
      if ('error' in one) return `${head}✖ ${one.text}\n`;
      if ('error' in earlier) return head;
      return flags.json === true
        ? `${JSON.stringify({ name: one.name, ...topOf(earlier.answer, one.answer) })}\n`
        : `${head}${renderTop(earlier.answer, one.answer, room, terminalColumns())}`;
    });
    process.stdout.write(`${isTTY && flags.json !== true && flags.once !== true ? CLEAR : ''}${parts.join('')}`);
    process.exitCode = now.some((one) => 'error' in one) ? 1 : 0;
    before = now;
  } while (flags.once !== true && !signal.aborted);
}

interface PeerRates {
  readonly peer: Peer;
  readonly txBytesPerSecond: number;
  readonly rxBytesPerSecond: number;
  readonly packetsPerSecond: number;
  readonly dropsPerSecond: number;
}

interface Top {
  /** Of one processor. */
  readonly cpuRatio: number;
  readonly rssBytes: number;
  readonly peers: readonly PeerRates[];
}

/** What flowed between two looks at one agent, the busiest peer first. Pure. */
export function topOf(before: SelfAndPeers, now: SelfAndPeers): Top {
  const spent = Math.max(0.001, (now.self.atMs - before.self.atMs) / 1_000);
  const passed = Math.max(0.001, (now.peers.atMs - before.peers.atMs) / 1_000);
  const earlier = new Map(before.peers.peers.map((peer) => [peer.id, peer]));
  const peers = now.peers.peers.map((peer): PeerRates => {
    const old = earlier.get(peer.id);
    // Counters that begin anew, as after a restart, have no rate.
    const rate = (value: (peer: Peer) => number): number =>
      old === undefined ? 0 : Math.max(0, (value(peer) - value(old)) / passed);
    return {
      peer,
      txBytesPerSecond: rate(({ tx, tunnel }) => tx?.bytes ?? tunnel?.sentBytes ?? 0),
      rxBytesPerSecond: rate(({ rx, tunnel }) => rx?.bytes ?? tunnel?.receivedBytes ?? 0),
      packetsPerSecond: rate(({ tx, rx }) => (tx?.packets ?? 0) + (rx?.packets ?? 0)),
      dropsPerSecond: rate(({ tx, rx }) => dropsOf(tx) + dropsOf(rx)),
    };
  });
  const load = ({ txBytesPerSecond, rxBytesPerSecond }: PeerRates): number => txBytesPerSecond + rxBytesPerSecond;
  return {
    cpuRatio: Math.max(0, (now.self.process.cpuSeconds - before.self.process.cpuSeconds) / spent),
    rssBytes: now.self.process.rssBytes,
    peers: peers.sort((a, b) => load(b) - load(a)),
  };
}

/** A screen of at most so many peers. Pure. */
export function renderTop(before: SelfAndPeers, now: SelfAndPeers, rows: number, columns: number): string {
  const { cpuRatio, rssBytes, peers } = topOf(before, now);
  const list: readonly Column<PeerRates>[] = [
    { title: 'SUBNET', text: ({ peer }) => peer.subnets.join(' '), minWidth: 15 },
    { title: 'HOST', text: ({ peer }) => peer.holder ?? peer.publicAddresses[0] ?? '-', minWidth: 9 },
    { title: 'PATH', text: ({ peer }) => peer.path },
    { title: 'TX b/s', right: true, text: ({ txBytesPerSecond }) => formatBitRate(txBytesPerSecond) },
    { title: 'RX b/s', right: true, text: ({ rxBytesPerSecond }) => formatBitRate(rxBytesPerSecond) },
    { title: 'PKT/S', right: true, text: ({ packetsPerSecond }) => formatCount(packetsPerSecond) },
    { title: 'DROP/S', right: true, text: ({ dropsPerSecond }) => formatCount(dropsPerSecond) },
    {
      title: 'RTT',
      right: true,
      text: ({ peer }) => (peer.probe?.rttMs === undefined ? '-' : formatRtt(peer.probe.rttMs)),
    },
  ];
  const { self } = now;
  const head = `${self.host}  ${self.ready ? 'ready' : 'not ready'}  CPU ${(cpuRatio * 100).toFixed(1)}%  memory ${formatBytes(rssBytes)}  ${peers.length} peers\n`;
  return `${head}${table(list, peers.slice(0, rows), columns)}`;
}
