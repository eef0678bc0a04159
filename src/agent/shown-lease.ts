import type { LeaseEntry } from '../api/schema.ts';
import { formatAddr, formatPrefix } from '../ip/address.ts';
import { present } from '../ip/family.ts';
import type { Lease } from '../lease/lease.ts';

/** What the API shows of any lease. */
export function describedLease(lease: Lease): Pick<LeaseEntry, 'subnets' | 'publicAddresses' | 'expiresAtMs'> {
  const { subnets, attrs, expiresAtMs } = lease;
  return {
    subnets: present(subnets).map(formatPrefix),
    publicAddresses: present(attrs.publicAddresses).map(formatAddr),
    ...(expiresAtMs === undefined ? {} : { expiresAtMs }),
  };
}

/** What it shows in the list of leases beside how each is taken. */
export function leaseEntry(lease: Lease): Omit<LeaseEntry, 'status'> {
  const { origin, attrs } = lease;
  return {
    ...describedLease(lease),
    backendType: attrs.backendType || 'udp',
    ...(origin?.holder === undefined ? {} : { holder: origin.holder }),
    ...(origin?.since === undefined ? {} : { since: origin.since }),
  };
}
