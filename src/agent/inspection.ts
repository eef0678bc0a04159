import type { Inspection } from '../api/inspection.ts';
import type {
  Config,
  LeaseEntry,
  Leases,
  Peer,
  Peers,
  Probe,
  ReadinessAnswer,
  Rules,
  Self,
  State,
  Traffic,
} from '../api/schema.ts';
import { type FlanneldOptions, shownFlanneldOptions } from '../config/flanneld-options.ts';
import { networksOf } from '../config/network-config.ts';
import { compareState } from '../desired/comparison.ts';
import { describeOp } from '../desired/op.ts';
import { describeProblem } from '../desired/problem.ts';
import type { EventRing } from '../events/event-ring.ts';
import { formatAddr, formatPrefix } from '../ip/address.ts';
import { present } from '../ip/family.ts';
import { type Lease, type LeaseKey, leaseKey } from '../lease/lease.ts';
import { describeRefusal } from '../lease/lease-gate.ts';
import type { ProcessLog } from '../log/log.ts';
import type { DirectionFigures, PacketFigures, WireguardFigures } from '../metrics/snapshot.ts';
import type { PathResult } from '../probe/probe-path.ts';
import { type AgentFigures, wireguardFigures } from './agent-figures.ts';
import { LastSeen } from './last-seen.ts';
import type { NodePlane } from './node-plane.ts';
import type { NodeReadiness } from './readiness.ts';
import { REMEDIES } from './remedies.ts';
import { shownNetworkConfig } from './shown-config.ts';
import { describeStore } from './store-name.ts';

/** Several readers at once cost one look at the peers. */
const FRESH_MS = 500;
/** How often it is noticed that something of a peer has arrived; with many peers it takes longer, so that it costs the same. */
const SAMPLE_MS = 10_000;
const SAMPLE_SHARE = 1 / 1_000;

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
}

/** The agent as its API shows it: reads what the parts know when it is asked, and keeps nearly nothing. */
export class AgentInspection implements Inspection, Disposable {
  readonly startedAtMs: number = Math.round(performance.timeOrigin);
  readonly events: EventRing;
  readonly #parts: InspectionParts;
  readonly #lastSeen = new LastSeen();
  #peers: { readonly list: Peer[]; readonly atMs: number; readonly freshUntilMs: number } | undefined;
  #timer: NodeJS.Timeout | undefined;

  constructor(parts: InspectionParts) {
    this.#parts = parts;
    this.events = parts.events;
    this.#sampleIn(SAMPLE_MS);
  }

  [Symbol.dispose](): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
  }

  self(): Self {
    const { hostName, version, options, figures, readiness, log } = this.#parts;
    const { plane, own, isHeld, isExternalUp } = this.#parts.view();
    const { store } = figures.snapshot();
    const state = readiness.read();
    const { rss, heapUsed } = process.memoryUsage();
    const { user, system } = process.cpuUsage();
    const peers = this.#look().list;
    return {
      ...{ apiVersion: 'v1', atMs: Date.now(), host: hostName, version, pid: process.pid },
      ...(options.nodeName === '' ? {} : { node: options.nodeName }),
      startedAtMs: this.startedAtMs,
      ready: state.ready,
      ...(state.ready || state.reason === undefined ? {} : { reason: state.reason }),
      ...(plane === undefined ? {} : { backendType: plane.config.backend.type }),
      networks: plane === undefined ? [] : networksOf(plane.config).map(formatPrefix),
      ...(own === undefined ? {} : { lease: { ...describedLease(own), isHeld } }),
      ...(plane === undefined ? {} : { external: { ...externalOf(plane), isUp: isExternalUp } }),
      store: {
        ...{ manager: options.subnetManager, name: describeStore(options), isReachable: store?.reachable ?? false },
        ...{ errors: store?.errors ?? 0, unreadableEntries: store?.unreadableEntries ?? 0 },
        ...(store?.failure === undefined ? {} : { failure: store.failure }),
        ...(store?.lastSuccessAtMs === undefined ? {} : { lastAnswerAtMs: store.lastSuccessAtMs }),
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

  peers(): Peers {
    const { atMs, list } = this.#look();
    return { atMs, total: list.length, peers: list };
  }

  leases(): Leases {
    const { figures, view } = this.#parts;
    const { own } = view();
    const leases: LeaseEntry[] = [
      ...(own === undefined ? [] : [{ ...leaseEntry(own), status: 'own' as const }]),
      ...this.#peerLeases().map((lease) => ({ ...leaseEntry(lease), status: 'peer' as const })),
      ...(figures.session?.refusals() ?? []).map((refusal) => {
        return { ...leaseEntry(refusal.lease), status: 'refused' as const, reason: describeRefusal(refusal) };
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

  #dataPath(plane: NodePlane | undefined): Self['dataPath'] {
    const { figures } = this.#parts;
    const { fastPath } = figures;
    const forwarder = plane?.forwarder;
    const { forwarder: counted, hostDrops, hostDrops6 } = figures.snapshot();
    const kind = forwarder !== undefined ? 'forwarder' : plane?.reconciler === undefined ? 'others' : 'kernel';
    const failure = forwarder?.failure ?? plane?.reconciler.failure;
    return {
      ...{ kind, isRunning: plane !== undefined && failure === undefined },
      ...(failure === undefined ? {} : { failure }),
      ...(plane === undefined ? {} : { mtuBytes: plane.backend.mtuBytes }),
      restarts: counted?.restarts ?? 0,
      ...(fastPath === undefined
        ? {}
        : {
            fastPath: {
              ...{ isOpen: fastPath.isOpen, text: fastPath.text, peersAlone: fastPath.peersAlone },
              ...(fastPath.obstacle === undefined ? {} : { obstacle: fastPath.obstacle }),
            },
          }),
      queueDrops: { ...counted?.queueDrops },
      hostDrops: { ...hostDrops },
      hostDrops6: { ...hostDrops6 },
      ...(counted === undefined ? {} : { nobody: directions(counted.nobody) }),
    };
  }

  #sampleIn(ms: number): void {
    this.#timer = setTimeout(() => {
      const startedMs = performance.now();
      this.#noticeArrivals();
      this.#sampleIn(Math.max(SAMPLE_MS, (performance.now() - startedMs) / SAMPLE_SHARE));
    }, ms).unref();
  }

  /** All peers, as of at most a moment ago. */
  #look(): { readonly list: Peer[]; readonly atMs: number } {
    const nowMs = performance.now();
    if (this.#peers !== undefined && nowMs < this.#peers.freshUntilMs) return this.#peers;
    const { figures, view } = this.#parts;
    const { plane } = view();
    const leases = this.#peerLeases();
    const tunnels = new Map(wireguardOf(figures).map((tunnel) => [tunnel.peer, tunnel]));
    const list = leases.map((lease) => this.#peerOf(lease, plane, tunnels));
    this.#lastSeen.keepOnly(new Set(leases.map(leaseKey)));
    this.#peers = { list, atMs: Date.now(), freshUntilMs: nowMs + FRESH_MS };
    return this.#peers;
  }

  #peerLeases(): readonly Lease[] {
    const { figures, view } = this.#parts;
    return figures.session?.table.peers ?? view().peers;
  }

  /** From whom packets have come since the last time: of all that is shown of a peer, what must not wait until somebody asks. */
  #noticeArrivals(): void {
    const { forwarder, slots } = this.#parts.figures;
    const keys = this.#peerLeases().map(leaseKey);
    this.#lastSeen.keepOnly(new Set(keys));
    if (forwarder === undefined) return;
    for (const key of keys) {
      const slot = slots.of(key);
      if (slot !== undefined) this.#lastSeen.at(key, forwarder.traffic(slot).rx.packets);
    }
  }

  #peerOf(lease: Lease, plane: NodePlane | undefined, tunnels: ReadonlyMap<string, WireguardFigures>): Peer {
    const key = leaseKey(lease);
    const described = describedLease(lease);
    const id = described.subnets.join('&');
    const way = plane?.ways.get(key);
    const ike = plane?.ike?.tunnel(key);
    const reason = plane?.skipped.reasonOf(key) ?? ike?.problem;
    const traffic = this.#trafficOf(key);
    const wireguard = tunnels.get(id);
    const tunnel = wireguard ?? ike;
    const heardAtMs = wireguard?.lastHandshakeAtMs ?? this.#lastSeen.at(key, traffic?.rx.packets);
    return {
      ...{ id, subnets: described.subnets, publicAddresses: described.publicAddresses },
      ...(lease.origin?.holder === undefined ? {} : { holder: lease.origin.holder }),
      backendType: lease.attrs.backendType || 'udp',
      path: way === undefined ? 'others' : way.path === 'forwarder' && this.#isFast(lease) ? 'fast-path' : way.path,
      ...(reason === undefined ? {} : { reason }),
      ...(way?.device === undefined ? {} : { device: way.device }),
      ...traffic,
      ...(tunnel === undefined ? {} : { tunnel: { sentBytes: tunnel.sentBytes, receivedBytes: tunnel.receivedBytes } }),
      ...(heardAtMs === undefined ? {} : { lastSeenAtMs: heardAtMs }),
      ...this.#probeOf(described.subnets),
    };
  }

  /** Of the first family with a fault, else of the first. */
  #probeOf(subnets: readonly string[]): { readonly probe?: Probe } {
    const results = subnets.flatMap((subnet) => this.#parts.figures.probes?.result(subnet) ?? []);
    const result = results.find(({ diagnosis }) => diagnosis !== undefined) ?? results[0];
    return result === undefined ? {} : { probe: shownProbe(result) };
  }

  #isFast({ attrs }: Lease): boolean {
    const { ipv4 } = attrs.publicAddresses;
    const { forwarder, fastPath } = this.#parts.figures;
    return fastPath?.isOpen === true && ipv4 !== undefined && forwarder?.isFast(ipv4) === true;
  }

  /** `undefined` for a peer that nobody counts packets of. */
  #trafficOf(key: LeaseKey): { readonly tx: Traffic; readonly rx: Traffic } | undefined {
    const { forwarder, slots } = this.#parts.figures;
    const slot = slots.of(key);
    return forwarder === undefined || slot === undefined ? undefined : directions(forwarder.traffic(slot));
  }
}

function shownProbe({
  measuredAtMs,
  lastAnswerAtMs,
  rttMs,
  lossRatio,
  pathMtuBytes,
  passes,
  diagnosis,
}: PathResult): Probe {
  const isAnswered = rttMs !== undefined && passes.small !== 'no';
  return {
    measuredAtMs: epochMs(measuredAtMs ?? performance.now()),
    ...(isAnswered ? { rttMs: rttMs.median } : {}),
    ...(lossRatio === undefined ? {} : { lossRatio }),
    ...(pathMtuBytes === undefined ? {} : { pathMtuBytes }),
    ...(diagnosis === undefined ? {} : { problem: diagnosis.cause, fault: diagnosis.fault, remedy: diagnosis.remedy }),
    ...(lastAnswerAtMs === undefined ? {} : { lastAnswerAtMs: epochMs(lastAnswerAtMs) }),
  };
}

/** From the clock of the probes (performance.now). */
function epochMs(atMs: number): number {
  return Math.round(Date.now() - performance.now() + atMs);
}

function externalOf({ external }: NodePlane): NonNullable<Self['external']> {
  const { name, addresses, mtuBytes } = external;
  return { name, mtuBytes, addresses: present(addresses).map(formatAddr) };
}

function describedLease(lease: Lease): Pick<LeaseEntry, 'subnets' | 'publicAddresses' | 'expiresAtMs'> {
  const { subnets, attrs, expiresAtMs } = lease;
  return {
    subnets: present(subnets).map(formatPrefix),
    publicAddresses: present(attrs.publicAddresses).map(formatAddr),
    ...(expiresAtMs === undefined ? {} : { expiresAtMs }),
  };
}

function leaseEntry(lease: Lease): Omit<LeaseEntry, 'status'> {
  const { origin, attrs } = lease;
  return {
    ...describedLease(lease),
    backendType: attrs.backendType || 'udp',
    ...(origin?.holder === undefined ? {} : { holder: origin.holder }),
    ...(origin?.since === undefined ? {} : { since: origin.since }),
  };
}

function wireguardOf({ plane }: AgentFigures): readonly WireguardFigures[] {
  return plane?.reconciler.stats().wireguard.flatMap(wireguardFigures) ?? [];
}

function traffic({ packets, bytes, drops }: PacketFigures): Traffic {
  const counted = Object.entries(drops).flatMap(([reason, count]): [string, number][] =>
    count === undefined || count === 0 ? [] : [[reason, count]],
  );
  return { packets, bytes, drops: Object.fromEntries(counted) };
}

function directions({ tx, rx }: DirectionFigures): { readonly tx: Traffic; readonly rx: Traffic } {
  return { tx: traffic(tx), rx: traffic(rx) };
}

/** Absent when no peer's packets are counted. */
function totalsOf(peers: readonly Peer[]): Pick<Self, 'totals'> {
  const counted = peers.flatMap(({ tx, rx }) => (tx === undefined || rx === undefined ? [] : [{ tx, rx }]));
  if (counted.length === 0) return {};
  const sum = (direction: 'tx' | 'rx'): Traffic => {
    const total = { packets: 0, bytes: 0, drops: {} as Record<string, number> };
    for (const { [direction]: one } of counted) {
      total.packets += one.packets;
      total.bytes += one.bytes;
      for (const [reason, count] of Object.entries(one.drops)) total.drops[reason] = (total.drops[reason] ?? 0) + count;
    }
    return total;
  };
  return { totals: { tx: sum('tx'), rx: sum('rx') } };
}
