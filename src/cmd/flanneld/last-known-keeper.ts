import { type LastKnown, lastKnownPath, writeLastKnown } from '../../config/last-known.ts';
import { describeError } from '../../errors.ts';
import type { Log } from '../../log/log.ts';

/** Changes within this time are written together: in a large cluster the file is large and peers come in bursts. */
const GATHER_MS = 1_000;

/** Writes what is known beside subnet.env, soon after it changes; what a kill catches unwritten is a second old. */
export class LastKnownKeeper implements AsyncDisposable {
  readonly #subnetFile: string;
  readonly #log: Log;
  #latest: LastKnown | undefined;
  #timer: NodeJS.Timeout | undefined;
  #writing: Promise<void> = Promise.resolve();
  #failed = false;

  constructor(subnetFile: string, log: Log) {
    this.#subnetFile = subnetFile;
    this.#log = log;
  }

  keep(known: LastKnown): void {
    this.#latest = known;
    this.#timer ??= setTimeout(() => this.#write(), GATHER_MS);
  }

  #write(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    const known = this.#latest;
    this.#latest = undefined;
    if (known === undefined) return;
    this.#writing = this.#writing.then(async () => {
      try {
        await writeLastKnown(this.#subnetFile, known);
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
