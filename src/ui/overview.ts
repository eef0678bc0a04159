/**
 * What the page draws: hosts, and what each knows of the way to every other, put together from what several agents say.
 * Pure; fleet.ts asks the agents.
 */
import { familyPrefix, probesOf } from '../api/peer-probes.ts';
import type { Peer, Peers, Probe, Traffic } from '../api/schema.ts';

/**
 * `ready` and `not-ready` as the agent itself says; `away`: it was asked and does not answer; `peer`: nobody asks it, others
 * know it.
 */
export type HostState = 'ready' | 'not-ready' | 'away' | 'peer';

export interface HostView {
  /** Unique. */
  readonly name: string;
  readonly state: HostState;
  /** Why it is not ready, or away. */
  readonly reason?: string;
  readonly addresses: readonly string[];
  readonly subnets: readonly string[];
  readonly backendType?: string;
  /** Of containers. */
  readonly mtuBytes?: number;
}

export type LinkHealth =
  | 'good'
  /** Packets come through, but something is wrong. */
  | 'degraded'
  /** Packets do not come through. */
  | 'broken'
  /** Nobody has measured it. */
  | 'unknown';

/** What probes have measured. */
interface Figures {
  readonly rttMs?: number;
  /** 0 … 1 */
  readonly lossRatio?: number;
  readonly pathMtuBytes?: number;
}

export interface FamilyFigures extends Figures {
  readonly family: NonNullable<Probe['family']>;
}

/** One direction between two hosts; figures as the sender's probes have them. */
export interface LinkView extends Figures {
  /** Index in `hosts`. */
  readonly from: number;
  readonly to: number;
  readonly health: LinkHealth;
  /** Why it is not good. */
  readonly why?: string;
  /** What to do about it, where the sender's probes tell. */
  readonly remedy?: string;
  /** How packets go, as the sender says: see PEER_PATHS (peer-path.ts). */
  readonly path?: Peer['path'];
  /** When the agent read these counters, by its own clock. */
  readonly countedAtMs?: number;
  /** Since the agent started; absent where nobody counts a single peer. */
  readonly packets?: number;
  readonly bytes?: number;
  readonly drops?: number;
  /** Of each family, where two are measured; the link's own figures are those of the worse one. */
  readonly families?: readonly FamilyFigures[];
}

export interface Overview {
  readonly atMs: number;
  readonly hosts: readonly HostView[];
  /** The worst first, and then the busiest. */
  readonly links: readonly LinkView[];
  /** Healthy links with little traffic that are left out, because there are too many. */
  readonly omittedLinks: number;
}

/** What is known of one agent that is asked. */
export interface AgentReport {
  /** As the page names it, unique. */
  readonly name: string;
  /** The last answer, if there ever was one. */
  readonly peers: Peers | undefined;
  /** Why it does not answer now. */
  readonly failure: string | undefined;
}

/** Every pair of a hundred hosts. */
export const MAX_LINKS = 10_000;

/** A probe of this age says nothing of now: in a large cluster a pair's turn comes after minutes. */
const STALE_PROBE_MS = 600_000;
/** Less is a busy host. */
const DEGRADED_LOSS = 0.1;

interface Judgement {
  readonly health: LinkHealth;
  readonly why?: string;
}

/** What an agent's view of a peer amounts to: where it measures both families, the worse of them. @param atMs of that view. */
export function linkHealth(peer: Peer, atMs: number): Judgement {
  if (peer.path === 'skipped') return { health: 'broken', why: peer.reason ?? 'this host cannot reach it' };
  const judged = probesOf(peer)
    .filter(({ measuredAtMs }) => atMs - measuredAtMs <= STALE_PROBE_MS)
    .map((probe): Judgement => {
      const { health, why } = probeHealth(probe);
      return why === undefined ? { health } : { health, why: `${familyPrefix(peer, probe)}${why}` };
    })
    .sort((a, b) => SEVERITY[a.health] - SEVERITY[b.health]);
  const [worst] = judged;
  if (worst !== undefined && worst.health !== 'good')
    return { health: worst.health, why: judged.flatMap(({ why }) => why ?? []).join('; ') };
  if (peer.reason !== undefined) return { health: 'degraded', why: peer.reason };
  return worst ?? { health: 'unknown' };
}

function probeHealth({ rttMs, problem, lossRatio = 0 }: Probe): Judgement {
  if (rttMs === undefined) return { health: 'broken', why: problem ?? 'probes get no answer' };
  if (problem !== undefined) return { health: 'degraded', why: problem };
  if (lossRatio < DEGRADED_LOSS) return { health: 'good' };
  return { health: 'degraded', why: `${(lossRatio * 100).toFixed(0)} % of the probes are lost` };
}

const SEVERITY: Readonly<Record<LinkHealth, number>> = { broken: 0, degraded: 1, unknown: 2, good: 2 };

/** @param atMs now. @param maxLinks of healthy ones, those with less traffic are left out beyond it. */
export function overviewOf(reports: readonly AgentReport[], atMs: number, maxLinks: number = MAX_LINKS): Overview {
  const hosts: HostView[] = reports.map(hostOf);
  const bySubnet = new Map(hosts.flatMap((host, index) => host.subnets.map((subnet) => [subnet, index] as const)));
  const names = new Set(hosts.map(({ name }) => name));
  const links = new Map<string, LinkView>();
  reports.forEach((report, from) => {
    if (report.failure !== undefined) return;
    for (const peer of report.peers?.peers ?? []) {
      const to = known(peer) ?? add(peer);
      links.set(`${from}>${to}`, linkOf(from, to, peer, report.peers!.atMs));
    }
  });
  // Where only the receiver is asked, it says what came.
  reports.forEach((report, to) => {
    if (report.failure !== undefined) return;
    for (const peer of report.peers?.peers ?? []) {
      const from = known(peer)!;
      if (!links.has(`${from}>${to}`) && peer.rx !== undefined)
        links.set(`${from}>${to}`, { from, to, health: 'unknown', ...countsOf(peer.rx, report.peers!.atMs) });
    }
  });
  const sorted = [...links.values()].sort(
    (a, b) =>
      SEVERITY[a.health] - SEVERITY[b.health] || (b.packets ?? 0) - (a.packets ?? 0) || a.from - b.from || a.to - b.to,
  );
  return { atMs, hosts, links: sorted.slice(0, maxLinks), omittedLinks: Math.max(0, sorted.length - maxLinks) };

  function known(peer: Peer): number | undefined {
    for (const subnet of peer.subnets) {
      const index = bySubnet.get(subnet);
      if (index !== undefined) return index;
    }
    return undefined;
  }

  function add(peer: Peer): number {
    const wanted = peer.holder ?? peer.publicAddresses[0] ?? peer.id;
    const name = names.has(wanted) ? `${wanted} ${peer.id}` : wanted;
    names.add(name);
    const index = hosts.length;
    hosts.push({
      name,
      state: 'peer',
      addresses: peer.publicAddresses,
      subnets: peer.subnets,
      backendType: peer.backendType,
    });
    for (const subnet of peer.subnets) bySubnet.set(subnet, index);
    return index;
  }
}

function hostOf({ name, peers, failure }: AgentReport): HostView {
  const self = peers?.self;
  const reason = failure ?? (self?.ready === false ? (self.reason ?? 'it has not started yet') : undefined);
  return {
    name,
    state: failure !== undefined || self === undefined ? 'away' : self.ready ? 'ready' : 'not-ready',
    ...(reason !== undefined && { reason }),
    addresses: self?.lease?.publicAddresses ?? self?.external?.addresses ?? [],
    subnets: self?.lease?.subnets ?? [],
    ...(self?.backendType !== undefined && { backendType: self.backendType }),
    ...(self?.dataPath.mtuBytes !== undefined && { mtuBytes: self.dataPath.mtuBytes }),
  };
}

function linkOf(from: number, to: number, peer: Peer, atMs: number): LinkView {
  const { probe } = peer;
  const health = linkHealth(peer, atMs);
  const families = (peer.probes ?? []).flatMap((one) =>
    one.family === undefined ? [] : [{ family: one.family, ...figuresOf(one) }],
  );
  return {
    from,
    to,
    ...health,
    ...(health.why !== undefined && probe?.remedy !== undefined && { remedy: probe.remedy }),
    path: peer.path,
    ...(peer.tx !== undefined && countsOf(peer.tx, atMs)),
    ...(probe !== undefined && figuresOf(probe)),
    ...(families.length > 1 && { families }),
  };
}

function figuresOf({ rttMs, lossRatio, pathMtuBytes }: Probe): Figures {
  return {
    ...(rttMs !== undefined && { rttMs }),
    ...(lossRatio !== undefined && { lossRatio }),
    ...(pathMtuBytes !== undefined && { pathMtuBytes }),
  };
}

function countsOf(
  traffic: Traffic,
  countedAtMs: number,
): Pick<LinkView, 'countedAtMs' | 'packets' | 'bytes' | 'drops'> {
  const drops = Object.values(traffic.drops).reduce((sum, count) => sum + count, 0);
  return { countedAtMs, packets: traffic.packets, bytes: traffic.bytes, drops };
}
