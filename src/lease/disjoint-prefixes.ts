import { type Ipv4Addr, ipv4Of } from '../ip/ipv4.ts';
import { type Ipv6Addr, ipv6Of } from '../ip/ipv6.ts';
import { prefix4, prefix6 } from '../ip/prefix.ts';

interface Prefix<A> {
  readonly addr: A;
  readonly length: number;
}

interface Arithmetic<A> {
  /** The network of that length that the address lies in. */
  networkOf(addr: A, length: number): A;
  /** The n-th network of that length, from the one that starts at `addr`. */
  nth(addr: A, n: number, length: number): A;
}

const IPV4: Arithmetic<Ipv4Addr> = {
  networkOf: (addr, length) => prefix4(addr, length).addr,
  nth: (addr, n, length) => ipv4Of(addr + n * 2 ** (32 - length)),
};

const IPV6: Arithmetic<Ipv6Addr> = {
  networkOf: (addr, length) => prefix6(addr, length).addr,
  nth: (addr, n, length) => ipv6Of(addr + BigInt(n) * (1n << BigInt(128 - length))),
};

/**
 * Prefixes of one family of which no two overlap, each with a value. What a further prefix would overlap is found by one look
 * for each shorter length in use, and by as few looks for each longer one as there are prefixes of it, or places for them.
 */
export class DisjointPrefixes<A extends Ipv4Addr | Ipv6Addr, V> {
  readonly #arithmetic: Arithmetic<A>;
  readonly #byLength = new Map<number, Map<A, V>>();

  private constructor(arithmetic: Arithmetic<A>) {
    this.#arithmetic = arithmetic;
  }

  static ipv4<V>(): DisjointPrefixes<Ipv4Addr, V> {
    return new DisjointPrefixes(IPV4);
  }

  static ipv6<V>(): DisjointPrefixes<Ipv6Addr, V> {
    return new DisjointPrefixes(IPV6);
  }

  /** The value of one prefix that has an address in common with `prefix`; any of them when there are several. */
  overlapping({ addr, length }: Prefix<A>): V | undefined {
    for (const [other, values] of this.#byLength) {
      if (other <= length) {
        const found = values.get(this.#arithmetic.networkOf(addr, other));
        if (found !== undefined) return found;
        continue;
      }
      const places = 2 ** (other - length);
      if (places < values.size) {
        for (let n = 0; n < places; n++) {
          const found = values.get(this.#arithmetic.nth(addr, n, other));
          if (found !== undefined) return found;
        }
      } else {
        for (const [inner, value] of values) if (this.#arithmetic.networkOf(inner, length) === addr) return value;
      }
    }
    return undefined;
  }

  /** The caller has looked that nothing overlaps it. */
  add({ addr, length }: Prefix<A>, value: V): void {
    let values = this.#byLength.get(length);
    if (values === undefined) {
      values = new Map();
      this.#byLength.set(length, values);
    }
    values.set(addr, value);
  }

  delete({ addr, length }: Prefix<A>): void {
    const values = this.#byLength.get(length);
    values?.delete(addr);
    if (values?.size === 0) this.#byLength.delete(length);
  }
}
