/** Later than what a start or a new list of all peers sets off, such as writing down what is known. */
const DELAY_MS = 2_000;

/**
 * Gives back memory once a burst of work is over: V8 and the C library keep what a start, or a list of thousands of peers,
 * has needed for a moment. Holds up the control plane for about 0.1 s, and no packet.
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
    this.#timer = setTimeout(this.#release, DELAY_MS).unref();
  }

  [Symbol.dispose](): void {
    clearTimeout(this.#timer);
  }
}
