/** Of the time that work takes, so many times as much passes before it is done again. */
const REST = 3;
/** At most, however long the work takes. */
const LONGEST_REST_MS = 10_000;
/** Work that takes no longer can be done at every turn of the event loop. */
const CHEAP_MS = 5;

/**
 * Work that has to follow changes, but not each of them: once a turn of the event loop at most, and where it takes long (all
 * peers of a large cluster) no more than a quarter of the time, so that there is time left for what asks how the agent is.
 */
export class PacedWork implements Disposable {
  readonly #work: () => void;
  #immediate: NodeJS.Immediate | undefined;
  #timer: NodeJS.Timeout | undefined;
  #notBeforeMs = 0;

  /** @param work never throws. */
  constructor(work: () => void) {
    this.#work = work;
  }

  /** There is something to do. */
  soon(): void {
    if (this.#immediate !== undefined || this.#timer !== undefined) return;
    const waitMs = this.#notBeforeMs - performance.now();
    if (waitMs <= 0) this.#immediate = setImmediate(() => this.now());
    else this.#timer = setTimeout(() => this.now(), waitMs);
  }

  now(): void {
    this[Symbol.dispose]();
    const startedAt = performance.now();
    this.#work();
    const endedAt = performance.now();
    const tookMs = endedAt - startedAt;
    this.#notBeforeMs = tookMs <= CHEAP_MS ? 0 : endedAt + Math.min(tookMs * REST, LONGEST_REST_MS);
  }

  /** Nothing is done any more until asked again. */
  [Symbol.dispose](): void {
    clearImmediate(this.#immediate);
    clearTimeout(this.#timer);
    this.#immediate = undefined;
    this.#timer = undefined;
  }
}
