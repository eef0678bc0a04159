import { randomInt } from 'node:crypto';
import { formatAddr, type IpAddr } from '../ip/address.ts';
import type { Ipv4Addr } from '../ip/ipv4.ts';
import { echoRequest } from '../probe/probe-packet.ts';
import {
  AF_INET,
  EINPROGRESS,
  IP_PMTUDISC_PROBE,
  IPPROTO_ICMP,
  MSG_DONTWAIT,
  SOCK_CLOEXEC,
  SOCK_DGRAM,
  SOCK_NONBLOCK,
  SOCK_RAW,
  SOCK_STREAM,
} from './constants.ts';
import { addressOf, bind, close, connect, errnoName, sendto, socket } from './ffi.ts';
import { boundPort, setPathMtuDiscovery, sockaddrOf } from './udp-socket.ts';

/** Headers of IPv4 and UDP. */
const UDP_HEADER_BYTES = 28;
const ANY: IpAddr = 0 as Ipv4Addr;

export type TraceProtocol =
  | { readonly kind: 'icmp' }
  | { readonly kind: 'tcp'; readonly port: number }
  | { readonly kind: 'udp'; readonly port: number };

/** One packet to be sent, and how it is known again. */
export interface TracePacket extends Disposable {
  /** Of an echo: its identifier; of the others: the source port. */
  readonly mark: number;
  /** Hands it to the kernel. Returns 0 or −errno; 0 for what a later answer refuses. */
  send(): number;
}

/**
 * A packet of IPv4 from the network namespace that the caller is in: an echo request, one datagram, or the SYN of a connection, which
 * ends with disposal. Echo requests and datagrams must not be fragmented, whatever the kernel has learned of the path.
 *
 * @param totalBytes of the IP packet; has no effect on tcp.
 * @throws RangeError when there is no socket for it, with the kernel's error.
 */
export function openTracePacket(to: Ipv4Addr, protocol: TraceProtocol, totalBytes: number): TracePacket {
  const name = sockaddrOf(to, protocol.kind === 'icmp' ? 0 : protocol.port);
  const open = (type: number, number: number): number => {
    const fd = socket(AF_INET, type | SOCK_NONBLOCK | SOCK_CLOEXEC, number);
    if (fd < 0) throw new RangeError(`no socket for a packet to ${formatAddr(to)}: ${errnoName(fd)}`);
    return fd;
  };
  const sendBytes = (fd: number, bytes: Uint8Array): number => {
    const memory = new Uint8Array(new SharedArrayBuffer(bytes.length));
    memory.set(bytes);
    const result = sendto(fd, addressOf(memory), bytes.length, MSG_DONTWAIT, addressOf(name), name.length);
    return Math.min(0, result);
  };
  const bound = (fd: number): number => {
    const any = sockaddrOf(ANY, 0);
    bind(fd, addressOf(any), any.length);
    return boundPort(fd);
  };
  switch (protocol.kind) {
    case 'icmp': {
      const fd = open(SOCK_RAW, IPPROTO_ICMP);
      setPathMtuDiscovery(fd, 4, IP_PMTUDISC_PROBE);
      const mark = randomInt(1, 0xffff);
      const send = (): number => sendBytes(fd, echoRequest(4, mark, 1, totalBytes));
      return { mark, send, [Symbol.dispose]: () => void close(fd) };
    }
    case 'udp': {
      const fd = open(SOCK_DGRAM, 0);
      setPathMtuDiscovery(fd, 4, IP_PMTUDISC_PROBE);
      const send = (): number => sendBytes(fd, Buffer.alloc(Math.max(0, totalBytes - UDP_HEADER_BYTES), 'weft-trace '));
      return { mark: bound(fd), send, [Symbol.dispose]: () => void close(fd) };
    }
    case 'tcp': {
      const fd = open(SOCK_STREAM, 0);
      const send = (): number => {
        const result = connect(fd, addressOf(name), name.length);
        return result === -EINPROGRESS ? 0 : Math.min(0, result);
      };
      return { mark: bound(fd), send, [Symbol.dispose]: () => void close(fd) };
    }
  }
}
