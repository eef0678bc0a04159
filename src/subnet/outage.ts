import { Backoff, type BackoffRange } from './backoff.ts';
import type { ReportSink } from './report.ts';

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
    this.#options.report({
      type: 'store-failed',
      failure: this.#options.failure,
      error: asError(error),
      retryInMs,
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
    this.#backoff.reset();
    this.#options.report({ type: 'store-answered' });
  }
}

export function asError(error: unknown): Error {
  return error instanceof Error ? error : new Error(String(error));
}
