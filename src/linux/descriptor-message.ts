import { CONTROL, CONTROL_LENGTH, IOV, IOV_COUNT, MSGHDR_BYTES, NAME, NAME_LENGTH } from '../dataplane/msghdr.ts';
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
import { addressOf, close, recvmsg, sendmsg, socket } from './ffi.ts';

/** `struct cmsghdr`: length, level, type; the descriptors follow. */
const CONTROL_HEADER_BYTES = 16;
const TEXT_BYTES = 4_096;
/** More than an agent has: a TUN device and a socket for each backend beside the host's own. */
export const MAX_DESCRIPTORS = 16;

interface Message {
  readonly view: DataView;
  readonly address: number;
  readonly text: Uint8Array;
  readonly control: DataView;
}

const shared = (bytes: number): Uint8Array => new Uint8Array(new SharedArrayBuffer(bytes));

function messageOf(text: Uint8Array, controlBytes: number): Message {
  const header = shared(MSGHDR_BYTES);
  const vector = new DataView(new SharedArrayBuffer(16));
  const control = new DataView(new SharedArrayBuffer(Math.max(controlBytes, 1)));
  vector.setBigUint64(0, BigInt(addressOf(text)), true);
  vector.setBigUint64(8, BigInt(text.length), true);
  const view = new DataView(header.buffer);
  view.setBigUint64(IOV, BigInt(addressOf(vector)), true);
  view.setBigUint64(IOV_COUNT, 1n, true);
  if (controlBytes > 0) view.setBigUint64(CONTROL, BigInt(addressOf(control)), true);
  view.setBigUint64(CONTROL_LENGTH, BigInt(controlBytes), true);
  return { view, address: addressOf(header), text, control };
}

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
    const message = messageOf(bytes, fds.length === 0 ? 0 : Math.ceil(length / 8) * 8);
    if (fds.length > 0) {
      message.view.setBigUint64(CONTROL_LENGTH, BigInt(length), true);
      message.control.setBigUint64(0, BigInt(length), true);
      message.control.setInt32(8, SOL_SOCKET, true);
      message.control.setInt32(12, SCM_RIGHTS, true);
      for (const [index, fd] of fds.entries()) message.control.setInt32(CONTROL_HEADER_BYTES + 4 * index, fd, true);
    }
    message.view.setBigUint64(NAME, BigInt(addressOf(to)), true);
    message.view.setUint32(NAME_LENGTH, to.length, true);
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
  const message = messageOf(shared(TEXT_BYTES), space);
  const received = recvmsg(fd, message.address, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
  if (received < 0) return received;
  const fds: number[] = [];
  const { control, view } = message;
  const filled = Number(view.getBigUint64(CONTROL_LENGTH, true));
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
