/**
 * A count of the kernel's that begins anew with another device or socket, as one that never goes back: the sum over all that there have
 * been. What was counted between the last look and the end of one is not known.
 */
export class RisingCount {
  #earlier = 0;
  #last: number | undefined;

  /** @param now the kernel's; `undefined` when there is nothing that counts. Returns `undefined` when there never was. */
  total(now: number | undefined): number | undefined {
    if (this.#last !== undefined && (now ?? 0) < this.#last) this.#earlier += this.#last;
    if (now !== undefined || this.#last !== undefined) this.#last = now ?? 0;
    return this.#last === undefined ? undefined : this.#earlier + this.#last;
  }
}
