/**
 * Load generator: connections of TCP that carry one request of 64 bytes and one answer of the same size, and end.
 *
 *     node short-connections.ts serve ADDRESS
 *     node short-connections.ts connect ADDRESS AT_ONCE SECONDS
 *
 * The first prints `ready` and serves until it is killed. The second prints how many connections it has finished.
 */
import { parseIpv4 } from '../src/ip/ipv4.ts';
import {
  AF_INET,
  EINPROGRESS,
  POLLIN,
  POLLOUT,
  SOCK_CLOEXEC,
  SOCK_NONBLOCK,
  SOCK_STREAM,
} from '../src/linux/constants.ts';
import {
  accept,
  addressOf,
  bind,
  close,
  connect,
  errnoName,
  listen,
  poll,
  read,
  setsockopt,
  socket,
  write,
} from '../src/linux/ffi.ts';
import { sockaddrOf } from '../src/linux/udp-socket.ts';

const PORT = 11_112;
const BACKLOG = 1_024;
/** tcp(7): a connection is accepted when its request is there, so that the server waits for none of them. */
const IPPROTO_TCP = 6;
const TCP_DEFER_ACCEPT = 9;
const DEFER_SECONDS = 5;
const MESSAGE_BYTES = 64;
const POLLFD_BYTES = 8;
const POLL_MS = 100;

const memory = (bytes: number): DataView => new DataView(new SharedArrayBuffer(bytes));

function need(result: number, what: string): number {
  if (result < 0) throw new Error(`${what}: ${errnoName(result)}`);
  return result;
}

function serve(name: Uint8Array): void {
  const listener = need(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), 'socket');
  const seconds = memory(4);
  seconds.setInt32(0, DEFER_SECONDS, true);
  need(setsockopt(listener, IPPROTO_TCP, TCP_DEFER_ACCEPT, addressOf(seconds), 4), 'TCP_DEFER_ACCEPT');
  need(bind(listener, addressOf(name), name.length), 'bind');
  need(listen(listener, BACKLOG), 'listen');
  process.stdout.write('ready\n');
  const message = addressOf(memory(MESSAGE_BYTES));
  for (;;) {
    const fd = accept(listener, 0, 0);
    if (fd < 0) continue;
    if (read(fd, message, MESSAGE_BYTES) > 0) write(fd, message, MESSAGE_BYTES);
    close(fd);
  }
}

/** @returns how many were finished. A connection counts when the server has ended it. */
function connectFor(name: Uint8Array, atOnce: number, seconds: number): number {
  const fds = memory(atOnce * POLLFD_BYTES); // struct pollfd: fd, events, revents
  const [nameAddress, fdsAddress, message] = [addressOf(name), addressOf(fds), addressOf(memory(MESSAGE_BYTES))];
  const start = (slot: number): void => {
    const fd = need(socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), 'socket');
    const result = connect(fd, nameAddress, name.length);
    if (result !== -EINPROGRESS) need(result, 'connect');
    fds.setInt32(slot * POLLFD_BYTES, fd, true);
    fds.setInt16(slot * POLLFD_BYTES + 4, POLLOUT, true);
  };
  let finished = 0;
  const proceed = (slot: number): void => {
    const at = slot * POLLFD_BYTES;
    const fd = fds.getInt32(at, true);
    if (fds.getInt16(at + 4, true) === POLLOUT) {
      need(write(fd, message, MESSAGE_BYTES), 'request');
      fds.setInt16(at + 4, POLLIN, true);
    } else if (need(read(fd, message, MESSAGE_BYTES), 'answer') === 0) {
      finished++;
      close(fd);
      start(slot);
    }
  };
  for (let slot = 0; slot < atOnce; slot++) start(slot);
  for (const end = performance.now() + seconds * 1_000; performance.now() < end; ) {
    need(poll(fdsAddress, atOnce, POLL_MS), 'poll');
    for (let slot = 0; slot < atOnce; slot++) if (fds.getInt16(slot * POLLFD_BYTES + 6, true) !== 0) proceed(slot);
  }
  return finished;
}

const [role, address = '', ...numbers] = process.argv.slice(2);
const parsed = parseIpv4(address);
const [atOnce = 0, seconds = 0] = numbers.map(Number);
if (parsed === undefined || (role !== 'serve' && !(role === 'connect' && atOnce >= 1 && seconds > 0)))
  throw new RangeError('usage: short-connections.ts serve ADDRESS | connect ADDRESS AT_ONCE SECONDS');
const name = sockaddrOf(parsed, PORT);
if (role === 'serve') serve(name);
else process.stdout.write(`${connectFor(name, atOnce, seconds)}\n`);
process.exit(0);
