import { isDeepStrictEqual } from 'node:util';

/** What one owner wants under one key: nearly always one value. */
interface Claim<T> {
  readonly owner: string;
  values: readonly T[];
}

/**
 * What several owners want under keys. Of the claims on one key the earliest counts, so that a newcomer never takes what
 * somebody has; when its owner lets go, the next one follows. A change costs what it changes, however much is claimed.
 */
export class Claims<T> {
  readonly #byKey = new Map<string, Claim<T>[]>();
  readonly #keysOf = new Map<string, Iterable<string>>();
  /** Keys under which several different values are wanted. */
  readonly #contested = new Set<string>();
  readonly #changed: Set<string>;
  readonly #keyOf: (value: T) => string;

  /** @param changed receives every key whose counting value has changed. */
  constructor(keyOf: (value: T) => string, changed: Set<string>) {
    this.#keyOf = keyOf;
    this.#changed = changed;
  }

  /** Makes `values` all that `owner` claims. Of equal keys among them the first counts. */
  set(owner: string, values: readonly T[]): void {
    const wanted = Map.groupBy(values, this.#keyOf);
    for (const key of this.#keysOf.get(owner) ?? []) if (!wanted.has(key)) this.#put(owner, key, []);
    for (const [key, claimed] of wanted) this.#put(owner, key, claimed);
    if (wanted.size === 0) this.#keysOf.delete(owner);
    else this.#keysOf.set(owner, [...wanted.keys()]);
  }

  get(key: string): T | undefined {
    return this.#byKey.get(key)?.[0]?.values[0];
  }

  /** What does not count because something else is wanted under the same key. */
  *losers(): Iterable<T> {
    for (const key of this.#contested) {
      const [counting, ...others] = (this.#byKey.get(key) ?? []).flatMap(({ values }) => values);
      for (const other of others) if (!isDeepStrictEqual(other, counting)) yield other;
    }
  }

  keys(): Iterable<string> {
    return this.#byKey.keys();
  }

  *entries(): Iterable<readonly [string, T]> {
    for (const [key, [first]] of this.#byKey) if (first?.values[0] !== undefined) yield [key, first.values[0]];
  }

  #put(owner: string, key: string, values: readonly T[]): void {
    const claims = this.#byKey.get(key) ?? [];
    const before = claims[0]?.values[0];
    const at = claims.findIndex((claim) => claim.owner === owner);
    if (at < 0 && values.length > 0) claims.push({ owner, values });
    else if (at >= 0 && values.length === 0) claims.splice(at, 1);
    else if (at >= 0) claims[at]!.values = values;
    const counting = claims[0]?.values[0];
    if (counting === undefined) this.#byKey.delete(key);
    else this.#byKey.set(key, claims);
    if (!isDeepStrictEqual(before, counting)) this.#changed.add(key);
    const all = claims.flatMap((claim) => claim.values);
    if (all.some((value) => !isDeepStrictEqual(value, counting))) this.#contested.add(key);
    else this.#contested.delete(key);
  }
}
