/** What people and Kubernetes wrote on this host's Node about its addresses; read when the external interface is chosen. */
export interface NodeAddresses {
  /** The annotation node-public-ip: acts as `--public-ip`. */
  readonly publicIp: string | undefined;
  /** The annotation node-public-ipv6. */
  readonly publicIpv6: string | undefined;
  /** status.addresses of type InternalIP. */
  readonly internalIps: readonly string[];
}
