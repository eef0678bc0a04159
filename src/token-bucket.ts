/** So much may happen at once, and once more every so often. Times are milliseconds; a clock that goes back earns nothing until it is there again. */
export class TokenBucket {
  readonly #size: number;
  readonly #refillMs: number;
  #taken = 0;
  #refilledAtMs = Number.NEGATIVE_INFINITY;

  constructor(size: number, refillMs: number) {
    this.#size = size;
    this.#refillMs = refillMs;
  }

  has(nowMs: number): boolean {
    if (this.#taken === 0) this.#refilledAtMs = nowMs;
    const earned = Math.max(0, Math.floor((nowMs - this.#refilledAtMs) / this.#refillMs));
    const refills = Math.min(this.#taken, earned);
    this.#taken -= refills;
    this.#refilledAtMs += refills * this.#refillMs;
    return this.#taken < this.#size;
  }

  /** @returns false when there is none left. */
  take(nowMs: number): boolean {
    if (!this.has(nowMs)) return false;
    this.#taken++;
    return true;
  }

  isFull(nowMs: number): boolean {
    return this.has(nowMs) && this.#taken === 0;
  }

  /** When there is one to take; now where there is one already. */
  readyAtMs(nowMs: number): number {
    return this.has(nowMs) ? nowMs : this.#refilledAtMs + this.#refillMs;
  }
}
