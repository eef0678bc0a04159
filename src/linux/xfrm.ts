/** IPsec policies (xfrm) of this network namespace, by NETLINK_XFRM (linux/xfrm.h, linux/netlink.h). */
import { EPROTONOSUPPORT, NETLINK_XFRM } from './constants.ts';
import { close } from './ffi.ts';
import { askNetlink, NETLINK_HEADER_BYTES, openNetlink } from './netlink.ts';

const XFRM_MSG_NEWSPDINFO = 0x24;
const XFRM_MSG_GETSPDINFO = 0x25;
const XFRM_MSG_GETDEFAULT = 0x28;
/** Behind the u32 of flags; in, out and fwd come first in `struct xfrmu_spdinfo`. */
const SPD_INFO_AT = NETLINK_HEADER_BYTES + 4;
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
  const fd = openNetlink(NETLINK_XFRM);
  if (fd === -EPROTONOSUPPORT) return NONE;
  if (fd < 0) return fd;
  try {
    const info = askNetlink(fd, XFRM_MSG_GETSPDINFO, XFRM_MSG_NEWSPDINFO);
    if (typeof info === 'number') return info;
    const attribute = SPD_INFO_AT;
    const isInfo = info.byteLength >= attribute + 16 && info.getUint16(attribute + 2, true) === XFRMA_SPD_INFO;
    const count = isInfo ? [4, 8, 12].reduce((sum, at) => sum + info.getUint32(attribute + at, true), 0) : 0;
    // Before Linux 5.15 there is no such question, and nothing but acceptance by default.
    const byDefault = askNetlink(fd, XFRM_MSG_GETDEFAULT, XFRM_MSG_GETDEFAULT);
    const blocksByDefault =
      typeof byDefault !== 'number' &&
      [0, 1, 2].some((at) => byDefault.getUint8(NETLINK_HEADER_BYTES + at) === XFRM_USERPOLICY_BLOCK);
    return { isSupported: true, count, blocksByDefault };
  } finally {
    close(fd);
  }
}
