import type { IpAddr } from '../ip/address.ts';

/** Packets of the underlay that this host's kernel unwraps by itself, whoever has sent them. */
export type OuterTraffic =
  /** IP protocol 4 (RFC 2003). */
  { readonly protocol: 'ipip' } | { readonly protocol: 'udp'; readonly port: number };

/** Of those, only what comes from these addresses is let in. */
export interface OuterFilter {
  /** Of the table: a letter, then letters, digits and `_`. Each agent of a host has one of its own. */
  readonly name: string;
  readonly traffic: readonly OuterTraffic[];
  readonly sources: readonly IpAddr[];
}

/** Begins the names of all such tables, and those of no others. */
export const OUTER_FILTER_PREFIX = 'weft_sources_';
