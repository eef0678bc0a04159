import { WeftError } from '../errors.ts';
import { formatEndpoint, type IpAddr, isIpv4, versionOf } from '../ip/address.ts';
import { ipv4Of } from '../ip/ipv4.ts';
import { ipv6At, putIpv6 } from '../ip/ipv6.ts';
import {
  AF_INET,
  AF_INET6,
  EADDRINUSE,
  EADDRNOTAVAIL,
  IP_MTU,
  IP_MTU_DISCOVER,
  IP_PMTUDISC_DO,
  IPPROTO_IP,
  IPPROTO_IPV6,
  IPPROTO_RAW,
  IPV6_MTU,
  IPV6_MTU_DISCOVER,
  SO_DOMAIN,
  SO_RCVBUF,
  SO_RCVBUFFORCE,
  SO_SNDBUF,
  SO_SNDBUFFORCE,
  SO_TYPE,
  SOCK_CLOEXEC,
  SOCK_DGRAM,
  SOCK_NONBLOCK,
  SOCK_RAW,
  SOL_SOCKET,
  SOL_UDP,
  UDP_GRO,
  UDP_NO_CHECK6_RX,
} from './constants.ts';
import { addressOf, bind, close, connect, errnoName, getsockname, getsockopt, setsockopt, socket } from './ffi.ts';
import { describeHolders, udpPortHolders } from './proc-net.ts';

/** `struct sockaddr_in` in memory that does not move. */
export function sockaddrIn(address: number, port: number): Uint8Array {
  const bytes = new Uint8Array(new SharedArrayBuffer(16));
  const view = new DataView(bytes.buffer);
  view.setUint16(0, AF_INET, true);
  view.setUint16(2, port);
  view.setUint32(4, address);
  return bytes;
}

/** `struct sockaddr_in6` in memory that does not move. */
export function sockaddrIn6(address: bigint, port: number): Uint8Array {
  const bytes = new Uint8Array(new SharedArrayBuffer(28));
  const view = new DataView(bytes.buffer);
  view.setUint16(0, AF_INET6, true);
  view.setUint16(2, port);
  putIpv6(view, 8, address);
  return bytes;
}

/** The address of a socket of its family, in memory that does not move. */
export function sockaddrOf(address: IpAddr, port: number): Uint8Array {
  return isIpv4(address) ? sockaddrIn(address, port) : sockaddrIn6(address, port);
}

/** A socket option by the family of the socket. */
interface PerVersion {
  readonly family: number;
  readonly level: number;
  readonly mtuDiscover: number;
  readonly mtu: number;
  readonly nameBytes: number;
}

const VERSIONS: Readonly<Record<4 | 6, PerVersion>> = {
  4: { family: AF_INET, level: IPPROTO_IP, mtuDiscover: IP_MTU_DISCOVER, mtu: IP_MTU, nameBytes: 16 },
  6: { family: AF_INET6, level: IPPROTO_IPV6, mtuDiscover: IPV6_MTU_DISCOVER, mtu: IPV6_MTU, nameBytes: 28 },
};

/** How the socket deals with datagrams longer than the path: one of IP_PMTUDISC_…. Returns 0 or −errno. */
export function setPathMtuDiscovery(fd: number, version: 4 | 6, mode: number): number {
  const { level, mtuDiscover } = VERSIONS[version];
  return setIntOption(fd, level, mtuDiscover, mode);
}

const optionValue = new Int32Array(new SharedArrayBuffer(8));

/** Sets an int socket option. Returns 0 or −errno. */
export function setIntOption(fd: number, level: number, name: number, value: number): number {
  optionValue[0] = value;
  return setsockopt(fd, level, name, addressOf(optionValue), 4);
}

/** Reads an int socket option; −errno on failure. */
export function getIntOption(fd: number, level: number, name: number): number {
  optionValue[1] = 4;
  const result = getsockopt(fd, level, name, addressOf(optionValue), addressOf(optionValue) + 4);
  return result < 0 ? result : (optionValue[0] ?? 0);
}

export interface UdpSocket extends Disposable {
  readonly fd: number;
  readonly address: IpAddr;
  readonly port: number;
}

export interface OpenUdpSocketOptions {
  readonly address: IpAddr;
  /** 0 lets the kernel choose. */
  readonly port: number;
  /** Kernel buffer each way, in bytes. */
  readonly bufferBytes: number;
}

/**
 * The underlay socket, bound to one address as flannel's is. Receives equal datagrams together (UDP_GRO) and never
 * fragments by itself: a datagram longer than the path is refused with EMSGSIZE, which is how the path MTU is learned.
 * @throws WeftError WEFT_PORT_IN_USE, WEFT_SOCKET_FAILED
 */
export function openUdpSocket({ address, port, bufferBytes }: OpenUdpSocketOptions): UdpSocket {
  const where = `UDP ${formatEndpoint({ addr: address, port })}`;
  const version = versionOf(address);
  const fd = socket(VERSIONS[version].family, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) throw new WeftError('WEFT_SOCKET_FAILED', `failed to make a UDP socket: ${errnoName(fd)}`);
  try {
    // Without CAP_NET_ADMIN in the initial user namespace the system's limits apply.
    if (setIntOption(fd, SOL_SOCKET, SO_RCVBUFFORCE, bufferBytes) < 0)
      setIntOption(fd, SOL_SOCKET, SO_RCVBUF, bufferBytes);
    if (setIntOption(fd, SOL_SOCKET, SO_SNDBUFFORCE, bufferBytes) < 0)
      setIntOption(fd, SOL_SOCKET, SO_SNDBUF, bufferBytes);
    setPathMtuDiscovery(fd, version, IP_PMTUDISC_DO);
    setIntOption(fd, SOL_UDP, UDP_GRO, 1); // Linux 5.0; without it every datagram comes alone
    takeUnsummed(fd, version);
    const name = sockaddrOf(address, port);
    const bound = bind(fd, addressOf(name), name.length);
    if (bound === -EADDRINUSE) {
      const holders = describeHolders(udpPortHolders(port, address));
      throw new WeftError('WEFT_PORT_IN_USE', `failed to listen on ${where}: the port is in use by ${holders}`, {
        hint: 'Stop the other flanneld or weft on this host, or set another "Port" for the backend on every node',
      });
    }
    if (bound === -EADDRNOTAVAIL) {
      throw new WeftError(
        'WEFT_SOCKET_FAILED',
        `failed to listen on ${where}: no interface of this host has that address`,
      );
    }
    if (bound < 0) throw new WeftError('WEFT_SOCKET_FAILED', `failed to listen on ${where}: ${errnoName(bound)}`);
    return { fd, address, port: port === 0 ? boundPort(fd) : port, [Symbol.dispose]: () => void close(fd) };
  } catch (error) {
    close(fd);
    throw error;
  }
}

/** Datagrams of IPv6 are taken without a UDP checksum too, as those of IPv4 always are: a peer's fast path sends such (RFC 6935). */
function takeUnsummed(fd: number, version: 4 | 6): void {
  if (version === 6) setIntOption(fd, SOL_UDP, UDP_NO_CHECK6_RX, 1);
}

/**
 * The underlay socket behind a descriptor that another process has opened by {@link openUdpSocket}; `undefined`: it is none. The
 * descriptor stays open then.
 */
export function adoptUdpSocket(fd: number): UdpSocket | undefined {
  const family = getIntOption(fd, SOL_SOCKET, SO_DOMAIN);
  if (family !== AF_INET && family !== AF_INET6) return undefined;
  if (getIntOption(fd, SOL_SOCKET, SO_TYPE) !== SOCK_DGRAM) return undefined;
  // It may be from a version that knew of no datagrams without a checksum.
  takeUnsummed(fd, family === AF_INET ? 4 : 6);
  const name = boundTo(fd);
  const address = family === AF_INET ? ipv4Of(name.getUint32(4)) : ipv6At(name, 8);
  return { fd, address, port: name.getUint16(2), [Symbol.dispose]: () => void close(fd) };
}

/** That the kernel has chosen, if nobody else has. */
export function boundPort(fd: number): number {
  return boundTo(fd).getUint16(2);
}

/** `struct sockaddr_in` or `sockaddr_in6`, whose ports lie at the same place. */
function boundTo(fd: number): DataView {
  const name = sockaddrIn6(0n, 0);
  const length = new Int32Array(new SharedArrayBuffer(4));
  length[0] = name.length;
  getsockname(fd, addressOf(name), addressOf(length));
  return new DataView(name.buffer);
}

/**
 * A raw socket that sends complete IP packets (raw(7), IPPROTO_RAW), for ICMP errors. Needs CAP_NET_RAW.
 * Returns the descriptor or −errno: without it the forwarder works, senders are only not told.
 */
export function openRawIpSocket(version: 4 | 6): number {
  return socket(VERSIONS[version].family, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, IPPROTO_RAW);
}

/**
 * The kernel's path MTU to a destination (ip(7), IP_MTU on a connected socket), in bytes; 0 when it does not say.
 * @param name address of a sockaddr of that family.
 */
export function kernelPathMtu(version: 4 | 6, name: number): number {
  const { family, level, mtu: option, nameBytes } = VERSIONS[version];
  const fd = socket(family, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) return 0;
  const mtu = connect(fd, name, nameBytes) < 0 ? 0 : getIntOption(fd, level, option);
  close(fd);
  return Math.max(0, mtu);
}
