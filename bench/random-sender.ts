/**
 * Load generator: 64-byte UDP datagrams to random addresses of 10.0.0.0/8's first PEERS /24 subnets, from 10.1.0.0 on, as
 * fast as one thread can, for SECONDS. Run inside a container's namespace: node random-sender.ts PEERS SECONDS. Prints how many
 * datagrams the kernel took.
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
import { AF_INET, SOCK_CLOEXEC, SOCK_DGRAM } from '../src/linux/constants.ts';
import { addressOf, sendmmsg, socket } from '../src/linux/ffi.ts';

const [peers, seconds] = process.argv.slice(2).map(Number) as [number, number];
const BATCH = 64;
const PAYLOAD = 64;
const FIRST_SUBNET = 0x0a010000;
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
const end = performance.now() + seconds * 1000;
let sent = 0;
while (performance.now() < end) {
  for (let index = 0; index < BATCH; index++) {
    const subnet = Math.floor(Math.random() * peers);
    putSockaddr(arena, names + index * SOCKADDR_SIZE, FIRST_SUBNET + subnet * 256 + 2 + (index & 63), 9);
  }
  const result = sendmmsg(fd, arena.base + messages, BATCH, 0);
  if (result > 0) sent += result;
}
process.stdout.write(`${sent}\n`);
process.exit(0);
