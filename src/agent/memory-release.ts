/** Later than what a start or a new list of all peers sets off, such as writing down what is known. */
const DELAY_MS = 2_000;
/** In its first minute, code of the control plane is compiled that runs often. */
const AGAIN_MS = 60_000;
/** What is allocated in between fills the heap before V8 collects it, and pages of the executable that ran once stay. */
const EVERY_MS = 600_000;

/**
 * Gives back memory once a burst of work is over, and from time to time: V8 and the C library keep what a start, or a list of thousands
 * of peers, has needed for a moment. Holds up the control plane for about 0.1 s, and no packet.
 */
export class MemoryRelease implements Disposable {
  readonly #release: () => void;
  #timer: NodeJS.Timeout | undefined;

  constructor(release: () => void) {
    this.#release = release;
  }

  /** A burst happened; several in a row are one. */
  afterBurst(): void {
    clearTimeout(this.#timer);
    this.#releaseIn(DELAY_MS, AGAIN_MS);
  }

  #releaseIn(delayMs: number, thenMs: number): void {
    this.#timer = setTimeout(() => {
      this.#releaseIn(thenMs, EVERY_MS);
      this.#release();
    }, delayMs).unref();
  }

  [Symbol.dispose](): void {
    clearTimeout(this.#timer);
  }
}
