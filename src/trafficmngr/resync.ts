import type { TrafficRules } from './rules.ts';
import { REPAIR_PROBLEMS, type Repair, type RepairProblem, type TrafficManager } from './traffic-manager.ts';

export type ResyncEvent =
  /** The rules differed and are as wanted again. */
  | {
      readonly type: 'repaired';
      readonly repairs: readonly Repair[];
      /** How many checks in a row found something: from 3 on, another program works against us. */
      readonly streak: number;
    }
  /** The check or the repair failed; it is tried again at the next one. Told once for each new message. */
  | { readonly type: 'failed'; readonly error: unknown }
  /** The first check that went through after `failed`. */
  | { readonly type: 'recovered' };

export interface ResyncOptions {
  readonly manager: TrafficManager;
  readonly wanted: TrafficRules;
  /** flannel's `--iptables-resync`, in milliseconds; at least 1. */
  readonly intervalMs: number;
  readonly onEvent: (event: ResyncEvent) => void;
}

export interface ResyncCounters {
  readonly checks: number;
  readonly failures: number;
  readonly repairs: Readonly<Record<RepairProblem, number>>;
  /** Milliseconds since the epoch of the last check that went through. */
  readonly lastSuccessAtMs: number | undefined;
}

/**
 * Checks the rules every `intervalMs` and on demand, and puts right what is wrong. One check at a time; a trigger during
 * a check leads to one more after it. Failures never end it.
 */
export class TrafficResync {
  readonly #manager: TrafficManager;
  readonly #intervalMs: number;
  readonly #onEvent: (event: ResyncEvent) => void;
  #wanted: TrafficRules;
  #checks = 0;
  #failures = 0;
  readonly #repairs: Record<RepairProblem, number>;
  #lastSuccessAtMs: number | undefined;
  #streak = 0;
  #failure: string | undefined;
  #wake: () => void = () => undefined;
  #triggered = false;

  constructor(options: ResyncOptions) {
    if (!(options.intervalMs >= 1)) throw new RangeError(`not a resync interval: ${options.intervalMs} ms`);
    this.#manager = options.manager;
    this.#intervalMs = options.intervalMs;
    this.#onEvent = options.onEvent;
    this.#wanted = options.wanted;
    this.#repairs = Object.fromEntries(REPAIR_PROBLEMS.map((problem) => [problem, 0])) as Record<RepairProblem, number>;
  }

  /** Why the rules could not be checked or put right the last time; `undefined` when they are right. */
  get failure(): string | undefined {
    return this.#failure;
  }

  get counters(): ResyncCounters {
    return {
      checks: this.#checks,
      failures: this.#failures,
      repairs: { ...this.#repairs },
      lastSuccessAtMs: this.#lastSuccessAtMs,
    };
  }

  /** Other rules from now on, such as after the node got another subnet. Takes effect at once. */
  setWanted(wanted: TrafficRules): void {
    this.#wanted = wanted;
    this.trigger();
  }

  /** A check as soon as possible. */
  trigger(): void {
    this.#triggered = true;
    this.#wake();
  }

  /**
   * Runs until `signal` aborts and resolves then, a check under way having ended. The first check comes after one
   * interval: the caller has just called `ensure`, whose failure at start is fatal.
   */
  async run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      await this.#pause(signal);
      if (signal.aborted) return;
      this.#triggered = false;
      await this.#check(signal);
    }
  }

  async #pause(signal: AbortSignal): Promise<void> {
    if (this.#triggered) return;
    const { promise, resolve } = Promise.withResolvers<void>();
    const timer = setTimeout(resolve, this.#intervalMs);
    const wake = () => resolve();
    signal.addEventListener('abort', wake, { once: true });
    this.#wake = wake;
    await promise;
    clearTimeout(timer);
    signal.removeEventListener('abort', wake);
  }

  async #check(signal: AbortSignal): Promise<void> {
    this.#checks++;
    try {
      const repairs = await this.#manager.ensure(this.#wanted, signal);
      this.#lastSuccessAtMs = Date.now();
      if (this.#failure !== undefined) {
        this.#failure = undefined;
        this.#onEvent({ type: 'recovered' });
      }
      if (repairs.length === 0) {
        this.#streak = 0;
        return;
      }
      this.#streak++;
      for (const { problem } of repairs) this.#repairs[problem]++;
      this.#onEvent({ type: 'repaired', repairs, streak: this.#streak });
    } catch (error) {
      if (signal.aborted) return;
      this.#failures++;
      const message = error instanceof Error ? error.message : String(error);
      if (message === this.#failure) return;
      this.#failure = message;
      this.#onEvent({ type: 'failed', error });
    }
  }
}
