import { setTimeout as delay } from 'node:timers/promises';
import { isDeepStrictEqual } from 'node:util';
import {
  backendKind,
  backendsBeside,
  configuredBackend,
  identifyBackend,
  linksOfFormerBackend,
} from '../backend/registry.ts';
import { ownTuns } from '../backend/tun-name.ts';
import type { ChosenInterface, HostNetwork } from '../config/choose-interface.ts';
import type { FlanneldOptions } from '../config/flanneld-options.ts';
import { addressesOfHost, type KeepOptions } from '../config/keep-interface.ts';
import { describeNetworkConfig, type LastKnown, lastKnownPath, readLastKnown } from '../config/last-known.ts';
import { type NetworkConfig, networksOf } from '../config/network-config.ts';
import type { NodeAddresses } from '../config/node-addresses.ts';
import { readPreviousLease, readSubnetFile } from '../config/subnet-file.ts';
import { PeerSlots } from '../dataplane/peer-slots.ts';
import { MAX_PEERS } from '../dataplane/supervisor.ts';
import { describeError, WeftError } from '../errors.ts';
import type { RecordEvent } from '../events/event.ts';
import { EventRing } from '../events/event-ring.ts';
import type { TellNodeEvent } from '../events/node-event.ts';
import type { IpPrefix } from '../ip/address.ts';
import { type PerFamily, perFamily, present } from '../ip/family.ts';
import { ENTRY_BOUNDS } from '../lease/go-json.ts';
import { parseJsonWithin } from '../lease/json-value.ts';
import { type JsonValue, type Lease, leaseKey } from '../lease/lease.ts';
import { admittedOf } from '../lease/lease-gate.ts';
import type { LeaseTable } from '../lease/lease-table.ts';
import type { Log, ProcessLog } from '../log/log.ts';
import { createMetrics } from '../metrics/metrics.ts';
import { retryNow } from '../subnet/backoff.ts';
import { describeReport, type SubnetReport } from '../subnet/report.ts';
import { eventOfReport } from './agent-events.ts';
import { AgentFigures } from './agent-figures.ts';
import { aborted, carryOn } from './carry-on.ts';
import { NodeCniConf } from './cni-conf.ts';
import { ConfigWatch } from './config-watch.ts';
import { ConnectionKeeper } from './connection-keeper.ts';
import { explainInterface, externalOf, findExternalInterface } from './external-interface.ts';
import { failingAs } from './failing-as.ts';
import { gateRules } from './gate-rules.ts';
import { HealthPort } from './health-port.ts';
import { IdentityWatch, withoutFreshKeys } from './identity-watch.ts';
import { AgentInspection } from './inspection.ts';
import { describeExternal, InterfaceWatch } from './interface-watch.ts';
import { LastKnownKeeper } from './last-known-keeper.ts';
import { LeaseSession } from './lease-session.ts';
import { loggedCommands } from './logged-commands.ts';
import { MemoryRelease } from './memory-release.ts';
import { NodeCondition } from './node-condition.ts';
import { NodeEvents } from './node-events.ts';
import { NodePlane } from './node-plane.ts';
import { PeerProbes } from './peer-probes.ts';
import type { AgentHost, OpenSubnetManager, Predecessor, ServiceManager } from './ports.ts';
import { NodeReadiness, type Part } from './readiness.ts';
import { StartupFailures } from './startup-failures.ts';
import { StateChanges } from './state-changes.ts';
import { type StoreAnswer, StoreConnection } from './store-connection.ts';
import { describeStore } from './store-name.ts';
import { SubnetEnvKeeper } from './subnet-env-keeper.ts';
import { checkBridge } from './traffic.ts';

/** --explain-iface does not wait for a configuration that is not there. */
const EXPLAIN_CONFIG_MS = 5_000;
/** subnet.env waits this long for the first list of peers; a store that is that slow must not keep pods from starting. */
const FIRST_PEERS_MS = 10_000;
/** How often a start that waits for its keepers looks at them. */
const LOOK_MS = 200;
/**
 * A store that takes longer, or that could not be reached once, is away, and an agent that knows enough from an earlier run
 * carries packets without it.
 */
const STORE_PATIENCE_MS = 1_000;
/** Packets need the interface; what people wrote about it on the Node can be had again later. */
const NODE_PATIENCE_MS = 2_000;
/** What fails once the agent has been ready is tried again: packets flow meanwhile, and a restart would not help. */
const RETRY_MS = 5_000;

/** Of the process that the agent is. */
export interface AgentLife {
  readonly fatal: (error: unknown) => void;
  /** Says why, and sees to it that the process ends even if the rest of the agent does not. */
  readonly failed: (why: string) => void;
}

/**
 * The node agent's life, in flannel's order (README of flannel's main.go in DESIGN terms: plan, then apply). Returns when
 * the signal fires; what it made in the kernel stays, so that a restart loses no packet and no connection.
 *
 * @param life told of what only another process can mend, which makes the signal fire; and of a failure before everything is
 *   taken apart, which may take long or go wrong as well.
 * @throws WeftError for what a person must mend; whatever goes wrong while it ends.
 */
export async function runAgent(
  host: AgentHost,
  options: FlanneldOptions,
  log: ProcessLog,
  life: AgentLife,
  signal: AbortSignal,
): Promise<void> {
  const onFatal = life.fatal;
  await using stack = new AsyncDisposableStack();
  const failures = new StartupFailures(options.subnetFile);
  try {
    await new Agent({ host, options, log, onFatal }, failures, stack, signal).run();
  } catch (error) {
    // What was under way when it was told to stop has failed because of that.
    if (signal.aborted) return;
    await failures.fatal(error, (text) => log.warn(text));
    life.failed(describeError(error));
    throw error;
  }
}

/**
 * Which interface an agent with these options would take, and why not the others. Without a readable network configuration
 * IPv4 alone is assumed.
 */
export async function explainForHost(
  host: AgentHost,
  options: FlanneldOptions,
  signal: AbortSignal,
): Promise<{ readonly text: string; readonly found: boolean }> {
  const { manager, nodeAddresses } = await host.openStore(() => {}, signal);
  await using _ = manager;
  const families = await manager
    .networkConfig(AbortSignal.any([signal, AbortSignal.timeout(EXPLAIN_CONFIG_MS)]))
    .catch(() => {
      signal.throwIfAborted();
      return { ipv4: undefined, ipv6: undefined };
    });
  const known = await readLastKnown(options.subnetFile, describeStore(options), backendKind);
  const inUse = known.kind === 'read' ? known.known.external : undefined;
  return await explainInterface(host.readNetwork, options, families, await nodeAddresses?.(signal), inUse, signal);
}

const SILENT: Pick<Log, 'info'> = { info: () => {} };

/** What carries packets, and what tells it to move. */
interface NodeParts {
  readonly plane: NodePlane;
  readonly watch: InterfaceWatch;
  /** `undefined` when nothing can replace it. */
  readonly identity: IdentityWatch | undefined;
}

interface AgentParts {
  readonly host: AgentHost;
  readonly options: FlanneldOptions;
  readonly log: ProcessLog;
  readonly onFatal: (error: unknown) => void;
}

class Agent {
  readonly #host: AgentHost;
  readonly #options: FlanneldOptions;
  readonly #log: ProcessLog;
  readonly #onFatal: AgentParts['onFatal'];
  readonly #failures: StartupFailures;
  /** The agent that has carried packets until now, until it has left. */
  #predecessor: Predecessor | undefined;
  #acceptsSuccessor = false;
  #health: HealthPort | undefined;
  /** What is left to do once the agent before this one has left. */
  #serveApi: (() => Promise<void>) | undefined;
  /** Everything that ends with the agent; a failure is reported before it is taken apart. */
  readonly #stack: AsyncDisposableStack;
  readonly #signal: AbortSignal;
  readonly #readiness = new NodeReadiness();
  readonly #events = new EventRing();
  readonly #record: RecordEvent = (event) => this.#events.add(event);
  /** What carries packets, once there is something. */
  #plane: NodePlane | undefined;
  #watch: InterfaceWatch | undefined;
  readonly #figures: AgentFigures;
  readonly #cniConf: NodeCniConf;
  readonly #subnetEnv: SubnetEnvKeeper;
  readonly #keeper: LastKnownKeeper;
  readonly #memory: MemoryRelease;
  readonly #probes: PeerProbes;
  /** The parts of the plane that readiness looks at. */
  #watched = new DisposableStack();
  /** `false` once the store could not be reached. */
  readonly #storeFailed = Promise.withResolvers<false>();
  #askNode: OpenSubnetManager['nodeAddresses'];
  #askPublished: OpenSubnetManager['published'];
  #tellEvent: TellNodeEvent | undefined;
  #nodeEvents: NodeEvents | undefined;
  /** The last that is known of them. */
  #node: NodeAddresses | undefined;
  /** What an earlier run knew, and when that was written. */
  #known: LastKnown | undefined;
  #knownSince: Date | undefined;
  /** As it was when the external interface was last looked for. */
  #network: HostNetwork = { interfaces: [], defaultDevices: { ipv4: [], ipv6: [] }, canReach: undefined };
  /** The subnet whose packets are carried, and the peers: of an earlier run until the store has said more. */
  #own: Lease | undefined;
  #peers: () => readonly Lease[] = () => [];
  /** The lease that this process has acquired and not lost since. */
  #held: Lease | undefined;
  #hasBeenReady = false;
  /** A session has failed, and the next one is still to come: the lease is held and packets flow, so the node stays ready. */
  #isBetweenSessions = false;

  constructor(
    { host, options, log, onFatal }: AgentParts,
    failures: StartupFailures,
    stack: AsyncDisposableStack,
    signal: AbortSignal,
  ) {
    this.#host = host;
    this.#options = options;
    this.#log = log;
    this.#onFatal = onFatal;
    this.#failures = failures;
    this.#stack = stack;
    this.#signal = signal;
    this.#figures = new AgentFigures(new PeerSlots(MAX_PEERS + 1), this.#readiness, options.subnetManager, log, host);
    this.#cniConf = stack.use(new NodeCniConf(options, this.#readiness, log));
    this.#keeper = stack.use(new LastKnownKeeper(options.subnetFile, log));
    this.#probes = stack.use(
      new PeerProbes({
        port: options.probe === 'on' ? host.probes : undefined,
        active: () => this.#figures.activePeers(),
        log,
      }),
    );
    this.#figures.probes = this.#probes;
    this.#memory = stack.use(new MemoryRelease(() => host.releaseMemory()));
    this.#subnetEnv = stack.use(new SubnetEnvKeeper({ path: options.subnetFile, log }));
    this.#readiness.watch('subnet-env', this.#subnetEnv);
  }

  async run(): Promise<void> {
    await this.#cniConf.start();
    this.#log.info('Installing signal handlers');
    this.#predecessor = await this.#host.handOver.announce(this.#signal);
    if (this.#predecessor !== undefined) this.#log.info('Taking over from the agent that runs');
    // Before the subnet manager, which may wait for the API server: a liveness probe must not end an agent that waits.
    await this.#openHealth();
    const resumed = await this.#resume();
    const connection = this.#connect();
    await this.#openApi();
    this.#keepConnections();
    const carried = await this.#withoutStore(connection, await resumed);
    const answer = await connection.answered;
    using notifier = this.#host.serviceManager((text) => this.#log.warn(text));
    const parts = await this.#prepare(answer, carried);
    const { plane, watch, identity } = parts;
    this.#figures.config = this.#stack.use(
      new ConfigWatch({
        inUse: answer.config,
        read: (signal) => answer.manager.networkConfig(signal),
        isStoreThere: () => this.#figures.storeReachable,
        log: this.#log,
      }),
    );

    // ===== Up to here nothing new was made on the host, unless the store was away; from here on it is changed. =====

    while (!this.#signal.aborted) {
      const turn = AbortSignal.any([
        this.#signal,
        watch.changed,
        ...(identity === undefined ? [] : [identity.changed]),
      ]);
      try {
        this.#move(parts);
        await this.#holdLease(answer, plane, notifier, turn);
      } catch (error) {
        if (this.#signal.aborted) break;
        if (turn.aborted) continue;
        if (!this.#hasBeenReady) throw error;
        this.#log.error(describeError(error));
        if (!this.#isBetweenSessions) this.#readiness.waiting(describeError(error));
        await Promise.race([delay(RETRY_MS, undefined, { ref: false }), aborted(turn)]);
      }
    }
    notifier.stopping();
    this.#log.info('Waiting for all goroutines to exit');
  }

  #keepConnections(): void {
    this.#stack.use(
      new ConnectionKeeper({
        connections: this.#stack.use(this.#host.connections()),
        addresses: (signal) => this.#host.readAddresses(signal),
        notices: (signal) => this.#host.reachNotices(signal),
        retryNow,
        log: this.#log,
      }),
    );
  }

  #connect(): StoreConnection {
    const report = (entry: SubnetReport): void => {
      const event = eventOfReport(entry, describeStore(this.#options), this.#figures.storeReachable);
      if (event !== undefined) this.#record(event);
      this.#figures.countReport(entry);
      const { severity, text } = this.#logReport(entry);
      if (severity === 'warning' || severity === 'error') this.#failures.waiting(text);
      if (entry.type !== 'store-failed') return;
      this.#storeFailed.resolve(false);
      if (this.#own === undefined) this.#readiness.waiting(text);
    };
    const onManager = ({ manager, nodeAddresses, published, reportFailure, tellEvent }: OpenSubnetManager): void => {
      this.#failures.tellNode = reportFailure;
      this.#askNode = nodeAddresses;
      this.#askPublished = published;
      if (tellEvent !== undefined) this.#tellEvents(tellEvent);
      this.#log.info(`Created subnet manager: ${manager.name}`);
    };
    const parts = {
      ...{ options: this.#options, readiness: this.#readiness, failures: this.#failures, log: this.#log },
      ...{ report, onManager, openStore: this.#host.openStore },
    };
    return this.#stack.use(new StoreConnection(parts, this.#signal));
  }

  /** Each try of the store brings a manager of its own. */
  #tellEvents(tell: TellNodeEvent): void {
    this.#tellEvent = tell;
    this.#nodeEvents ??= this.#stack.use(
      new NodeEvents({
        events: this.#events,
        tell: (event, signal) => (this.#tellEvent ?? tell)(event, signal),
        log: this.#log,
      }),
    );
  }

  #logReport(entry: SubnetReport): ReturnType<typeof describeReport> {
    const described = describeReport(entry);
    const { severity, text } = described;
    if (severity === 'debug') this.#log.verbose(1, text);
    else if (severity === 'info') this.#log.info(text);
    else if (severity === 'warning') this.#log.warn(text);
    else this.#log.error(text);
    return described;
  }

  async #openHealth(): Promise<void> {
    const { healthzPort: port, healthzIp: ip } = this.#options;
    if (port <= 0) return;
    const metrics = this.#stack.use(createMetrics(() => this.#figures.snapshot()));
    const server = {
      ...{ ip, port, readiness: () => this.#readiness.read(), metrics: () => metrics.render() },
      lists: new Map([
        ['/refusals', () => this.#figures.forwarder?.refusals.recent(performance.now()) ?? []],
        ['/skipped-peers', () => this.#figures.plane?.skipped.lines() ?? []],
      ]),
    };
    this.#health = this.#stack.use(new HealthPort(server, this.#log, this.#signal));
    await this.#health.open();
  }

  /** Packets flow: the agent before this one leaves, and the next one may come. Does nothing after the first time. */
  async #carries(): Promise<void> {
    if (this.#acceptsSuccessor) return;
    this.#acceptsSuccessor = true;
    await this.#predecessor?.carries(this.#signal);
    this.#predecessor = undefined;
    if (this.#signal.aborted) return;
    // Rejects for the signal alone.
    await this.#serveApi?.().catch(() => {});
    const accepting = await this.#host.handOver.accept({
      release: () => {
        this.#log.info('The next agent has started');
        this.#health?.release();
      },
      regain: () => {
        this.#log.warn('The next agent has ended without taking over');
        void this.#health?.regain();
      },
    });
    if (this.#stack.disposed) await accepting[Symbol.asyncDispose]();
    else this.#stack.use(accepting);
  }

  async #openApi(): Promise<void> {
    const inspection = this.#stack.use(
      new AgentInspection({
        ...{ hostName: this.#host.hostName, version: this.#host.version, options: this.#options },
        ...{ figures: this.#figures, readiness: this.#readiness, events: this.#events, log: this.#log },
        view: () => ({
          ...{ plane: this.#plane, own: this.#own, peers: this.#peers() },
          isHeld: this.#held !== undefined,
          isExternalUp: this.#watch?.isUp ?? true,
        }),
      }),
    );
    this.#stack.use(
      new StateChanges({
        readiness: this.#readiness,
        isConfigOutdated: () => this.#figures.config?.isOutdated ?? false,
        record: this.#record,
      }),
    );
    const text = `weft ${this.#host.version} started with the subnet manager ${this.#options.subnetManager}`;
    this.#record({ kind: 'agent-started', severity: 'info', subject: this.#host.hostName, text });
    const warn = (problem: string): void => this.#log.warn(problem);
    const serve = async (): Promise<void> => {
      const server = await this.#host.serveApi(inspection, warn, this.#signal);
      if (this.#stack.disposed) await server[Symbol.asyncDispose]();
      else this.#stack.use(server);
    };
    // Until it has left, the agent before this one has the socket.
    if (this.#predecessor === undefined) await serve();
    else this.#serveApi = serve;
  }

  /**
   * Carries again what comes through the TUN device that an earlier run has left, for the peers that it knew, before the store is
   * even asked: kernel and rules are still as it made them. Resolves, without waiting for the packet workers, to what waits for
   * them; that resolves to `undefined` when nothing can be carried yet, which is tried again where it has to succeed.
   */
  async #resume(): Promise<Promise<NodeParts | undefined>> {
    const nothing = Promise.resolve(undefined);
    const known = await this.#readKnown();
    if (known === undefined) return nothing;
    const tuns = await this.#host.identity.tunDevices(this.#signal);
    if (ownTuns(tuns, networksOf(known.config)).length === 0) return nothing;
    this.#node = known.node;
    let parts: NodeParts | undefined;
    const failed = async (error: unknown): Promise<undefined> => {
      await endParts(parts);
      this.#signal.throwIfAborted();
      this.#log.warn(`Could not carry packets of ${leaseKey(known.own)} at once: ${describeError(error)}`);
      this.#own = undefined;
      return undefined;
    };
    try {
      parts = await this.#setUp(known.config);
      const believed = this.#believe(known, parts.plane);
      this.#own = known.own;
      const started = parts.plane.start(known.own, believed.peers, this.#signal);
      const resumed = started.then(() => parts, failed);
      resumed.catch(() => {}); // told by the signal
      return resumed;
    } catch (error) {
      await failed(error);
      return nothing;
    }
  }

  /** What an earlier run knew. Says why it cannot be used, and of which peers. */
  async #readKnown(): Promise<LastKnown | undefined> {
    const { subnetFile } = this.#options;
    const result = await readLastKnown(subnetFile, describeStore(this.#options), backendKind);
    if (result.kind === 'unusable') this.#log.warn(`${lastKnownPath(subnetFile)} is not used: ${result.reason}`);
    if (result.kind !== 'read') return undefined;
    const { known, writtenAt, unreadable } = result;
    if (unreadable.length > 0) {
      const [first] = unreadable;
      this.#log.warn(
        `${lastKnownPath(subnetFile)}: ${unreadable.length} peers cannot be read, the first because: ${first}`,
      );
    }
    this.#known = known;
    this.#knownSince = writtenAt;
    return known;
  }

  /** The peers of an earlier run pass the same gate as those of the store. */
  #believe(known: LastKnown, plane: NodePlane): LastKnown {
    const rules = gateRules(this.#options, plane, addressesOfHost(this.#network));
    const believed = { ...known, peers: admittedOf(rules, known.own, known.peers) };
    this.#known = believed;
    return believed;
  }

  /**
   * Carries packets with what an earlier run knew while the store does not answer; `undefined` when nothing is carried.
   * @param resumed what carries already.
   */
  async #withoutStore(connection: StoreConnection, resumed: NodeParts | undefined): Promise<NodeParts | undefined> {
    const { subnetFile } = this.#options;
    const known = this.#known;
    if (known === undefined) return undefined;
    if (await Promise.race([settlesWithin(connection.answered, STORE_PATIENCE_MS), this.#storeFailed.promise])) {
      return resumed;
    }
    const text = `the lease store has not answered yet; carrying packets of ${leaseKey(known.own)} to ${known.peers.length} peers, as known at ${this.#knownSince?.toISOString()}`;
    this.#log.warn(text);
    this.#own = known.own;
    this.#readiness.waiting(text);
    connection.bePatient();
    this.#node = known.node;
    let parts: NodeParts;
    try {
      parts = resumed ?? (await this.#setUp(known.config));
    } catch (error) {
      this.#signal.throwIfAborted();
      this.#log.error(`Could not carry on with ${leaseKey(known.own)}: ${describeError(error)}`);
      this.#own = undefined;
      return undefined;
    }
    const earlier = await readSubnetFile(subnetFile, this.#signal);
    const networks = earlier.kind === 'read' ? earlier.reading : undefined;
    const believed = this.#believe(known, parts.plane);
    const onCarrying = (): void => void this.#carries();
    await carryOn(
      believed,
      { ...parts, earlier: networks, log: this.#log, onCarrying },
      connection.answered,
      this.#signal,
    );
    return parts;
  }

  /** All that can fail before a lease is taken. */
  async #prepare(answer: StoreAnswer, carried: NodeParts | undefined): Promise<NodeParts> {
    const { config } = answer;
    if (config.ipv4 === undefined && config.ipv6 === undefined) {
      throw new WeftError('WEFT_CONFIG_INVALID', 'none defined stack', {
        hint: 'Enable IPv4 or IPv6 in net-conf.json',
      });
    }
    await checkBridge(this.#options, config, this.#host.readText, this.#log, this.#signal);
    const known = this.#known;
    const isSame = known !== undefined && describeNetworkConfig(known.config) === describeNetworkConfig(config);
    // Until the first list of leases comes, those of an earlier run are better than none.
    if (isSame) this.#peers = () => known.peers;
    if (isSame && carried !== undefined) {
      await this.#refreshNode(this.#signal);
      await carried.watch.look();
      await carried.plane.prepare(this.#signal);
      return carried;
    }
    if (carried !== undefined) {
      this.#log.warn('The network configuration is not the one that packets were carried with until now');
      await endParts(carried);
      this.#own = undefined;
    }
    this.#node = await this.#askNode?.(this.#signal);
    const parts = await this.#setUp(config);
    await parts.plane.prepare(this.#signal);
    return parts;
  }

  async #setUp(config: NetworkConfig): Promise<NodeParts> {
    const readNetwork: AgentHost['readNetwork'] = async (signal, options) => {
      this.#network = await this.#host.readNetwork(signal, options);
      return this.#network;
    };
    const choose = (keep: KeepOptions, log: Pick<Log, 'info'>, signal: AbortSignal): Promise<ChosenInterface> =>
      findExternalInterface(readNetwork, this.#options, config, this.#node, keep, log, signal);
    const chosen = await choose({ inUse: this.#known?.external, isRunning: false }, this.#log, this.#signal);
    const external = externalOf(chosen);
    const runCommand = loggedCommands(this.#host.identity.runCommand, this.#log);
    const identity = { ...this.#host.identity, runCommand };
    const configured = configuredBackend(config);
    const formerNetworks = await this.#networksBefore();
    const past = { published: await this.#publishedBefore(), networks: formerNetworks };
    const setup = await failingAs('Error registering network: ', () =>
      identifyBackend(configured, config, past, identity, this.#signal),
    );
    const tuns = ownTuns(await identity.tunDevices(this.#signal), [...networksOf(config), ...formerNetworks]);
    this.#noteBackend(config.backend.type);
    const formerLinks = this.#known === undefined ? [] : linksOfFormerBackend(this.#known.config, setup, tuns);
    const figures = this.#figures;
    this.#probes.clear();
    const plane = this.#stack.use(
      new NodePlane({
        ...{
          host: this.#host,
          options: this.#options,
          config,
          setup,
          formerLinks,
          formerNetworks,
          tuns,
          runCommand,
          others: {
            candidates: backendsBeside(configured, this.#known?.config),
            // Nothing is published for it.
            identify: (beside, signal) =>
              identifyBackend(beside, config, { ...past, published: perFamily(() => undefined) }, identity, signal),
          },
          external,
          slots: figures.slots,
          probes: this.#probes,
          log: this.#log,
        },
        onForwarderEvent: (event) => figures.countForwarderEvent(event),
        onFatal: this.#onFatal,
        record: this.#record,
        onFastPath: (state) => {
          figures.fastPath = state;
        },
      }),
    );
    this.#plane = plane;
    figures.backend = config.backend.type;
    figures.plane = plane;
    const watch = this.#stack.use(
      new InterfaceWatch({
        initial: chosen,
        choose: async (inUse, signal) => {
          const keep = { inUse, isRunning: true };
          try {
            return await choose(keep, SILENT, signal);
          } catch {
            // What is asked for may have changed with it: the addresses of the Node.
            await this.#refreshNode(signal);
            return await choose(keep, SILENT, signal);
          }
        },
        notices: (present, signal) => this.#host.externalNotices(present, signal),
        log: this.#log,
      }),
    );
    this.#watch = watch;
    const lasting = withoutFreshKeys(identity);
    const identityWatch =
      configured.kind.followsIdentity === true
        ? this.#stack.use(
            new IdentityWatch({
              initial: setup,
              read: (signal) => identifyBackend(configured, config, past, lasting, signal),
              isStoreThere: () => this.#figures.storeReachable,
              log: this.#log,
            }),
          )
        : undefined;
    this.#watched.dispose();
    this.#watched = new DisposableStack();
    for (const [part, keeper] of [['interface', watch] as const, ...plane.keepers]) {
      this.#watched.use(this.#readiness.watch(part, keeper));
    }
    return { plane, watch, identity: identityWatch };
  }

  #noteBackend(now: string): void {
    const before = this.#known?.config.backend.type;
    if (before === undefined || before === now) return;
    const text = `this host works with the backend ${now} now, and had ${before} before`;
    this.#record({ kind: 'backend-changed', severity: 'info', subject: now, text });
  }

  /** What this node has told its peers in an earlier run: as it remembers itself, else as the store does. */
  async #publishedBefore(): Promise<PerFamily<JsonValue | undefined>> {
    if (this.#known !== undefined) return this.#known.own.attrs.backendData;
    const texts = await this.#askPublished?.(this.#signal);
    return perFamily((family) => jsonOrNothing(texts?.[family]));
  }

  /** The networks of earlier runs: what they have left on this host is this agent's, as no other has the same subnet.env. */
  async #networksBefore(): Promise<readonly IpPrefix[]> {
    const earlier = await readSubnetFile(this.#options.subnetFile, this.#signal);
    if (earlier.kind !== 'read') return [];
    return present(earlier.reading.networks);
  }

  async #refreshNode(signal: AbortSignal): Promise<void> {
    try {
      const patience = AbortSignal.any([signal, AbortSignal.timeout(NODE_PATIENCE_MS)]);
      this.#node = (await this.#askNode?.(patience)) ?? this.#node;
    } catch {
      // The store is away: what was known before holds.
    }
  }

  /** Acquires a lease and holds it; returns when it is lost or `turn` fires. */
  async #holdLease(answer: StoreAnswer, plane: NodePlane, notifier: ServiceManager, turn: AbortSignal): Promise<void> {
    const { manager, config } = answer;
    const { subnetFile } = this.#options;
    const carrying = new AbortController();
    // Packets do not wait for the store, which may be away while the interface changes, nor the store for them: the peers
    // need to learn the new address.
    const carried = this.#carryOwn(plane, turn).catch((error: unknown) => {
      carrying.abort(error);
      throw error;
    });
    carried.catch(() => {}); // told by the signal
    if (!this.#isBetweenSessions) this.#readiness.waiting('waiting for a subnet lease');
    this.#isBetweenSessions = false;
    const previous = await readPreviousLease(subnetFile, config, this.#log, turn);
    const earlier = await readSubnetFile(subnetFile, turn);
    const hostAddresses = addressesOfHost(await this.#host.readNetwork(turn));
    const own = await failingAs('Error registering network: failed to acquire lease: ', () =>
      manager.acquireLease(config, plane.backend.attrs, AbortSignal.any([turn, carrying.signal]), {
        ...(previous === undefined ? {} : { previous }),
        held: this.#held,
        hostAddresses,
      }),
    ).catch(async (error: unknown) => {
      await carried;
      throw error;
    });
    await carried;
    if (this.#own !== undefined && leaseKey(own) !== leaseKey(this.#own)) {
      this.#logLost(this.#own, `it was no longer available, and ${leaseKey(own)} was assigned instead`);
    }
    this.#own = own;
    this.#held = own;
    await plane.start(own, this.#peers(), turn);
    const rules = gateRules(this.#options, plane, hostAddresses);
    const parts = {
      ...{ log: this.#log, record: this.#record, rules, plane, manager },
      onUpdate: (type: string) => {
        this.#figures.countLeaseUpdate(type);
        if (type === 'snapshot') this.#memory.afterBurst();
      },
      onKnown: (lease: Lease, table: LeaseTable) => {
        const peers = () => table.peers;
        this.#peers = peers;
        const [source, node] = [describeStore(this.#options), this.#node];
        this.#keeper.keep(() => ({ source, config, node, external: plane.external, own: lease, peers: peers() }));
      },
    };
    const peers = this.#peers();
    const areKnown = peers.length > 0;
    await using session = new LeaseSession(parts, own, peers);
    if (areKnown) void this.#carries();
    this.#figures.session = session;
    using _watched = this.#readiness.watch('lease', session);
    const ended = aborted(turn);
    await plane.settle(own, earlier.kind === 'read' ? earlier.reading : undefined, turn);
    await using _condition = new NodeCondition({
      ...{ readiness: this.#readiness, report: answer.reportFailure, log: this.#log },
      clear: (signal) => manager.completeLease(own, signal),
    });
    // Whatever is in the way may go away by itself, or by somebody who reads what is in the way.
    await this.#untilInPlace(['forwarder', 'kernel', 'rules'], turn);
    await Promise.race([session.peersKnown, delay(FIRST_PEERS_MS, undefined, { ref: false }), ended]).catch(() => {});
    if (turn.aborted) return;
    await this.#carries();
    this.#host.handOver.settled();
    await this.#publish(plane, own, turn);
    this.#readiness.started();
    this.#failures.ready();
    this.#log.info('flannel is ready');
    this.#memory.afterBurst();
    if (!this.#hasBeenReady) this.#log.info('Running backend.');
    this.#hasBeenReady = true;
    notifier.ready();
    manager.completeLease(own, turn).catch((error: unknown) => {
      if (!turn.aborted) this.#log.error(`CompleteLease execute error err: ${describeError(error)}`);
    });
    const end = await Promise.race([session.ended, ended]);
    if (end === undefined) return;
    if (end.type === 'failed') {
      this.#isBetweenSessions = true;
      throw end.error;
    }
    this.#logLost(own, end.reason);
    this.#own = undefined;
    this.#held = undefined;
  }

  #move({ plane, watch, identity }: NodeParts): void {
    const before = plane.external;
    const now = watch.current;
    if (identity !== undefined && identity.current !== plane.setup) {
      // The lease is held meanwhile, and packets flow as soon as the peers know.
      this.#isBetweenSessions = this.#hasBeenReady && this.#held !== undefined;
    }
    plane.move(now, identity?.current);
    if (isDeepStrictEqual(before, now)) return;
    this.#record({
      ...{ kind: 'interface-changed', severity: 'warning', subject: now.name },
      text: `the external interface is ${describeExternal(now)} now, before ${describeExternal(before)}`,
    });
  }

  async #carryOwn(plane: NodePlane, turn: AbortSignal): Promise<void> {
    const own = this.#own;
    if (own === undefined) return;
    await plane.start(own, this.#peers(), turn);
    plane.program(own, this.#peers());
  }

  /** Waits until none of these parts fails; each keeper tries again by itself. Says what it waits for. */
  async #untilInPlace(parts: readonly Part[], signal: AbortSignal): Promise<void> {
    for (let last = ''; ; ) {
      const failing = this.#readiness.failing().find(({ part }) => parts.includes(part));
      if (failing === undefined) return;
      const { reason } = failing;
      if (reason !== last) this.#log.error(`Not ready yet: ${reason}`);
      last = reason;
      this.#readiness.waiting(reason);
      this.#failures.waiting(reason);
      await delay(LOOK_MS, undefined, { signal });
    }
  }

  #logLost(own: Lease, reason: string): void {
    const lost = new WeftError('WEFT_LEASE_LOST', `the lease of ${leaseKey(own)} has been lost: ${reason}`, {
      hint: 'Containers with addresses in that subnet are cut off and must be restarted. The agent now takes a new subnet.',
    });
    this.#log.error(describeError(lost));
    const subject = leaseKey(own).replaceAll('-', '/');
    this.#record({ kind: 'lease-lost', severity: 'error', subject, text: describeError(lost), cause: reason });
  }

  /** Writes subnet.env and the CNI configuration; while the first cannot be written the node is not ready. */
  async #publish(plane: NodePlane, lease: Lease, signal: AbortSignal): Promise<void> {
    this.#subnetEnv.set({
      config: plane.config,
      subnets: lease.subnets,
      mtuBytes: plane.backend.mtuBytes,
      ipMasq: this.#options.ipMasq,
    });
    await this.#subnetEnv.settled(signal).catch(() => signal.throwIfAborted());
    await this.#untilInPlace(['subnet-env'], signal);
    await this.#cniConf.publish();
  }
}

async function endParts(parts: NodeParts | undefined): Promise<void> {
  await parts?.identity?.[Symbol.asyncDispose]();
  await parts?.watch[Symbol.asyncDispose]();
  await parts?.plane[Symbol.asyncDispose]();
}

async function settlesWithin(promise: Promise<unknown>, ms: number): Promise<boolean> {
  const timer = new AbortController();
  try {
    const settled = promise.then(
      () => true,
      () => true,
    );
    return await Promise.race([settled, delay(ms, false, { signal: timer.signal })]);
  } finally {
    timer.abort();
  }
}

/** Data that cannot be read is as good as none: it is published anew. */
function jsonOrNothing(text: string | undefined): JsonValue | undefined {
  try {
    return text === undefined ? undefined : parseJsonWithin(text, ENTRY_BOUNDS);
  } catch {
    return undefined;
  }
}
