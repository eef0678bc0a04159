import type { Family } from '../ip/family.ts';
import type { Log } from '../log/log.ts';
import {
  describeForwardingOff,
  type ForwardingSetting,
  forwardingOff,
  forwardingRemedy,
} from '../trafficmngr/ip-forwarding.ts';
import { SteadyLook } from './steady-look.ts';

export interface ForwardingWatchOptions {
  /** Those of the network. */
  readonly families: readonly Family[];
  readonly log: Pick<Log, 'info' | 'warn'>;
  /** Also from the start to the first look: the first pod of a host turns it on. */
  readonly intervalMs: number;
  /** `undefined` when there is no such file. */
  readonly read: (path: string, signal: AbortSignal) => Promise<string | undefined>;
}

/** Says when the kernel of this host passes on no packets of a family of the network, with the remedy, and when it does so again. */
export class ForwardingWatch implements AsyncDisposable {
  readonly #options: ForwardingWatchOptions;
  readonly #looking: SteadyLook;
  #off: readonly ForwardingSetting[] = [];

  constructor(options: ForwardingWatchOptions) {
    this.#options = options;
    const { intervalMs } = options;
    this.#looking = new SteadyLook({ intervalMs, isStoreThere: () => true, look: (signal) => this.#look(signal) });
  }

  /** The settings that are off, as sysctl names them. */
  get off(): readonly string[] {
    return this.#off.map(({ name }) => name);
  }

  async #look(signal: AbortSignal): Promise<void> {
    const { families, log, read } = this.#options;
    // What cannot be read is not known to be off.
    const off = await forwardingOff(families, (path) => read(path, signal)).catch(() => []);
    if (signal.aborted) return;
    const before = this.off;
    this.#off = off;
    const news = off.filter(({ name }) => !before.includes(name));
    if (news.length > 0) log.warn(`${describeForwardingOff(news)}. ${forwardingRemedy(news)}`);
    for (const name of before) if (!this.off.includes(name)) log.info(`${name} is on again`);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#looking[Symbol.asyncDispose]();
  }
}
