import type { FastPathObstacle } from '../dataplane/fast-path/mode.ts';
import type { PathResult } from '../probe/probe-path.ts';

/**
 * What the metrics are read from: the state of the agent's parts at one moment, as plain figures. The composition root
 * puts it together when Prometheus asks; nothing is counted twice, here and there. A part that is absent has no series.
 */
export interface MetricsSnapshot {
  readonly build: BuildInfo;
  readonly ready: boolean;
  /** Whether the store has another network configuration than the agent works with. */
  readonly configOutdated: boolean;
  /** Whether each part of the node that packets or pods need fails, by its name. */
  readonly failures: Readonly<Record<string, boolean>>;
  /** Lines of the log that could not be written. */
  readonly droppedLogLines: number;
  readonly leases?: LeaseFigures | undefined;
  /** Of the peers, those that the backend cannot reach, or in one family only. */
  readonly skippedPeers?: number | undefined;
  readonly store?: StoreFigures | undefined;
  /** IPv4 packets that the kernel of this host has dropped outside the agent, by reason. */
  readonly hostDrops?: Readonly<Record<string, number>> | undefined;
  /** The same of IPv6 packets. */
  readonly hostDrops6?: Readonly<Record<string, number>> | undefined;
  /** Packets that the kernel dropped at the devices of the overlay and at the agent's socket. */
  readonly queueDrops?: Readonly<Record<string, number>> | undefined;
  readonly forwarder?: ForwarderFigures | undefined;
  readonly kernel?: KernelFigures | undefined;
  readonly traffic?: TrafficFigures | undefined;
  /** By when they are run; absent for what was never run. */
  readonly hooks?: Readonly<Record<string, HookFigures>> | undefined;
  /** What probes of the ways to peers have found. */
  readonly probes?: ProbeFigures | undefined;
  /** Peers of WireGuard devices, as of the last look at the kernel. */
  readonly wireguard?: readonly WireguardFigures[] | undefined;
  /** Tunnels of the IKE daemon, as of the last look at it. */
  readonly ipsec?: readonly IpsecFigures[] | undefined;
}

/** Commands of the network configuration that have ended. */
export interface HookFigures {
  readonly succeeded: number;
  readonly failed: number;
}

export interface ProbeFigures {
  /** `undefined`: none were sent, for there is nobody to send them to, or they are off. */
  readonly sent: number | undefined;
  readonly paths: readonly PathResult[];
}

export interface BuildInfo {
  readonly version: string;
  /** `udp`, … ; empty before the network configuration is known. */
  readonly backend: string;
  /** `kube`, `etcd` or `local`. */
  readonly subnetManager: string;
}

export interface LeaseFigures {
  /** Leases of other hosts that are in force. */
  readonly peers: number;
  /** Entries of the store that are not believed now, by reason (lease/refusal.ts). */
  readonly refused: Readonly<Partial<Record<string, number>>>;
  /** Changes that reached this host, by kind, such as `set`, `removed`, `snapshot`. */
  readonly events: Readonly<Record<string, number>>;
  /** End of this host's own lease, in milliseconds since the epoch; `undefined`: it has none, or it never ends. */
  readonly ownExpiresAtMs: number | undefined;
}

/** The lease store as this host sees it: API server, etcd or file. */
export interface StoreFigures {
  readonly reachable: boolean;
  readonly errors: number;
  readonly unreadableEntries: number;
  /** What went wrong last, while it does not answer. */
  readonly failure: string | undefined;
  /** Of the last answer, in milliseconds since the epoch. */
  readonly lastSuccessAtMs: number | undefined;
}

export interface ForwarderFigures {
  readonly running: boolean;
  /** Whether packets may take the fast path in the kernel. */
  readonly fastPath: boolean;
  /** Why they may not although it is wanted. */
  readonly fastPathObstacle: FastPathObstacle | undefined;
  /** Peers whose agent is away. */
  readonly fastPathPeersAlone: number;
  /** Times the data path was opened again after it broke. */
  readonly restarts: number;
  /** Times the peer table was written, and when last, in milliseconds since the epoch. */
  readonly published: { readonly times: number; readonly lastAtMs: number | undefined };
  readonly peers: Iterable<PeerFigures>;
  /** Senders whose packets were refused within the last ten minutes, by reason. */
  readonly refusedSenders: Readonly<Record<string, number>>;
  /** What could not be laid at a peer's door: no route, unknown source. */
  readonly nobody: DirectionFigures;
  /** Counts of the packet workers, by name, such as system calls. */
  readonly operations: Readonly<Record<string, number>>;
}

export interface PeerFigures extends DirectionFigures {
  /** The peer's subnet, CIDR. */
  readonly peer: string;
}

export interface DirectionFigures {
  /** To the peer. */
  readonly tx: PacketFigures;
  /** From the peer. */
  readonly rx: PacketFigures;
}

export interface PacketFigures {
  readonly packets: number;
  /** Of the inner packets, IP header included. */
  readonly bytes: number;
  /** Packets by reason. */
  readonly drops: Readonly<Partial<Record<string, number>>>;
}

export interface KernelFigures {
  readonly runs: number;
  /** By type of operation. */
  readonly operations: Readonly<Partial<Record<string, number>>>;
  /** Those of them that put back what somebody had changed. */
  readonly repairs: Readonly<Partial<Record<string, number>>>;
  readonly failures: number;
  /** Parts of the wanted state that cannot be had for now. */
  readonly problems: number;
  readonly converged: boolean;
}

export interface WireguardFigures {
  readonly device: string;
  /** The peer's subnets, CIDR. */
  readonly peer: string;
  /** In milliseconds since the epoch; `undefined`: there was none yet. */
  readonly lastHandshakeAtMs: number | undefined;
  /** On the wire. */
  readonly sentBytes: number;
  readonly receivedBytes: number;
}

export interface IpsecFigures {
  /** The peer's subnet, CIDR. */
  readonly peer: string;
  readonly isUp: boolean;
  /** With the keys that are in use now. */
  readonly sentBytes: number;
  readonly receivedBytes: number;
}

export interface TrafficFigures {
  readonly checks: number;
  readonly failures: number;
  /** By problem: `missing`, `order`, … */
  readonly repairs: Readonly<Record<string, number>>;
  readonly lastSuccessAtMs: number | undefined;
}
