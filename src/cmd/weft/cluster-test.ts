import type { Peer } from '../../api/schema.ts';
import { type JunitCase, junitOf } from '../../diagnosis/report.ts';
import { printable } from '../../printable.ts';
import { linkHealth } from '../../ui/overview.ts';
import { wrapped } from '../../wrapped.ts';
import type { Asked, SelfAndPeers } from './agent-target.ts';

/** One direction between two nodes, as the sender has measured it. */
export interface PairResult {
  readonly from: string;
  readonly to: string;
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
  readonly tookMs: number;
}

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
    asked.flatMap((to) => (from === to || !(isMeant(from.name) || isMeant(to.name)) ? [] : [pairOf(from, to)])),
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
  return { ok, nodes, pairs, tookMs };
}

function problemOf(one: Asked<SelfAndPeers>): Problem | undefined {
  if ('error' in one) return { fault: 'agent-away', cause: one.text, remedy: `Look at its pod and its log. ${LOOK}` };
  const { self } = one.answer;
  if (self.ready) return undefined;
  return { fault: 'not-ready', cause: printable(self.reason ?? 'it has not started yet'), remedy: LOOK };
}

function pairOf(from: Asked<SelfAndPeers>, to: Asked<SelfAndPeers>): PairResult {
  const names = { from: from.name, to: to.name };
  if ('error' in from) return { ...names, status: 'unknown' };
  const { peers, atMs } = from.answer.peers;
  const peer = peers.find((one) => isOf(one, to));
  if (peer === undefined) {
    // Without a word from it, nobody knows which of the peers it is.
    if ('error' in to || to.answer.self.lease === undefined) return { ...names, status: 'unknown' };
    const problem = {
      fault: 'peer-unknown',
      cause: `${from.name} does not know the lease of ${to.name} (${to.answer.self.lease.subnets.join(' ')})`,
      remedy: `Compare weft leases --node ${from.name} with weft leases --node ${to.name}: do both use the same store?`,
    };
    return { ...names, status: 'broken', problem };
  }
  const { health, why } = linkHealth(peer, atMs);
  const { path, device, probe } = peer;
  const figures = health === 'unknown' ? undefined : probe;
  return {
    ...{ ...names, status: health === 'good' ? 'ok' : health, path },
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
export function renderCluster({ nodes, pairs, ok, tookMs }: ClusterReport): string {
  const count = (status: PairResult['status']): number => pairs.filter((pair) => pair.status === status).length;
  const unknown = count('unknown');
  const lines = [
    `${nodes.length} nodes, ${pairs.length} directions: ${count('ok')} work, ${count('degraded')} degraded, ${count('broken')} broken, ${unknown} not measured`,
    ...pairs
      .filter(({ status }) => pairs.length <= MOST_LINES || status !== 'ok')
      .slice(0, MOST_LINES)
      .map(lineOf),
  ];
  const found = [
    ...nodes.flatMap(({ name, problem }) => (problem === undefined ? [] : [{ where: name, ...problem }])),
    ...pairs.flatMap(({ from, to, path, device, problem }) =>
      problem === undefined ? [] : [{ where: `${from} → ${to} ${hopOf({ path, device })}`.trim(), ...problem }],
    ),
  ];
  for (const { where, fault, cause, remedy } of found.slice(0, MOST_LINES))
    lines.push('', ...wrapped(`✖ ${where}: ${fault}: ${cause}`, '  '), ...wrapped(`  → ${remedy}`, '    '));
  if (found.length > MOST_LINES) lines.push('', `${found.length - MOST_LINES} problems more: see --json.`);
  lines.push('', lastLine(ok, found.length, unknown, tookMs));
  return `${lines.join('\n')}\n`;
}

function lastLine(ok: boolean, problems: number, unknown: number, tookMs: number): string {
  if (ok) return `All paths work${unknown === 0 ? '' : ', as far as they are measured'} (${tookMs} ms).`;
  if (problems === 0) return 'Nothing is measured: do the agents run with --probe=off, or have they just started?';
  return `${problems} problem${problems === 1 ? '' : 's'} (${tookMs} ms).`;
}

const MARKS: Readonly<Record<PairResult['status'], string>> = { ok: '✔', degraded: '!', broken: '✖', unknown: '?' };

function lineOf({ from, to, status, path, device, rttMs, lossRatio, pathMtuBytes, problem }: PairResult): string {
  const figures = [
    problem?.fault,
    status === 'unknown' ? 'not measured' : undefined,
    rttMs === undefined ? undefined : `${rttMs.toFixed(2)} ms`,
    lossRatio === undefined || lossRatio === 0 ? undefined : `${Math.round(lossRatio * 100)}% lost`,
    pathMtuBytes === undefined ? undefined : `MTU ${pathMtuBytes}`,
    path === undefined ? undefined : hopOf({ path, device }),
  ];
  return `${MARKS[status]} ${`${from} → ${to}`.padEnd(32)} ${figures.filter((text) => text !== undefined).join(', ')}`;
}

function hopOf({ path, device }: { path: string | undefined; device: string | undefined }): string {
  if (path === undefined) return '';
  return device === undefined ? `by ${path}` : `by ${path} on ${device}`;
}

export function renderClusterJunit({ nodes, pairs, tookMs }: ClusterReport): string {
  const cases: readonly JunitCase[] = [
    ...nodes.map(({ name, problem }) => ({ group: 'node', name, failure: problem })),
    ...pairs.map(({ from, to, status, problem }) => ({
      ...{ group: from, name: to, failure: problem },
      ...(status === 'unknown' && problem === undefined && { skipped: 'not measured' }),
    })),
  ];
  return junitOf('cluster', cases, tookMs);
}
