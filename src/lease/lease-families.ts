import type { IpAddr, IpPrefix } from '../ip/address.ts';
import { FAMILIES, type FamilyKey } from '../ip/family.ts';
import type { JsonValue, Lease, LeaseAttrs } from './lease.ts';

/** A lease by family: the names under which the stores keep the two have grown apart. */

export function subnetOf(lease: Pick<Lease, 'subnet' | 'ipv6Subnet'>, family: FamilyKey): IpPrefix | undefined {
  return family === 'ipv4' ? lease.subnet : lease.ipv6Subnet;
}

export function subnetsOf(lease: Pick<Lease, 'subnet' | 'ipv6Subnet'>): readonly IpPrefix[] {
  return FAMILIES.flatMap(({ key }) => subnetOf(lease, key) ?? []);
}

export function publicAddressOf(attrs: LeaseAttrs, family: FamilyKey): IpAddr | undefined {
  return family === 'ipv4' ? attrs.publicIp : attrs.publicIpv6;
}

export function backendDataOf(attrs: LeaseAttrs, family: FamilyKey): JsonValue | undefined {
  return family === 'ipv4' ? attrs.backendData : attrs.backendV6Data;
}
