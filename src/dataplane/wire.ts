/** Constants that a specification fixes; what weft chose itself is in limits.ts. */

/** RFC 791 */
export const IPV4_MIN_HEADER = 20;
export const IP_FLAG_DF = 0x4000;
export const IP_FLAG_MF = 0x2000;
export const IP_OFFSET_MASK = 0x1fff;
export const PROTO_ICMP = 1;
export const PROTO_TCP = 6;
export const PROTO_UDP = 17;

/** RFC 8200 */
export const IPV6_HEADER = 40;
export const PROTO_ICMPV6 = 58;
/** Extension headers with a length of their own: hop-by-hop options, routing, destination options. */
export const IPV6_HOP_BY_HOP = 0;
export const IPV6_ROUTING = 43;
export const IPV6_FRAGMENT = 44;
export const IPV6_DESTINATION_OPTIONS = 60;
/** Every link that carries IPv6 takes packets of that length (RFC 8200 §5): no sender is told of less. */
export const IPV6_MIN_MTU = 1_280;

/** RFC 9293 */
export const TCP_MIN_HEADER = 20;
export const TCP_PSH = 0x08;
export const TCP_ACK = 0x10;

/** RFC 768 */
export const UDP_HEADER = 8;

/** IPv4 header + UDP header around every inner packet (flannel's udp MTU is the link's less this). */
export const ENCAPSULATION_OVERHEAD = 28;
/** The same with an IPv6 header. */
export const ENCAPSULATION_OVERHEAD_6 = 48;
/** Largest UDP payload over IPv4: 65,535 − 20 − 8. */
export const MAX_UDP_PAYLOAD = 65_507;

/** `struct virtio_net_hdr` (virtio 1.2 §5.1.6): flags, gso_type, hdr_len, gso_size, csum_start, csum_offset; 10 bytes. */
export const VNET_HEADER = 10;
export const VNET_F_NEEDS_CSUM = 1;
export const VNET_GSO_NONE = 0;
export const VNET_GSO_TCPV4 = 1;
export const VNET_GSO_TCPV6 = 4;
export const VNET_GSO_UDP_L4 = 5;
export const VNET_GSO_ECN = 0x80;

/** RFC 792, RFC 1812 */
export const ICMP_UNREACHABLE = 3;
export const ICMP_NET_UNREACHABLE = 0;
export const ICMP_FRAGMENTATION_NEEDED = 4;
export const ICMP_TIME_EXCEEDED = 11;
export const ICMP_TTL_EXCEEDED = 0;

/** RFC 4443; types below 128 are errors. */
export const ICMPV6_UNREACHABLE = 1;
export const ICMPV6_NO_ROUTE = 0;
export const ICMPV6_PACKET_TOO_BIG = 2;
export const ICMPV6_TIME_EXCEEDED = 3;
export const ICMPV6_HOP_LIMIT_EXCEEDED = 0;
export const ICMPV6_FIRST_INFORMATIONAL = 128;
/** RFC 4861 */
export const ICMPV6_REDIRECT = 137;
