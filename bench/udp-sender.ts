/**
 * Load generator: UDP datagrams with 64 bytes of payload to random ones of SUBNETS /24 subnets, and in each to addresses from FIRST
 * on, HOSTS of them; for SECONDS; RATE datagrams a second, or as fast as one thread can with 0. Run inside a container's namespace:
 *
 *     node udp-sender.ts FIRST SUBNETS HOSTS SECONDS RATE
 *
 * Prints how many datagrams the kernel took.
 */

import { ArenaLayout, createArena, IOVEC_SIZE, putIovec } from '../src/dataplane/arena.ts';
import {
  initMessage,
  MESSAGE_SIZE,
  putSockaddr,
  SOCKADDR_SIZE,
  setSegmentSize,
  setVector,
} from '../src/dataplane/mmsghdr.ts';
import { parseIpv4 } from '../src/ip/ipv4.ts';
import { AF_INET, SOCK_CLOEXEC, SOCK_DGRAM } from '../src/linux/constants.ts';
import { addressOf, sendmmsg, socket } from '../src/linux/ffi.ts';

const [address = '', ...numbers] = process.argv.slice(2);
const first = parseIpv4(address);
const [subnets, hosts, seconds, rate] = numbers.map(Number) as [number, number, number, number];
if (first === undefined || !(subnets >= 1 && hosts >= 1 && seconds > 0 && rate >= 0)) {
  throw new RangeError('usage: udp-sender.ts FIRST SUBNETS HOSTS SECONDS RATE');
}
const BATCH = 64;
const PAYLOAD = 64;
/** A sleep between two bursts of a limited rate: short beside what a queue on the way holds. */
const PAUSE_MS = 0.2;
const DISCARD_PORT = 9;
const pause = new Int32Array(new SharedArrayBuffer(4));
const arena = createArena(addressOf);
const layout = new ArenaLayout(arena);
const messages = layout.take(BATCH * MESSAGE_SIZE);
const names = layout.take(BATCH * SOCKADDR_SIZE);
const control = layout.take(64);
const iovec = layout.take(IOVEC_SIZE);
putIovec(arena, iovec, layout.take(PAYLOAD), PAYLOAD);
for (let index = 0; index < BATCH; index++) {
  const message = messages + index * MESSAGE_SIZE;
  initMessage(arena, message, names + index * SOCKADDR_SIZE, SOCKADDR_SIZE, control);
  setVector(arena, message, iovec, 1);
  setSegmentSize(arena, message, control, 0);
}
const fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
const start = performance.now();
let sent = 0;
for (let now = start; now < start + seconds * 1000; now = performance.now()) {
  const due = rate === 0 ? BATCH : Math.min(BATCH, Math.floor(((now - start) / 1000) * rate) - sent);
  if (due < 1) {
    Atomics.wait(pause, 0, 0, PAUSE_MS);
    continue;
  }
  for (let index = 0; index < due; index++) {
    const subnet = Math.floor(Math.random() * subnets);
    putSockaddr(arena, names + index * SOCKADDR_SIZE, first + subnet * 256 + (index % hosts), DISCARD_PORT);
  }
  const result = sendmmsg(fd, arena.base + messages, due, 0);
  if (result > 0) sent += result;
}
process.stdout.write(`${sent}\n`);
process.exit(0);
