import type { Addresses, PerFamily } from '../ip/family.ts';
import type { Ipv4Addr } from '../ip/ipv4.ts';
import type { Ipv6Addr } from '../ip/ipv6.ts';
import { formatPrefix4, formatPrefix6 } from '../ip/prefix.ts';
import type { Subnets } from './subnets.ts';

/** A JSON value as a backend publishes it; kept verbatim, because other nodes compare it byte for byte. */
export type JsonValue = null | boolean | number | string | readonly JsonValue[] | { readonly [key: string]: JsonValue };

/** What a node tells its peers about itself (flannel's LeaseAttrs). */
export interface LeaseAttrs {
  readonly publicAddresses: Addresses;
  /** Empty for udp and alloc, as flannel writes it. */
  readonly backendType: string;
  readonly backendData: PerFamily<JsonValue | undefined>;
}

/** What the store itself says of an entry, rather than the host that wrote it. */
export interface LeaseOrigin {
  /** The Node's name. Absent where an entry is known by its subnet, so that one subnet has one holder. */
  readonly holder?: string | undefined;
  /**
   * When the entry came to be, as the store counts (creation in milliseconds since the epoch, revision); absent where it does not.
   * Only compared with others of the same store.
   */
  readonly since?: number | undefined;
  /** The addresses that the store has for the holder, where that was asked for. */
  readonly addresses?: readonly (Ipv4Addr | Ipv6Addr)[] | undefined;
}

/** The right of one node to its subnets, of which there is at least one. */
export interface Lease {
  readonly subnets: Subnets;
  readonly attrs: LeaseAttrs;
  /** Milliseconds since the epoch; `undefined` for a reservation, which never expires. */
  readonly expiresAtMs: number | undefined;
  /** Absent for a lease that does not come from a store, or from one that says nothing of its entries. */
  readonly origin?: LeaseOrigin | undefined;
}

/** Identity of a lease: its subnets, in flannel's key form `10.5.1.0-24` or `10.5.1.0-24&fd00::-56`. */
export type LeaseKey = string & { readonly __leaseKey: true };

/** Of its subnets. */
export function leaseKey({ subnets }: Pick<Lease, 'subnets'>): LeaseKey {
  return subnetsKey(subnets);
}

/** The key of the lease that has them, computed once for an object. */
export function subnetsKey(subnets: Subnets): LeaseKey {
  let key = keys.get(subnets);
  if (key === undefined) {
    key = formatKey(subnets);
    keys.set(subnets, key);
  }
  return key;
}

/** Identity of an entry of a store: who claims which subnets. */
export type EntryId = string & { readonly __entryId: true };

export function entryId(lease: Lease): EntryId;
export function entryId(key: LeaseKey, holder: string | undefined): EntryId;
export function entryId(lease: Lease | LeaseKey, holder?: string | undefined): EntryId {
  if (typeof lease === 'string') return `${lease} ${holder ?? ''}` as EntryId;
  return entryId(leaseKey(lease), lease.origin?.holder);
}

/** Leases never change, and a start in a large cluster asks for the keys of all again and again. */
const keys = new WeakMap<object, LeaseKey>();

function formatKey({ ipv4, ipv6 }: Subnets): LeaseKey {
  const parts: string[] = [];
  if (ipv4 !== undefined) parts.push(formatPrefix4(ipv4).replace('/', '-'));
  if (ipv6 !== undefined) parts.push(formatPrefix6(ipv6).replace('/', '-'));
  return parts.join('&') as LeaseKey;
}

/** `set` covers both a new peer and a changed one: consumers overwrite what they hold under the same key. */
export type LeaseEvent =
  /** `before`: as which lease the consumer was told of it last. */
  | { readonly type: 'set'; readonly lease: Lease; readonly before: Lease | undefined }
  | { readonly type: 'removed'; readonly lease: Lease };
