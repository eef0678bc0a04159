import type { Inspection } from '../api/inspection.ts';
import type { Config, Doctor, LeaseEntry, Leases, Peers, ReadinessAnswer, Rules, Self, State } from '../api/schema.ts';
import type { FlanneldOptions } from '../config/flanneld-options.ts';
import { networksOf } from '../config/network-config.ts';
import { shownFlanneldOptions } from '../config/shown-flanneld-options.ts';
import { compareState } from '../desired/comparison.ts';
import { describeOp } from '../desired/op.ts';
import { describeProblem } from '../desired/problem.ts';
import type { EventRing } from '../events/event-ring.ts';
import { formatAddr, formatPrefix } from '../ip/address.ts';
import { present } from '../ip/family.ts';
import type { Lease } from '../lease/lease.ts';
import { describeRefusal } from '../lease/refusal.ts';
import type { ProcessLog } from '../log/log.ts';
import type { AgentFigures } from './agent-figures.ts';
import type { NodePlane } from './node-plane.ts';
import type { NodeReadiness } from './readiness.ts';
import { REMEDIES } from './remedies.ts';
import { shownNetworkConfig } from './shown-config.ts';
import { describedLease, leaseEntry } from './shown-lease.ts';
import { ShownPeers } from './shown-peers.ts';
import { directions, totalsOf } from './shown-traffic.ts';
import { describeStore } from './store-name.ts';

/** What the agent's life knows at the moment. */
export interface AgentView {
  readonly plane: NodePlane | undefined;
  readonly own: Lease | undefined;
  /** Acquired by this process, and not lost since. */
  readonly isHeld: boolean;
  /** Whether the external interface is administratively up. */
  readonly isExternalUp: boolean;
  /** As remembered from an earlier run until the store has said more. */
  readonly peers: readonly Lease[];
}

export interface InspectionParts {
  readonly hostName: string;
  readonly version: string;
  readonly options: FlanneldOptions;
  readonly figures: AgentFigures;
  readonly readiness: NodeReadiness;
  readonly events: EventRing;
  readonly view: () => AgentView;
  readonly log: Pick<ProcessLog, 'droppedLines'>;
  /** Runs the checks of weft doctor on this host. */
  readonly examine: (signal: AbortSignal) => Promise<Doctor['checks']>;
}

/** The checks start programs: several who look at the same time share one examination. */
const DOCTOR_FRESH_MS = 10_000;

/** The agent as its API shows it: reads what the parts know when it is asked, and keeps nearly nothing. */
export class AgentInspection implements Inspection, Disposable {
  readonly startedAtMs: number = Math.round(performance.timeOrigin);
  readonly events: EventRing;
  readonly #parts: InspectionParts;
  readonly #peers: ShownPeers;
  readonly #over = new AbortController();
  #examined: { readonly atMs: number; readonly checks: Promise<Doctor['checks']> } | undefined;

  constructor(parts: InspectionParts) {
    this.#parts = parts;
    this.events = parts.events;
    this.#peers = new ShownPeers(parts);
  }

  [Symbol.dispose](): void {
    this.#over.abort();
    this.#peers[Symbol.dispose]();
  }

  self(): Self {
    const { hostName, version, options, figures, log } = this.#parts;
    const { plane } = this.#parts.view();
    const { store } = figures;
    const { rss, heapUsed } = process.memoryUsage();
    const { user, system } = process.cpuUsage();
    const peers = this.#peers.look().list;
    return {
      ...{ apiVersion: 'v1', atMs: Date.now(), host: hostName, version, pid: process.pid },
      ...(options.nodeName === '' ? {} : { node: options.nodeName }),
      ...this.#brief(),
      networks: plane === undefined ? [] : networksOf(plane.config).map(formatPrefix),
      store: {
        ...{ manager: options.subnetManager, name: describeStore(options), isReachable: store.reachable },
        ...{ errors: store.errors, unreadableEntries: store.unreadableEntries },
        ...(store.failure === undefined ? {} : { failure: store.failure }),
        ...(store.lastSuccessAtMs === undefined ? {} : { lastAnswerAtMs: store.lastSuccessAtMs }),
        isConfigOutdated: figures.config?.isOutdated ?? false,
      },
      dataPath: this.#dataPath(plane),
      ...totalsOf(peers),
      peers: {
        total: peers.length,
        skipped: plane?.skipped.count ?? 0,
        refusedEntries: figures.session?.refusals().length ?? 0,
      },
      process: { cpuSeconds: (user + system) / 1e6, rssBytes: rss, heapBytes: heapUsed },
      droppedLogLines: log.droppedLines,
    };
  }

  /** The page asks every agent for this each second: what the kernel has to be asked for is left to {@link self}. */
  peers(): Peers {
    const { atMs, list } = this.#peers.look();
    const self = { ...this.#brief(), dataPath: mtuOf(this.#parts.view().plane) };
    return { atMs, total: list.length, peers: list, self };
  }

  #brief(): Omit<Peers['self'], 'dataPath'> {
    const { plane, own, isHeld, isExternalUp } = this.#parts.view();
    const state = this.#parts.readiness.read();
    return {
      startedAtMs: this.startedAtMs,
      ready: state.ready,
      ...(state.ready || state.reason === undefined ? {} : { reason: state.reason }),
      ...(plane === undefined ? {} : { backendType: plane.config.backend.type }),
      ...(own === undefined ? {} : { lease: { ...describedLease(own), isHeld } }),
      ...(plane === undefined ? {} : { external: { ...externalOf(plane), isUp: isExternalUp } }),
      newestEventId: this.events.after(0, 0).newestId,
    };
  }

  leases(): Leases {
    const { figures, view } = this.#parts;
    const { own, plane } = view();
    const entry = (lease: Lease): Omit<LeaseEntry, 'status'> => leaseEntry(lease, plane?.config);
    const leases: LeaseEntry[] = [
      ...(own === undefined ? [] : [{ ...entry(own), status: 'own' as const }]),
      ...this.#peers.leases().map((lease) => ({ ...entry(lease), status: 'peer' as const })),
      ...(figures.session?.refusals() ?? []).map((refusal) => {
        return { ...entry(refusal.lease), status: 'refused' as const, reason: describeRefusal(refusal) };
      }),
    ];
    return { atMs: Date.now(), leases };
  }

  readiness(): ReadinessAnswer {
    const { readiness } = this.#parts;
    const { ready } = readiness.read();
    const failing = new Map(readiness.failing().map(({ part, reason }) => [part, reason]));
    const { startUp } = readiness;
    return {
      ...{ atMs: Date.now(), ready },
      ...(startUp === undefined ? {} : { waitingFor: startUp }),
      parts: readiness.watched().map((part) => {
        const failure = failing.get(part);
        return failure === undefined ? { part } : { part, failure, remedy: REMEDIES[part] };
      }),
    };
  }

  config(): Config {
    const { options, view } = this.#parts;
    const { plane } = view();
    return {
      options: shownFlanneldOptions(options),
      ...(plane === undefined ? {} : { network: shownNetworkConfig(plane.config) }),
    };
  }

  async state(limit: number, signal: AbortSignal): Promise<State> {
    const { plane } = this.#parts.view();
    const seen = await plane?.reconciler.inspect(signal);
    const stats = plane?.reconciler.stats();
    const entries = seen === undefined ? [] : compareState(seen);
    const failure = plane?.reconciler.failure;
    return {
      ...{ atMs: Date.now(), isConverged: seen !== undefined && seen.ops.length === 0 },
      ...(failure === undefined ? {} : { failure }),
      ...{ entries: entries.slice(0, limit), omitted: Math.max(0, entries.length - limit) },
      difference: seen?.ops.map(describeOp) ?? [],
      problems: stats?.problems.map(describeProblem) ?? [],
      ...{ runs: stats?.runs ?? 0, repairs: { ...stats?.repairs } },
    };
  }

  async rules(signal: AbortSignal): Promise<Rules> {
    const traffic = this.#parts.view().plane?.traffic;
    const counters = traffic?.counters;
    const failure = traffic?.failure;
    return {
      atMs: Date.now(),
      ...(traffic === undefined ? {} : { manager: traffic.kind }),
      lines: [...((await traffic?.read(signal)) ?? [])],
      ...(failure === undefined ? {} : { failure }),
      ...{ checks: counters?.checks ?? 0, failures: counters?.failures ?? 0, repairs: { ...counters?.repairs } },
      ...(counters?.lastSuccessAtMs === undefined ? {} : { lastCheckedAtMs: counters.lastSuccessAtMs }),
    };
  }

  async doctor(): Promise<Doctor> {
    const now = Date.now();
    const last = this.#examined;
    const isFresh = last !== undefined && now >= last.atMs && now - last.atMs < DOCTOR_FRESH_MS;
    const look = isFresh ? last : { atMs: now, checks: this.#parts.examine(this.#over.signal) };
    this.#examined = look;
    try {
      return { atMs: look.atMs, checks: await look.checks };
    } catch (error) {
      if (this.#examined === look) this.#examined = undefined;
      throw error;
    }
  }

  #dataPath(plane: NodePlane | undefined): Self['dataPath'] {
    const { figures } = this.#parts;
    const { fastPath } = figures;
    const forwarder = plane?.forwarder;
    const kind = forwarder !== undefined ? 'forwarder' : plane?.reconciler === undefined ? 'others' : 'kernel';
    const failure = forwarder?.failure ?? plane?.reconciler.failure;
    return {
      ...{ kind, isRunning: plane !== undefined && failure === undefined },
      ...(failure === undefined ? {} : { failure }),
      ...mtuOf(plane),
      restarts: figures.restarts,
      ...(fastPath === undefined
        ? {}
        : {
            fastPath: {
              ...{ isOpen: fastPath.isOpen, text: fastPath.text, peersAlone: fastPath.peersAlone },
              ...(fastPath.obstacle === undefined ? {} : { obstacle: fastPath.obstacle }),
            },
          }),
      ...(plane === undefined || plane.forwardingOff.length === 0 ? {} : { forwardingOff: [...plane.forwardingOff] }),
      ...figures.drops(),
      ...(figures.forwarder === undefined ? {} : { nobody: directions(figures.forwarder.traffic(0)) }),
    };
  }
}

function mtuOf(plane: NodePlane | undefined): Pick<Self['dataPath'], 'mtuBytes'> {
  return plane === undefined ? {} : { mtuBytes: plane.backend.mtuBytes };
}

function externalOf({ external }: NodePlane): NonNullable<Self['external']> {
  const { name, addresses, mtuBytes } = external;
  return { name, mtuBytes, addresses: present(addresses).map(formatAddr) };
}
