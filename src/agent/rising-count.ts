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
    return this.value;
  }

  /** As of the last look. */
  get value(): number | undefined {
    return this.#last === undefined ? undefined : this.#earlier + this.#last;
  }
}

/** The sum of several such counts. One that is not asked for stays as it was: what counts may still be there. */
export class RisingCounts {
  readonly #counts = new Map<string, RisingCount>();

  /** @param read what the kernel counts under a name. Returns `undefined` when there never was anything that counts. */
  total(names: Iterable<string>, read: (name: string) => number | undefined): number | undefined {
    for (const name of names) {
      const count = this.#counts.get(name) ?? new RisingCount();
      this.#counts.set(name, count);
      count.total(read(name));
    }
    const values = [...this.#counts.values()].flatMap(({ value }) => value ?? []);
    return values.length === 0 ? undefined : values.reduce((sum, value) => sum + value, 0);
  }
}

/**
 * Counts that are differences of the kernel's, which are read one after the other while packets pass: one may be a few too high at one
 * look, and lower at the next. Each as the highest that it was, since Prometheus takes one that goes back for one that begins anew.
 */
export class HighestCounts {
  #highest: Readonly<Record<string, number>> = {};

  /** @param now by name. */
  take(now: Readonly<Record<string, number>>): Readonly<Record<string, number>> {
    const higher = Object.entries(now).map(([name, count]) => [name, Math.max(count, this.#highest[name] ?? 0)]);
    this.#highest = { ...this.#highest, ...Object.fromEntries(higher) };
    return this.#highest;
  }
}
