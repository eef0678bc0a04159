/** Questions to the kernel by netlink sockets (linux/netlink.h) that it answers with one message. */
import { AF_NETLINK, EPROTONOSUPPORT, MSG_DONTWAIT, SOCK_CLOEXEC, SOCK_NONBLOCK, SOCK_RAW } from './constants.ts';
import { addressOf, read, sendto, socket } from './ffi.ts';

const NLM_F_REQUEST = 1;
const NLMSG_ERROR = 2;
/** `struct nlmsghdr`: u32 length, u16 type, u16 flags, u32 sequence, u32 port. */
export const NETLINK_HEADER_BYTES = 16;
const ANSWER_BYTES = 1_024;

/** A descriptor, or −errno: −EPROTONOSUPPORT where the kernel has no such protocol. */
export function openNetlink(protocol: number): number {
  return socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, protocol);
}

/**
 * Asks with the header and four bytes of zero, which is what begins a question in each of the protocols. The answer is in the
 * socket before `sendto` returns; −errno when the kernel refuses.
 */
export function askNetlink(fd: number, type: number, answerType: number): DataView | number {
  const request = new DataView(new SharedArrayBuffer(NETLINK_HEADER_BYTES + 4));
  request.setUint32(0, request.byteLength, true);
  request.setUint16(4, type, true);
  request.setUint16(6, NLM_F_REQUEST, true);
  const sent = sendto(fd, addressOf(request), request.byteLength, MSG_DONTWAIT, 0, 0);
  if (sent < 0) return sent;
  const answer = new DataView(new SharedArrayBuffer(ANSWER_BYTES));
  const length = read(fd, addressOf(answer), ANSWER_BYTES);
  if (length < 0) return length;
  if (length < NETLINK_HEADER_BYTES + 4) return -EPROTONOSUPPORT;
  if (answer.getUint16(4, true) === NLMSG_ERROR) return answer.getInt32(NETLINK_HEADER_BYTES, true);
  return answer.getUint16(4, true) === answerType ? answer : -EPROTONOSUPPORT;
}
