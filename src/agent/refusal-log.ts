import { describeRefusal, type Refusal } from '../lease/lease-gate.ts';
import type { Log } from '../log/log.ts';
import { TokenBucket } from '../token-bucket.ts';

/** So many lines at once, and one more in each so many milliseconds. */
const BURST = 20;
const LINE_EVERY_MS = 10_000;

/** Says of each entry of the store that is not believed why, once; of thousands of them that there are more. */
export class RefusalLog {
  readonly #log: Pick<Log, 'error' | 'warn'>;
  readonly #now: () => number;
  readonly #bucket = new TokenBucket(BURST, LINE_EVERY_MS);
  #silent = 0;

  constructor(log: Pick<Log, 'error' | 'warn'>, now: () => number = () => performance.now()) {
    this.#log = log;
    this.#now = now;
  }

  /** @returns those that it has said. */
  say(news: readonly Refusal[]): Refusal[] {
    const said: Refusal[] = [];
    const nowMs = this.#now();
    for (const refusal of news) {
      if (!this.#bucket.take(nowMs)) {
        this.#silent++;
        continue;
      }
      said.push(refusal);
      const more = this.#silent === 0 ? '' : ` (${this.#silent} more were refused and not logged)`;
      this.#silent = 0;
      const text = `${describeRefusal(refusal)}${more}`;
      // Two hosts that claim one subnet are cut off from some of the others: nobody should have to look for it.
      if (refusal.reason === 'overlaps-own') this.#log.error(text);
      else this.#log.warn(text);
    }
    return said;
  }
}
