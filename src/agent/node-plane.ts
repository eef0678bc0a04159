import {
  type Backend,
  type CloudRoute,
  type ExternalInterface,
  isSkipped,
  type PeerPart,
  type SkippedPeer,
} from '../backend/backend.ts';
import { type BackendSetup, openBackend } from '../backend/registry.ts';
import type { FlanneldOptions } from '../config/flanneld-options.ts';
import type { RunHostCommand } from '../config/host-command.ts';
import { type NetworkConfig, networksOf } from '../config/network-config.ts';
import { ForwardingTable } from '../dataplane/forwarding-table.ts';
import type { PeerSlots } from '../dataplane/peer-slots.ts';
import type { Forwarder } from '../dataplane/supervisor.ts';
import { mergedStates } from '../desired/merged-states.ts';
import type { Reconciler } from '../desired/reconciler.ts';
import type { OwnLink, UnicastRoute, WantedLink, WantedState } from '../desired/state.ts';
import { describeError } from '../errors.ts';
import type { IpPrefix } from '../ip/address.ts';
import { familiesIn, present } from '../ip/family.ts';
import { type Lease, type LeaseEvent, type LeaseKey, leaseKey } from '../lease/lease.ts';
import type { SubnetEnvNetworks } from '../node-files/subnet-env.ts';
import { ChecksumWatch, summedBefore } from './checksum-watch.ts';
import { DuePeers } from './due-peers.ts';
import { failingAs } from './failing-as.ts';
import { ForwardDropWatch } from './forward-drop-watch.ts';
import { ForwardingWatch } from './forwarding-watch.ts';
import { HookKeeper } from './hook-keeper.ts';
import { IkeKeeper } from './ike-keeper.ts';
import type { Failing } from './keeper.ts';
import { OtherBackends, type OtherBackendsParts } from './other-backends.ts';
import { addressesOf, OuterSources, outerFilterName, outerTraffic } from './outer-sources.ts';
import { OwnAnswers } from './own-answers.ts';
import { type PeerProbes, probeTargets } from './peer-probes.ts';
import { type PeerWay, peerWay } from './peer-way.ts';
import type { AgentHost } from './ports.ts';
import type { Part } from './readiness.ts';
import { type RecordedForwarderParts, recordedForwarder } from './recorded-forwarder.ts';
import { recordedReconciler } from './recorded-reconciler.ts';
import { SkippedPeers } from './skipped-peers.ts';
import { NodeTraffic } from './traffic.ts';

/** A blackhole beside cni0's connected route needs another metric; any works, since it only catches what the other lacks. */
const BLACKHOLE_METRIC = 10_000;

/** Somebody else's firewall is read at every so manieth check of the own rules: that is more to read. */
const FIREWALL_LOOKS_EVERY = 6;
/** From which `-v` on the log has what the IKE daemon says. */
const CHARON_LEVEL = 2;
/** Longer ones Node.js takes for none. */
const LONGEST_TIMER_MS = 2 ** 31 - 1;

export interface NodePlaneParts extends RecordedForwarderParts {
  readonly host: Pick<
    AgentHost,
    | 'kernel'
    | 'forwarder'
    | 'ikeDaemon'
    | 'endFastPath'
    | 'trafficManager'
    | 'firewall'
    | 'readText'
    | 'setCloudRoute'
    | 'probeChecksum'
    | 'outerFilters'
  >;
  readonly options: FlanneldOptions;
  readonly config: NetworkConfig;
  readonly setup: BackendSetup;
  /** Links of the backend that this host used before, which go. */
  readonly formerLinks: readonly OwnLink[];
  /** Routes that a flanneld before has left by the external interface, which go or are taken over. */
  readonly formerRoutes: readonly UnicastRoute[];
  /** Networks that this host had before: routes, addresses and rules of theirs go. */
  readonly formerNetworks: readonly IpPrefix[];
  readonly runCommand: RunHostCommand;
  readonly others: Pick<OtherBackendsParts, 'candidates' | 'identify'>;
  /** Names of this agent's own TUN devices. */
  readonly tuns: readonly string[];
  /** Networks that other agents of this host have TUN devices for. */
  readonly networksBeside: readonly IpPrefix[];
  readonly external: ExternalInterface;
  readonly slots: PeerSlots;
  readonly probes: Pick<PeerProbes, 'setPeer'>;
}

/**
 * All that makes this host carry packets for one network configuration: the backend, the forwarder, the kernel's state
 * and the traffic rules. It needs no store, only to be told the leases. Disposing ends this process's part; what it made in
 * the kernel stays, so that a restart loses no packet and no connection.
 */
export class NodePlane implements AsyncDisposable {
  readonly config: NetworkConfig;
  readonly reconciler: Reconciler;
  readonly traffic: NodeTraffic;
  readonly hooks: HookKeeper;
  readonly skipped: SkippedPeers;
  readonly forwarder: Forwarder | undefined;
  /** Where an IKE daemon agrees with the peers on keys. */
  readonly ike: IkeKeeper | undefined;
  /** Networks that other agents of this host have TUN devices for. */
  readonly networksBeside: readonly IpPrefix[];
  /** How packets get to each peer that is known. */
  readonly ways: ReadonlyMap<LeaseKey, PeerWay>;
  readonly #ways = new Map<LeaseKey, PeerWay>();
  /** Links that are wanted, by name. */
  #links: ReadonlyMap<string, WantedLink['kind']> = new Map();
  readonly #parts: NodePlaneParts;
  #setup: BackendSetup;
  #backend: Backend;
  #external: ExternalInterface;
  #drops: ForwardDropWatch | undefined;
  #passing: ForwardingWatch | undefined;
  /** The route in the cloud's network that was set last. */
  #cloudRoute: string | undefined;
  /** What the forwarder was started with; undefined when it does not run. */
  #carrying: string | undefined;
  readonly #forwarding: ForwardingTable | undefined;
  /** For peers that do not use this host's backend. */
  readonly #others: OtherBackends;
  /** Whether the store has listed them. */
  #arePeersListed = false;
  /** Peers that only the forwarder was told of, before any was programmed. */
  #foreseen: readonly LeaseKey[] = [];
  readonly #checksums: ChecksumWatch;
  readonly #sources: OuterSources;
  readonly #peers = new DuePeers();
  /** What the peers are for that are for another backend. */
  readonly #typeBeside = new Map<LeaseKey, string>();
  /** What the peers were programmed for. */
  #answers: OwnAnswers | undefined;

  /** Changes nothing on the host. @throws WeftError of the backend for a configuration or interface that it cannot use. */
  constructor(parts: NodePlaneParts) {
    const { host, options, config, external, record, log } = parts;
    this.config = config;
    this.#parts = parts;
    this.networksBeside = parts.networksBeside;
    this.ways = this.#ways;
    this.skipped = new SkippedPeers(log, record);
    if (Object.keys(config.backend.written).length === 0)
      log.info('No Backend in the network config: using udp, as flannel does');
    this.#setup = parts.setup;
    this.#backend = openBackend(parts.setup, config, external);
    this.#external = external;
    this.forwarder = this.#backend.underlay && recordedForwarder(parts, () => this.#backend, options.fastPath);
    this.#others = new OtherBackends({
      ...{ ...parts.others, config, slots: parts.slots, log },
      forwarder: (backend) => recordedForwarder(parts, backend, 'off'),
      onChanged: () => this.#programAllAgain(),
    });
    this.#checksums = new ChecksumWatch({
      probe: (probe, signal) => host.probeChecksum(probe, signal),
      onBroken: () => this.#programAgain(),
      log,
    });
    this.#sources = new OuterSources({ filters: host.outerFilters, name: outerFilterName(networksOf(config)), log });
    this.#forwarding = this.forwarder && new ForwardingTable(parts.slots, this.forwarder);
    this.reconciler = recordedReconciler(host.kernel(), record, log);
    const { ike: settings } = this.#backend;
    this.ike =
      settings &&
      new IkeKeeper({ daemon: host.ikeDaemon((line) => log.verbose(CHARON_LEVEL, `charon: ${line}`)), settings, log });
    this.hooks = new HookKeeper({ run: parts.runCommand, log });
    this.traffic = new NodeTraffic({
      ...{ options, config, record, log },
      managerOf: (kind) => host.trafficManager(kind),
    });
  }

  get backend(): Backend {
    return this.#backend;
  }

  /** With the identity that is in use. */
  get setup(): BackendSetup {
    return this.#setup;
  }

  /** The forwarder that carries packets on this host: the own backend's, or that of a backend beside it. */
  get carrier(): Forwarder | undefined {
    return this.forwarder ?? this.#others.forwarder;
  }

  /** Whether what peers publish for their backends is of use here. */
  get usesPeerData(): boolean {
    return this.#backend.usesPeerData || this.#parts.others.candidates.size > 0;
  }

  get external(): ExternalInterface {
    return this.#external;
  }

  /** The devices of the overlay that this agent makes, also those for peers of other backends. */
  get devices(): readonly string[] {
    return [...this.#links].flatMap(([name, kind]) => (kind === 'external' ? [] : name));
  }

  /** Settings of this host's kernel that keep packets of containers from being passed on, as sysctl names them. */
  get forwardingOff(): readonly string[] {
    return this.#passing?.off ?? [];
  }

  /**
   * Another external interface, or other addresses or MTU of it; takes effect with the next `start` and `program`.
   * @param setup the same backend, with another identity of this host.
   */
  move(external: ExternalInterface, setup: BackendSetup = this.#setup): void {
    this.#setup = setup;
    this.#backend = openBackend(setup, this.config, external);
    this.#external = external;
  }

  /** What cannot work fails here, before a lease is taken. @throws WeftError of the forwarder or the traffic rules. */
  async prepare(signal: AbortSignal): Promise<void> {
    const { host, options, formerLinks, log } = this.#parts;
    for (const { name, kind } of formerLinks) {
      const problem = kind === 'tun' ? host.endFastPath(options.fastPathDir, name) : undefined;
      if (problem !== undefined) log.warn(problem);
    }
    if (this.#carrying === undefined) await failingAs('Error registering network: ', () => this.forwarder?.prepare());
    await failingAs('Error registering network: ', () => this.ike?.prepare(signal));
    await failingAs(this.#rulesFailure, () => this.traffic.probe(signal));
  }

  /**
   * Opens the way for packets of that subnet; without effect when it is open as wanted.
   * @param peers what is known of them so far: packets may be waiting.
   * @throws WeftError of forwarder, hook or cloud.
   */
  async start(own: Lease, peers: readonly Lease[], signal: AbortSignal): Promise<void> {
    const { forwarder } = this;
    const { underlay } = this.#backend;
    const { forwarder: part, hook, cloudRoute } = this.#backend.host(own);
    await failingAs('Error registering network: ', () => this.hooks.start(hook, signal));
    await failingAs('Error registering network: ', () => this.#setCloudRoute(cloudRoute, signal));
    this.ike?.start();
    if (forwarder === undefined || part === undefined || underlay === undefined) return;
    const { ipv4, ipv6 } = part.addresses;
    const wanted = [ipv4, ipv6, underlay.listenAddress, underlay.listenPort].join(' ');
    if (wanted === this.#carrying && forwarder.failure === undefined) return;
    this.#carrying = undefined;
    if (this.#answers === undefined) this.#foresee(own, peers);
    await failingAs('Error registering network: ', () => forwarder.start(part.addresses, signal));
    this.#carrying = wanted;
  }

  /** The forwarder's part of it, before there is a device to program: packets of a device that is taken over are waiting. */
  #foresee(own: Lease, peers: readonly Lease[]): void {
    const { forwarder } = this.#backend.host(own);
    if (forwarder === undefined || this.#forwarding === undefined || peers.length === 0) return;
    this.#forwarding.set(forwarder.table);
    for (const peer of peers) {
      const part = this.#backend.peer(own, peer);
      if (!isSkipped(part)) this.#forwarding.setPeer(leaseKey(peer), part.forward);
    }
    this.#foreseen = peers.map(leaseKey);
    this.#forwarding.publish();
  }

  /**
   * What the host and these peers, and no others, need of forwarder and kernel; takes effect soon. A peer whose lease is the one
   * that it was programmed for costs nothing. What an earlier agent has left in the kernel for others stays until the first
   * `update`. Never throws: the last good state stays in force.
   */
  program(own: Lease, peers: readonly Lease[]): void {
    this.#peers.set(peers, this.#foreseen);
    this.#foreseen = [];
    this.#program(own);
  }

  /** `program` with these changes of its peers, now that the store has listed them; costs what they are, not what there is. */
  update(own: Lease, events: readonly LeaseEvent[]): void {
    this.#arePeersListed = true;
    this.#peers.change(events);
    this.#program(own);
  }

  /** What the host and peers that have changed need, for the lease that was programmed last; nothing before there was one. */
  #programAgain(): void {
    if (this.#answers !== undefined) this.#program(this.#answers.own);
  }

  /** The same, and what every peer needs. */
  #programAllAgain(): void {
    this.#peers.again();
    this.#programAgain();
  }

  #program(own: Lease): void {
    const backend = this.#backend;
    const { reconciler } = this;
    const { log } = this.#parts;
    const before = this.#answers?.backend === backend ? this.#answers : undefined;
    const answers = before?.own === own ? before : new OwnAnswers(backend, own);
    if (before === undefined || leaseKey(before.own) !== leaseKey(own)) this.#peers.again();
    try {
      const { kernel, forwarder, probeChecksums = [], outer } = backend.host(own);
      this.#sources.set(outerTraffic(outer, this.#parts.options.sourceCheck));
      const { formerLinks, formerNetworks, formerRoutes, tuns } = this.#parts;
      this.#others.serve(own, this.#external, this.#typesBeside(answers));
      const { name, addresses, mtuBytes: underlayBytes } = this.#external;
      this.#checksums.set(
        kernel.addresses.flatMap(({ link, addr }) => (probeChecksums.includes(link) ? { link, from: addr } : [])),
        `${name} ${addresses.ipv4} ${addresses.ipv6} ${underlayBytes}`,
      );
      const networks = [...kernel.networks, ...formerNetworks];
      const summing = summedBefore(kernel, this.#checksums.broken);
      const state = mergedStates(this.#withBlackholes(own, summing), this.#others.hostStates(own));
      this.#links = new Map(state.links.map(({ name, kind }) => [name, kind]));
      const absentLinks = this.#others.unneeded(formerLinks, tuns);
      reconciler.set({ ...state, networks, absentLinks, formerRoutes, isPartial: !this.#arePeersListed });
      if (forwarder !== undefined) this.#forwarding?.set(forwarder.table);
    } catch (error) {
      log.error(`Could not program ${leaseKey(own)}: ${describeError(error)}`);
      return;
    }
    for (const [key, peer] of this.#peers.take()) this.#programPeer(answers, key, peer);
    this.#answers = answers;
    this.#forwarding?.publish();
    this.#others.publish();
  }

  /** What the peers that are for another backend say theirs is. */
  #typesBeside(answers: OwnAnswers): ReadonlySet<string> {
    const { candidates } = this.#parts.others;
    for (const [key, peer] of candidates.size === 0 ? [] : this.#peers.due()) {
      const type = peer?.attrs.backendType;
      if (type !== undefined && candidates.has(type) && isForAnother(answers, peer!)) this.#typeBeside.set(key, type);
      else this.#typeBeside.delete(key);
    }
    return new Set(this.#typeBeside.values());
  }

  /** An error that comes from one peer ends with that peer. */
  #programPeer(answers: OwnAnswers, key: LeaseKey, peer: Lease | undefined): void {
    const { backend, own } = answers;
    const { log } = this.#parts;
    try {
      const part = peer === undefined ? undefined : this.#partOf(answers, peer);
      const usable = part === undefined || isSkipped(part) ? undefined : part;
      this.reconciler.setPeer(key, usable?.kernel);
      const isOther = peer !== undefined && answers.isForAnother(peer);
      this.#forwarding?.setPeer(key, isOther ? undefined : usable?.forward);
      this.#others.setForward(key, isOther ? peer.attrs.backendType : undefined, usable);
      this.#sources.setPeer(key, peer && addressesOf(peer));
      this.#checksums.setPeer(key, isOther ? [] : (usable?.kernel.neighbours ?? []));
      this.hooks.setPeer(key, usable?.hook);
      this.ike?.setPeer(key, usable?.connection);
      this.skipped.set(key, part);
      if (part === undefined) this.#ways.delete(key);
      else this.#ways.set(key, peerWay(part, this.#links));
      const { probes } = this.#parts;
      if (peer === undefined || usable === undefined) probes.setPeer(key, []);
      else probes.setPeer(key, probeTargets(backend, own, this.#external, peer, usable));
    } catch (error) {
      log.error(`Could not program ${key.replaceAll('-', '/')}: ${describeError(error)}`);
    }
  }

  #partOf(answers: OwnAnswers, peer: Lease): PeerPart | SkippedPeer {
    const part = answers.of(peer);
    return isSkipped(part) ? (this.#others.peer(answers.own, peer) ?? part) : part;
  }

  /** The keepers of the way that packets take. */
  get keepers(): readonly (readonly [Part, Failing])[] {
    const { forwarder, ike, reconciler, traffic } = this;
    return [
      ...(forwarder === undefined ? [] : [['forwarder', forwarder] as const]),
      ['kernel', reconciler],
      ...(ike === undefined ? [] : [['key-exchange', ike] as const]),
      ['rules', traffic],
    ];
  }

  /**
   * Waits until what was programmed was tried, and sets the traffic rules. What the kernel does not have after that is a
   * `failure` of its keeper.
   * @param earlier what subnet.env said before this start.
   */
  async settle(own: Lease, earlier: SubnetEnvNetworks | undefined, signal: AbortSignal): Promise<void> {
    await this.reconciler.idle();
    await failingAs(this.#rulesFailure, () => this.traffic.apply(own, earlier, this.#backend.underlay, signal));
    const { config, host, log, options } = this.#parts;
    const intervalMs = Math.min(FIREWALL_LOOKS_EVERY * options.iptablesResyncSeconds * 1_000, LONGEST_TIMER_MS);
    this.#passing ??= new ForwardingWatch({
      ...{ families: familiesIn(config), log, intervalMs },
      read: (path, signal) => host.readText(path, signal),
    });
    const links = this.#backend.host(own).kernel.links.filter(({ kind }) => kind !== 'external');
    const devices = links.map(({ name }) => name);
    this.#drops ??= new ForwardDropWatch({
      ...{ networks: networksOf(config), devices, log, intervalMs },
      read: (signal) => host.firewall(signal),
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#sources[Symbol.asyncDispose]();
    await this.#checksums[Symbol.asyncDispose]();
    await this.#others[Symbol.asyncDispose]();
    await this.hooks[Symbol.asyncDispose]();
    await this.ike?.[Symbol.asyncDispose]();
    await this.#drops?.[Symbol.asyncDispose]();
    await this.#passing?.[Symbol.asyncDispose]();
    await this.traffic[Symbol.asyncDispose]();
    await this.reconciler[Symbol.asyncDispose]();
    await this.forwarder?.[Symbol.asyncDispose]();
  }

  async #setCloudRoute(route: CloudRoute | undefined, signal: AbortSignal): Promise<void> {
    const wanted = JSON.stringify(route);
    if (route === undefined || wanted === this.#cloudRoute) return;
    const { host, log } = this.#parts;
    log.info(await host.setCloudRoute(route, signal));
    this.#cloudRoute = wanted;
  }

  get #rulesFailure(): string {
    return `Failed to setup ${this.#parts.options.ipMasq ? 'masq' : 'forward'} rules, `;
  }

  #withBlackholes(own: Lease, state: WantedState): WantedState {
    if (!this.#parts.options.ipBlackholeRoute) return state;
    const subnets = present(own.subnets);
    const blackholes = subnets.map((dst) => ({ type: 'blackhole' as const, dst, metric: BLACKHOLE_METRIC }));
    return { ...state, routes: [...state.routes, ...blackholes] };
  }
}

/** An error is that of one peer, and is said when that peer is programmed. */
function isForAnother(answers: OwnAnswers, peer: Lease): boolean {
  try {
    return answers.isForAnother(peer);
  } catch {
    return false;
  }
}
