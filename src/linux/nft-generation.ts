/** Whether anything in nf_tables has changed, without reading it (linux/netfilter/nf_tables.h). */
import { isDeepStrictEqual } from 'node:util';
import { NETLINK_NETFILTER } from './constants.ts';
import { close } from './ffi.ts';
import { askNetlink, NETLINK_HEADER_BYTES, openNetlink } from './netlink.ts';

const NFNL_SUBSYS_NFTABLES = 10;
const NFT_MSG_NEWGEN = (NFNL_SUBSYS_NFTABLES << 8) | 15;
const NFT_MSG_GETGEN = (NFNL_SUBSYS_NFTABLES << 8) | 16;
const NFTA_GEN_ID = 1;
/** Behind `struct nfgenmsg`; of an attribute, u16 length and u16 type come first. */
const ATTRIBUTE_AT = NETLINK_HEADER_BYTES + 4;

/**
 * Grows with every change of nf_tables in this process's network namespace, whoever makes it; those of iptables-legacy are
 * elsewhere. `undefined` where the kernel does not say.
 */
export function readNftGeneration(): number | undefined {
  const fd = openNetlink(NETLINK_NETFILTER);
  if (fd < 0) return undefined;
  try {
    const answer = askNetlink(fd, NFT_MSG_GETGEN, NFT_MSG_NEWGEN);
    if (typeof answer === 'number' || answer.getUint16(ATTRIBUTE_AT + 2, true) !== NFTA_GEN_ID) return undefined;
    return answer.getUint32(ATTRIBUTE_AT + 4);
  } finally {
    close(fd);
  }
}

/**
 * Remembers that rules were right, and as long as nothing has changed since, spares looking at them: a check starts several
 * programs, every few seconds on every node.
 */
export class RightRules<T> {
  #right: { readonly generation: number; readonly wanted: T } | undefined;

  /** @param look compares and corrects; says what it has corrected. @param generation of now; `undefined`: always look. */
  async unlessRight<R>(
    wanted: T,
    generation: number | undefined,
    look: () => Promise<readonly R[]>,
  ): Promise<readonly R[]> {
    const right = this.#right;
    if (right !== undefined && right.generation === generation && isDeepStrictEqual(right.wanted, wanted)) return [];
    this.#right = undefined;
    const corrected = await look();
    if (generation !== undefined && corrected.length === 0) this.#right = { generation, wanted };
    return corrected;
  }
}
