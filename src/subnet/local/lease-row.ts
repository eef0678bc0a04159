import type { Lease } from '../../lease/lease.ts';
import { leaseKey } from '../../lease/lease.ts';
import { decodeLeaseValue, encodeLeaseValue, parseLeaseKey } from '../../lease/lease-codec.ts';
import type { StoredEntry } from '../lease-choice.ts';
import type { LeaseRow } from './lease-store.ts';

export interface RowEntry extends StoredEntry {
  readonly row: LeaseRow;
}

/** `entry` is there when the key can be read, `problem` when anything cannot. */
export interface DecodedRow {
  readonly entry: RowEntry | undefined;
  readonly problem: string | undefined;
}

/** @param options see decodeLeaseValue. */
export function decodeRow(row: LeaseRow, options: { readonly data?: boolean } = {}): DecodedRow {
  const subnets = parseLeaseKey(row.key);
  if (subnets === undefined) return { entry: undefined, problem: 'the key names no subnet' };
  const value = decodeLeaseValue(row.value, options);
  return {
    entry: { subnets, attrs: value.ok ? value.attrs : undefined, expiresAtMs: row.expiresAtMs ?? undefined, row },
    problem: value.ok ? undefined : value.reason,
  };
}

/** The row of a lease, with keys and values as flannel has them in etcd. */
export function encodeRow(lease: Lease): LeaseRow {
  return { key: leaseKey(lease), value: encodeLeaseValue(lease.attrs), expiresAtMs: lease.expiresAtMs ?? null };
}
