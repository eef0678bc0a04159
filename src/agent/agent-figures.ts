import type { PeerSlots } from '../dataplane/peer-slots.ts';
import type { Forwarder, ForwarderEvent } from '../dataplane/supervisor.ts';
import type { Reconciler } from '../desired/reconciler.ts';
import type { ActualWireguard } from '../desired/state.ts';
import { formatPrefix } from '../ip/address.ts';
import type { ProcessLog } from '../log/log.ts';
import type { DirectionFigures, MetricsSnapshot, PeerFigures, WireguardFigures } from '../metrics/snapshot.ts';
import type { SubnetReport } from '../subnet/report.ts';
import type { ConfigWatch } from './config-watch.ts';
import type { HookKeeper } from './hook-keeper.ts';
import type { LeaseSession } from './lease-session.ts';
import type { FastPathState } from './ports.ts';
import type { NodeReadiness } from './readiness.ts';
import type { SkippedPeers } from './skipped-peers.ts';
import type { NodeTraffic } from './traffic.ts';

/** None for a peer that nothing was exchanged with: true of most in a large cluster. */
function peerFigures(peer: string, traffic: DirectionFigures): PeerFigures[] {
  const isSilent = [traffic.tx, traffic.rx].every(
    ({ packets, drops }) => packets === 0 && Object.keys(drops).length === 0,
  );
  return isSilent ? [] : [{ peer, ...traffic }];
}

/** Of the peers of a WireGuard device, as of the last look at the kernel. */
export function wireguardFigures({ link: device, peers }: ActualWireguard): WireguardFigures[] {
  return peers.map(({ allowedIps, lastHandshakeAtMs, sentBytes, receivedBytes }) => {
    return { device, peer: allowedIps.map(formatPrefix).join('&'), lastHandshakeAtMs, sentBytes, receivedBytes };
  });
}

/** What the agent's parts have counted, gathered for the metrics; each part is filled in when it exists. */
export class AgentFigures {
  readonly slots: PeerSlots;
  readonly #readiness: NodeReadiness;
  readonly #subnetManager: string;
  readonly #version: string;
  readonly #log: Pick<ProcessLog, 'droppedLines'>;
  readonly #events: Record<string, number> = {};
  #restarts = 0;
  #storeErrors = 0;
  #unreadableEntries = 0;
  #storeReachable = true;
  #lastStoreSuccessAtMs: number | undefined;
  backend = '';
  /** Whether the network configuration has changed since the agent started. */
  config: Pick<ConfigWatch, 'isOutdated'> | undefined;
  forwarder: Forwarder | undefined;
  /** Whether packets may take the fast path while the forwarder runs. */
  fastPath: FastPathState | undefined;
  reconciler: Reconciler | undefined;
  traffic: NodeTraffic | undefined;
  hooks: HookKeeper | undefined;
  skipped: SkippedPeers | undefined;
  session: LeaseSession | undefined;

  constructor(
    slots: PeerSlots,
    readiness: NodeReadiness,
    subnetManager: string,
    log: Pick<ProcessLog, 'droppedLines'>,
    version: string,
  ) {
    this.#version = version;
    this.#log = log;
    this.slots = slots;
    this.#readiness = readiness;
    this.#subnetManager = subnetManager;
  }

  countForwarderEvent(event: ForwarderEvent): void {
    if (event.type === 'failed') this.#restarts++;
  }

  /** A change of the leases reached this host, so the store has answered. */
  countLeaseUpdate(type: string): void {
    this.#events[type] = (this.#events[type] ?? 0) + 1;
    this.#lastStoreSuccessAtMs = Date.now();
  }

  countReport(report: SubnetReport): void {
    if (report.type === 'entry-unreadable') this.#unreadableEntries++;
    if (report.type === 'store-failed') {
      this.#storeErrors++;
      this.#storeReachable = false;
    } else if (
      ['store-answered', 'lease-renewed', 'lease-allocated', 'lease-reused', 'resynchronised'].includes(report.type)
    ) {
      this.#storeReachable = true;
      this.#lastStoreSuccessAtMs = Date.now();
    }
  }

  /** Whether it answered last. */
  get storeReachable(): boolean {
    return this.#storeReachable;
  }

  snapshot(): MetricsSnapshot {
    const { forwarder, reconciler, traffic, session } = this;
    const kernel = reconciler?.stats();
    return {
      build: { version: this.#version, backend: this.backend, subnetManager: this.#subnetManager },
      configOutdated: this.config?.isOutdated ?? false,
      ready: this.#readiness.read().ready,
      failures: this.#readiness.parts(),
      droppedLogLines: this.#log.droppedLines,
      leases: session && {
        peers: session.table.peers().length,
        refused: session.refused,
        events: this.#events,
        ownExpiresAtMs: session.own.expiresAtMs,
      },
      skippedPeers: this.skipped?.count,
      store: {
        reachable: this.#storeReachable,
        errors: this.#storeErrors,
        unreadableEntries: this.#unreadableEntries,
        lastSuccessAtMs: this.#lastStoreSuccessAtMs,
      },
      forwarder: forwarder && {
        running: forwarder.failure === undefined,
        fastPath: forwarder.failure === undefined && this.fastPath?.isOpen === true,
        fastPathObstacle: this.fastPath?.obstacle,
        fastPathPeersAlone: this.fastPath?.peersAlone ?? 0,
        restarts: this.#restarts,
        published: forwarder.published,
        peers: Array.from(this.slots.entries()).flatMap(([key, slot]) =>
          peerFigures(key.replaceAll('-', '/'), forwarder.traffic(slot)),
        ),
        nobody: forwarder.traffic(0),
        queueDrops: forwarder.queueDrops(),
        refusedSenders: forwarder.refusals.counts(performance.now()),
        operations: forwarder.counters.readGauges(),
      },
      kernel: kernel && { ...kernel, problems: kernel.problems.length },
      wireguard: kernel?.wireguard.flatMap(wireguardFigures),
      traffic: traffic?.counters,
      hooks: this.hooks?.figures,
    };
  }
}
