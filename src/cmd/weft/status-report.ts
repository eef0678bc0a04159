import { printable, printableLines } from '../../printable.ts';
import { shortSpan } from '../../time-span.ts';
import { wrapped } from '../../wrapped.ts';
import type { StatusAnswers, StatusProblem } from './status-problems.ts';
import { formatBytes } from './units.ts';

const LABEL = 12;
const MAX_TEXT = 1_000;

/** One screen. Pure. */
export function renderStatus(answers: StatusAnswers, problems: readonly StatusProblem[]): string {
  const { self, peers } = answers;
  const { store, lease, external, dataPath, process } = self;
  const lines: string[] = [];
  const row = (label: string, text: string): void => void lines.push(`${label.padEnd(LABEL)}${printable(text)}`);
  const where = self.node === undefined || self.node === self.host ? self.host : `${self.host} (node ${self.node})`;
  row(
    'Agent',
    `${self.ready ? 'ready' : 'not ready'} on ${where}, weft ${self.version}, up ${ageOf(self.startedAtMs, self.atMs)}, pid ${self.pid}`,
  );
  row(
    'Store',
    `${store.name}, ${store.isReachable ? 'reachable' : 'does not answer'}${
      store.lastAnswerAtMs === undefined ? '' : `, last answer ${ageOf(store.lastAnswerAtMs, self.atMs)} ago`
    }`,
  );
  row(
    'Lease',
    lease === undefined
      ? 'none'
      : `${lease.subnets.join(' and ')} as ${lease.publicAddresses.join(' and ') || 'no address'}${
          lease.isHeld ? '' : ', remembered from an earlier run'
        }${lease.expiresAtMs === undefined ? '' : `, ends in ${shortSpan(lease.expiresAtMs - self.atMs)}`}`,
  );
  row(
    'Backend',
    self.backendType === undefined ? 'not known yet' : `${self.backendType} in ${self.networks.join(' and ')}`,
  );
  if (external !== undefined) {
    row(
      'Interface',
      `${external.name} (${external.addresses.join(', ')}), MTU ${external.mtuBytes}, containers ${dataPath.mtuBytes ?? '?'}`,
    );
  }
  row('Data path', dataPathText(dataPath));
  row('Peers', peersText(peers));
  const tunnels = tunnelsText(peers);
  if (tunnels !== undefined) row('Tunnels', tunnels);
  row('Cost', `CPU ${process.cpuSeconds.toFixed(1)} s since start, memory ${formatBytes(process.rssBytes)}`);
  lines.push('');
  if (problems.length === 0) lines.push('No problems.');
  for (const { severity, text, remedy } of problems) {
    lines.push(...wrapped(`${severity === 'error' ? '✖' : '!'} ${printableLines(text, MAX_TEXT)}`, '  '));
    lines.push(...wrapped(`  → ${printable(remedy)}`, '    '));
  }
  return lines.map((line) => `${line}\n`).join('');
}

function dataPathText(dataPath: StatusAnswers['self']['dataPath']): string {
  const { kind, isRunning, fastPath, restarts } = dataPath;
  const fast = fastPath === undefined ? '' : fastPath.isOpen ? ', fast path open' : ', no fast path';
  const drops = Object.entries(dataPath.queueDrops).reduce((sum, [, count]) => sum + count, 0);
  return `${kind}, ${isRunning ? 'running' : 'not running'}${fast}${restarts > 0 ? `, ${restarts} restarts` : ''}${
    drops > 0 ? `, ${drops} packets dropped in queues` : ''
  }`;
}

/** How many there are, and how packets reach them. */
export function peersText({ total, peers }: StatusAnswers['peers']): string {
  const byPath = Object.entries(Object.groupBy(peers, ({ path }) => path));
  const counts = byPath.map(([path, list]) => `${list.length} ${path}`);
  return total === 0 ? 'none' : `${total}: ${counts.join(', ')}`;
}

/** `undefined` where the backend has none. */
function tunnelsText({ atMs, peers }: StatusAnswers['peers']): string | undefined {
  const tunnels = peers.flatMap(({ tunnel }) => tunnel ?? []);
  if (tunnels.length === 0) return undefined;
  const sum = (bytes: 'sentBytes' | 'receivedBytes'): string =>
    formatBytes(tunnels.reduce((all, tunnel) => all + tunnel[bytes], 0));
  const parts = [...handshakes(peers, atMs), `sent ${sum('sentBytes')}`, `received ${sum('receivedBytes')}`];
  return `${tunnels.length}: ${parts.join(', ')}`;
}

function handshakes(peers: StatusAnswers['peers']['peers'], nowMs: number): string[] {
  const tunnels = peers.flatMap(({ path, tunnel }) => (path === 'wireguard' ? (tunnel ?? []) : []));
  const times = tunnels.flatMap(({ lastHandshakeAtMs }) => lastHandshakeAtMs ?? []).sort((one, other) => other - one);
  const ages = [...new Set(times.map((atMs) => ageOf(atMs, nowMs)))];
  const silent = tunnels.length - times.length;
  return [
    ...(ages.length === 0 ? [] : [`handshake ${ages.length === 1 ? ages[0] : `${ages[0]} to ${ages.at(-1)}`} ago`]),
    ...(silent === 0 ? [] : [`${silent} without`]),
  ];
}

function ageOf(atMs: number, nowMs: number): string {
  return shortSpan(nowMs - atMs);
}
