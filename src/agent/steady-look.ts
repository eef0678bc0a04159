import { ticker } from '../ticker.ts';

export interface SteadyLookOptions {
  readonly intervalMs: number;
  /** While the store is away, nothing is looked at. */
  readonly isStoreThere: () => boolean;
  /** Never rejects. */
  readonly look: (signal: AbortSignal) => Promise<void>;
}

/** Looks at something that may be changed elsewhere, time and again, from about one interval after it was made until it is disposed of. */
export class SteadyLook implements AsyncDisposable {
  readonly #stop = new AbortController();
  readonly #running: Promise<void>;

  constructor(options: SteadyLookOptions) {
    this.#running = run(options, this.#stop.signal);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort(new Error('the agent ended'));
    await this.#running;
  }
}

async function run({ intervalMs, isStoreThere, look }: SteadyLookOptions, signal: AbortSignal): Promise<void> {
  for (;;) {
    await ticker.wait(intervalMs, signal);
    if (signal.aborted) return;
    if (isStoreThere()) await look(signal);
  }
}
