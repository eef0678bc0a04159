/**
 * What an inner source address must be for a packet to be accepted, beside the outer source being a known peer:
 * `loose` refuses an address inside the flannel network that is not in the sending peer's subnet; one outside the network
 * passes, because a node answers a pod from its own address. `strict` refuses that too unless it is the peer's
 * public address. `off` accepts every datagram, as flannel does.
 */
export const SOURCE_CHECKS = ['loose', 'strict', 'off'] as const;
export type SourceCheck = (typeof SOURCE_CHECKS)[number];
