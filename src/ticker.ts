/** What is due so soon is done at the same wake. */
const TOGETHER_MS = 5;

/** Where a {@link Ticker} has its time from. */
export interface TickerClock {
  /** Milliseconds of a clock that goes on. */
  readonly now: () => number;
  /** Once, after so many milliseconds and not before. Does not keep the process alive. */
  readonly after: (ms: number, work: () => void) => Disposable;
}

/** Of a timer of Node.js; a wake in vain does no harm. */
const LONGEST_MS = 2 ** 31 - 1;

const PROCESS_CLOCK: TickerClock = {
  now: () => performance.now(),
  after: (ms, work) => {
    // Timers count whole milliseconds from one that has begun already.
    const timer = setTimeout(work, Math.min(Math.ceil(ms) + 1, LONGEST_MS)).unref();
    return { [Symbol.dispose]: () => clearTimeout(timer) };
  },
};

interface Entry {
  atMs: number;
  /** `undefined`: once. */
  readonly everyMs: number | undefined;
  readonly work: () => void;
}

/**
 * Wakes a process for all its periodic work together: work of one interval is done at the multiples of it by the clock, and so with
 * that of its divisors. Each wake costs more than most of what is done then.
 */
export class Ticker {
  readonly #clock: TickerClock;
  readonly #entries = new Set<Entry>();
  #timer: Disposable | undefined;
  #wakesAtMs = Number.POSITIVE_INFINITY;

  constructor(clock: TickerClock = PROCESS_CLOCK) {
    this.#clock = clock;
  }

  /** Until disposed. @param ms more than a few; what takes longer is not done twice in a row to catch up. */
  every(ms: number, work: () => void): Disposable {
    return this.#add({ atMs: this.#nextMultiple(ms), everyMs: ms, work });
  }

  /** Unless it is disposed before. @param atMs by the clock, that of `performance.now()` by default. */
  once(atMs: number, work: () => void): Disposable {
    return this.#add({ atMs, everyMs: undefined, work });
  }

  /**
   * For about so long: from half the time to once and a half, and then as long as it says, when called again at once. Until a signal
   * aborts, too.
   */
  async wait(ms: number, signal: AbortSignal): Promise<void> {
    if (signal.aborted) return;
    const { promise, resolve } = Promise.withResolvers<void>();
    const end = (): void => resolve();
    const atMs = Math.ceil((this.#clock.now() + ms / 2) / ms) * ms;
    using _due = this.once(atMs, end);
    signal.addEventListener('abort', end, { once: true });
    await promise;
    signal.removeEventListener('abort', end);
  }

  #add(entry: Entry): Disposable {
    this.#entries.add(entry);
    this.#arm();
    return { [Symbol.dispose]: () => void this.#entries.delete(entry) };
  }

  #nextMultiple(ms: number): number {
    return (Math.floor((this.#clock.now() + TOGETHER_MS) / ms) + 1) * ms;
  }

  #arm(): void {
    let atMs = Number.POSITIVE_INFINITY;
    for (const entry of this.#entries) atMs = Math.min(atMs, entry.atMs);
    // One wake in vain is cheaper than a new timer for each thing that ends.
    if (atMs >= this.#wakesAtMs || atMs === Number.POSITIVE_INFINITY) return;
    this.#timer?.[Symbol.dispose]();
    this.#wakesAtMs = atMs;
    this.#timer = this.#clock.after(Math.max(0, atMs - this.#clock.now()), () => this.#wake());
  }

  #wake(): void {
    this.#wakesAtMs = Number.POSITIVE_INFINITY;
    const untilMs = this.#clock.now() + TOGETHER_MS;
    try {
      for (const entry of this.#entries) {
        if (entry.atMs > untilMs) continue;
        if (entry.everyMs === undefined) this.#entries.delete(entry);
        else entry.atMs = this.#nextMultiple(entry.everyMs);
        entry.work();
      }
    } finally {
      // What throws ends the process, or nothing: the others go on.
      this.#arm();
    }
  }
}

/** That of this thread. */
export const ticker: Ticker = new Ticker();
