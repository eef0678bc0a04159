import { fstatSync } from 'node:fs';
import {
  MSG_DONTWAIT,
  MSG_NOSIGNAL,
  O_APPEND,
  O_CLOEXEC,
  O_NOCTTY,
  O_NONBLOCK,
  O_WRONLY,
  POLLOUT,
} from './constants.ts';
import { addressOf, open, poll, sendto, write } from './ffi.ts';

/** Takes a text, or not: then nobody can have it now. Never waits, never throws. */
export type Output = (text: string) => boolean;

/**
 * A descriptor to write to without ever waiting for whoever reads it. Text that is longer than what fits is taken when its
 * beginning is, and the rest is written before the next one.
 *
 * The descriptor may be shared with other processes, whose writing must not change: so O_NONBLOCK goes to a description of our
 * own of the same pipe or terminal. A socket, as journald gives one, takes the wish with each message.
 */
export function openOutput(fd: number): Output {
  const writeNow = writerOf(fd);
  let rest: Buffer = Buffer.alloc(0);
  /** @returns whether a beginning was taken. */
  const put = (bytes: Buffer): boolean => {
    const written = writeNow(bytes);
    if (written <= 0) return bytes.length === 0;
    rest = bytes.subarray(written);
    return true;
  };
  return (text) => {
    while (rest.length > 0) if (!put(rest)) return false;
    return put(Buffer.from(text));
  };
}

/** @returns bytes written, or −errno. */
function writerOf(fd: number): (bytes: Buffer) => number {
  const stats = fstatSync(fd);
  const plainly = (target: number) => (bytes: Buffer) => write(target, addressOf(bytes), bytes.length);
  if (stats.isSocket()) {
    return (bytes) => sendto(fd, addressOf(bytes), bytes.length, MSG_DONTWAIT | MSG_NOSIGNAL, 0, 0);
  }
  if (!stats.isFIFO() && !stats.isCharacterDevice()) return plainly(fd);
  const own = open(`/proc/self/fd/${fd}`, O_WRONLY | O_APPEND | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
  if (own >= 0) return plainly(own);
  // Without /proc, or with a terminal that is another user's. A pipe that is ready takes 4 KB without waiting.
  const fds = new DataView(new SharedArrayBuffer(8));
  fds.setInt32(0, fd, true);
  fds.setInt16(4, POLLOUT, true);
  const address = addressOf(fds);
  const plain = plainly(fd);
  return (bytes) => (poll(address, 1, 0) === 1 ? plain(bytes.subarray(0, 4_096)) : 0);
}
