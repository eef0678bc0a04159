/** Datagrams and connections of a namespace that this process is not in: the sockets of Node.js are those of its own. */
import { setTimeout as sleep } from 'node:timers/promises';
import { type IpAddr, isIpv4 } from '../ip/address.ts';
import {
  AF_INET,
  AF_INET6,
  EAGAIN,
  EINPROGRESS,
  MSG_DONTWAIT,
  POLLERR,
  POLLOUT,
  SO_ERROR,
  SOCK_CLOEXEC,
  SOCK_DGRAM,
  SOCK_NONBLOCK,
  SOCK_STREAM,
  SOL_SOCKET,
} from './constants.ts';
import { addressOf, close, connect, errnoName, poll, recvmsg, sendto, socket } from './ffi.ts';
import { MessageHeader } from './message-header.ts';
import { getIntOption, sockaddrOf } from './udp-socket.ts';

const LOOK_MS = 20;
const ANSWER_BYTES = 4_096;

/** Runs in the namespace, without waiting. */
export type Inside = <T>(work: () => T) => T;

interface ExchangeTarget {
  readonly to: IpAddr;
  readonly port: number;
  /** How long an answer is waited for. */
  readonly waitMs: number;
}

type Exchange =
  | { readonly kind: 'answered'; readonly bytes: Uint8Array }
  /** The kernel's name of the error, or that nothing came. */
  | { readonly kind: 'failed'; readonly reason: string };

/** One datagram, and what comes back. Never rejects but with the reason of the signal. */
export async function exchangeDatagram(
  inside: Inside,
  { to, port, waitMs }: ExchangeTarget,
  bytes: Uint8Array,
  signal: AbortSignal,
): Promise<Exchange> {
  using opened = openSocket(inside, SOCK_DGRAM, to, port);
  if (opened.errno < 0) return { kind: 'failed', reason: errnoName(opened.errno) };
  const outgoing = new Uint8Array(new SharedArrayBuffer(bytes.length));
  outgoing.set(bytes);
  const sent = sendto(opened.fd, addressOf(outgoing), outgoing.length, MSG_DONTWAIT, 0, 0);
  if (sent < 0) return { kind: 'failed', reason: errnoName(sent) };
  const text = new Uint8Array(new SharedArrayBuffer(ANSWER_BYTES));
  const message = new MessageHeader({ text });
  for (const endMs = performance.now() + waitMs; ; ) {
    message.reset();
    const length = recvmsg(opened.fd, message.address, MSG_DONTWAIT);
    if (length >= 0) return { kind: 'answered', bytes: text.slice(0, length) };
    if (length !== -EAGAIN) return { kind: 'failed', reason: errnoName(length) };
    if (performance.now() >= endMs) return { kind: 'failed', reason: 'no answer' };
    await sleep(LOOK_MS, undefined, { signal });
  }
}

/** Whether a TCP connection can be made, which is closed at once: `undefined`, or why not. Never rejects but with the reason of the signal. */
export async function whyNoConnection(
  inside: Inside,
  { to, port, waitMs }: ExchangeTarget,
  signal: AbortSignal,
): Promise<string | undefined> {
  using opened = openSocket(inside, SOCK_STREAM, to, port);
  if (opened.errno < 0 && opened.errno !== -EINPROGRESS) return errnoName(opened.errno);
  // struct pollfd.
  const waited = new DataView(new SharedArrayBuffer(8));
  waited.setInt32(0, opened.fd, true);
  waited.setInt16(4, POLLOUT, true);
  for (const endMs = performance.now() + waitMs; ; ) {
    poll(addressOf(waited), 1, 0);
    if ((waited.getInt16(6, true) & (POLLOUT | POLLERR)) !== 0) {
      const error = getIntOption(opened.fd, SOL_SOCKET, SO_ERROR);
      return error === 0 ? undefined : errnoName(error);
    }
    if (performance.now() >= endMs) return 'no answer';
    await sleep(LOOK_MS, undefined, { signal });
  }
}

/** Connected, or on its way to be. */
function openSocket(
  inside: Inside,
  type: number,
  to: IpAddr,
  port: number,
): Disposable & { readonly fd: number; readonly errno: number } {
  const fd = inside(() => socket(isIpv4(to) ? AF_INET : AF_INET6, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  const name = sockaddrOf(to, port);
  const errno = fd < 0 ? fd : connect(fd, addressOf(name), name.length);
  return {
    ...{ fd, errno },
    [Symbol.dispose]() {
      if (fd >= 0) close(fd);
    },
  };
}
