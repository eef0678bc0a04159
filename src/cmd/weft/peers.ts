import { Command } from 'commander';
import { familyPrefix, probesOf } from '../../api/peer-probes.ts';
import type { Answer, Peer } from '../../api/schema.ts';
import { printable } from '../../printable.ts';
import { shortSpan } from '../../time-span.ts';
import { wrapped } from '../../wrapped.ts';
import { listCommand } from './lists.ts';
import { type Column, table } from './table.ts';
import { formatAmount, formatCount, formatRtt } from './units.ts';

/** `weft peers`: the other hosts, how packets reach them, what has passed and what was refused. */
export function peersCommand(): Command {
  return listCommand(
    new Command('peers')
      .summary('list the other hosts, and how packets reach them')
      .description(
        'List the other hosts: how packets reach each of them, round-trip time and loss, packets exchanged and dropped.',
      ),
    {
      ask: (client, signal) => client.get('/peers', signal),
      render: renderPeers,
    },
  );
}

/** A line a peer, and below them what is wrong with the way to one, with what to do. Pure. */
export function renderPeers({ atMs, peers }: Answer<'/peers'>, columns: number): string {
  const drops: Column<Peer> = {
    title: 'DROPS',
    right: true,
    text: ({ tx, rx }) => (tx === undefined ? '-' : formatCount(dropsOf(tx) + dropsOf(rx))),
  };
  // In place of drops, which nobody counts there.
  const handshake: Column<Peer> = {
    title: 'HANDSHAKE',
    right: true,
    text: ({ tunnel }) => ageOf(tunnel?.lastHandshakeAtMs, atMs),
  };
  const list: readonly Column<Peer>[] = [
    { title: 'SUBNET', text: ({ subnets }) => subnets.join(' '), minWidth: 15 },
    { title: 'HOST', text: ({ publicAddresses, holder }) => holder ?? publicAddresses[0] ?? '-', minWidth: 7 },
    { title: 'PATH', text: ({ path }) => path },
    {
      title: 'RTT',
      right: true,
      text: ({ probe }) => (probe?.rttMs === undefined ? '-' : formatRtt(probe.rttMs)),
    },
    {
      title: 'LOSS',
      right: true,
      text: ({ probe }) => (probe?.lossRatio === undefined ? '-' : `${Math.round(probe.lossRatio * 100)}%`),
    },
    { title: 'SENT', right: true, text: ({ tx, tunnel }) => amount(tx?.bytes ?? tunnel?.sentBytes) },
    { title: 'RCVD', right: true, text: ({ rx, tunnel }) => amount(rx?.bytes ?? tunnel?.receivedBytes) },
    peers.some(({ path }) => path === 'wireguard') ? handshake : drops,
    { title: 'SEEN', right: true, text: ({ lastSeenAtMs }) => ageOf(lastSeenAtMs, atMs) },
  ];
  if (peers.length === 0) return 'No peers.\n';
  const reasons = peers.flatMap((peer) => whatIsWrong(peer, columns));
  return `${table(list, peers, columns)}${reasons.length === 0 ? '' : `\n${reasons.join('\n')}\n`}`;
}

function whatIsWrong(peer: Peer, columns: number): string[] {
  const { id, reason } = peer;
  const lines = reason === undefined ? [] : wrapped(`${id}: ${printable(reason)}`, '  ', columns);
  for (const probe of probesOf(peer)) {
    const { problem, fault, remedy } = probe;
    if (problem === undefined) continue;
    const what = fault === undefined ? problem : `${fault}: ${problem}`;
    lines.push(...wrapped(`${id}: ${familyPrefix(peer, probe)}${printable(what)}`, '  ', columns));
    if (remedy !== undefined) lines.push(...wrapped(`  → ${printable(remedy)}`, '    ', columns));
  }
  return lines;
}

/** Packets that were dropped, whatever the reason. */
export function dropsOf(traffic: Peer['tx']): number {
  return Object.values(traffic?.drops ?? {}).reduce((sum, count) => sum + count, 0);
}

function ageOf(thenMs: number | undefined, nowMs: number): string {
  return thenMs === undefined ? '-' : shortSpan(nowMs - thenMs);
}

function amount(bytes: number | undefined): string {
  return bytes === undefined ? '-' : formatAmount(bytes);
}
