/** What a run of the lab found: the object that `weft lab --json` prints. A part that was not reached is null. */
import type { OverlayWay } from './overlay.ts';
import type { Walk } from './walk.ts';

export interface LabResult {
  /** Everything was reached and passed. */
  readonly ok: boolean;
  readonly id: string;
  readonly subnetManager: string;
  readonly store: StoreResult | null;
  /** `Backend.Type` of the network. */
  readonly backend: string;
  /** The way from host to host. */
  readonly overlay: OverlayWay | null;
  readonly network: string;
  readonly kernel: string;
  readonly node: string;
  readonly hosts: readonly HostResult[];
  readonly stages: readonly StageResult[];
  readonly pings: PingResult | null;
  readonly mtuPing: MtuPingResult | null;
  /** Received by iperf3's server, one TCP stream. */
  readonly throughputGbps: number | null;
  readonly throughput: ThroughputResult | null;
  readonly fileHashOk: boolean | null;
  readonly file: FileResult | null;
  readonly leases: readonly LeaseResult[] | null;
  readonly routes: readonly HostRoutes[] | null;
  readonly walk: Walk | null;
  readonly nativeWalk: Walk | null;
  /** One sentence each; empty exactly when `ok`. */
  readonly failures: readonly string[];
  readonly durationMs: number;
  /** Whether the lab is still there. */
  readonly kept: boolean;
  /** Address of the page of a lab that is kept, with its token; null when there is none. */
  readonly page: string | null;
}

/** Where the agents agree on subnets. */
export interface StoreResult {
  readonly kind: string;
  /** As the agents are told it: a URL, or the path of the local store. */
  readonly endpoint: string;
  /** Of the server; null where there is none. */
  readonly version: string | null;
  /** What to try while a lab is kept. */
  readonly commands: readonly { readonly what: string; readonly command: string }[];
}

export interface HostResult {
  readonly name: string;
  readonly namespace: string;
  readonly address: string;
  readonly subnet: string | null;
  readonly mtuBytes: number | null;
  readonly agent: AgentResult | null;
  readonly containers: readonly {
    readonly name: string;
    readonly namespace: string;
    readonly address: string | null;
  }[];
}

export interface AgentResult {
  readonly pid: number;
  /** From the start of the process to the first 200 on /readyz. */
  readonly readyMs: number;
  /** Resident, at the end of the run. */
  readonly memoryMiB: number | null;
  readonly logPath: string;
}

export interface StageResult {
  readonly name: StageName;
  readonly title: string;
  readonly ok: boolean;
  readonly durationMs: number;
  readonly summary: string;
}

export type StageName =
  | 'topology'
  | 'store'
  | 'agents'
  | 'containers'
  | 'pings'
  | 'mtuPing'
  | 'throughput'
  | 'file'
  | 'leases'
  | 'walk';

export interface RttSummary {
  readonly min: number;
  readonly p50: number;
  readonly p99: number;
  readonly max: number;
}

export interface PingResult {
  readonly sent: number;
  readonly received: number;
  /** Of all replies between containers of different hosts. */
  readonly rttMs: RttSummary | null;
  /** Every ordered pair of containers. */
  readonly pairs: readonly PingPair[];
}

export interface PingPair {
  readonly from: string;
  readonly to: string;
  readonly sent: number;
  readonly received: number;
  readonly rttMs: { readonly min: number; readonly median: number; readonly max: number } | null;
}

export interface MtuPingResult {
  /** IP packet length, equal to the MTU of the containers. */
  readonly packetBytes: number;
  /** From the first container of each host to the first of the next one, don't-fragment set. */
  readonly pairs: readonly {
    readonly from: string;
    readonly to: string;
    readonly sent: number;
    readonly received: number;
  }[];
  /** One byte more is refused, with the MTU in the message. */
  readonly largerRefused: boolean;
}

export interface ThroughputResult {
  readonly from: string;
  readonly to: string;
  readonly seconds: number;
  readonly gbps: number;
  readonly retransmits: number;
  /** A quarter of a second each, as the sender saw it. */
  readonly intervalsGbps: readonly number[];
}

export interface FileResult {
  readonly from: string;
  readonly to: string;
  readonly bytes: number;
  readonly receivedBytes: number;
  readonly sha256: string;
  readonly receivedSha256: string;
  readonly seconds: number;
}

export interface LeaseResult {
  /** The host of the lab that it belongs to. */
  readonly host: string;
  readonly subnet: string;
  readonly publicIp: string;
  /** ISO 8601; null for a reservation. */
  readonly expiresAt: string | null;
}

export interface HostRoutes {
  readonly host: string;
  readonly routes: readonly RouteResult[];
}

export interface RouteResult {
  readonly destination: string;
  readonly gateway: string | null;
  readonly device: string;
  readonly protocol: string | null;
  readonly source: string | null;
}
