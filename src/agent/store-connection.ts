import { setTimeout as delay } from 'node:timers/promises';
import type { FlanneldOptions } from '../config/flanneld-options.ts';
import type { NetworkConfig } from '../config/network-config.ts';
import { describeUnusualNetworks } from '../config/unusual-network.ts';
import { describeError, prefixed, WeftError } from '../errors.ts';
import type { Log } from '../log/log.ts';
import type { ReportSink } from '../subnet/report.ts';
import type { SubnetManager } from '../subnet/subnet-manager.ts';
import { failingAs } from './failing-as.ts';
import type { AgentHost, OpenSubnetManager } from './ports.ts';
import type { NodeReadiness } from './readiness.ts';
import type { StartupFailures } from './startup-failures.ts';

const CONFIG_RETRY_MS = 1_000;

export interface StoreConnectionParts {
  readonly options: FlanneldOptions;
  readonly readiness: NodeReadiness;
  readonly failures: StartupFailures;
  readonly log: Log;
  readonly report: ReportSink;
  readonly openStore: AgentHost['openStore'];
  /** Called when there is a subnet manager, before the configuration is asked for. */
  readonly onManager: (open: OpenSubnetManager) => void;
}

export interface StoreAnswer extends OpenSubnetManager {
  readonly config: NetworkConfig;
}

/** The first contact with the store, which takes as long as the store is away, and the subnet manager that comes of it. */
export class StoreConnection implements AsyncDisposable {
  /** Rejects with what a person must mend. */
  readonly answered: Promise<StoreAnswer>;
  readonly #parts: StoreConnectionParts;
  readonly #stop = new AbortController();
  #manager: SubnetManager | undefined;
  #isPatient = false;

  constructor(parts: StoreConnectionParts, signal: AbortSignal) {
    this.#parts = parts;
    this.answered = this.#connect(AbortSignal.any([signal, this.#stop.signal]));
    this.answered.catch(() => {}); // whoever waits is told
  }

  /** From now on a store that cannot be reached is tried for good, where else the agent would give up and be restarted. */
  bePatient(): void {
    this.#isPatient = true;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort(new Error('the agent ended'));
    await this.answered.catch(() => {});
    await this.#manager?.[Symbol.asyncDispose]();
  }

  async #connect(signal: AbortSignal): Promise<StoreAnswer> {
    const { options, report, log, onManager, openStore } = this.#parts;
    for (;;) {
      try {
        const open = await failingAs('Failed to create SubnetManager: ', () => openStore(report, signal));
        this.#manager = open.manager;
        onManager(open);
        const config = await this.#fetchConfig(open.manager, signal);
        log.info(`Found network config - Backend type: ${config.backend.type}`);
        for (const text of describeUnusualNetworks(config, options.subnetManager !== 'kube')) log.warn(text);
        return { ...open, config };
      } catch (error) {
        const isAway = error instanceof WeftError && error.code === 'WEFT_STORE_UNAVAILABLE';
        if (signal.aborted || !isAway || !this.#isPatient) throw error;
        log.error(describeError(error));
      }
    }
  }

  /** Waits for a configuration as long as it takes. One that is there and wrong is an error, except in etcd, as for flannel. */
  async #fetchConfig(manager: SubnetManager, signal: AbortSignal): Promise<NetworkConfig> {
    const { options, readiness, failures, log } = this.#parts;
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
        const waiting = `no network configuration: ${text}`;
        if (!this.#isPatient) readiness.waiting(waiting);
        failures.waiting(waiting);
        // Every second for ever, as flannel tries; said again only when the reason changes.
        if (text !== last) log.error(`Couldn't fetch network config: ${text}`);
        last = text;
        await delay(CONFIG_RETRY_MS, undefined, { signal });
      }
    }
  }
}
