import { setTimeout as delay } from 'node:timers/promises';
import type { Backend, BackendInput } from '../../backend/backend.ts';
import { udpBackend } from '../../backend/udp/udp-backend.ts';
import type { FlanneldOptions } from '../../config/flanneld-options.ts';
import type { NetworkConfig } from '../../config/network-config.ts';
import { readPreviousLease, readSubnetFile, writeSubnetFile } from '../../config/subnet-file.ts';
import { PeerSlots } from '../../dataplane/peer-slots.ts';
import { type Forwarder, type ForwarderEvent, MAX_PEERS } from '../../dataplane/supervisor.ts';
import { describeError, prefixed, WeftError } from '../../errors.ts';
import { startHealthServer } from '../../health/server.ts';
import { describeOp, describeProblem } from '../../kernel/diff.ts';
import { Reconciler } from '../../kernel/reconciler.ts';
import type { WantedState } from '../../kernel/state.ts';
import { type Lease, leaseKey } from '../../lease/lease.ts';
import { iproute2Kernel } from '../../linux/iproute2.ts';
import { systemdNotifier } from '../../linux/systemd-notify.ts';
import type { Log } from '../../log/log.ts';
import { createMetrics } from '../../metrics/metrics.ts';
import { describeReport, type SubnetReport } from '../../subnet/report.ts';
import type { SubnetManager } from '../../subnet/subnet-manager.ts';
import { AgentFigures } from './agent-figures.ts';
import { NodeCniConf } from './cni-conf.ts';
import { explainInterface, findExternalInterface } from './external-interface.ts';
import { LeaseSession, type SessionParts } from './lease-session.ts';
import { hostForwarder } from './open-forwarder.ts';
import { NodeReadiness } from './readiness.ts';
import { StartupFailures } from './startup-failures.ts';
import { createSubnetManager } from './subnet-managers.ts';
import { checkBridge, NodeTraffic } from './traffic.ts';

const CONFIG_RETRY_MS = 1_000;
/** --explain-iface does not wait for a configuration that is not there. */
const EXPLAIN_CONFIG_MS = 5_000;
/** subnet.env waits this long for the first list of peers; a store that is that slow must not keep pods from starting. */
const FIRST_PEERS_MS = 10_000;
const SUBNET_FILE_RETRY_MS = 5_000;
/** A blackhole beside cni0's connected route needs another metric; any works, since it only catches what the other lacks. */
const BLACKHOLE_METRIC = 10_000;

/**
 * The node agent's life, in flannel's order (README of flannel's main.go in DESIGN terms: plan, then apply). Returns when
 * the signal fires; what it made in the kernel stays, so that a restart loses no packet and no connection.
 *
 * @throws WeftError for what a person must mend.
 */
export async function runAgent(options: FlanneldOptions, log: Log, signal: AbortSignal): Promise<void> {
  await using stack = new AsyncDisposableStack();
  const failures = new StartupFailures(options.subnetFile);
  try {
    await startAgent({ options, log, failures, stack }, signal);
  } catch (error) {
    if (!signal.aborted) await failures.fatal(error, (text) => log.warn(text));
    throw error;
  }
}

interface AgentRun {
  readonly options: FlanneldOptions;
  readonly log: Log;
  readonly failures: StartupFailures;
  /** Everything that ends with the agent; a failure is reported before it is taken apart. */
  readonly stack: AsyncDisposableStack;
}

async function startAgent({ options, log, failures, stack }: AgentRun, signal: AbortSignal): Promise<void> {
  const readiness = new NodeReadiness();
  const figures = new AgentFigures(new PeerSlots(MAX_PEERS + 1), readiness, options.subnetManager);
  const cniConf = stack.use(new NodeCniConf(options, readiness, log));
  await cniConf.start();
  const report = (entry: SubnetReport): void => {
    figures.countReport(entry);
    const { severity, text } = logReport(log, entry);
    if (severity === 'warning' || severity === 'error') failures.waiting(text);
    if (entry.type === 'store-failed') readiness.waiting(text);
  };
  log.info('Installing signal handlers');
  // Before the subnet manager, which may wait for the API server: a liveness probe must not end an agent that waits.
  if (options.healthzPort > 0) {
    const { healthzIp: ip, healthzPort: port } = options;
    log.info(`Start healthz server on ${ip}:${port}`);
    const metrics = stack.use(createMetrics(() => figures.snapshot()));
    const server = { ip, port, readiness: () => readiness.read(), metrics: () => metrics.render() };
    stack.use(await failingAs('Start healthz server error. ', () => startHealthServer(server, signal)));
  }

  const { manager, nodeHints, reportFailure } = await failingAs('Failed to create SubnetManager: ', () =>
    createSubnetManager(options, report, signal),
  );
  stack.use(manager);
  failures.tellNode = reportFailure;
  log.info(`Created subnet manager: ${manager.name}`);

  const config = await fetchConfig(options, { manager, readiness, failures, log }, signal);
  log.info(`Found network config - Backend type: ${config.backendType}`);
  if (config.ipv4 === undefined && config.ipv6 === undefined) {
    throw new WeftError('WEFT_CONFIG_INVALID', 'none defined stack', { hint: 'Enable IPv4 or IPv6 in net-conf.json' });
  }
  await checkBridge(options, config, log, signal);
  const hints = await nodeHints?.(signal);
  const external = await findExternalInterface(options, config, hints, log, signal);
  const backend = createBackend({ config, external }, figures, log);
  const forwarder = stack.use(createForwarder(backend, options, figures, log));
  await failingAs('Error registering network: ', () => forwarder?.prepare());

  // ===== Up to here the host was only looked at; from here on it is changed. =====

  const reconciler = stack.use(createReconciler(log));
  const traffic = stack.use(new NodeTraffic(options, config, log));
  readiness.watch(() => forwarder?.failure);
  Object.assign(figures, { backend: backend.type, forwarder, reconciler, traffic });
  using notifier = systemdNotifier({
    environment: process.env,
    isAlive: () => true,
    onProblem: (text) => log.warn(text),
  });
  const parts: SessionParts = {
    ...{ log, config, backend, manager, forwarder, reconciler },
    extraState: extraStateOf(options),
    onUpdate: (type) => figures.countLeaseUpdate(type),
  };
  let isFirst = true;
  while (!signal.aborted) {
    readiness.waiting('waiting for a subnet lease');
    const previous = await readPreviousLease(options.subnetFile, config, log, signal);
    const earlier = await readSubnetFile(options.subnetFile, signal);
    const own = await failingAs('Error registering network: failed to acquire lease: ', () =>
      manager.acquireLease(config, backend.leaseAttrs, signal, previous === undefined ? {} : { previous }),
    );
    const { userSpace } = backend;
    if (userSpace !== undefined) {
      await failingAs('Error registering network: ', () => forwarder?.start(userSpace.ownAddress(own), signal));
    }
    await using session = new LeaseSession(parts, own);
    figures.session = session;
    const aborted = onceAborted(signal);
    await reconciler.idle();
    await failingAs(`Failed to setup ${options.ipMasq ? 'masq' : 'forward'} rules, `, () =>
      traffic.apply(own, earlier.kind === 'read' ? earlier.reading : undefined, signal),
    );
    await Promise.race([session.peersKnown, delay(FIRST_PEERS_MS, undefined, { ref: false }), aborted]).catch(() => {});
    if (signal.aborted) break;
    await publishSubnet(options, config, backend, own, readiness, log, signal);
    await cniConf.publish();
    readiness.started();
    failures.ready();
    log.info('flannel is ready');
    if (isFirst) log.info('Running backend.');
    isFirst = false;
    notifier.ready();
    manager.completeLease(own, signal).catch((error: unknown) => {
      if (!signal.aborted) log.error(`CompleteLease execute error err: ${describeError(error)}`);
    });
    const reason = await Promise.race([session.lost, aborted]);
    if (reason === undefined) break;
    const lost = new WeftError('WEFT_LEASE_LOST', `the lease of ${leaseKey(own)} has been lost: ${reason}`, {
      hint: 'Containers with addresses of that subnet are cut off and must be started anew; taking a new subnet now.',
    });
    log.error(describeError(lost));
  }
  notifier.stopping();
  log.info('Waiting for all goroutines to exit');
}

/**
 * Which interface an agent with these options would take, and why not the others. Without a readable network configuration
 * IPv4 alone is assumed.
 */
export async function explainForHost(
  options: FlanneldOptions,
  signal: AbortSignal,
): Promise<{ readonly text: string; readonly found: boolean }> {
  const { manager, nodeHints } = await createSubnetManager(options, () => {}, signal);
  await using _ = manager;
  const families = await manager
    .networkConfig(AbortSignal.any([signal, AbortSignal.timeout(EXPLAIN_CONFIG_MS)]))
    .catch(() => {
      signal.throwIfAborted();
      return { ipv4: undefined, ipv6: undefined };
    });
  return await explainInterface(options, families, await nodeHints?.(signal), signal);
}

/** Failures of this step begin with the words that operators know from flannel. */
async function failingAs<T>(words: string, step: () => Promise<T> | T): Promise<T> {
  try {
    return await step();
  } catch (error) {
    throw prefixed(words, error);
  }
}

function onceAborted(signal: AbortSignal): Promise<undefined> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve(undefined);
    signal.addEventListener('abort', () => resolve(undefined), { once: true });
  });
}

function logReport(log: Log, entry: SubnetReport): ReturnType<typeof describeReport> {
  const described = describeReport(entry);
  const { severity, text } = described;
  if (severity === 'debug') log.verbose(1, text);
  else if (severity === 'info') log.info(text);
  else if (severity === 'warning') log.warn(text);
  else log.error(text);
  return described;
}

interface ConfigWait {
  readonly manager: SubnetManager;
  readonly readiness: NodeReadiness;
  readonly failures: StartupFailures;
  readonly log: Log;
}

/** Waits for a configuration as long as it takes. One that is there and wrong is an error, except in etcd, as for flannel. */
async function fetchConfig(
  options: FlanneldOptions,
  { manager, readiness, failures, log }: ConfigWait,
  signal: AbortSignal,
): Promise<NetworkConfig> {
  let last = '';
  for (;;) {
    try {
      return await manager.networkConfig(signal);
    } catch (error) {
      signal.throwIfAborted();
      const code = error instanceof WeftError ? error.code : undefined;
      const isInvalid = code === 'WEFT_CONFIG_INVALID';
      const mayCome = code === 'WEFT_CONFIG_MISSING' || code === 'WEFT_STORE_UNAVAILABLE';
      if (!mayCome && !(isInvalid && options.subnetManager === 'etcd')) {
        throw isInvalid ? prefixed('error parsing subnet config: ', error) : error;
      }
      const text = describeError(error);
      readiness.waiting(`no network configuration: ${text}`);
      failures.waiting(`no network configuration: ${text}`);
      // Every second for ever, as flannel tries; said again only when the reason changes.
      if (text !== last) log.error(`Couldn't fetch network config: ${text}`);
      last = text;
      await delay(CONFIG_RETRY_MS, undefined, { signal });
    }
  }
}

function createBackend(input: BackendInput, figures: AgentFigures, log: Log): Backend {
  const { backendType } = input.config;
  if (backendType !== 'udp') {
    throw new WeftError('WEFT_BACKEND_UNKNOWN', `Error fetching backend: unknown backend type: ${backendType}`, {
      hint: 'weft offers: udp',
    });
  }
  if (Object.keys(input.config.backend).length === 0)
    log.info('No Backend in the network config: using udp, as flannel does');
  return udpBackend(input, {
    slots: figures.slots,
    onSlotReused: (slot) => figures.forwarder?.counters.clear(slot),
  });
}

function createForwarder(
  backend: Backend,
  options: FlanneldOptions,
  figures: AgentFigures,
  log: Log,
): Forwarder | undefined {
  const { userSpace } = backend;
  if (userSpace === undefined) return undefined;
  return hostForwarder({
    tunName: userSpace.tunName,
    persistent: true,
    listenAddress: userSpace.listenAddress,
    listenPort: userSpace.listenPort,
    sourceCheck: options.sourceCheck,
    onNotice: (text) => log.warn(text),
    onEvent: (event: ForwarderEvent) => {
      figures.countForwarderEvent(event);
      if (event.type === 'started') log.info('Packet workers are running');
      else log.error(`The data path broke (${event.reason}); starting it again in ${event.retryInMs} ms`);
    },
  });
}

function createReconciler(log: Log): Reconciler {
  return new Reconciler({
    kernel: iproute2Kernel(),
    onRepair: (ops) => {
      for (const op of ops) log.warn(`Put back what was changed on this host: ${describeOp(op)}`);
    },
    onFailure: ({ message }) => log.error(message),
    onProblems: (problems) => {
      for (const problem of problems) log.warn(`Kernel state: ${describeProblem(problem)}`);
    },
  });
}

function extraStateOf(options: FlanneldOptions): (own: Lease, state: WantedState) => WantedState {
  return (own, state) => {
    if (!options.ipBlackholeRoute) return state;
    const subnets = [own.subnet, own.ipv6Subnet].filter((subnet) => subnet !== undefined);
    const blackholes = subnets.map((dst) => ({ type: 'blackhole' as const, dst, metric: BLACKHOLE_METRIC }));
    return { ...state, routes: [...state.routes, ...blackholes] };
  };
}

/** Writes subnet.env; while it cannot be written the node is not ready and it is tried again. */
async function publishSubnet(
  options: FlanneldOptions,
  config: NetworkConfig,
  backend: Backend,
  own: Lease,
  readiness: NodeReadiness,
  log: Log,
  signal: AbortSignal,
): Promise<void> {
  for (;;) {
    try {
      await writeSubnetFile(options.subnetFile, {
        config,
        lease: own,
        mtuBytes: backend.mtuBytes,
        ipMasq: options.ipMasq,
      });
      log.info(`Wrote subnet file to ${options.subnetFile}`);
      return;
    } catch (error) {
      const text = `Failed to write subnet file: ${describeError(error)}`;
      log.warn(text);
      readiness.waiting(text);
      await delay(SUBNET_FILE_RETRY_MS, undefined, { signal });
    }
  }
}
