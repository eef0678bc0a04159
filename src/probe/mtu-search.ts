/** Every IPv4 host takes this much (RFC 791), and a link that takes less is no link for an overlay. */
const LEAST_BYTES = 576;
/** Two sizes that are that close are one. */
const CLOSE_ENOUGH_BYTES = 2;

/**
 * The search for the longest packet that passes, once the longest that should pass does not. Starts with what the way itself says
 * (ICMP), and halves the rest. Ends; a new search is a new object.
 */
export class MtuSearch {
  #passes = LEAST_BYTES;
  #fails: number;
  #hint: number | undefined;

  /** @param fullBytes a size that was seen not to pass. */
  constructor(fullBytes: number) {
    this.#fails = fullBytes;
  }

  /** The size to try next, in bytes; `undefined` when the search is over. */
  get next(): number | undefined {
    if (this.#fails - this.#passes <= CLOSE_ENOUGH_BYTES) return undefined;
    return this.#hint ?? Math.floor((this.#passes + this.#fails) / 2);
  }

  /** What passes, in bytes; `undefined` until the search is over. */
  get found(): number | undefined {
    return this.next === undefined ? this.#passes : undefined;
  }

  passed(bytes: number): void {
    this.#passes = Math.max(this.#passes, bytes);
    // What a router says is exact.
    if (bytes === this.#hint) this.#fails = Math.min(this.#fails, bytes + 1);
    this.#forget(bytes);
  }

  failed(bytes: number): void {
    if (bytes > this.#passes) this.#fails = Math.min(this.#fails, bytes);
    this.#forget(bytes);
  }

  /** A router on the way says that its next link takes so much. */
  told(bytes: number): void {
    if (bytes > this.#passes && bytes < this.#fails) this.#hint = bytes;
  }

  #forget(bytes: number): void {
    if (bytes === this.#hint) this.#hint = undefined;
  }
}
