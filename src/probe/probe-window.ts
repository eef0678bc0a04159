/** Of this many probes; with one a second, half a minute. */
const WINDOW = 32;
const LOST = -1;

/** A time in which nothing passed, by the clock of the probes: from the first probe that was lost until one that was answered. */
export interface Silence {
  readonly fromMs: number;
  /** When that one was sent; infinite while it lasts. */
  readonly untilMs: number;
}

interface Result {
  readonly sentAtMs: number;
  /** {@link LOST} of one that had no answer. */
  readonly rttMs: number;
}

/** The latest results of one kind of probe: round-trip times and losses. */
export class ProbeWindow {
  #results: Result[] = [];
  /** Of the answers; `undefined`: not since the last result. Asked for several times a second, and changed once. */
  #sorted: readonly number[] | undefined;

  answered(sentAtMs: number, rttMs: number): void {
    this.#put({ sentAtMs, rttMs: Math.max(0, rttMs) });
  }

  lost(sentAtMs: number): void {
    this.#put({ sentAtMs, rttMs: LOST });
  }

  /** How many results there are, 0 … {@link WINDOW}. */
  get size(): number {
    return this.#results.length;
  }

  /** 0 … 1; `undefined` without results. */
  get lossRatio(): number | undefined {
    if (this.size === 0) return undefined;
    return this.#results.filter(isLost).length / this.size;
  }

  /** The same results, but for what was lost in these silences. */
  without(silences: readonly Silence[]): ProbeWindow {
    const rest = new ProbeWindow();
    rest.#results = this.#results.filter(
      (result) =>
        !isLost(result) ||
        !silences.some(({ fromMs, untilMs }) => result.sentAtMs >= fromMs && result.sentAtMs < untilMs),
    );
    return rest;
  }

  /** When the oldest was sent; infinite when there is none. */
  get sinceMs(): number {
    return this.#results[0]?.sentAtMs ?? Number.POSITIVE_INFINITY;
  }

  /** The smallest round-trip time that so much of the answers did not exceed; `undefined` without answers. */
  rttMs(quantile: number): number | undefined {
    this.#sorted ??= this.#results.flatMap((one) => (isLost(one) ? [] : one.rttMs)).sort((a, b) => a - b);
    return this.#sorted[Math.max(0, Math.ceil(quantile * this.#sorted.length) - 1)];
  }

  #put(result: Result): void {
    this.#results.push(result);
    if (this.#results.length > WINDOW) this.#results.shift();
    this.#sorted = undefined;
  }
}

function isLost({ rttMs }: Result): boolean {
  return rttMs === LOST;
}
