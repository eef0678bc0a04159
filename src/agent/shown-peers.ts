import { familyOf } from '../api/peer-probes.ts';
import type { Peer, Probe, Traffic } from '../api/schema.ts';
import { backendOfLease } from '../backend/registry.ts';
import type { FastPathState } from '../dataplane/fast-path/mode.ts';
import type { PeerSlots } from '../dataplane/peer-slots.ts';
import type { Forwarder } from '../dataplane/supervisor.ts';
import type { ReconcilerStats } from '../desired/reconciler.ts';
import type { ActualWireguardPeer } from '../desired/state.ts';
import { formatPrefix } from '../ip/address.ts';
import { type Lease, type LeaseKey, leaseKey } from '../lease/lease.ts';
import type { LeaseTable } from '../lease/lease-table.ts';
import type { PathResult } from '../probe/probe-path.ts';
import { LastSeen } from './last-seen.ts';
import type { NodePlane } from './node-plane.ts';
import type { PeerProbes } from './peer-probes.ts';
import { describedLease } from './shown-lease.ts';
import { directions } from './shown-traffic.ts';

/** Several readers at once cost one look at the peers. */
const FRESH_MS = 500;
/** How often it is noticed that something of a peer has arrived; with many peers it takes longer, so that it costs the same. */
const SAMPLE_MS = 10_000;
const SAMPLE_SHARE = 1 / 1_000;

interface ShownPlane extends Pick<NodePlane, 'config' | 'ways' | 'ike' | 'skipped'> {
  readonly reconciler: { stats(): Pick<ReconcilerStats, 'wireguard'> };
}

export interface ShownPeersParts {
  readonly figures: {
    readonly session: { readonly table: Pick<LeaseTable, 'peers'> } | undefined;
    readonly forwarder: Pick<Forwarder, 'traffic' | 'isFast'> | undefined;
    readonly fastPath: Pick<FastPathState, 'isOpen'> | undefined;
    readonly slots: Pick<PeerSlots, 'of'>;
    readonly probes: Pick<PeerProbes, 'result' | 'changes'> | undefined;
  };
  readonly view: () => {
    readonly plane: ShownPlane | undefined;
    /** As remembered from an earlier run; they count until there is a session. */
    readonly peers: readonly Lease[];
  };
}

type Tunnel = NonNullable<Peer['tunnel']>;
type WireguardBySubnet = ReadonlyMap<string, ActualWireguardPeer>;

interface Look {
  readonly list: Peer[];
  readonly atMs: number;
  readonly freshUntilMs: number;
  /** Of the ways to them, as {@link PeerProbes.changes} counts. */
  readonly changes: number | undefined;
}

/** The peers as the API shows them, and since when nothing has come from each: that is noticed whether anybody asks or not. */
export class ShownPeers implements Disposable {
  readonly #parts: ShownPeersParts;
  readonly #lastSeen = new LastSeen();
  #peers: Look | undefined;
  #timer: NodeJS.Timeout | undefined;

  constructor(parts: ShownPeersParts) {
    this.#parts = parts;
    this.#sampleIn(SAMPLE_MS);
  }

  [Symbol.dispose](): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
  }

  #sampleIn(ms: number): void {
    this.#timer = setTimeout(() => {
      const startedMs = performance.now();
      this.#noticeArrivals();
      this.#sampleIn(Math.max(SAMPLE_MS, (performance.now() - startedMs) / SAMPLE_SHARE));
    }, ms).unref();
  }

  /** All peers, as of at most a moment ago, and not of before a path broke. */
  look(): { readonly list: Peer[]; readonly atMs: number } {
    const nowMs = performance.now();
    const changes = this.#parts.figures.probes?.changes;
    const last = this.#peers;
    if (last !== undefined && nowMs < last.freshUntilMs && changes === last.changes) return last;
    const { plane } = this.#parts.view();
    const leases = this.leases();
    const tunnels = wireguardBySubnet(plane);
    const list = leases.map((lease) => this.#peerOf(lease, plane, tunnels));
    this.#lastSeen.keepOnly(new Set(leases.map(leaseKey)));
    this.#peers = { list, atMs: Date.now(), freshUntilMs: nowMs + FRESH_MS, changes };
    return this.#peers;
  }

  /** Of all peers that are known. */
  leases(): readonly Lease[] {
    const { figures, view } = this.#parts;
    return figures.session?.table.peers ?? view().peers;
  }

  /** From whom packets have come since the last time: of all that is shown of a peer, what must not wait until somebody asks. */
  #noticeArrivals(): void {
    const { forwarder, slots } = this.#parts.figures;
    const keys = this.leases().map(leaseKey);
    this.#lastSeen.keepOnly(new Set(keys));
    if (forwarder === undefined) return;
    for (const key of keys) {
      const slot = slots.of(key);
      if (slot !== undefined) this.#lastSeen.at(key, forwarder.traffic(slot).rx.packets);
    }
  }

  #peerOf(lease: Lease, plane: ShownPlane | undefined, tunnels: WireguardBySubnet): Peer {
    const key = leaseKey(lease);
    const described = describedLease(lease);
    const id = described.subnets.join('&');
    const way = plane?.ways.get(key);
    const ike = plane?.ike?.tunnel(key);
    const reason = plane?.skipped.reasonOf(key) ?? ike?.problem;
    const traffic = this.#trafficOf(key);
    const tunnel = wireguardOf(described.subnets, tunnels) ?? (ike && bytesOf([ike]));
    const probes = this.#probesOf(described.subnets);
    const probe = worstOf(probes);
    const seenAtMs = latest([
      tunnel?.lastHandshakeAtMs ?? this.#lastSeen.at(key, traffic?.rx.packets),
      ...probes.map(({ lastAnswerAtMs }) => lastAnswerAtMs),
    ]);
    return {
      ...{ id, subnets: described.subnets, publicAddresses: described.publicAddresses },
      ...(lease.origin?.holder === undefined ? {} : { holder: lease.origin.holder }),
      backendType: backendOfLease(lease.attrs, plane?.config),
      path: way === undefined ? 'others' : way.path === 'forwarder' && this.#isFast(lease) ? 'fast-path' : way.path,
      ...(reason === undefined ? {} : { reason }),
      ...(way?.device === undefined ? {} : { device: way.device }),
      ...traffic,
      ...(tunnel === undefined ? {} : { tunnel }),
      ...(seenAtMs === undefined ? {} : { lastSeenAtMs: seenAtMs }),
      ...(probe === undefined ? {} : { probe }),
      ...(described.subnets.length > 1 && probes.length > 0 ? { probes } : {}),
    };
  }

  /** Of each family that something is known of. */
  #probesOf(subnets: readonly string[]): Probe[] {
    return subnets.flatMap((subnet) => {
      const result = this.#parts.figures.probes?.result(subnet);
      return result?.measuredAtMs === undefined ? [] : [shownProbe(result, result.measuredAtMs, subnet)];
    });
  }

  #isFast({ attrs }: Lease): boolean {
    const { ipv4, ipv6 } = attrs.publicAddresses;
    const { forwarder, fastPath } = this.#parts.figures;
    if (fastPath?.isOpen !== true || forwarder === undefined) return false;
    return [ipv4, ipv6].some((address) => address !== undefined && forwarder.isFast(address));
  }

  /** `undefined` for a peer that nobody counts packets of. */
  #trafficOf(key: LeaseKey): { readonly tx: Traffic; readonly rx: Traffic } | undefined {
    const { forwarder, slots } = this.#parts.figures;
    const slot = slots.of(key);
    return forwarder === undefined || slot === undefined ? undefined : directions(forwarder.traffic(slot));
  }
}

function shownProbe(
  { lastAnswerAtMs, rttMs, lossRatio, pathMtuBytes, passes, diagnosis }: PathResult,
  measuredAtMs: number,
  subnet: string,
): Probe {
  const isAnswered = rttMs !== undefined && passes.small !== 'no';
  return {
    measuredAtMs: epochMs(measuredAtMs),
    ...(isAnswered ? { rttMs: rttMs.median } : {}),
    ...(lossRatio === undefined ? {} : { lossRatio }),
    ...(pathMtuBytes === undefined ? {} : { pathMtuBytes }),
    ...(diagnosis === undefined ? {} : { problem: diagnosis.cause, fault: diagnosis.fault, remedy: diagnosis.remedy }),
    ...(lastAnswerAtMs === undefined ? {} : { lastAnswerAtMs: epochMs(lastAnswerAtMs) }),
    family: familyOf(subnet),
  };
}

/** Nothing comes back, something is wrong, nothing is; of two alike the first. */
function worstOf(probes: readonly Probe[]): Probe | undefined {
  const badness = ({ rttMs, problem }: Probe): number => (rttMs === undefined ? 2 : problem === undefined ? 0 : 1);
  return probes.toSorted((a, b) => badness(b) - badness(a))[0];
}

function latest(times: readonly (number | undefined)[]): number | undefined {
  const known = times.filter((atMs) => atMs !== undefined);
  return known.length === 0 ? undefined : Math.max(...known);
}

/** From the clock of the probes (performance.now). */
function epochMs(atMs: number): number {
  return Math.round(Date.now() - performance.now() + atMs);
}

function wireguardBySubnet(plane: ShownPlane | undefined): WireguardBySubnet {
  const peers = plane?.reconciler.stats().wireguard.flatMap((device) => device.peers) ?? [];
  return new Map(peers.flatMap((peer) => peer.allowedIps.map((subnet) => [formatPrefix(subnet), peer] as const)));
}

/** All that a peer has: a tunnel for each family, or one for both. */
function wireguardOf(subnets: readonly string[], bySubnet: WireguardBySubnet): Tunnel | undefined {
  const tunnels = [...new Set(subnets.flatMap((subnet) => bySubnet.get(subnet) ?? []))];
  if (tunnels.length === 0) return undefined;
  const lastHandshakeAtMs = latest(tunnels.map((tunnel) => tunnel.lastHandshakeAtMs));
  return { ...bytesOf(tunnels), ...(lastHandshakeAtMs === undefined ? {} : { lastHandshakeAtMs }) };
}

function bytesOf(tunnels: readonly Pick<Tunnel, 'sentBytes' | 'receivedBytes'>[]): Tunnel {
  const sum = (bytes: 'sentBytes' | 'receivedBytes'): number => tunnels.reduce((all, tunnel) => all + tunnel[bytes], 0);
  return { sentBytes: sum('sentBytes'), receivedBytes: sum('receivedBytes') };
}
