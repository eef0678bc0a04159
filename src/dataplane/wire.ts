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

/** RFC 9293 */
export const TCP_MIN_HEADER = 20;
export const TCP_PSH = 0x08;
export const TCP_ACK = 0x10;

/** RFC 768 */
export const UDP_HEADER = 8;

/** IPv4 header + UDP header around every inner packet (flannel's udp MTU is the link's less this). */
export const ENCAPSULATION_OVERHEAD = 28;
/** Largest UDP payload over IPv4: 65,535 − 20 − 8. */
export const MAX_UDP_PAYLOAD = 65_507;

/** `struct virtio_net_hdr` (virtio 1.2 §5.1.6): flags, gso_type, hdr_len, gso_size, csum_start, csum_offset; 10 bytes. */
export const VNET_HEADER = 10;
export const VNET_F_NEEDS_CSUM = 1;
export const VNET_GSO_NONE = 0;
export const VNET_GSO_TCPV4 = 1;
export const VNET_GSO_UDP_L4 = 5;
export const VNET_GSO_ECN = 0x80;

/** RFC 792, RFC 1812 */
export const ICMP_UNREACHABLE = 3;
export const ICMP_NET_UNREACHABLE = 0;
export const ICMP_FRAGMENTATION_NEEDED = 4;
export const ICMP_TIME_EXCEEDED = 11;
export const ICMP_TTL_EXCEEDED = 0;
