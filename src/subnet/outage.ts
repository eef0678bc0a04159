import { Backoff, type BackoffRange } from './backoff.ts';
import type { ReportSink } from './report.ts';

/** An attempt that comes sooner than this after the one before is told of only when it failed in another way. */
const SOON_MS = 1_000;

export interface OutageOptions {
  /** How the log line of a failed attempt begins: `Error renewing lease`. */
  readonly failure: string;
  readonly report: ReportSink;
  readonly retry: BackoffRange;
  readonly random?: () => number;
}

/** Follows one activity through failures of the store: how long to wait, what has been told, and when it is over. */
export class Outage {
  readonly #options: OutageOptions;
  readonly #backoff: Backoff;
  #failing = false;
  /** What the attempt before said, while attempts follow one another so soon that saying it again is of no use. */
  #justSaid: string | undefined;
  #announced = false;

  constructor(options: OutageOptions) {
    this.#options = options;
    this.#backoff = new Backoff(options.retry, options.random);
  }

  /** Whether `announce` has returned true in the outage that goes on. */
  get announced(): boolean {
    return this.#announced;
  }

  /** Reports one failed attempt and says how long to wait before the next. */
  failed(error: unknown): number {
    this.#failing = true;
    const retryInMs = this.#backoff.nextMs();
    const failure = asError(error);
    const repeated = failure.message === this.#justSaid;
    this.#justSaid = retryInMs < SOON_MS ? failure.message : undefined;
    this.#options.report({
      type: 'store-failed',
      failure: this.#options.failure,
      error: failure,
      retryInMs,
      ...(repeated && { repeated }),
    });
    return retryInMs;
  }

  /** True the first time in an outage. */
  announce(): boolean {
    const first = !this.#announced;
    this.#announced = true;
    return first;
  }

  /** An attempt went well. */
  over(): void {
    if (!this.#failing) return;
    this.#failing = false;
    this.#announced = false;
    this.#justSaid = undefined;
    this.#backoff.reset();
    this.#options.report({ type: 'store-answered' });
  }
}

export function asError(error: unknown): Error {
  return error instanceof Error ? error : new Error(String(error));
}
