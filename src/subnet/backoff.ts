import { setTimeout as delay } from 'node:timers/promises';

/** Waits `ms` milliseconds. Rejects with the signal's reason as soon as it fires, also when it had fired before. */
export async function sleep(ms: number, signal: AbortSignal): Promise<void> {
  try {
    await delay(ms, undefined, { signal });
  } catch (error) {
    signal.throwIfAborted();
    throw error;
  }
}

export interface BackoffRange {
  readonly firstMs: number;
  readonly maxMs: number;
}

/**
 * Waiting times between attempts: doubling from `firstMs` to `maxMs`, each shortened by up to half at random, because
 * the agents of a cluster lose their store in the same moment and must not come back in the same moment.
 */
export class Backoff {
  readonly #range: BackoffRange;
  readonly #random: () => number;
  #stepMs: number;

  constructor(range: BackoffRange, random: () => number = Math.random) {
    this.#range = range;
    this.#random = random;
    this.#stepMs = range.firstMs;
  }

  nextMs(): number {
    const stepMs = this.#stepMs;
    this.#stepMs = Math.min(stepMs * 2, this.#range.maxMs);
    return stepMs * (1 - this.#random() / 2);
  }

  reset(): void {
    this.#stepMs = this.#range.firstMs;
  }
}
