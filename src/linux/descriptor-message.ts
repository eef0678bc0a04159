import {
  AF_UNIX,
  MSG_CMSG_CLOEXEC,
  MSG_DONTWAIT,
  MSG_NOSIGNAL,
  SCM_RIGHTS,
  SOCK_CLOEXEC,
  SOCK_DGRAM,
  SOCK_NONBLOCK,
  SOL_SOCKET,
} from './constants.ts';
import { close, recvmsg, sendmsg, socket } from './ffi.ts';
import { MessageHeader } from './message-header.ts';

/** `struct cmsghdr`: length, level, type; the descriptors follow. */
const CONTROL_HEADER_BYTES = 16;
const TEXT_BYTES = 4_096;
/** More than an agent has: a TUN device and a socket for each backend beside the host's own. */
export const MAX_DESCRIPTORS = 16;

const shared = (bytes: number): Uint8Array => new Uint8Array(new SharedArrayBuffer(bytes));

/**
 * Sends a datagram of the text with copies of these descriptors (unix(7), SCM_RIGHTS). Does not wait. Returns what was sent or −errno.
 * @param to `struct sockaddr_un`
 * @param fds {@link MAX_DESCRIPTORS} at most
 */
export function sendDescriptors(to: Uint8Array, text: string, fds: readonly number[]): number {
  const from = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (from < 0) return from;
  try {
    const encoded = new TextEncoder().encode(text);
    const bytes = shared(encoded.length);
    bytes.set(encoded);
    const length = CONTROL_HEADER_BYTES + 4 * fds.length;
    const controlBytes = fds.length === 0 ? 0 : Math.ceil(length / 8) * 8;
    const message = new MessageHeader({ text: bytes, name: to, controlBytes });
    if (fds.length > 0) {
      message.controlLength = length;
      const control = new DataView(message.control.buffer);
      control.setBigUint64(0, BigInt(length), true);
      control.setInt32(8, SOL_SOCKET, true);
      control.setInt32(12, SCM_RIGHTS, true);
      for (const [index, fd] of fds.entries()) control.setInt32(CONTROL_HEADER_BYTES + 4 * index, fd, true);
    }
    return sendmsg(from, message.address, MSG_DONTWAIT | MSG_NOSIGNAL);
  } finally {
    close(from);
  }
}

/**
 * Takes the next datagram with its descriptors, which are this process's from then on and end with an `exec`. Does not wait.
 * Returns −errno when there is none.
 */
export function receiveDescriptors(fd: number): { readonly text: string; readonly fds: readonly number[] } | number {
  const space = Math.ceil((CONTROL_HEADER_BYTES + 4 * MAX_DESCRIPTORS) / 8) * 8;
  const message = new MessageHeader({ text: shared(TEXT_BYTES), controlBytes: space });
  const received = recvmsg(fd, message.address, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
  if (received < 0) return received;
  const fds: number[] = [];
  const control = new DataView(message.control.buffer);
  const filled = message.controlLength;
  for (let at = 0; at + CONTROL_HEADER_BYTES <= filled; ) {
    const length = Number(control.getBigUint64(at, true));
    if (length < CONTROL_HEADER_BYTES || at + length > filled) break;
    const isRights = control.getInt32(at + 8, true) === SOL_SOCKET && control.getInt32(at + 12, true) === SCM_RIGHTS;
    for (let each = at + CONTROL_HEADER_BYTES; isRights && each + 4 <= at + length; each += 4) {
      fds.push(control.getInt32(each, true));
    }
    at += Math.ceil(length / 8) * 8;
  }
  return { text: new TextDecoder().decode(message.text.slice(0, received)), fds };
}
