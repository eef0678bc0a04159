import { setTimeout as delay } from 'node:timers/promises';
import { isDeepStrictEqual } from 'node:util';
import type { FlanneldOptions } from '../config/flanneld-options.ts';
import { PeerSlots } from '../dataplane/peer-slots.ts';
import { MAX_PEERS } from '../dataplane/supervisor.ts';
import { describeError } from '../errors.ts';
import type { RecordEvent } from '../events/event.ts';
import { EventRing } from '../events/event-ring.ts';
import type { TellNodeEvent } from '../events/node-event.ts';
import type { ProcessLog } from '../log/log.ts';
import { retryNow } from '../subnet/backoff.ts';
import { AgentFigures } from './agent-figures.ts';
import { aborted } from './carry-on.ts';
import { NodeCniConf } from './cni-conf.ts';
import { ConfigWatch, type LiveChange } from './config-watch.ts';
import { ConnectionKeeper } from './connection-keeper.ts';
import { CurrentLeases } from './current-leases.ts';
import { EarlierRun } from './earlier-run.ts';
import { Endpoints } from './endpoints.ts';
import { HandOver } from './hand-over.ts';
import type { AgentView } from './inspection.ts';
import { describeExternal, type InterfaceWatch } from './interface-watch.ts';
import { LastKnownKeeper } from './last-known-keeper.ts';
import { LeaseHolder } from './lease-holder.ts';
import { MemoryRelease } from './memory-release.ts';
import { NodeEvents } from './node-events.ts';
import { checkConfig, type NodeParts, NodePartsMaker } from './node-parts.ts';
import { OwnNode } from './own-node.ts';
import { PeerProbes } from './peer-probes.ts';
import type { AgentHost, ConnectionCloser, OpenSubnetManager } from './ports.ts';
import { NodeReadiness } from './readiness.ts';
import { StartUp } from './start-up.ts';
import { StartupFailures } from './startup-failures.ts';
import { StoreConnection } from './store-connection.ts';
import { StoreReports } from './store-reports.ts';
import { SubnetEnvKeeper } from './subnet-env-keeper.ts';

/** What fails once the agent has been ready is tried again: packets flow meanwhile, and a restart would not help. */
const RETRY_MS = 5_000;

/** Of the process that the agent is. */
export interface AgentLife {
  readonly fatal: (error: unknown) => void;
  /** Says why, and sees to it that the process ends even if the rest of the agent does not. */
  readonly failed: (why: string) => void;
}

/**
 * The node agent's life, in flannel's order: first all that can fail without a change to the host, then the changes. Returns when
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
  // Whoever follows them does not see that the agent has started anew.
  const events = new EventRing();
  for (;;) {
    const anew = new AbortController();
    await runOnce({ host, options, log, events, anew, onFatal: life.fatal }, life, signal);
    if (signal.aborted || !anew.signal.aborted) return;
  }
}

/** Until the signal fires, or that of `anew`: then the agent is to begin again, as after a restart. */
async function runOnce(parts: AgentParts, { failed }: AgentLife, signal: AbortSignal): Promise<void> {
  const { options, log, anew } = parts;
  const ending = AbortSignal.any([signal, anew.signal]);
  await using stack = new AsyncDisposableStack();
  const failures = new StartupFailures(options.subnetFile);
  try {
    await new Agent(parts, failures, stack, ending).run();
  } catch (error) {
    // What was under way when it was told to stop has failed because of that.
    if (ending.aborted) return;
    await failures.fatal(error, (text) => log.warn(text));
    failed(describeError(error));
    throw error;
  }
}

interface AgentParts {
  readonly host: AgentHost;
  readonly options: FlanneldOptions;
  readonly log: ProcessLog;
  readonly events: EventRing;
  readonly onFatal: (error: unknown) => void;
  /** Aborted when the agent is to begin again, with what the store has then. */
  readonly anew: AbortController;
}

class Agent {
  readonly #host: AgentHost;
  readonly #options: FlanneldOptions;
  readonly #log: ProcessLog;
  readonly #failures: StartupFailures;
  /** Everything that ends with the agent; a failure is reported before it is taken apart. */
  readonly #stack: AsyncDisposableStack;
  readonly #signal: AbortSignal;
  readonly #readiness = new NodeReadiness();
  readonly #events: EventRing;
  readonly #anew: AbortController;
  readonly #record: RecordEvent = (event) => this.#events.add(event);
  readonly #leases = new CurrentLeases();
  readonly #node = new OwnNode();
  readonly #figures: AgentFigures;
  readonly #cniConf: NodeCniConf;
  readonly #reports: StoreReports;
  readonly #endpoints: Endpoints;
  readonly #handOver: HandOver;
  readonly #maker: NodePartsMaker;
  readonly #start: StartUp;
  readonly #holder: LeaseHolder;
  #tellEvent: TellNodeEvent | undefined;
  #nodeEvents: NodeEvents | undefined;

  constructor(
    { host, options, log, events, anew, onFatal }: AgentParts,
    failures: StartupFailures,
    stack: AsyncDisposableStack,
    signal: AbortSignal,
  ) {
    this.#host = host;
    this.#options = options;
    this.#events = events;
    this.#anew = anew;
    this.#log = log;
    this.#failures = failures;
    this.#stack = stack;
    this.#signal = signal;
    const readiness = this.#readiness;
    const leases = this.#leases;
    const figures = new AgentFigures(new PeerSlots(MAX_PEERS + 1), readiness, options.subnetManager, log, host);
    this.#figures = figures;
    const cniConf = stack.use(new NodeCniConf(options, readiness, log));
    this.#cniConf = cniConf;
    const lastKnown = stack.use(new LastKnownKeeper(options.subnetFile, log));
    const probes = stack.use(
      new PeerProbes({
        port: options.probe === 'on' ? host.probes : undefined,
        active: () => figures.activePeers(),
        record: this.#record,
        hint: () => this.#events.hint(),
        log,
      }),
    );
    figures.probes = probes;
    const memory = stack.use(new MemoryRelease(() => host.releaseMemory()));
    const subnetEnv = stack.use(new SubnetEnvKeeper({ path: options.subnetFile, log }));
    readiness.watch('subnet-env', subnetEnv);
    const earlier = new EarlierRun(options, log);
    const about = {
      ...{ host, options, earlier, node: this.#node, leases, figures, readiness, record: this.#record },
      ...{ log, stack },
    };
    this.#reports = new StoreReports({ ...about, failures, isCarrying: () => leases.own !== undefined });
    this.#endpoints = new Endpoints({ ...about, events: this.#events, view: () => this.#view() });
    const health = () => this.#endpoints.health;
    this.#handOver = new HandOver({ port: host.handOver, health, log, stack, signal });
    this.#maker = new NodePartsMaker({ ...about, probes, onFatal });
    const start = { ...about, maker: this.#maker, reports: this.#reports, handOver: this.#handOver };
    this.#start = new StartUp(start, signal);
    const handOver = this.#handOver;
    this.#holder = new LeaseHolder({ ...about, handOver, failures, memory, lastKnown, subnetEnv, cniConf });
  }

  async run(): Promise<void> {
    await this.#cniConf.start();
    this.#log.info('Installing signal handlers');
    await this.#handOver.announce();
    // Before the subnet manager, which may wait for the API server: a liveness probe must not end an agent that waits.
    await this.#endpoints.openHealth(this.#signal);
    const resumed = await this.#start.resume();
    // Before the first is made: one that it has not seen begin, it does not know.
    const connections = this.#stack.use(this.#host.connections());
    const connection = this.#connect();
    await this.#handOver.onceAlone(this.#endpoints.watch(this.#signal));
    this.#keepConnections(connections);
    const carried = await this.#start.withoutStore(connection, await resumed);
    const answer = await connection.answered;
    using notifier = this.#host.serviceManager((text) => this.#log.warn(text));
    const parts = await this.#start.prepare(answer, carried);
    const { plane, watch, identity } = parts;
    this.#figures.config = this.#stack.use(
      new ConfigWatch({
        inUse: answer.config,
        read: (signal) => answer.manager.networkConfig(signal),
        isStoreThere: () => this.#figures.storeReachable,
        live: this.#options.liveReconfigure ? this.#live(watch) : undefined,
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
        await this.#holder.hold(answer, plane, notifier, turn);
      } catch (error) {
        if (this.#signal.aborted) break;
        if (turn.aborted) continue;
        if (!this.#holder.hasBeenReady) throw error;
        this.#log.error(describeError(error));
        if (!this.#holder.isBetweenSessions) this.#readiness.waiting(describeError(error));
        await Promise.race([delay(RETRY_MS, undefined, { ref: false }), aborted(turn)]);
      }
    }
    if (this.#anew.signal.aborted) return;
    notifier.stopping();
    this.#log.info('Waiting for all goroutines to exit');
  }

  #live(watch: InterfaceWatch): LiveChange {
    return {
      check: (config, signal) => checkConfig(config, watch.current, this.#host.identity, signal),
      startAnew: () => this.#anew.abort(new Error('the network configuration has changed')),
    };
  }

  #view(): AgentView {
    const { plane, watch } = this.#maker.last ?? {};
    const { own, peers, held } = this.#leases;
    return { plane, own, peers, isHeld: held !== undefined, isExternalUp: watch?.isUp ?? true };
  }

  #keepConnections(connections: ConnectionCloser): void {
    this.#stack.use(
      new ConnectionKeeper({
        connections,
        addresses: (signal) => this.#host.readAddresses(signal),
        notices: (signal) => this.#host.reachNotices(signal),
        retryNow,
        log: this.#log,
      }),
    );
  }

  #connect(): StoreConnection {
    const onManager = (store: OpenSubnetManager): void => {
      this.#failures.tellNode = store.reportFailure;
      this.#node.opened(store);
      if (store.tellEvent !== undefined) this.#tellEvents(store.tellEvent);
      this.#log.info(`Created subnet manager: ${store.manager.name}`);
    };
    const parts = {
      ...{ options: this.#options, readiness: this.#readiness, failures: this.#failures, log: this.#log },
      ...{ report: this.#reports.take, onManager, openStore: this.#host.openStore },
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

  #move({ plane, watch, identity }: NodeParts): void {
    const before = plane.external;
    const now = watch.current;
    // The lease is held meanwhile, and packets flow as soon as the peers know.
    if (identity !== undefined && identity.current !== plane.setup) this.#holder.publishAnew();
    plane.move(now, identity?.current);
    if (isDeepStrictEqual(before, now)) return;
    this.#record({
      ...{ kind: 'interface-changed', severity: 'warning', subject: now.name },
      text: `the external interface is now ${describeExternal(now)}, before it was ${describeExternal(before)}`,
    });
  }
}
