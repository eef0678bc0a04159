import type { Ipv4Addr } from '../ip/ipv4.ts';
import type { Ipv6Addr } from '../ip/ipv6.ts';
import { formatPrefix4, formatPrefix6, type Ipv4Prefix, type Ipv6Prefix } from '../ip/prefix.ts';

/** A JSON value as a backend publishes it; kept verbatim, because other nodes compare it byte for byte. */
export type JsonValue = null | boolean | number | string | readonly JsonValue[] | { readonly [key: string]: JsonValue };

/** What a node tells its peers about itself (flannel's LeaseAttrs). */
export interface LeaseAttrs {
  readonly publicIp: Ipv4Addr | undefined;
  readonly publicIpv6: Ipv6Addr | undefined;
  /** Empty for udp and alloc, as flannel writes it. */
  readonly backendType: string;
  readonly backendData: JsonValue | undefined;
  readonly backendV6Data: JsonValue | undefined;
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

/** The right of one node to a subnet. At least one of the two subnets is present. */
export interface Lease {
  readonly subnet: Ipv4Prefix | undefined;
  readonly ipv6Subnet: Ipv6Prefix | undefined;
  readonly attrs: LeaseAttrs;
  /** Milliseconds since the epoch; `undefined` for a reservation, which never expires. */
  readonly expiresAtMs: number | undefined;
  /** Absent for a lease that does not come from a store, or from one that says nothing of its entries. */
  readonly origin?: LeaseOrigin | undefined;
}

/** Identity of a lease: its subnets, in flannel's key form `10.5.1.0-24` or `10.5.1.0-24&fd00::-56`. */
export type LeaseKey = string & { readonly __leaseKey: true };

export function leaseKey(lease: Pick<Lease, 'subnet' | 'ipv6Subnet'>): LeaseKey {
  let key = keys.get(lease);
  if (key === undefined) {
    key = formatKey(lease);
    keys.set(lease, key);
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

/** Leases never change, and each change of one in a large cluster asks for the keys of all. */
const keys = new WeakMap<object, LeaseKey>();

function formatKey(lease: Pick<Lease, 'subnet' | 'ipv6Subnet'>): LeaseKey {
  const parts: string[] = [];
  if (lease.subnet !== undefined) parts.push(formatPrefix4(lease.subnet).replace('/', '-'));
  if (lease.ipv6Subnet !== undefined) parts.push(formatPrefix6(lease.ipv6Subnet).replace('/', '-'));
  return parts.join('&') as LeaseKey;
}

/** `set` covers both a new peer and a changed one: consumers overwrite what they hold under the same key. */
export type LeaseEvent =
  | { readonly type: 'set'; readonly lease: Lease }
  | { readonly type: 'removed'; readonly lease: Lease };
