import { getHeapStatistics } from 'node:v8';

/** Later than what a start or a new list of all peers sets off, such as writing down what is known. */
const DELAY_MS = 2_000;
/** In its first minute, code of the control plane is compiled that runs often. */
const AGAIN_MS = 60_000;
/** What is allocated in between fills the heap before V8 collects it, and pages of the executable that ran once stay. */
const EVERY_MS = 600_000;
/** Of thousands of peers: going through it holds up the control plane for longer, and what is saved is little of it. */
const LARGE_HEAP_BYTES = 64 * 1024 * 1024;

/**
 * Gives back memory once a burst of work is over, and from time to time where the heap is small: V8 and the C library keep what a
 * start, or a list of thousands of peers, has needed for a moment. Holds up the control plane for about 0.1 s, and no packet.
 */
export class MemoryRelease implements Disposable {
  readonly #release: () => void;
  readonly #heapBytes: () => number;
  #timer: NodeJS.Timeout | undefined;

  /** @param heapBytes in use; by default of this thread. */
  constructor(release: () => void, heapBytes: () => number = () => getHeapStatistics().used_heap_size) {
    this.#release = release;
    this.#heapBytes = heapBytes;
  }

  /** A burst happened; several in a row are one. */
  afterBurst(): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      this.#againIn(AGAIN_MS);
      this.#release();
    }, DELAY_MS).unref();
  }

  #againIn(ms: number): void {
    this.#timer = setTimeout(() => {
      this.#againIn(EVERY_MS);
      if (this.#heapBytes() < LARGE_HEAP_BYTES) this.#release();
    }, ms).unref();
  }

  [Symbol.dispose](): void {
    clearTimeout(this.#timer);
  }
}
