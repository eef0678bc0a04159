/** Whether a host answers a datagram, depending on who computes the datagram's checksum. */
import { setTimeout as delay } from 'node:timers/promises';
import type { ChecksumProbe } from '../desired/checksum-probe.ts';
import { isIpv4 } from '../ip/address.ts';
import { CLOSED_PORTS } from '../probe/probe-kind.ts';
import {
  AF_INET,
  AF_INET6,
  EAGAIN,
  ECONNREFUSED,
  MSG_MORE,
  SOCK_CLOEXEC,
  SOCK_DGRAM,
  SOCK_NONBLOCK,
} from './constants.ts';
import { addressOf, bind, close, connect, read, sendto, socket } from './ffi.ts';
import { sockaddrIn, sockaddrIn6 } from './udp-socket.ts';

const POLL_MS = 10;

/**
 * Sends one UDP datagram to a port where nobody listens. A kernel answers that by ICMP, but only where the datagram's checksum was
 * right (`__udp4_lib_rcv`, `__udp6_lib_rcv`), so every host can be asked, whatever it runs.
 *
 * The kernel leaves the checksum to the device for a datagram that is sent at once, and computes it itself for one that is put together of several parts
 * (`MSG_MORE`; `csummode` in `__ip_append_data` and `__ip6_append_data`).
 *
 * @returns whether an answer came; `undefined` when nothing could be sent.
 */
export async function probeChecksum(
  { from, to, by, timeoutMs }: ChecksumProbe,
  signal: AbortSignal,
): Promise<boolean | undefined> {
  const fd = socket(isIpv4(to) ? AF_INET : AF_INET6, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) return undefined;
  try {
    for (const [call, address, port] of [
      [bind, from, 0],
      [connect, to, CLOSED_PORTS.udp],
    ] as const) {
      const name = isIpv4(address) ? sockaddrIn(address, port) : sockaddrIn6(address, port);
      if (call(fd, addressOf(name), name.byteLength) < 0) return undefined;
    }
    const payload = new Uint8Array(new SharedArrayBuffer(32)).fill(0x77);
    const send = (bytes: number, flags: number): number => sendto(fd, addressOf(payload), bytes, flags, 0, 0);
    const sent = by === 'device' ? [send(32, 0)] : [send(16, MSG_MORE), send(16, 0)];
    if (sent.some((result) => result < 0)) return undefined;
    const deadline = performance.now() + timeoutMs;
    do {
      await delay(POLL_MS, undefined, { signal });
      const result = read(fd, addressOf(payload), 32);
      if (result >= 0 || result === -ECONNREFUSED) return true;
      if (result !== -EAGAIN) return undefined;
    } while (performance.now() < deadline);
    return false;
  } finally {
    close(fd);
  }
}
