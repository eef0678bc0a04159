/**
 * Why a packet was not passed on. Numbers index the counters in shared memory and the order is stable; names are what
 * `weft status` and the metrics show. `none` is not a drop.
 */
export const DROP_REASONS = [
  'none',
  /** Shorter than its own headers say, or shorter than an IPv4 header. */
  'malformed',
  /** Neither IPv4 nor, in a network that has it, IPv6; multicast of IPv6 has a reason of its own, see below. */
  'not-ipv4',
  /** No peer owns the destination. */
  'no-route',
  /** The TTL or hop limit ran out here. */
  'ttl-exceeded',
  /** Longer than the path to the peer takes, and must not be fragmented (no IPv6 packet of more than 1280 bytes may be). */
  'too-big',
  /** The kernel refused the datagram. */
  'send-failed',
  /** The kernel refused the packet (interface down, bad checksum request). */
  'tun-write-failed',
  /** The datagram came from an address that is no peer's. */
  'unknown-source',
  /** The inner source lies in the flannel network but in another node's subnet, or in nobody's. */
  'spoofed-source',
  /**
   * The inner source is loopback, multicast or reserved; with --source-check=strict also one outside the flannel network that is
   * not the peer's own address.
   */
  'foreign-source',
  /** The segmentation type of a super-packet is not one weft asked for. */
  'unsupported-offload',
  /** The inner destination is neither in this host's subnet nor, with --destination-check=loose, an address of this host. */
  'foreign-destination',
  /**
   * IPv6 multicast: the kernel's router solicitations and the like, which it sends on every device that has IPv6. Expected on a
   * healthy host.
   */
  'ipv6-multicast',
] as const;

export type DropReasonName = (typeof DROP_REASONS)[number];

export const DROP_NONE = 0;
export const DROP_MALFORMED = 1;
export const DROP_NOT_IPV4 = 2;
export const DROP_NO_ROUTE = 3;
export const DROP_TTL_EXCEEDED = 4;
export const DROP_TOO_BIG = 5;
export const DROP_SEND_FAILED = 6;
export const DROP_TUN_WRITE_FAILED = 7;
export const DROP_UNKNOWN_SOURCE = 8;
export const DROP_SPOOFED_SOURCE = 9;
export const DROP_FOREIGN_SOURCE = 10;
export const DROP_UNSUPPORTED_OFFLOAD = 11;
export const DROP_FOREIGN_DESTINATION = 12;
export const DROP_IPV6_MULTICAST = 13;
