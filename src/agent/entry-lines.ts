import { TokenBucket } from '../token-bucket.ts';

/** So many lines at once, and one more in each so many milliseconds. */
const BURST = 20;
const LINE_EVERY_MS = 10_000;

/**
 * How much is said of single entries of the store. Any host of the cluster may write as many as it likes, and must not fill the
 * log, push all other events out, or have a file written for each.
 */
export class EntryLines {
  readonly #now: () => number;
  readonly #bucket = new TokenBucket(BURST, LINE_EVERY_MS);
  #unsaid = 0;

  constructor(now: () => number = () => performance.now()) {
    this.#now = now;
  }

  /** Asked once for each entry. @returns how many before it were not said; `undefined` when nothing is said of this one either. */
  next(): number | undefined {
    if (!this.#bucket.take(this.#now())) {
      this.#unsaid++;
      return undefined;
    }
    const unsaid = this.#unsaid;
    this.#unsaid = 0;
    return unsaid;
  }
}
