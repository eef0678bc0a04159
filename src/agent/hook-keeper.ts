import type { PeerHook } from '../backend/backend.ts';
import type { HostCommand, RunHostCommand } from '../config/host-command.ts';
import { describeError } from '../errors.ts';
import type { LeaseKey } from '../lease/lease.ts';
import type { Log } from '../log/log.ts';
import type { HookFigures } from '../metrics/snapshot.ts';

const RETRY_MS = 5_000;
/** A command that keeps failing is tried ever more rarely, down to this. */
const LONGEST_RETRY_MS = 300_000;

/** When a command is run; the names are those of the metric weft_hooks_total. */
export type HookMoment = 'post-startup' | 'subnet-add' | 'subnet-remove';

export interface HookKeeperOptions {
  readonly run: RunHostCommand;
  readonly log: Pick<Log, 'error'>;
  /** Before the first repetition of a command that failed. */
  readonly retryMs?: number;
}

interface Wish {
  readonly hook: PeerHook;
  /** Equal wishes have equal texts. */
  readonly text: string;
}

/**
 * Runs the commands that peers ask for, one after the other, in the order in which they changed: the program of a new or
 * changed peer, and that of one that is gone with what was said of it last. A wish that was already met costs nothing; of several
 * changes that nobody got round to, only the last counts. A command that fails for a peer is told, counted and tried again until
 * it succeeds or the wish changes; one that fails for a peer that is gone is told and counted. Packets never wait for any.
 */
export class HookKeeper implements AsyncDisposable {
  readonly #options: HookKeeperOptions;
  readonly #stop = new AbortController();
  readonly #wanted = new Map<LeaseKey, Wish>();
  /** The peers whose command was run, well or not. */
  readonly #met = new Map<LeaseKey, Wish>();
  readonly #changed = new Set<LeaseKey>();
  /** What was said by the commands that failed last. */
  readonly #failures = new Map<LeaseKey, string>();
  readonly #figures: Partial<Record<HookMoment, { succeeded: number; failed: number }>> = {};
  /** The command that was run last for the own lease and succeeded. */
  #started: string | undefined;
  #retry: NodeJS.Timeout | undefined;
  #retryMs: number;
  #working: Promise<void> | undefined;

  constructor(options: HookKeeperOptions) {
    this.#options = options;
    this.#retryMs = options.retryMs ?? RETRY_MS;
  }

  get figures(): Readonly<Partial<Record<HookMoment, HookFigures>>> {
    return this.#figures;
  }

  /** Runs the command of the own lease, unless it is the one that was run last. @throws WeftError when it fails. */
  async start(command: HostCommand | undefined, signal: AbortSignal): Promise<void> {
    const text = JSON.stringify(command);
    if (command === undefined || text === this.#started) return;
    await this.#run('post-startup', command, signal);
    this.#started = text;
  }

  /** What is run for a peer; `undefined` when it is gone, or nothing is run for it. */
  setPeer(key: LeaseKey, hook: PeerHook | undefined): void {
    if (hook === undefined) this.#wanted.delete(key);
    else this.#wanted.set(key, { hook, text: JSON.stringify(hook) });
    if (this.#wanted.get(key)?.text === this.#met.get(key)?.text) return;
    this.#changed.add(key);
    this.#working ??= this.#work();
  }

  /** Resolves when every command that is due was run. */
  async idle(): Promise<void> {
    await this.#working;
  }

  /** Never rejects. */
  async #work(): Promise<void> {
    // Whoever sets many peers at once does so before the first command runs.
    await Promise.resolve();
    for (const key of this.#changed) {
      if (this.#stop.signal.aborted) break;
      this.#changed.delete(key);
      await this.#meet(key);
    }
    this.#working = undefined;
    if (this.#failures.size === 0) this.#retryMs = this.#options.retryMs ?? RETRY_MS;
    else if (!this.#stop.signal.aborted) this.#retry ??= this.#retryLater();
  }

  async #meet(key: LeaseKey): Promise<void> {
    const wish = this.#wanted.get(key);
    const met = this.#met.get(key);
    const isNew = wish?.text !== met?.text;
    if (!isNew && !this.#failures.has(key)) return;
    const before = isNew ? undefined : this.#failures.get(key);
    this.#failures.delete(key);
    const [moment, command] =
      wish === undefined ? (['subnet-remove', met?.hook.remove] as const) : (['subnet-add', wish.hook.add] as const);
    if (wish === undefined) this.#met.delete(key);
    else this.#met.set(key, wish);
    if (command === undefined) return;
    try {
      await this.#run(moment, command, this.#stop.signal);
    } catch (error) {
      if (this.#stop.signal.aborted) return;
      const failure = describeError(error);
      if (failure !== before) this.#options.log.error(`${key.replaceAll('-', '/')}: ${failure}`);
      if (wish !== undefined) this.#failures.set(key, failure);
    }
  }

  async #run(moment: HookMoment, command: HostCommand, signal: AbortSignal): Promise<void> {
    const figures = (this.#figures[moment] ??= { succeeded: 0, failed: 0 });
    try {
      await this.#options.run(command, signal);
      figures.succeeded++;
    } catch (error) {
      if (!signal.aborted) figures.failed++;
      throw error;
    }
  }

  #retryLater(): NodeJS.Timeout {
    return setTimeout(() => {
      this.#retry = undefined;
      this.#retryMs = Math.min(this.#retryMs * 2, LONGEST_RETRY_MS);
      for (const key of this.#failures.keys()) this.#changed.add(key);
      this.#working ??= this.#work();
    }, this.#retryMs).unref();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort(new Error('the agent ended'));
    clearTimeout(this.#retry);
    await this.#working;
  }
}
