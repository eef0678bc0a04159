import { randomInt } from 'node:crypto';
import { formatAddr, type IpAddr, type IpFamily, versionOf } from '../ip/address.ts';
import { ICMP } from '../ip/icmp.ts';
import { ipv4Of } from '../ip/ipv4.ts';
import { ipv6Of } from '../ip/ipv6.ts';
import { echoRequest } from '../probe/probe-packet.ts';
import {
  AF_INET,
  AF_INET6,
  EINPROGRESS,
  IP_PMTUDISC_PROBE,
  MSG_DONTWAIT,
  SOCK_CLOEXEC,
  SOCK_DGRAM,
  SOCK_NONBLOCK,
  SOCK_RAW,
  SOCK_STREAM,
} from './constants.ts';
import { addressOf, bind, close, connect, errnoName, sendto, socket } from './ffi.ts';
import { boundPort, setPathMtuDiscovery, sockaddrOf } from './udp-socket.ts';

interface PerVersion {
  readonly domain: number;
  /** Headers of IP and UDP. */
  readonly udpHeaderBytes: number;
  readonly any: IpAddr;
}

const VERSIONS: Readonly<Record<IpFamily, PerVersion>> = {
  4: { domain: AF_INET, udpHeaderBytes: 28, any: ipv4Of(0) },
  6: { domain: AF_INET6, udpHeaderBytes: 48, any: ipv6Of(0n) },
};

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
 * A packet from the network namespace that the caller is in: an echo request, one datagram, or the SYN of a connection, which
 * ends with disposal. Echo requests and datagrams must not be fragmented, whatever the kernel has learned of the path.
 *
 * @param totalBytes of the IP packet; has no effect on tcp.
 * @throws RangeError when there is no socket for it, with the kernel's error.
 */
export function openTracePacket(to: IpAddr, protocol: TraceProtocol, totalBytes: number): TracePacket {
  const version = versionOf(to);
  const { domain, udpHeaderBytes, any } = VERSIONS[version];
  const name = sockaddrOf(to, protocol.kind === 'icmp' ? 0 : protocol.port);
  const open = (type: number, number: number): number => {
    const fd = socket(domain, type | SOCK_NONBLOCK | SOCK_CLOEXEC, number);
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
    const own = sockaddrOf(any, 0);
    bind(fd, addressOf(own), own.length);
    return boundPort(fd);
  };
  switch (protocol.kind) {
    case 'icmp': {
      const fd = open(SOCK_RAW, ICMP[version].protocol);
      setPathMtuDiscovery(fd, version, IP_PMTUDISC_PROBE);
      const mark = randomInt(1, 0xffff);
      const send = (): number => sendBytes(fd, echoRequest(version, mark, 1, totalBytes));
      return { mark, send, [Symbol.dispose]: () => void close(fd) };
    }
    case 'udp': {
      const fd = open(SOCK_DGRAM, 0);
      setPathMtuDiscovery(fd, version, IP_PMTUDISC_PROBE);
      const send = (): number => sendBytes(fd, Buffer.alloc(Math.max(0, totalBytes - udpHeaderBytes), 'weft-trace '));
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
