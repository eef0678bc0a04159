import { AssertionError } from 'node:assert/strict';
import type { Readable } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';
import { lines } from '../../src/linux/run.ts';

/** Generous: a busy machine must not fail a test, only a thing that never happens. */
export const PATIENCE_MS = 120_000;
/** Pauses between two looks: short ones first, for what comes within this process. */
const FIRST_POLL_MS = 1;
const POLL_MS = 30;

export interface SeenLine {
  readonly text: string;
  /** performance.now() when it was read. */
  readonly atMs: number;
}

/** The lines of a program as they come, each of which can be waited for; earlier ones are remembered. */
export class LineFeed {
  readonly seen: SeenLine[] = [];
  readonly #waiters = new Set<() => void>();
  #ended = false;

  constructor(stream: Readable) {
    void this.#read(stream);
  }

  async #read(stream: Readable): Promise<void> {
    try {
      for await (const text of lines(stream)) {
        this.seen.push({ text, atMs: performance.now() });
        this.#wake();
      }
    } catch {
      // The pipe broke: the same as its end.
    } finally {
      this.#ended = true;
      this.#wake();
    }
  }

  #wake(): void {
    for (const wake of this.#waiters) wake();
  }

  /** Number of lines so far: a place to look from. */
  get mark(): number {
    return this.seen.length;
  }

  /**
   * The first line from `from` on that fits, now or later.
   * @throws Error with all lines from there when the output ends or `timeoutMs` is over first.
   */
  async find(fits: (text: string) => boolean, from = 0, timeoutMs = PATIENCE_MS): Promise<SeenLine> {
    const deadline = performance.now() + timeoutMs;
    for (let at = from; ; ) {
      for (; at < this.seen.length; at++) if (fits(this.seen[at]!.text)) return this.seen[at]!;
      const left = deadline - performance.now();
      if (this.#ended || left <= 0) {
        const why = this.#ended ? 'its output has ended' : `not within ${timeoutMs} ms`;
        const heard = this.seen.slice(from).map(({ text }) => text);
        throw new Error(`no line that fits (${why}); there were:\n${heard.join('\n')}`);
      }
      await this.#next(left);
    }
  }

  #next(timeoutMs: number): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    const timer = setTimeout(resolve, timeoutMs);
    this.#waiters.add(resolve);
    return promise.finally(() => {
      clearTimeout(timer);
      this.#waiters.delete(resolve);
    });
  }
}

/** Asks until the answer is not `undefined` or `false`: for what nobody announces. @throws Error naming `what` after `timeoutMs`. */
export async function eventually<T>(
  what: string,
  ask: () => Promise<T | undefined | false> | T | undefined | false,
  timeoutMs: number = PATIENCE_MS,
): Promise<T> {
  const deadline = performance.now() + timeoutMs;
  for (let pauseMs = FIRST_POLL_MS; ; pauseMs = Math.min(2 * pauseMs, POLL_MS)) {
    const answer = await ask();
    if (answer !== undefined && answer !== false) return answer;
    if (performance.now() > deadline) throw new Error(`${what}: not within ${timeoutMs} ms`);
    await sleep(pauseMs);
  }
}

/**
 * Repeats `attempt` until none of its assertions fails: for figures that follow what they count, and for what a busy machine may
 * disturb once. Whatever else it throws ends it. @throws the last AssertionError after `timeoutMs`.
 */
export async function eventuallyHolds<T>(attempt: () => Promise<T>, timeoutMs: number = PATIENCE_MS): Promise<T> {
  const deadline = performance.now() + timeoutMs;
  for (;;) {
    try {
      return await attempt();
    } catch (error) {
      if (!(error instanceof AssertionError) || performance.now() > deadline) throw error;
    }
    await sleep(POLL_MS);
  }
}
