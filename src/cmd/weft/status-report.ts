import { familyOf, familyPrefix, probesOf } from '../../api/peer-probes.ts';
import type { Answer } from '../../api/schema.ts';
import type { FastPathObstacle } from '../../dataplane/fast-path/mode.ts';
import { clockDoubt } from '../../doctor/clock-doubt.ts';
import type { AgentEvent } from '../../events/event.ts';
import { printable, printableLines } from '../../printable.ts';
import { shortSpan } from '../../time-span.ts';
import { wrapped } from '../../wrapped.ts';
import { formatBytes } from './units.ts';

/** What was repaired a while ago is history, for `weft events`. */
const RECENT_MS = 600_000;
/** Of one kind of problem. */
const MAX_NAMED = 5;
const LABEL = 12;
const MAX_TEXT = 1_000;
/** By what keeps the fast path closed; its text has what was found. */
const FAST_PATH_REMEDIES: Readonly<Record<string, string>> = {
  'ipsec-policy': 'Nothing to do if you need IPsec. The fast path opens when the last policy is removed.',
  'ipv6-forwarding': 'sysctl -w net.ipv6.conf.all.forwarding=1. The fast path opens by itself then.',
} satisfies Partial<Record<FastPathObstacle, string>>;

export interface StatusAnswers {
  readonly self: Answer<'/self'>;
  readonly peers: Answer<'/peers'>;
  readonly readiness: Answer<'/readiness'>;
  readonly events: readonly AgentEvent[];
}

/** Something that keeps packets from their way (`error`), or that somebody should look at. */
export interface StatusProblem {
  readonly severity: 'error' | 'warning';
  readonly text: string;
  readonly remedy: string;
}

/** Everything that is not as it should be, errors first. Pure. */
export function problemsOf({ self, peers, readiness, events }: StatusAnswers): StatusProblem[] {
  const found: StatusProblem[] = [];
  const add = (severity: StatusProblem['severity'], text: string, remedy: string): void => {
    found.push({ severity, text, remedy });
  };
  for (const { part, failure, remedy } of readiness.parts) {
    if (failure !== undefined) add('error', `${part}: ${failure}`, remedy ?? 'See the log of the agent.');
  }
  if (!self.ready && found.length === 0) {
    const why = readiness.waitingFor ?? self.reason ?? 'start-up has not finished';
    add(
      'error',
      `not ready: ${why}`,
      'The agent continues by itself as soon as this is available. Its log has details.',
    );
  }
  const { store, dataPath, external } = self;
  if (external?.isUp === false) {
    add(
      'error',
      `the external interface ${external.name} is down`,
      `Bring it up (ip link set ${external.name} up), or name another one with --iface.`,
    );
  }
  if (!store.isReachable) {
    const since = store.lastAnswerAtMs === undefined ? '' : ` since ${ageOf(store.lastAnswerAtMs, self.atMs)}`;
    const doubt = clockDoubt(store.failure, self.atMs);
    const why = doubt?.cause ?? store.failure;
    add(
      'error',
      `the lease store (${store.name}) does not answer${since}${why === undefined ? '' : `: ${why}`}; packets still flow with the last known state`,
      doubt?.remedy ??
        'Check that the store runs and that this host can reach it (Kubernetes: API server, etcd: endpoints). The agent’s log has details.',
    );
  }
  const skipped = peers.peers.filter(({ path }) => path === 'skipped');
  for (const peer of skipped.slice(0, MAX_NAMED)) {
    add(
      'error',
      peer.reason ?? `cannot reach ${peer.id}`,
      'docs/TROUBLESHOOTING.md lists all reasons ("Unreachable peers").',
    );
  }
  if (skipped.length > MAX_NAMED) {
    add('error', `${skipped.length - MAX_NAMED} more peers cannot be reached`, 'weft peers lists them.');
  }
  const lossy = peers.peers.flatMap((peer) =>
    probesOf(peer).flatMap((probe) => (probe.lossRatio === 1 || probe.problem !== undefined ? [{ peer, probe }] : [])),
  );
  for (const { peer, probe } of lossy.slice(0, MAX_NAMED)) {
    const what = [probe.fault, probe.problem ?? 'none of the last probes was answered'];
    const text = what.filter((part) => part !== undefined).join(': ');
    const target = peer.subnets.find((subnet) => familyOf(subnet) === (probe.family ?? 'IPv4')) ?? peer.id;
    add(
      'error',
      `${peer.id}: ${familyPrefix(peer, probe)}${text}`,
      probe.remedy ?? `weft ping ${target.split('/')[0]} shows where it ends.`,
    );
  }
  if (store.isConfigOutdated) {
    add(
      'warning',
      'the store has another network configuration than the agent works with',
      'Restart the agent to apply it.',
    );
  }
  if (self.peers.refusedEntries > 0) {
    add(
      'warning',
      `${self.peers.refusedEntries} entries of the store are not believed`,
      'weft leases lists them with the reason; correct or delete them.',
    );
  }
  if (dataPath.fastPath !== undefined && !dataPath.fastPath.isOpen && dataPath.fastPath.obstacle !== undefined) {
    add(
      'warning',
      `no fast path (${dataPath.fastPath.obstacle}): ${dataPath.fastPath.text}`,
      FAST_PATH_REMEDIES[dataPath.fastPath.obstacle] ?? 'weft doctor --fast-path says what is missing.',
    );
  }
  for (const setting of dataPath.forwardingOff ?? []) {
    add(
      'warning',
      `${setting} is 0: containers of this host reach nobody beyond it`,
      `sysctl -w ${setting}=1, and find out what has turned it off.`,
    );
  }
  if (self.droppedLogLines > 0) {
    add(
      'warning',
      `${self.droppedLogLines} lines of the log could not be written`,
      'Check what reads the agent’s standard error.',
    );
  }
  const repairs = events.filter(
    ({ kind, atMs }) => (kind === 'kernel-repaired' || kind === 'rules-repaired') && self.atMs - atMs < RECENT_MS,
  );
  const last = repairs.at(-1);
  if (last !== undefined) {
    const text = `${last.text} (${repairs.length} ${repairs.length === 1 ? 'repair' : 'repairs'} in ${shortSpan(RECENT_MS)}, the last ${ageOf(last.atMs, self.atMs)} ago)`;
    add('warning', text, 'Another program changes what the agent manages on this host. weft events lists each change.');
  }
  return [
    ...found.filter(({ severity }) => severity === 'error'),
    ...found.filter(({ severity }) => severity === 'warning'),
  ];
}

/** Warnings do not count. */
export function isHealthy(problems: readonly StatusProblem[]): boolean {
  return problems.every(({ severity }) => severity !== 'error');
}

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
