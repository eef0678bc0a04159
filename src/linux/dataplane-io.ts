import type { Arena } from '../dataplane/arena.ts';
import type { Conn, IcmpOut, Tun } from '../dataplane/ports.ts';
import { WeftError } from '../errors.ts';
import { ipv4Of } from '../ip/ipv4.ts';
import { ipv6Of } from '../ip/ipv6.ts';
import {
  EAGAIN,
  EFD_CLOEXEC,
  EFD_NONBLOCK,
  EINTR,
  IP_PMTUDISC_DO,
  IP_PMTUDISC_DONT,
  MSG_DONTWAIT,
  POLLIN,
  POLLOUT,
} from './constants.ts';
import { addressOf, close, errnoName, eventfd, poll, read, recvmmsg, sendmmsg, sendto, write, writev } from './ffi.ts';
import { kernelPathMtu, setPathMtuDiscovery, sockaddrOf } from './udp-socket.ts';

/**
 * Wakes workers that wait in poll. A worker blocked in any other call could neither be stopped nor terminated, and
 * process.exit would hang on it; so workers wait here and nowhere else.
 */
export interface StopEvent extends Disposable {
  readonly fd: number;
  /** Wakes every waiter, for good. */
  signal(): void;
}

/** @throws WeftError WEFT_FORWARDER_FAILED when there is no descriptor for it: poll takes no notice of a negative one. */
export function createStopEvent(): StopEvent {
  const fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  if (fd < 0) {
    throw new WeftError('WEFT_FORWARDER_FAILED', `making the eventfd that stops the packet workers: ${errnoName(fd)}`, {
      hint: 'EMFILE: raise the limit of open files of this process (LimitNOFILE, ulimit -n).',
    });
  }
  const one = new BigUint64Array(new SharedArrayBuffer(8));
  one[0] = 1n;
  return {
    fd,
    signal: () => void write(fd, addressOf(one), 8),
    [Symbol.dispose]: () => void close(fd),
  };
}

export type Wake = 'ready' | 'stop' | 'error';

/** Waits on one descriptor and the stop event. */
export class Waiter {
  readonly #fds = new DataView(new SharedArrayBuffer(16)); // struct pollfd: fd, events, revents
  readonly #address: number;

  constructor(fd: number, stopFd: number) {
    this.#fds.setInt32(0, fd, true);
    this.#fds.setInt32(8, stopFd, true);
    this.#fds.setInt16(12, POLLIN, true);
    this.#address = addressOf(this.#fds);
  }

  #wait(events: number): Wake {
    this.#fds.setInt16(4, events, true);
    for (;;) {
      const ready = poll(this.#address, 2, -1);
      if (ready < 0 && ready !== -EINTR) return 'error';
      if (this.#fds.getInt16(14, true) !== 0) return 'stop';
      const revents = this.#fds.getInt16(6, true);
      if ((revents & events) !== 0) return 'ready';
      if (revents !== 0) return 'error';
    }
  }

  waitReadable(): Wake {
    return this.#wait(POLLIN);
  }

  waitWritable(): Wake {
    return this.#wait(POLLOUT);
  }
}

/** The TUN device for a worker; see openTunDevice. */
export function tunIo(arena: Arena, fd: number): Tun {
  const { base } = arena;
  return {
    read: (offset, capacity) => {
      const length = read(fd, base + offset, capacity);
      return length === -EAGAIN || length === -EINTR ? 0 : length;
    },
    writev: (iovecs, count) => writev(fd, base + iovecs, count),
  };
}

/** The UDP socket for a worker; see openUdpSocket. @param version of IP, between the hosts. */
export function connIo(arena: Arena, fd: number, version: 4 | 6, waiter: Waiter): Conn {
  const { base } = arena;
  const send = (messages: number, count: number): number => {
    const sent = sendmmsg(fd, base + messages, count, MSG_DONTWAIT);
    return sent === -EINTR ? send(messages, count) : sent;
  };
  return {
    send,
    sendFragmentable: (message) => {
      setPathMtuDiscovery(fd, version, IP_PMTUDISC_DONT);
      const sent = send(message, 1);
      setPathMtuDiscovery(fd, version, IP_PMTUDISC_DO);
      return sent;
    },
    waitWritable: () => waiter.waitWritable() === 'ready',
    pathMtu: (name) => kernelPathMtu(version, base + name),
    receive: (messages, count) => {
      const received = recvmmsg(fd, base + messages, count, MSG_DONTWAIT, 0);
      return received === -EAGAIN || received === -EINTR ? 0 : received;
    },
  };
}

/** The raw socket for ICMP errors of one version of IP; a descriptor below 0 sends nothing and says so by −errno. */
export function icmpIo(arena: Arena, fd: number, version: 4 | 6): IcmpOut {
  const name = version === 4 ? sockaddrOf(ipv4Of(0), 0) : sockaddrOf(ipv6Of(0n), 0);
  const nameAddress = addressOf(name);
  // Where the destination is, in a packet and in a sockaddr, and how long.
  const [from, to, bytes] = version === 4 ? [16, 4, 4] : [24, 8, 16];
  return {
    send: (offset, length) => {
      if (fd < 0) return fd;
      name.set(arena.bytes.subarray(offset + from, offset + from + bytes), to);
      return sendto(fd, arena.base + offset, length, MSG_DONTWAIT, nameAddress, name.length);
    },
  };
}
