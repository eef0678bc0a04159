import type { Inspection } from '../api/inspection.ts';
import type { Doctor } from '../api/schema.ts';
import type { CloudRoute, IdentityHost } from '../backend/backend.ts';
import type { NodeAddresses } from '../config/node-addresses.ts';
import type { DestinationCheck } from '../dataplane/destination-check.ts';
import type { FastPathInMode, FastPathMode, FastPathState } from '../dataplane/fast-path/mode.ts';
import type { ForwarderUnderlay } from '../dataplane/forwarder-underlay.ts';
import type { SourceCheck } from '../dataplane/source-check.ts';
import type { Forwarder, ForwarderEvent } from '../dataplane/supervisor.ts';
import type { ChecksumProbe } from '../desired/checksum-probe.ts';
import type { Kernel } from '../desired/kernel.ts';
import type { OuterFilter } from '../desired/outer-filter.ts';
import type { WeftError } from '../errors.ts';
import type { TellNodeEvent } from '../events/node-event.ts';
import type { IkeDaemon } from '../ike/ike.ts';
import type { IpAddr } from '../ip/address.ts';
import type { PerFamily } from '../ip/family.ts';
import type { ReportSink } from '../subnet/report.ts';
import type { SubnetManager } from '../subnet/subnet-manager.ts';
import type { FirewallText } from '../trafficmngr/forward-drops.ts';
import type { TrafficManager } from '../trafficmngr/traffic-manager.ts';
import type { HostNetwork, NetworkInterface } from '../underlay/host-network.ts';
import type { ProbePort } from './peer-probes.ts';

/**
 * What the agent's life needs of the host it runs on and of its store. Made in cmd/flanneld/wire.ts for this host; tests run the
 * same life on fakes, without root.
 */
export interface AgentHost {
  /** Of this program. */
  readonly version: string;
  /** As the host calls itself. */
  readonly hostName: string;
  /** Serves the agent's API; what cannot be opened is told and left out. Rejects only with the signal's reason. */
  serveApi(inspection: Inspection, onProblem: (text: string) => void, signal: AbortSignal): Promise<AsyncDisposable>;
  /** What the checks of weft doctor find on this host; rejects only with the signal's reason. */
  examine(signal: AbortSignal): Promise<Doctor['checks']>;
  /** Waits until the store was reached, where its manager does. @throws WeftError of the manager. */
  openStore(report: ReportSink, signal: AbortSignal): Promise<OpenSubnetManager>;
  /** @param canReach also how that address is reached. */
  readNetwork(signal: AbortSignal, options?: { readonly canReach?: IpAddr | undefined }): Promise<HostNetwork>;
  /** All addresses of this host. */
  readAddresses(signal: AbortSignal): Promise<readonly IpAddr[]>;
  /** Something has happened that bears on which interface leads to the other nodes. */
  externalNotices(present: () => Pick<NetworkInterface, 'index' | 'name'>, signal: AbortSignal): AsyncIterable<void>;
  /** An address or a default route has come or gone; the first notice comes at once. */
  reachNotices(signal: AbortSignal): AsyncIterable<void>;
  /** Sets a route in a cloud's network; idempotent. @returns what was done. @throws WeftError WEFT_CLOUD_API. */
  setCloudRoute(route: CloudRoute, signal: AbortSignal): Promise<string>;
  /** What a backend may ask of the host before there is a lease. */
  readonly identity: IdentityHost;
  /** The TCP connections of this process. */
  connections(): ConnectionCloser & Disposable;
  kernel(): Kernel;
  forwarder(wish: ForwarderWish): Forwarder;
  /** @param onLine takes what it says. */
  ikeDaemon(onLine: (line: string) => void): IkeDaemon;
  /** IPv4 packets that the kernel of this host has dropped outside the agent, by reason; never throws. */
  hostDrops(): Readonly<Record<string, number>>;
  /** The same of IPv6 packets. */
  hostDrops6(): Readonly<Record<string, number>>;
  /** Packets that the kernel has dropped at that device since it was made; `undefined` when it is not there. Never throws. */
  deviceDrops(name: string): number | undefined;
  /** By which the ways to the peers are measured. */
  readonly probes: ProbePort;
  /** The fast path ends that an earlier agent has left by that TUN device. Returns what is in the way of that. */
  endFastPath(root: string, tunName: string): string | undefined;
  /** Whether a peer answers a datagram, depending on who computes its checksum; `undefined`: it could not be sent. */
  probeChecksum(probe: ChecksumProbe, signal: AbortSignal): Promise<boolean | undefined>;
  /** Filters of tunnelled packets by their outer source. */
  readonly outerFilters: OuterFilterPort;
  trafficManager(kind: TrafficManager['kind']): TrafficManager;
  /** All of the host's packet filters that can be read; never rejects but with the signal's reason. */
  firewall(signal: AbortSignal): Promise<FirewallText>;
  /** `undefined` when there is no such file. */
  readText(path: string, signal: AbortSignal): Promise<string | undefined>;
  /** Gives memory back that is not in use; holds up the control plane for a moment. */
  releaseMemory(): void;
  serviceManager(onProblem: (text: string) => void): ServiceManager;
  readonly handOver: AgentHandOver;
}

/** How one agent follows another on a host without a gap. */
export interface AgentHandOver {
  /** The agent that carries packets for the same subnet file, if there is any: its health port is free from now on. */
  announce(signal: AbortSignal): Promise<Predecessor | undefined>;
  /** From now on, until disposed, the next agent may take over. */
  accept(parts: HandOverParts): Promise<AsyncDisposable>;
  /** Closes what was handed over and found no use. */
  settled(): void;
}

export interface Predecessor {
  /** Tells it that this process carries packets; resolves when it has left, or does not answer. */
  carries(signal: AbortSignal): Promise<void>;
}

export interface HandOverParts {
  /** The next agent has announced itself: the port of the health endpoint is to be free when this returns. */
  readonly release: () => void;
  /** It has ended without carrying packets, and everything is as before. */
  readonly regain: () => void;
}

/** Each rejects when it could not be done; `replace` and `remove` have the same effect again and again. */
export interface OuterFilterPort {
  replace(filter: OuterFilter, signal: AbortSignal): Promise<void>;
  change(name: string, added: readonly IpAddr[], removed: readonly IpAddr[], signal: AbortSignal): Promise<void>;
  names(signal: AbortSignal): Promise<readonly string[]>;
  remove(name: string, signal: AbortSignal): Promise<void>;
}

export interface ConnectionCloser {
  /** Closes the connections of addresses that are gone; how many there were of each. Addresses in text. */
  keepOnly(addresses: ReadonlySet<string>): ReadonlyMap<string, number>;
}

/** systemd, where it has started the agent. */
export interface ServiceManager extends Disposable {
  ready(): void;
  stopping(): void;
}

export interface OpenSubnetManager {
  readonly manager: SubnetManager;
  /** What is known of this node beside its lease; undefined when the manager knows no nodes. */
  readonly nodeAddresses: ((signal: AbortSignal) => Promise<NodeAddresses>) | undefined;
  /** What this node has published for its backend before, as the store has it; undefined when the store does not know. */
  readonly published: ((signal: AbortSignal) => Promise<PerFamily<string | undefined>>) | undefined;
  /** Where others look for the state of this node, told why it has no network; undefined when there is no such place. */
  readonly reportFailure: ((error: WeftError, signal: AbortSignal) => Promise<void>) | undefined;
  /** The same place, for what has happened. */
  readonly tellEvent: TellNodeEvent | undefined;
}

export interface ForwarderWish {
  /** Names and addresses as they are wanted when something is opened: they may change while the forwarder lives. */
  readonly underlay: () => ForwarderUnderlay;
  /** Whether the TUN device outlives the process. */
  readonly persistent: boolean;
  readonly sourceCheck: SourceCheck;
  readonly destinationCheck: DestinationCheck;
  readonly fastPath: FastPathMode;
  readonly fastPathIn: FastPathInMode;
  /** Directory in a bpffs where it is kept so that it outlives the process; `undefined`: it ends with it. */
  readonly fastPathRoot: string | undefined;
  readonly onEvent: (event: ForwarderEvent) => void;
  /** Something an operator should know, and should mend. */
  readonly onNotice: (text: string) => void;
  readonly onFastPath: (state: FastPathState) => void;
}
