import { familyOf } from '../../api/peer-probes.ts';
import type { Peer, Probe } from '../../api/schema.ts';
import { counted } from '../../counted.ts';
import { type JunitCase, junitOf } from '../../diagnosis/report.ts';
import { printable } from '../../printable.ts';
import { linkHealth } from '../../ui/overview.ts';
import { wrapped } from '../../wrapped.ts';
import type { Asked, SelfAndPeers } from './agent-target.ts';

/** One direction between two nodes, as the sender has measured it. */
export interface PairResult {
  readonly from: string;
  readonly to: string;
  /** Where the receiver has subnets of both families, and the sender tells their probes apart. */
  readonly family?: NonNullable<Probe['family']>;
  /** `unknown`: the sender has not measured it lately, or could not be asked. */
  readonly status: 'ok' | 'degraded' | 'broken' | 'unknown';
  /** How its packets go, and the device that they leave by. */
  readonly path?: string;
  readonly device?: string;
  readonly rttMs?: number;
  readonly lossRatio?: number;
  readonly pathMtuBytes?: number;
  readonly problem?: Problem;
}

interface Problem {
  readonly fault: string;
  readonly cause: string;
  readonly remedy: string;
}

export interface ClusterReport {
  readonly ok: boolean;
  readonly nodes: readonly { readonly name: string; readonly problem?: Problem }[];
  readonly pairs: readonly PairResult[];
  /** What background probes say nothing of, and `weft test` on a node does. */
  readonly unmeasured: readonly string[];
  readonly tookMs: number;
}

const UNMEASURED: readonly string[] = [
  'paths from containers',
  'fragments',
  'DNS and Services',
  'the checks of each node (routes, firewall, bridge, kernel)',
];

/** More pairs are only counted. */
const MOST_LINES = 64;
const LOOK = 'Run weft status --node on it.';

/**
 * What the agents say of every pair of nodes, each direction from its sender's view. Pure.
 *
 * @param only pairs with one of these nodes; all without any.
 */
export function clusterReport(
  asked: readonly Asked<SelfAndPeers>[],
  only: readonly string[],
  tookMs: number,
): ClusterReport {
  const isMeant = (name: string): boolean => only.length === 0 || only.includes(name);
  const pairs = asked.flatMap((from) =>
    asked.flatMap((to) => (from === to || !(isMeant(from.name) || isMeant(to.name)) ? [] : pairsOf(from, to))),
  );
  const nodes = asked
    .filter(({ name }) => isMeant(name))
    .map((one) => {
      const problem = problemOf(one);
      return { name: one.name, ...(problem && { problem }) };
    });
  const isMeasured = pairs.length === 0 || pairs.some(({ status }) => status !== 'unknown');
  const ok =
    isMeasured &&
    nodes.every(({ problem }) => problem === undefined) &&
    pairs.every(({ status }) => status === 'ok' || status === 'unknown');
  return { ok, nodes, pairs, unmeasured: UNMEASURED, tookMs };
}

function problemOf(one: Asked<SelfAndPeers>): Problem | undefined {
  if ('error' in one) return { fault: 'agent-away', cause: one.text, remedy: `Look at its pod and its log. ${LOOK}` };
  const { self } = one.answer;
  if (self.ready) return undefined;
  return { fault: 'not-ready', cause: printable(self.reason ?? 'it has not started yet'), remedy: LOOK };
}

/** One for each family that is told apart. */
function pairsOf(from: Asked<SelfAndPeers>, to: Asked<SelfAndPeers>): readonly PairResult[] {
  const names = { from: from.name, to: to.name };
  if ('error' in from) return [{ ...names, status: 'unknown' }];
  const { peers, atMs } = from.answer.peers;
  const peer = peers.find((one) => isOf(one, to));
  if (peer !== undefined) return inEachFamily(peer).map((one) => ({ ...names, ...measured(one, atMs) }));
  // Without a word from it, nobody knows which of the peers it is.
  if ('error' in to || to.answer.self.lease === undefined) return [{ ...names, status: 'unknown' }];
  const problem = {
    fault: 'peer-unknown',
    cause: `${from.name} does not know the lease of ${to.name} (${to.answer.self.lease.subnets.join(' ')})`,
    remedy: `Compare weft leases --node ${from.name} with weft leases --node ${to.name}: do both use the same store?`,
  };
  return [{ ...names, status: 'broken', problem }];
}

type PeerInFamily = Peer & Pick<PairResult, 'family'>;

/** The peer as if it had one family, once for each that it has. */
function inEachFamily(peer: Peer): readonly PeerInFamily[] {
  const { probe: _, probes, ...rest } = peer;
  if (probes === undefined || peer.path === 'skipped') return [peer];
  return peer.subnets.map((subnet) => {
    const family = familyOf(subnet);
    const probe = probes.find((one) => one.family === family);
    return { ...rest, subnets: [subnet], family, ...(probe !== undefined && { probe }) };
  });
}

function measured(peer: PeerInFamily, atMs: number): Omit<PairResult, 'from' | 'to'> {
  const { health, why } = linkHealth(peer, atMs);
  const { family, path, device, probe } = peer;
  const figures = health === 'unknown' ? undefined : probe;
  return {
    ...(family !== undefined && { family }),
    ...{ status: health === 'good' ? 'ok' : health, path },
    ...(device !== undefined && { device }),
    ...(figures?.rttMs !== undefined && { rttMs: figures.rttMs }),
    ...(figures?.lossRatio !== undefined && { lossRatio: figures.lossRatio }),
    ...(figures?.pathMtuBytes !== undefined && { pathMtuBytes: figures.pathMtuBytes }),
    ...(why !== undefined && { problem: faultOf(peer, why) }),
  };
}

function isOf(peer: Peer, to: Asked<SelfAndPeers>): boolean {
  if ('error' in to) return peer.holder === to.name;
  const subnets = to.answer.self.lease?.subnets ?? [];
  return subnets.length === 0 ? peer.holder === to.name : peer.subnets.some((one) => subnets.includes(one));
}

function faultOf({ path, probe }: Peer, why: string): Problem {
  return {
    fault: path === 'skipped' ? 'skipped' : (probe?.fault ?? 'lossy'),
    cause: printable(why),
    remedy: printable(probe?.remedy ?? 'weft peers on the sender has the reason; run weft test there.'),
  };
}

/** For people: what is wrong first by node, then by pair. */
export function renderCluster({ nodes, pairs, unmeasured, ok, tookMs }: ClusterReport): string {
  const count = (status: PairResult['status']): number => pairs.filter((pair) => pair.status === status).length;
  const unknown = count('unknown');
  const lines = [
    `${counted(nodes.length, 'node')}, ${pairs.length} directions: ${count('ok')} work, ${count('degraded')} degraded, ${count('broken')} broken, ${unknown} not measured`,
    ...pairs
      .filter(({ status }) => pairs.length <= MOST_LINES || status !== 'ok')
      .slice(0, MOST_LINES)
      .map(lineOf),
  ];
  const found = [
    ...nodes.flatMap(({ name, problem }) => (problem === undefined ? [] : [{ where: name, ...problem }])),
    ...pairs.flatMap((pair) =>
      pair.problem === undefined ? [] : [{ where: `${nameOf(pair)} ${hopOf(pair)}`.trim(), ...pair.problem }],
    ),
  ];
  for (const { where, fault, cause, remedy } of found.slice(0, MOST_LINES))
    lines.push('', ...wrapped(`✖ ${where}: ${fault}: ${cause}`, '  '), ...wrapped(`  → ${remedy}`, '    '));
  if (found.length > MOST_LINES) lines.push('', `${found.length - MOST_LINES} problems more: see --json.`);
  lines.push('', ...wrapped(`Not measured: ${unmeasured.join(', ')}. weft test on a node does so.`, '  '));
  lines.push(lastLine(ok, found.length, unknown, tookMs));
  return `${lines.join('\n')}\n`;
}

function lastLine(ok: boolean, problems: number, unknown: number, tookMs: number): string {
  if (ok) return `All paths work${unknown === 0 ? '' : ', as far as they are measured'} (${tookMs} ms).`;
  if (problems === 0) return 'Nothing is measured: do the agents run with --probe=off, or have they just started?';
  return `${counted(problems, 'problem')} (${tookMs} ms).`;
}

const MARKS: Readonly<Record<PairResult['status'], string>> = { ok: '✔', degraded: '!', broken: '✖', unknown: '?' };

function lineOf(pair: PairResult): string {
  const { status, path, rttMs, lossRatio, pathMtuBytes, problem } = pair;
  const figures = [
    problem?.fault,
    status === 'unknown' ? 'not measured' : undefined,
    rttMs === undefined ? undefined : `${rttMs.toFixed(2)} ms`,
    lossRatio === undefined || lossRatio === 0 ? undefined : `${Math.round(lossRatio * 100)}% lost`,
    pathMtuBytes === undefined ? undefined : `MTU ${pathMtuBytes}`,
    path === undefined ? undefined : hopOf(pair),
  ];
  return `${MARKS[status]} ${nameOf(pair).padEnd(32)} ${figures.filter((text) => text !== undefined).join(', ')}`;
}

function nameOf({ from, to, family }: PairResult): string {
  return `${from} → ${to}${family === undefined ? '' : ` ${family}`}`;
}

function hopOf({ path, device }: PairResult): string {
  if (path === undefined) return '';
  return device === undefined ? `by ${path}` : `by ${path} on ${device}`;
}

export function renderClusterJunit({ nodes, pairs, tookMs }: ClusterReport): string {
  const cases: readonly JunitCase[] = [
    ...nodes.map(({ name, problem }) => ({ group: 'node', name, failure: problem })),
    ...pairs.map(({ from, to, family, status, problem }) => ({
      ...{ group: from, name: family === undefined ? to : `${to} ${family}`, failure: problem },
      ...(status === 'unknown' && problem === undefined && { skipped: 'not measured' }),
    })),
  ];
  return junitOf('cluster', cases, tookMs);
}
