/**
 * Numbers of the Linux ABI, equal on x86-64 and arm64 unless a comment says otherwise. Source: the header named above
 * each group in include/uapi.
 */

// asm-generic/fcntl.h
export const O_WRONLY = 0x1;
export const O_RDWR = 0x2;
export const O_NOCTTY = 0x100;
export const O_APPEND = 0x400;
export const O_NONBLOCK = 0x800;
export const O_CLOEXEC = 0x80000;
export const F_SETFD = 2;
export const FD_CLOEXEC = 1;

// asm-generic/poll.h
export const POLLIN = 0x1;
export const POLLOUT = 0x4;
export const POLLERR = 0x8;
export const POLLHUP = 0x10;
export const POLLNVAL = 0x20;

// linux/socket.h, linux/net.h
export const AF_UNIX = 1;
export const AF_INET = 2;
export const AF_INET6 = 10;
export const AF_NETLINK = 16;
export const AF_PACKET = 17;
export const SOCK_STREAM = 1;
export const SOCK_DGRAM = 2;
export const SOCK_RAW = 3;
export const SOCK_NONBLOCK = 0x800;
export const SOCK_CLOEXEC = 0x80000;
export const MSG_DONTWAIT = 0x40;
export const MSG_NOSIGNAL = 0x4000;
export const MSG_MORE = 0x8000;
export const MSG_TRUNC = 0x20;
export const MSG_CMSG_CLOEXEC = 0x40000000;
export const SCM_RIGHTS = 1;

// asm-generic/socket.h
export const SOL_SOCKET = 1;
export const SO_TYPE = 3;
export const SO_ERROR = 4;
export const SO_SNDBUF = 7;
export const SO_RCVBUF = 8;
/** Asked of a Unix socket: who is at the other end (unix(7)). */
export const SO_PEERCRED = 17;
export const SO_NO_CHECK = 11;
export const SO_ATTACH_FILTER = 26;
export const SO_SNDBUFFORCE = 32;
export const SO_RCVBUFFORCE = 33;
export const SO_DOMAIN = 39;
/** Also the type of the control message, which holds a `struct timespec`. */
export const SO_TIMESTAMPNS = 35;

// linux/if_packet.h, linux/if_ether.h
export const SOL_PACKET = 263;
export const PACKET_STATISTICS = 6;
export const PACKET_OUTGOING = 4;
export const ETH_P_ALL = 0x0003;

// linux/if_arp.h
export const ARPHRD_ETHER = 1;
export const ARPHRD_TUNNEL = 768;
export const ARPHRD_TUNNEL6 = 769;
export const ARPHRD_SIT = 776;
export const ARPHRD_RAWIP = 519;
export const ARPHRD_NONE = 65_534;

// linux/netlink.h
export const NETLINK_ROUTE = 0;
export const NETLINK_XFRM = 6;
export const NETLINK_NETFILTER = 12;

// linux/rtnetlink.h
export const RTMGRP_LINK = 0x1;
export const RTMGRP_IPV4_IFADDR = 0x10;
export const RTMGRP_IPV6_IFADDR = 0x100;

// linux/xfrm.h
export const XFRMGRP_EXPIRE = 0x2;
export const XFRMGRP_POLICY = 0x8;

// linux/in.h
export const IPPROTO_IP = 0;
export const IPPROTO_IPV6 = 41;
export const IPPROTO_ICMP = 1;
export const IPPROTO_RAW = 255;
export const IP_MTU_DISCOVER = 10;
export const IP_MTU = 14;
export const IPV6_MTU_DISCOVER = 23;
export const IPV6_MTU = 24;
/** As those of IPv6. */
export const IP_PMTUDISC_DONT = 0;
export const IP_PMTUDISC_DO = 2;
/** Never fragments, and does not look at what is known of the path's MTU. */
export const IP_PMTUDISC_PROBE = 3;

// linux/in6.h, linux/icmpv6.h
export const IPPROTO_ICMPV6 = 58;
export const IPV6_DONTFRAG = 62;

// linux/filter.h, linux/bpf_common.h: classic BPF
export const BPF_LD_WORD = 0x20;
export const BPF_LD_HALF = 0x28;
export const BPF_LD_BYTE = 0x30;
export const BPF_LD_WORD_INDIRECT = 0x40;
export const BPF_LD_HALF_INDIRECT = 0x48;
export const BPF_LD_BYTE_INDIRECT = 0x50;
export const BPF_LDX_IMMEDIATE = 0x01;
/** X = 4 × (byte & 15): the length of an IPv4 header. */
export const BPF_LDX_HEADER_LENGTH = 0xb1;
export const BPF_JUMP_EQUAL = 0x15;
export const BPF_AND = 0x54;
export const BPF_JUMP_SET = 0x45;
export const BPF_RETURN = 0x06;
/** An offset from here on is one from the network header, whatever is before it; the other is the protocol (EtherType). */
export const SKF_NET_OFF = 0xfff0_0000;
export const SKF_AD_PROTOCOL = 0xffff_f000;

// linux/time.h
export const CLOCK_REALTIME = 0;

// linux/udp.h
export const SOL_UDP = 17;
export const UDP_SEGMENT = 103;
export const UDP_NO_CHECK6_RX = 102;
export const UDP_GRO = 104;

// linux/if_tun.h
export const TUNSETIFF = 0x400454ca;
export const TUNSETPERSIST = 0x400454cb;
export const TUNSETOWNER = 0x400454cc;
export const TUNSETOFFLOAD = 0x400454d0;
export const TUNSETQUEUE = 0x400454d9;
export const TUNGETIFF = 0x800454d2;
export const IFF_TUN = 0x1;
export const IFF_NO_PI = 0x1000;
export const IFF_VNET_HDR = 0x4000;
export const TUN_F_CSUM = 0x1;
export const TUN_F_TSO4 = 0x2;
export const TUN_F_TSO6 = 0x4;
export const TUN_F_USO4 = 0x20;
export const TUN_F_USO6 = 0x40;

// linux/if.h: `struct ifreq` is a name of IFNAMSIZ bytes, then a union
export const IFNAMSIZ = 16;
export const IFREQ_BYTES = 40;

// linux/eventfd.h
export const EFD_NONBLOCK = 0x800;
export const EFD_CLOEXEC = 0x80000;

// asm-generic/errno.h: the ones the packet path reacts to
export const EPERM = 1;
export const ENOENT = 2;
export const EINTR = 4;
export const EIO = 5;
export const EAGAIN = 11;
export const EACCES = 13;
export const EBUSY = 16;
export const ENODEV = 19;
export const EINVAL = 22;
export const ENOTTY = 25;
export const EMSGSIZE = 90;
export const EADDRINUSE = 98;
export const EADDRNOTAVAIL = 99;
export const ENETDOWN = 100;
export const ENETUNREACH = 101;
export const EPROTONOSUPPORT = 93;
export const EAFNOSUPPORT = 97;
export const EOPNOTSUPP = 95;
export const ENOBUFS = 105;
export const EINPROGRESS = 115;
export const ECONNREFUSED = 111;
export const EHOSTUNREACH = 113;
export const ENOSYS = 38;

// linux/sched.h
export const CLONE_NEWNET = 0x4000_0000;

// linux/sockios.h
export const SIOCGIFADDR = 0x8915;
export const SIOCGIFMTU = 0x8921;
export const SIOCGIFHWADDR = 0x8927;
export const SIOCGIFINDEX = 0x8933;
export const SIOCETHTOOL = 0x8946;

// linux/userfaultfd.h
export const UFFD_API = 0xaan;
export const UFFD_USER_MODE_ONLY = 1;
export const UFFD_FEATURE_WP_ASYNC = 0x8000n;
export const UFFDIO_API = 0xc018aa3f;
export const UFFDIO_REGISTER = 0xc020aa00;
export const UFFDIO_REGISTER_MODE_WP = 2n;

// linux/bpf.h
export const BPF_COMMANDS = {
  mapCreate: 0,
  mapLookup: 1,
  mapUpdate: 2,
  mapDelete: 3,
  mapGetNextKey: 4,
  progLoad: 5,
  objPin: 6,
  objGet: 7,
  objGetInfoByFd: 15,
  rawTracepointOpen: 17,
  mapLookupAndDelete: 21,
  linkCreate: 28,
  linkUpdate: 29,
  linkDetach: 34,
} as const;
export const BPF_PROG_TYPE_SCHED_CLS = 3;
export const BPF_PROG_TYPE_RAW_TRACEPOINT = 17;
export const BPF_PROG_TYPE_XDP = 6;
export const BPF_F_NO_PREALLOC = 1;
