import { describeError } from '../errors.ts';
import type { Log } from '../log/log.ts';
import { type LastKnown, lastKnownPath, writeLastKnown } from '../node-files/last-known.ts';

/** From one writing to the next: in a large cluster the file is large and peers come in bursts. */
const INTERVAL_MS = 1_000;
/** Of the time that a writing takes, so many times as much passes before the next. */
const REST = 10;

/**
 * Writes what is known beside subnet.env, at once or a second after the last time, later where the file is so large that writing
 * takes long; no more can a kill catch unwritten.
 */
export class LastKnownKeeper implements AsyncDisposable {
  readonly #subnetFile: string;
  readonly #log: Log;
  #latest: (() => LastKnown) | undefined;
  #timer: NodeJS.Timeout | undefined;
  #writing: Promise<void> = Promise.resolve();
  #writtenAtMs = Number.NEGATIVE_INFINITY;
  /** The last writing. */
  #tookMs = 0;
  #failed = false;

  constructor(subnetFile: string, log: Log) {
    this.#subnetFile = subnetFile;
    this.#log = log;
  }

  /** @param known is asked when it is written. */
  keep(known: () => LastKnown): void {
    this.#latest = known;
    const inMs = Math.max(0, this.#writtenAtMs + Math.max(INTERVAL_MS, this.#tookMs * REST) - performance.now());
    this.#timer ??= setTimeout(() => this.#write(), inMs);
  }

  #write(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    const known = this.#latest;
    this.#latest = undefined;
    if (known === undefined) return;
    this.#writtenAtMs = performance.now();
    this.#writing = this.#writing.then(async () => {
      try {
        const startedAt = performance.now();
        await writeLastKnown(this.#subnetFile, known());
        this.#tookMs = performance.now() - startedAt;
        this.#failed = false;
      } catch (error) {
        // It is only wanted should this agent be restarted while the store is away.
        if (!this.#failed)
          this.#log.warn(`Could not write ${lastKnownPath(this.#subnetFile)}: ${describeError(error)}`);
        this.#failed = true;
      }
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#write();
    await this.#writing;
  }
}
