import type { IpPrefix } from '../ip/address.ts';
import type { FamilyKey } from '../ip/family.ts';
import type { Ipv4Addr } from '../ip/ipv4.ts';
import type { Ipv6Addr } from '../ip/ipv6.ts';
import type { Ipv4Prefix, Ipv6Prefix } from '../ip/prefix.ts';
import type { JsonValue } from '../lease/lease.ts';

/** One family's address plan after defaults: subnets of `subnetLength` from `subnetMin` to `subnetMax` inclusive. */
export interface AddressPlan<P, A> {
  readonly network: P;
  readonly subnetLength: number;
  readonly subnetMin: A;
  readonly subnetMax: A;
}

/** net-conf.json, parsed and frozen. */
export interface NetworkConfig {
  readonly ipv4: AddressPlan<Ipv4Prefix, Ipv4Addr> | undefined;
  readonly ipv6: AddressPlan<Ipv6Prefix, Ipv6Addr> | undefined;
  readonly enableNfTables: boolean;
  readonly backend: BackendConfig;
}

/** The networks of the families that are on, IPv4 first. */
export function networksOf({ ipv4, ipv6 }: NetworkConfig): readonly IpPrefix[] {
  return [ipv4, ipv6].flatMap((plan) => plan?.network ?? []);
}

/** The Backend object of net-conf.json, read once. */
export interface BackendConfig {
  /** Lower-cased `Type`; `udp` when Backend is absent. */
  readonly type: string;
  /** As written (keys in the user's case), `{}` when absent. */
  readonly written: { readonly [key: string]: JsonValue };
  /** The families of the packets that it carries. */
  readonly families: readonly FamilyKey[];
  /** See BackendTraits. */
  readonly routesWholeNetwork: boolean;
  readonly ignoresPeers: boolean;
  /** What that backend makes of its keys; only it looks inside. `undefined` for a type that weft does not offer. */
  readonly settings: unknown;
}
