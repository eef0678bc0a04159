/** IPsec policies (xfrm) of this network namespace, by NETLINK_XFRM (linux/xfrm.h, linux/netlink.h). */
import {
  AF_NETLINK,
  EPROTONOSUPPORT,
  MSG_DONTWAIT,
  NETLINK_XFRM,
  SOCK_CLOEXEC,
  SOCK_NONBLOCK,
  SOCK_RAW,
} from './constants.ts';
import { addressOf, close, read, sendto, socket } from './ffi.ts';

const NLM_F_REQUEST = 1;
const NLMSG_ERROR = 2;
const HEADER_BYTES = 16; // struct nlmsghdr: u32 length, u16 type, u16 flags, u32 sequence, u32 port
const ANSWER_BYTES = 1_024;

const XFRM_MSG_NEWSPDINFO = 0x24;
const XFRM_MSG_GETSPDINFO = 0x25;
const XFRM_MSG_GETDEFAULT = 0x28;
/** Behind the u32 of flags; in, out and fwd come first in `struct xfrmu_spdinfo`. */
const SPD_INFO_AT = HEADER_BYTES + 4;
const XFRMA_SPD_INFO = 1;
const XFRM_USERPOLICY_BLOCK = 1;

export interface XfrmPolicies {
  /** Whether this kernel has IPsec at all. */
  readonly isSupported: boolean;
  /** Of all directions, those of single sockets left out. */
  readonly count: number;
  /** Whether what no policy speaks of is refused in some direction (`ip xfrm policy setdefault`, Linux 5.15). */
  readonly blocksByDefault: boolean;
}

const NONE: XfrmPolicies = { isSupported: false, count: 0, blocksByDefault: false };

/**
 * What the kernel would do to packets by IPsec policy, beside routing them; −errno when it does not say. A kernel without xfrm
 * has no policies.
 */
export function readXfrmPolicies(): XfrmPolicies | number {
  const fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_XFRM);
  if (fd === -EPROTONOSUPPORT) return NONE;
  if (fd < 0) return fd;
  try {
    const info = ask(fd, XFRM_MSG_GETSPDINFO, XFRM_MSG_NEWSPDINFO);
    if (typeof info === 'number') return info;
    const attribute = SPD_INFO_AT;
    const isInfo = info.byteLength >= attribute + 16 && info.getUint16(attribute + 2, true) === XFRMA_SPD_INFO;
    const count = isInfo ? [4, 8, 12].reduce((sum, at) => sum + info.getUint32(attribute + at, true), 0) : 0;
    // Before Linux 5.15 there is no such question, and nothing but acceptance by default.
    const byDefault = ask(fd, XFRM_MSG_GETDEFAULT, XFRM_MSG_GETDEFAULT);
    const blocksByDefault =
      typeof byDefault !== 'number' &&
      [0, 1, 2].some((at) => byDefault.getUint8(HEADER_BYTES + at) === XFRM_USERPOLICY_BLOCK);
    return { isSupported: true, count, blocksByDefault };
  } finally {
    close(fd);
  }
}

/** The answer, which the kernel puts into the socket before `sendto` returns; −errno when it refuses. */
function ask(fd: number, type: number, answerType: number): DataView | number {
  const request = new DataView(new SharedArrayBuffer(HEADER_BYTES + 4));
  request.setUint32(0, request.byteLength, true);
  request.setUint16(4, type, true);
  request.setUint16(6, NLM_F_REQUEST, true);
  const sent = sendto(fd, addressOf(request), request.byteLength, MSG_DONTWAIT, 0, 0);
  if (sent < 0) return sent;
  const answer = new DataView(new SharedArrayBuffer(ANSWER_BYTES));
  const length = read(fd, addressOf(answer), ANSWER_BYTES);
  if (length < 0) return length;
  if (length < HEADER_BYTES + 4) return -EPROTONOSUPPORT;
  if (answer.getUint16(4, true) === NLMSG_ERROR) return answer.getInt32(HEADER_BYTES, true);
  return answer.getUint16(4, true) === answerType ? answer : -EPROTONOSUPPORT;
}
