import type { LeaseEntry } from '../api/schema.ts';
import { backendOfLease } from '../backend/registry.ts';
import type { NetworkConfig } from '../config/network-config.ts';
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

/** What it shows in the list of leases beside how each is taken. @param config of this host. */
export function leaseEntry(lease: Lease, config: NetworkConfig | undefined): Omit<LeaseEntry, 'status'> {
  const { origin, attrs } = lease;
  return {
    ...describedLease(lease),
    backendType: backendOfLease(attrs, config),
    ...(origin?.holder === undefined ? {} : { holder: origin.holder }),
    ...(origin?.since === undefined ? {} : { since: origin.since }),
  };
}
