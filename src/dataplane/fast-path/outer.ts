// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
import { type IpAddr, isIpv4 } from '../../ip/address.ts';
import {
  ENCAPSULATION_OVERHEAD,
  ENCAPSULATION_OVERHEAD_6,
  IP_FLAG_DF,
  IPV4_MIN_HEADER,
  PROTO_UDP,
  UDP_HEADER,
} from '../wire.ts';
import { type Assembler, reg } from './assembler.ts';
import { type Family, IPV4, IPV6, requirePlainIpv4, VERSION_4_NO_OPTIONS } from './family.ts';
import { addToSum, be16, be32, CSUM_DIFF, FRAME, foldSum, frameAddress } from './frame-words.ts';
import { type UnderlayLayout, underlayLayout } from './layout.ts';

/** What the programs have to know of the datagrams around the packets: the network between the hosts has IPv4, or IPv6 alone. */
export interface Outer {
  /** Of the outer header. */
  readonly family: Family;
  readonly layout: UnderlayLayout;
  /** What is put in front of a packet, behind the MAC header. */
  readonly overhead: number;
  /** `AF_INET` or `AF_INET6`. */
  readonly addressFamily: number;
  /** Flag of `bpf_skb_adjust_room` that puts such a header in front. */
  readonly encapsulated: number;
  /** Two bytes of the header that mean nothing to anybody in between. */
  readonly tagAt: number;
  readonly ttlAt: number;
  /** A header at `offset` of the frame that is unusual passes. */
  readonly requirePlain: (asm: Assembler, offset: number) => void;
  /** … and one whose checksum is wrong: nobody has looked at it yet. */
  readonly requireSum: (asm: Assembler, offset: number) => void;
  /** All but addresses and what `finish` writes. In: R9 length of the packet inside. @param tag 2 bytes of the frame. */
  readonly write: (asm: Assembler, offset: number, tag: number) => void;
  /** What depends on the rest of the header. R3 is lost. */
  readonly finish: (asm: Assembler, offset: number) => void;
}

/** Outer TTL, the kernel's default (net.ipv4.ip_default_ttl, hop_limit of net.ipv6.conf). What arrives with it has crossed no router. */
export const OUTER_TTL = 64;

const AF_INET = 2;
const AF_INET6 = 10;
const ADJ_ROOM_ENCAP_L3_IPV4 = 2;
const ADJ_ROOM_ENCAP_L3_IPV6 = 4;
/** Version 6 and a traffic class of 0, read as a little-endian half word; the upper four bits of the flow label are 0 too. */
const VERSION_6 = 0x0060;

const OUTER_4: Outer = {
  family: IPV4,
  layout: underlayLayout(4),
  overhead: ENCAPSULATION_OVERHEAD,
  addressFamily: AF_INET,
  encapsulated: ADJ_ROOM_ENCAP_L3_IPV4,
  // The identification: without meaning where fragments are forbidden (RFC 6864).
  tagAt: 4,
  ttlAt: 8,
  requirePlain: (asm, offset) => {
    requirePlainIpv4(asm, offset);
    // What may be fragmented has an identification that means something, and has lost the flag on its way.
    asm.load(2, 1, FRAME, offset + 6);
    asm.jumpIf('ne', 1, be16(IP_FLAG_DF), 'pass');
  },
  requireSum: (asm, offset) => {
    asm.op('mov', 1, 0);
    asm.op('mov', 2, 0);
    frameAddress(asm, 3, offset);
    asm.op('mov', 4, IPV4_MIN_HEADER);
    asm.op('mov', 5, 0);
    asm.call(CSUM_DIFF);
    asm.op32('mov', 0, reg(0));
    foldSum(asm, 0, 1);
    asm.jumpIf('ne', 0, 0xffff, 'pass');
  },
  write: (asm, offset, tag) => {
    asm.store(2, FRAME, offset, VERSION_4_NO_OPTIONS);
    asm.op('mov', 1, reg(9));
    asm.op('add', 1, ENCAPSULATION_OVERHEAD);
    asm.toBig16(1);
    asm.store(2, FRAME, offset + 2, reg(1));
    asm.load(2, 1, FRAME, tag);
    asm.store(2, FRAME, offset + 4, reg(1));
    asm.store(2, FRAME, offset + 6, be16(IP_FLAG_DF));
    asm.store(2, FRAME, offset + 8, OUTER_TTL | (PROTO_UDP << 8));
  },
  finish: (asm, offset) => {
    asm.store(2, FRAME, offset + 10, 0);
    asm.op('mov', 3, 0);
    for (let word = 0; word < IPV4_MIN_HEADER; word += 4) addToSum(asm, offset + word, 4);
    foldSum(asm, 3, 1);
    asm.op('xor', 3, 0xffff);
    asm.store(2, FRAME, offset + 10, reg(3));
  },
};

const OUTER_6: Outer = {
  family: IPV6,
  layout: underlayLayout(6),
  overhead: ENCAPSULATION_OVERHEAD_6,
  addressFamily: AF_INET6,
  encapsulated: ADJ_ROOM_ENCAP_L3_IPV6,
  // The lower bits of the flow label, which is delivered as it was sent (RFC 6437, section 2).
  tagAt: 2,
  ttlAt: 7,
  requirePlain: (asm, offset) => IPV6.requirePlain(asm, offset),
  requireSum: () => {},
  write: (asm, offset, tag) => {
    asm.store(2, FRAME, offset, VERSION_6);
    asm.load(2, 1, FRAME, tag);
    asm.store(2, FRAME, offset + 2, reg(1));
    asm.op('mov', 1, reg(9));
    asm.op('add', 1, UDP_HEADER);
    asm.toBig16(1);
    asm.store(2, FRAME, offset + 4, reg(1));
    asm.store(2, FRAME, offset + 6, PROTO_UDP | (OUTER_TTL << 8));
  },
  finish: () => {},
};

/** Of datagrams from and to an address of this host. */
export const outerOf = ({ ownAddress }: { readonly ownAddress: IpAddr }): Outer =>
  isIpv4(ownAddress) ? OUTER_4 : OUTER_6;

/** Families of packets that a program is made for. A network that has IPv4 has it between the hosts too. */
export const familiesOf = (options: {
  readonly ownAddress: IpAddr;
  readonly carriesIpv6: boolean;
}): readonly Family[] => {
  if (!isIpv4(options.ownAddress)) return [IPV6];
  return options.carriesIpv6 ? [IPV4, IPV6] : [IPV4];
};

/** The kernel goes on taking a packet for one of its family, whatever is put in front of it, unless that has the tunnel's mark. */
export const mustBeMarked = (outer: Outer, family: Family): boolean => family !== outer.family;

/** An address in words, as they lie in a header. */
export function addressWords(address: IpAddr): readonly number[] {
  if (isIpv4(address)) return [be32(address)];
  return [96n, 64n, 32n, 0n].map((shift) => be32(Number(BigInt.asUintN(32, address >> shift))));
}
