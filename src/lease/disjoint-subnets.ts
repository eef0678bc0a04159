import { DisjointPrefixes } from './disjoint-prefixes.ts';
import type { Subnets } from './subnets.ts';

/** Subnets of both families of which no two overlap, each with a value; see {@link DisjointPrefixes}. */
export class DisjointSubnets<V> {
  readonly #ipv4 = DisjointPrefixes.ipv4<V>();
  readonly #ipv6 = DisjointPrefixes.ipv6<V>();

  /** The value of one that has an address in common with `subnets`: in IPv4, else in IPv6. */
  overlapping({ ipv4, ipv6 }: Subnets): V | undefined {
    return (ipv4 && this.#ipv4.overlapping(ipv4)) ?? (ipv6 && this.#ipv6.overlapping(ipv6));
  }

  /** The caller has looked that nothing overlaps them. */
  add({ ipv4, ipv6 }: Subnets, value: V): void {
    if (ipv4 !== undefined) this.#ipv4.add(ipv4, value);
    if (ipv6 !== undefined) this.#ipv6.add(ipv6, value);
  }

  delete({ ipv4, ipv6 }: Subnets): void {
    if (ipv4 !== undefined) this.#ipv4.delete(ipv4);
    if (ipv6 !== undefined) this.#ipv6.delete(ipv6);
  }
}
