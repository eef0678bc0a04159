import type { PerFamily } from '../ip/family.ts';

/** What people and Kubernetes wrote on this host's Node about its addresses; read when the external interface is chosen. */
export interface NodeAddresses {
  /** The annotations node-public-ip and node-public-ipv6: act as `--public-ip` and `--public-ipv6`. */
  readonly publicAddresses: PerFamily<string | undefined>;
  /** status.addresses of type InternalIP. */
  readonly internalIps: readonly string[];
}
