import { isDeepStrictEqual } from 'node:util';
import type { IdentityHost } from '../backend/backend.ts';
import type { BackendSetup } from '../backend/registry.ts';
import { describeError, WeftError } from '../errors.ts';
import type { Log } from '../log/log.ts';
import { SteadyLook } from './steady-look.ts';

/** Reading a small file costs little, and somebody may be watching who has just replaced it. */
const INTERVAL_MS = 2_000;

export interface IdentityWatchOptions {
  /** With the identity that the agent has started with. */
  readonly initial: BackendSetup;
  /** With that of now. Rejects when there is none that can be used. */
  readonly read: (signal: AbortSignal) => Promise<BackendSetup>;
  /** Not while the store is away: peers would not learn it, and this host would be cut off. */
  readonly isStoreThere: () => boolean;
  readonly intervalMs?: number;
  readonly log: Pick<Log, 'info' | 'warn'>;
}

/**
 * Notices that what makes this host known to its peers has been replaced, such as the file with its key. One that cannot be used
 * is said once, and the one in use stays.
 */
export class IdentityWatch implements AsyncDisposable {
  readonly #options: IdentityWatchOptions;
  readonly #looking: SteadyLook;
  #current: BackendSetup;
  #change = new AbortController();
  /** Why the last one could not be used. */
  #failure: string | undefined;

  constructor(options: IdentityWatchOptions) {
    this.#options = options;
    this.#current = options.initial;
    const { intervalMs = INTERVAL_MS, isStoreThere } = options;
    this.#looking = new SteadyLook({ intervalMs, isStoreThere, look: (signal) => this.#look(signal) });
  }

  /** With the identity to use. */
  get current(): BackendSetup {
    return this.#current;
  }

  /** Fires when `current` has become another one. A new signal from then on. */
  get changed(): AbortSignal {
    return this.#change.signal;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#looking[Symbol.asyncDispose]();
  }

  async #look(signal: AbortSignal): Promise<void> {
    const { read, log } = this.#options;
    let now: BackendSetup;
    try {
      now = await read(signal);
    } catch (error) {
      const failure = describeError(error);
      if (!signal.aborted && failure !== this.#failure) log.warn(`Keeping the current key: ${failure}`);
      this.#failure = failure;
      return;
    }
    this.#failure = undefined;
    if (signal.aborted || isDeepStrictEqual(now.identity, this.#current.identity)) return;
    log.info("This host's key has been replaced: using the new one, and publishing it");
    this.#current = now;
    const change = this.#change;
    this.#change = new AbortController();
    change.abort(new Error('the identity of this host has changed'));
  }
}

/** A host on which nothing is taken, run or made, for whoever wants to know whether a backend could be opened. */
export function untouched(host: IdentityHost): IdentityHost {
  return {
    ...host,
    takeTun: () => true,
    runCommand: async () => ({ stdout: '', stderr: '' }),
    keyFile: (fresh, signal) =>
      withoutFreshKeys(host)
        .keyFile(fresh, signal)
        .catch(() => ({ path: '', text: fresh() })),
  };
}

/** A host that makes no key where there is none: a file that is missing for a moment is not a wish for another key. */
export function withoutFreshKeys(host: IdentityHost): IdentityHost {
  return {
    ...host,
    keyFile: (_fresh, signal) =>
      host.keyFile(() => {
        throw new WeftError('WEFT_KEY_FILE', 'the file with the private key is gone', {
          hint: 'weft rotate-key writes one. Without it, the agent makes another key at its next start.',
        });
      }, signal),
  };
}
