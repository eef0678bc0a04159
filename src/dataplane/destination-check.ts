/**
 * What an inner destination address must be for a packet from a peer to be delivered. `loose`: one of this host's own
 * subnet, or an address of this host, for pods that talk to nodes and to pods on the host's network. `strict`: one of this
 * host's own subnet, which its flannel0 and cni0 have theirs from. `off` leaves it to the host's routing, as flannel does:
 * a peer then reaches whatever this host reaches.
 *
 * A sender that works as flannel's does sends a host nothing but what is for the subnet of its lease.
 */
export const DESTINATION_CHECKS = ['loose', 'strict', 'off'] as const;
export type DestinationCheck = (typeof DESTINATION_CHECKS)[number];

/**
 * Whether an address of this host may be reached from another one at all. Loopback addresses (RFC 1122 §3.2.1.3) may not, although
 * kube-proxy's `route_localnet` makes the kernel take them; nor link-local ones (RFC 3927 §7), where clouds have their metadata
 * servers and NodeLocal DNSCache listens; nor multicast, reserved and broadcast addresses.
 */
export function isReachableFromAfar(address: number): boolean {
  const first = address >>> 24;
  return first !== 0 && first !== 127 && first < 224 && address >>> 16 !== 0xa9fe;
}
