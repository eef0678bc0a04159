import { equalPrefix, overlaps } from '../ip/address.ts';
import { FAMILIES, type PerFamily } from '../ip/family.ts';
import type { Ipv4Prefix, Ipv6Prefix } from '../ip/prefix.ts';

/** The subnets of a lease. Each store writes the two under names of its own. */
export type Subnets = PerFamily<Ipv4Prefix | undefined, Ipv6Prefix | undefined>;

/** Whether two hosts claim an address in common, in either family. */
export function overlap(a: Subnets, b: Subnets): boolean {
  return FAMILIES.some(({ key }) => a[key] !== undefined && b[key] !== undefined && overlaps(a[key], b[key]));
}

/** flannel's comparison with the own subnets: by the families that these have, so both must agree in dual stack. */
export function agree(own: Subnets, other: Subnets): boolean {
  return FAMILIES.every(({ key }) => {
    const [ours, theirs] = [own[key], other[key]];
    return ours === undefined || (theirs !== undefined && equalPrefix(ours, theirs));
  });
}
