import { formatAddr } from '../ip/address.ts';
import { FAMILIES, present } from '../ip/family.ts';
import { entryId, type Lease, leaseKey } from './lease.ts';
import { overlap } from './subnets.ts';

/** Why an entry of the store is not believed. */
export type RefusalReason =
  | 'outside-network'
  | 'wrong-length'
  | 'overlaps-own'
  | 'overlaps-earlier'
  | 'address-not-unicast'
  | 'address-own'
  | 'address-in-network'
  | 'address-not-of-node'
  | 'too-many';

export interface Refusal {
  readonly lease: Lease;
  readonly reason: RefusalReason;
  /** The lease that has what this one claims. */
  readonly by: Lease | undefined;
}

/** What was refused and why, for a log: one line, of bounded length. */
export function describeRefusal({ lease, reason, by }: Refusal): string {
  const other = by === undefined ? 'another lease' : describeHolder(by);
  const why: Record<RefusalReason, string> = {
    'outside-network': 'its subnet lies outside the network',
    'wrong-length': 'the length of its subnet differs from SubnetLen',
    'overlaps-own': `its subnet overlaps this host's own, ${other}`,
    'overlaps-earlier':
      by === undefined || overlap(lease.subnets, by.subnets)
        ? `its subnet overlaps that of ${other}, which came first`
        : `its subnet contains the public address of ${other}, which came first`,
    'address-not-unicast':
      'its public address is loopback, multicast, broadcast or unspecified, so no host can be reached at it',
    'address-own': "its public address is this host's own",
    'address-in-network': `its public address lies inside an overlay network of this host${by === undefined ? '' : `, in the subnet of ${other}`}, so that packets to it would enter the tunnel again`,
    'address-not-of-node': 'its public address is not among the addresses of its Node (--require-node-address)',
    'too-many': 'there are more leases than this backend supports, and others came first',
  };
  return `Refusing the lease ${describeHolder(lease)}: ${why[reason]} [${reason}]`;
}

/** `10.244.3.0/24 of 192.168.77.3 (node "worker-3")`. */
export function describeHolder(lease: Lease): string {
  const [address] = present(lease.attrs.publicAddresses);
  const holder = lease.origin?.holder;
  const named = holder === undefined ? '' : ` (node ${JSON.stringify(holder.slice(0, 253))})`;
  return `${leaseKey(lease).replaceAll('-', '/')}${address === undefined ? '' : ` of ${formatAddr(address)}`}${named}`;
}

/** Whether nothing has changed that a log would say. */
export function sameRefusal(a: Refusal, b: Refusal): boolean {
  return (
    a.reason === b.reason &&
    (a.by && entryId(a.by)) === (b.by && entryId(b.by)) &&
    FAMILIES.every(({ key }) => a.lease.attrs.publicAddresses[key] === b.lease.attrs.publicAddresses[key])
  );
}
