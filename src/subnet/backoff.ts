/** Those who wait. One set for the process: what ends a wait is an event of the host, and concerns every store alike. */
const waiting = new Set<() => void>();

/**
 * Waits `ms` milliseconds, or until `retryNow`. Rejects with the signal's reason as soon as it fires, also when it had
 * fired before.
 */
export async function sleep(ms: number, signal: AbortSignal): Promise<void> {
  signal.throwIfAborted();
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  const timer = setTimeout(resolve, ms);
  const abort = (): void => reject(signal.reason);
  waiting.add(resolve);
  signal.addEventListener('abort', abort, { once: true });
  try {
    await promise;
  } finally {
    clearTimeout(timer);
    waiting.delete(resolve);
    signal.removeEventListener('abort', abort);
  }
}

/** The network of this host has changed: what could not be reached may be within reach, and nobody waits any longer. */
export function retryNow(): void {
  for (const wake of [...waiting]) wake();
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
