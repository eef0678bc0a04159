import type { NetworkConfig } from '../config/network-config.ts';
import { describeError, WeftError } from '../errors.ts';
import type { Log } from '../log/log.ts';
import { describeNetworkConfig } from '../node-files/last-known.ts';
import { SteadyLook } from './steady-look.ts';

/** A roll-out is a matter of minutes, and asking a store costs a request. */
const INTERVAL_MS = 10_000;
/** A store that does not answer is somebody else's news. */
const PATIENCE_MS = 5_000;

export interface ConfigWatchOptions {
  /** The one that this agent works with. */
  readonly inUse: NetworkConfig;
  /** That of the store, now. */
  readonly read: (signal: AbortSignal) => Promise<NetworkConfig>;
  /** Not while the store is away: each attempt would be reported as a failure of its own. */
  readonly isStoreThere: () => boolean;
  /** Where another backend is to be applied at once; `undefined`: a restart applies it. */
  readonly live?: LiveChange | undefined;
  readonly intervalMs?: number;
  readonly log: Pick<Log, 'info' | 'warn'>;
}

/** How a running agent comes to work with another network configuration. */
export interface LiveChange {
  /** Changes nothing. @throws WeftError when this host could not work with it. */
  check(config: NetworkConfig, signal: AbortSignal): Promise<void>;
  /** Ends this run of the agent; the next one works with what the store has. */
  startAnew(): void;
}

/**
 * Notices that the network configuration is another one than this agent works with, and says that a restart applies it; or applies
 * it, if that is wanted and only what carries packets is another. Containers would lose their addresses with another network.
 */
export class ConfigWatch implements AsyncDisposable {
  readonly #options: ConfigWatchOptions;
  readonly #looking: SteadyLook;
  /** What was said last; empty when there is nothing to say. */
  #news = '';

  constructor(options: ConfigWatchOptions) {
    this.#options = options;
    const { intervalMs = INTERVAL_MS, isStoreThere } = options;
    this.#looking = new SteadyLook({ intervalMs, isStoreThere, look: (signal) => this.#look(signal) });
  }

  /** Whether the configuration of the store is another one, or none that can be used. */
  get isOutdated(): boolean {
    return this.#news !== '';
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#looking[Symbol.asyncDispose]();
  }

  async #look(signal: AbortSignal): Promise<void> {
    const { inUse, read, log } = this.#options;
    let news: string;
    try {
      const now = await read(AbortSignal.any([signal, AbortSignal.timeout(PATIENCE_MS)]));
      if (describeNetworkConfig(now) === describeNetworkConfig(inUse)) news = '';
      else {
        const what = describeChange(inUse, now);
        const obstacle = await this.#obstacle(now, signal);
        if (signal.aborted) return;
        if (obstacle === undefined) {
          log.warn(`The network configuration has changed: ${what}applying it`);
          this.#options.live?.startAnew();
          return;
        }
        news = `${what}${obstacle}`;
      }
    } catch (error) {
      // Whatever else there is, such as a store that is away, is told by whoever needs it.
      if (!(error instanceof WeftError) || error.code !== 'WEFT_CONFIG_INVALID') return;
      news = `it cannot be used, and the agent would not start with it: ${describeError(error)}`;
    }
    if (signal.aborted || news === this.#news) return;
    if (news === '') log.info('The network configuration matches the one in use again');
    else log.warn(`The network configuration has changed: ${news}`);
    this.#news = news;
  }

  /** Why it is not applied while this agent runs. */
  async #obstacle(now: NetworkConfig, signal: AbortSignal): Promise<string | undefined> {
    const { inUse, live } = this.#options;
    if (live === undefined) return 'restart this agent to apply it';
    const { backend, enableNfTables } = inUse;
    if (describeNetworkConfig({ ...now, backend, enableNfTables }) !== describeNetworkConfig(inUse))
      return 'the networks differ, and running containers would lose their addresses: restart this agent to apply it';
    try {
      await live.check(now, signal);
      return undefined;
    } catch (error) {
      return `it is not applied, because this host cannot use it: ${describeError(error)}`;
    }
  }
}

function describeChange({ backend: before }: NetworkConfig, { backend: now }: NetworkConfig): string {
  return before.type === now.type ? '' : `the backend is now ${now.type}, no longer ${before.type}; `;
}
