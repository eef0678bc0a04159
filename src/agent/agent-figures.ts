import type { FastPathState } from '../dataplane/fast-path/mode.ts';
import type { PeerSlots } from '../dataplane/peer-slots.ts';
import type { Forwarder, ForwarderEvent } from '../dataplane/supervisor.ts';
import type { ActualWireguard } from '../desired/state.ts';
import { formatPrefix } from '../ip/address.ts';
import type { ProcessLog } from '../log/log.ts';
import type {
  DirectionFigures,
  IpsecFigures,
  MetricsSnapshot,
  PeerFigures,
  StoreFigures,
  WireguardFigures,
} from '../metrics/snapshot.ts';
import type { ProbePackets } from '../probe/prober.ts';
import type { SubnetReport } from '../subnet/report.ts';
import type { ConfigWatch } from './config-watch.ts';
import type { IkeKeeper } from './ike-keeper.ts';
import type { LeaseSession } from './lease-session.ts';
import type { NodePlane } from './node-plane.ts';
import type { PeerProbes } from './peer-probes.ts';
import type { AgentHost } from './ports.ts';
import type { NodeReadiness } from './readiness.ts';
import { HighestCounts, RisingCount, RisingCounts } from './rising-count.ts';

/** From here on a series for each peer that was probed once is too much. */
const LARGE_CLUSTER = 64;
/** Probes on their way through the data path, which is ahead of who counts them. */
const IN_FLIGHT = 16;

/** None for a peer that nothing was exchanged with, or probes alone: true of most in a large cluster. */
function peerFigures(peer: string, traffic: DirectionFigures, probes: ProbePackets): PeerFigures[] {
  const isSilent = (['tx', 'rx'] as const).every((direction) => {
    const { packets, drops } = traffic[direction];
    return packets <= probes[direction] && Object.keys(drops).length === 0;
  });
  return isSilent ? [] : [{ peer, ...traffic }];
}

/** Of the peers of a WireGuard device, as of the last look at the kernel. */
function wireguardFigures({ link: device, peers }: ActualWireguard): WireguardFigures[] {
  return peers.map(({ allowedIps, lastHandshakeAtMs, sentBytes, receivedBytes }) => {
    return { device, peer: allowedIps.map(formatPrefix).join('&'), lastHandshakeAtMs, sentBytes, receivedBytes };
  });
}

function ipsecFigures(ike: IkeKeeper): IpsecFigures[] {
  return Array.from(ike.tunnels(), ([key, { isUp, sentBytes, receivedBytes }]) => {
    return { peer: subnetOf(key), isUp, sentBytes, receivedBytes };
  });
}

/** What the agent's parts have counted, gathered for the metrics; each part is filled in when it exists. */
export class AgentFigures {
  readonly slots: PeerSlots;
  readonly #readiness: NodeReadiness;
  readonly #subnetManager: string;
  readonly #deviceDrops = new RisingCounts();
  readonly #socketDrops = new RisingCount();
  readonly #hostDrops = new HighestCounts();
  readonly #hostDrops6 = new HighestCounts();
  readonly #host: Pick<AgentHost, 'version' | 'hostDrops' | 'hostDrops6' | 'deviceDrops'>;
  readonly #log: Pick<ProcessLog, 'droppedLines'>;
  readonly #events: Record<string, number> = {};
  #restarts = 0;
  #storeErrors = 0;
  #unreadableEntries = 0;
  #storeReachable = true;
  #storeFailure: string | undefined;
  #lastStoreSuccessAtMs: number | undefined;
  backend = '';
  /** Whether the network configuration has changed since the agent started. */
  config: Pick<ConfigWatch, 'isOutdated'> | undefined;
  plane: Pick<NodePlane, 'carrier' | 'devices' | 'reconciler' | 'traffic' | 'hooks' | 'ike' | 'skipped'> | undefined;
  /** Whether packets may take the fast path while the forwarder runs. */
  fastPath: FastPathState | undefined;
  session: LeaseSession | undefined;
  probes: PeerProbes | undefined;
  /** Packets of each peer at the last look of {@link activePeers}. */
  readonly #packetsBefore = new Map<string, number>();

  constructor(
    slots: PeerSlots,
    readiness: NodeReadiness,
    subnetManager: string,
    log: Pick<ProcessLog, 'droppedLines'>,
    host: Pick<AgentHost, 'version' | 'hostDrops' | 'hostDrops6' | 'deviceDrops'>,
  ) {
    this.#host = host;
    this.#log = log;
    this.slots = slots;
    this.#readiness = readiness;
    this.#subnetManager = subnetManager;
  }

  /** Counts the packets, of whichever backend it is. */
  get forwarder(): Forwarder | undefined {
    return this.plane?.carrier;
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
      this.#storeFailure = report.error.message;
    } else if (
      ['store-answered', 'lease-renewed', 'lease-allocated', 'lease-reused', 'resynchronised'].includes(report.type)
    ) {
      this.#storeReachable = true;
      this.#storeFailure = undefined;
      this.#lastStoreSuccessAtMs = Date.now();
    }
  }

  /** Whether it answered last. */
  get storeReachable(): boolean {
    return this.#storeReachable;
  }

  /** Peers that more than probes was exchanged with since the last call, by their subnets. */
  *activePeers(): Iterable<string> {
    const { forwarder } = this;
    if (forwarder === undefined) return;
    for (const [key, slot] of this.slots.entries()) {
      const { tx, rx } = forwarder.traffic(slot);
      const probes = this.#probePackets(key);
      const packets = tx.packets + rx.packets - probes.tx - probes.rx;
      const before = this.#packetsBefore.get(key) ?? 0;
      this.#packetsBefore.set(key, packets);
      if (packets > before) yield subnetOf(key);
    }
  }

  #probesToIgnore(key: string, peers: number): ProbePackets {
    if (peers <= LARGE_CLUSTER) return { tx: 0, rx: 0 };
    const { tx, rx } = this.#probePackets(key);
    return tx + rx === 0 ? { tx, rx } : { tx: tx + IN_FLIGHT, rx: rx + IN_FLIGHT };
  }

  #probePackets(key: string): ProbePackets {
    return this.probes?.packets(subnetOf(key)) ?? { tx: 0, rx: 0 };
  }

  #queueDrops(): Readonly<Record<string, number>> {
    const { forwarder, plane } = this;
    const device = this.#deviceDrops.total(plane?.devices ?? [], (name) => this.#host.deviceDrops(name));
    const socket = this.#socketDrops.total(forwarder?.socketDrops());
    return { ...(device === undefined ? {} : { device }), ...(socket === undefined ? {} : { socket }) };
  }

  /** Packets that the kernel of this host dropped outside the agent, as far as one look tells. Reads files of the kernel. */
  drops(): Readonly<Record<'hostDrops' | 'hostDrops6' | 'queueDrops', Readonly<Record<string, number>>>> {
    return { hostDrops: this.#host.hostDrops(), hostDrops6: this.#host.hostDrops6(), queueDrops: this.#queueDrops() };
  }

  get store(): StoreFigures {
    return {
      reachable: this.#storeReachable,
      failure: this.#storeFailure,
      errors: this.#storeErrors,
      unreadableEntries: this.#unreadableEntries,
      lastSuccessAtMs: this.#lastStoreSuccessAtMs,
    };
  }

  /** Times that the forwarder was opened again. */
  get restarts(): number {
    return this.#restarts;
  }

  snapshot(): MetricsSnapshot {
    const { forwarder, plane, session } = this;
    const kernel = plane?.reconciler.stats();
    const peers = session?.table.size ?? 0;
    const { hostDrops, hostDrops6, queueDrops } = this.drops();
    return {
      build: { version: this.#host.version, backend: this.backend, subnetManager: this.#subnetManager },
      configOutdated: this.config?.isOutdated ?? false,
      ready: this.#readiness.read().ready,
      failures: this.#readiness.parts(),
      droppedLogLines: this.#log.droppedLines,
      leases: session && {
        peers,
        refused: session.refused,
        events: this.#events,
        ownExpiresAtMs: session.own.expiresAtMs,
      },
      skippedPeers: plane?.skipped.count,
      store: this.store,
      hostDrops: this.#hostDrops.take(hostDrops),
      hostDrops6: this.#hostDrops6.take(hostDrops6),
      queueDrops,
      forwarder: forwarder && {
        running: forwarder.failure === undefined,
        fastPath: forwarder.failure === undefined && this.fastPath?.isOpen === true,
        fastPathObstacle: this.fastPath?.obstacle,
        fastPathPeersAlone: this.fastPath?.peersAlone ?? 0,
        restarts: this.#restarts,
        published: forwarder.published,
        peers: Array.from(this.slots.entries()).flatMap(([key, slot]) =>
          peerFigures(key.replaceAll('-', '/'), forwarder.traffic(slot), this.#probesToIgnore(key, peers)),
        ),
        nobody: forwarder.traffic(0),
        refusedSenders: forwarder.refusals.counts(performance.now()),
        operations: forwarder.counters.readGauges(),
      },
      kernel: kernel && { ...kernel, problems: kernel.problems.length },
      wireguard: kernel?.wireguard.flatMap(wireguardFigures),
      ipsec: plane?.ike && ipsecFigures(plane.ike),
      traffic: plane?.traffic.counters,
      hooks: plane?.hooks.figures,
      probes: this.probes && { sent: this.probes.sent, paths: this.probes.results() },
    };
  }
}

/** The first subnet of a lease's key, CIDR. */
function subnetOf(key: string): string {
  return key.replace(/&.*/, '').replace('-', '/');
}
