/** Of this many probes; with one a second, half a minute. */
const WINDOW = 32;
const LOST = -1;

/** The latest results of one kind of probe: round-trip times and losses. */
export class ProbeWindow {
  readonly #results: number[] = [];
  #next = 0;

  answered(rttMs: number): void {
    this.#put(Math.max(0, rttMs));
  }

  lost(): void {
    this.#put(LOST);
  }

  /** How many results there are, 0 … {@link WINDOW}. */
  get size(): number {
    return this.#results.length;
  }

  /** 0 … 1; `undefined` without results. */
  get lossRatio(): number | undefined {
    if (this.size === 0) return undefined;
    return this.#results.filter((result) => result === LOST).length / this.size;
  }

  /** The smallest round-trip time that so much of the answers did not exceed; `undefined` without answers. */
  rttMs(quantile: number): number | undefined {
    const sorted = this.#results.filter((result) => result !== LOST).sort((a, b) => a - b);
    return sorted[Math.max(0, Math.ceil(quantile * sorted.length) - 1)];
  }

  #put(result: number): void {
    this.#results[this.#next] = result;
    this.#next = (this.#next + 1) % WINDOW;
  }
}
