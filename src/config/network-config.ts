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
  /** Lower-cased `Backend.Type`; `udp` when Backend is absent. */
  readonly backendType: string;
  /** The Backend object as written (keys in the user's case), `{}` when absent. */
  readonly backend: { readonly [key: string]: JsonValue };
}
