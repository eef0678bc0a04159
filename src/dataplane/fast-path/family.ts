// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
import { IPV4_MIN_HEADER, IPV6_HEADER, PROTO_ICMPV6, PROTO_TCP, PROTO_UDP } from '../wire.ts';
import { type Assembler, type MapReference, reg } from './assembler.ts';
import { addToSum, be16, FRAME, foldSum } from './frame-words.ts';
import {
  ARRIVED_AT,
  ARRIVED_AT_6,
  CUT_ARRIVED_AT,
  CUT_ARRIVED_AT_6,
  CUT_UNTIL,
  CUT_UNTIL_6,
  GRANT_WHOLE_UNTIL,
  GRANT_WHOLE_UNTIL_6,
  type MapName,
  NEXT_TRIAL,
  NEXT_TRIAL_6,
  SEND_UNTIL,
  SEND_UNTIL_6,
  TRIAL_PAUSE,
  TRIAL_PAUSE_6,
  UNANSWERED_SINCE,
  UNANSWERED_SINCE_6,
  UNHEARD_SINCE,
  UNHEARD_SINCE_6,
  WHOLE_UNTIL,
  WHOLE_UNTIL_6,
} from './layout.ts';

/** ETH_P_IP in the byte order of the packet, read as a little-endian half word. */
const ETH_P_IP = 0x0008;
const ETH_P_IPV6 = 0xdd86;
export const VERSION_4_NO_OPTIONS = 0x45;
/** More-fragments bit and fragment offset, read as a little-endian half word. */
const FRAGMENT_BITS = 0xff3f;

/** What the fast path keeps in the kernel; see fast-path-tables.ts for who writes what. */
export type FastPathMaps = Readonly<Record<MapName, MapReference>>;

/** What the programs have to know of packets, by their IP version: of those inside, and (outer.ts) of the datagrams around them. */
export interface Family {
  /** Of labels. */
  readonly name: 'ipv4' | 'ipv6';
  /** The high half of the first byte. */
  readonly version: number;
  /** Of the frame, as `ETH_P_IP`. */
  readonly etherType: number;
  /** Bytes of the header, and where things are in it. */
  readonly header: number;
  readonly sourceAt: number;
  readonly destinationAt: number;
  readonly addressBytes: number;
  readonly protocolAt: number;
  readonly lengthAt: number;
  /** Bytes that the length does not count. */
  readonly lengthLacks: number;
  /** Four bytes, all that a hop changes. */
  readonly hopAt: number;
  /** Bytes at its start that are written again on the way out: those and, with the tunnel's mark, what BPF_PROG_TEST_RUN takes for a MAC header. */
  readonly rewritten: number;
  /** Flag of `bpf_skb_adjust_room` that takes off outer headers of the other family. */
  readonly decapsulated: number;
  /** ICMP's protocol number, and whether its checksum and UDP's are never without the pseudo header. */
  readonly icmp: { readonly protocol: number; readonly hasPseudoHeader: boolean };
  readonly udpNeedsChecksum: boolean;
  readonly subnets: (maps: FastPathMaps) => MapReference;
  readonly own: (maps: FastPathMaps) => MapReference;
  /** Where a grant has what goes for it alone. */
  readonly grant: { readonly sendUntil: number; readonly wholeUntil: number };
  /** Where an endpoint has what is known of its packets alone: that IPv4's arrive in one piece says nothing of IPv6's. */
  readonly known: {
    readonly arrivedAt: number;
    readonly wholeUntil: number;
    readonly nextTrial: number;
    readonly trialPause: number;
    readonly unansweredSince: number;
    readonly unheardSince: number;
    readonly cutArrivedAt: number;
    readonly cutUntil: number;
  };
  /** A header at `offset` of the frame that is unusual, or whose TTL or hop limit runs out here: passes. */
  readonly requirePlain: (asm: Assembler, offset: number) => void;
  /** One from the TTL or the hop limit of the header at `offset` of the frame. */
  readonly takeHop: (asm: Assembler, offset: number) => void;
  /** R3 = what a packet with its checksums sums up to, R9 bytes long, whatever it carries; its header is at `offset` of the frame. */
  readonly sumOfComplete: (asm: Assembler, offset: number) => void;
}

/** `bpf_skb_adjust_room`: what is left when the outer header is off is IPv6. */
const ADJ_ROOM_DECAP_L3_IPV6 = 256;
const VERSION_BITS = 0xf0;
const FIRST_OF_MULTICAST_6 = 0xff;

/** R3 = complement of a sum in R3. */
function complement(asm: Assembler): void {
  foldSum(asm, 3, 1);
  asm.op('xor', 3, 0xffff);
}

/** Adds to R3 the length of what is behind the header of a packet of R9 bytes. */
function addPayloadLength(asm: Assembler, header: number): void {
  asm.op('mov', 1, reg(9));
  asm.op('sub', 1, header);
  asm.toBig16(1);
  asm.op('add', 3, reg(1));
}

export const IPV4: Family = {
  name: 'ipv4',
  version: 0x40,
  etherType: ETH_P_IP,
  header: IPV4_MIN_HEADER,
  sourceAt: 12,
  destinationAt: 16,
  addressBytes: 4,
  protocolAt: 9,
  lengthAt: 2,
  lengthLacks: 0,
  hopAt: 8,
  rewritten: 12,
  decapsulated: 0,
  icmp: { protocol: 1, hasPseudoHeader: false },
  udpNeedsChecksum: false,
  subnets: (maps) => maps.subnets,
  own: (maps) => maps.own,
  grant: { sendUntil: SEND_UNTIL, wholeUntil: GRANT_WHOLE_UNTIL },
  known: {
    arrivedAt: ARRIVED_AT,
    wholeUntil: WHOLE_UNTIL,
    nextTrial: NEXT_TRIAL,
    trialPause: TRIAL_PAUSE,
    unansweredSince: UNANSWERED_SINCE,
    unheardSince: UNHEARD_SINCE,
    cutArrivedAt: CUT_ARRIVED_AT,
    cutUntil: CUT_UNTIL,
  },
  requirePlain: requirePlainIpv4,
  takeHop: decrementTtl,
  // The header with its checksum sums up to 0.
  sumOfComplete: (asm, offset) => {
    asm.load(1, 3, FRAME, offset + 9);
    asm.op('shl', 3, 8);
    addToSum(asm, offset + 12, 4);
    addToSum(asm, offset + 16, 4);
    addPayloadLength(asm, IPV4_MIN_HEADER);
    complement(asm);
  },
};

export const IPV6: Family = {
  name: 'ipv6',
  version: 0x60,
  etherType: ETH_P_IPV6,
  header: IPV6_HEADER,
  sourceAt: 8,
  destinationAt: 24,
  addressBytes: 16,
  protocolAt: 6,
  lengthAt: 4,
  lengthLacks: IPV6_HEADER,
  hopAt: 4,
  rewritten: 16,
  decapsulated: ADJ_ROOM_DECAP_L3_IPV6,
  icmp: { protocol: PROTO_ICMPV6, hasPseudoHeader: true },
  udpNeedsChecksum: true,
  subnets: (maps) => maps.subnets6,
  own: (maps) => maps.own6,
  grant: { sendUntil: SEND_UNTIL_6, wholeUntil: GRANT_WHOLE_UNTIL_6 },
  known: {
    arrivedAt: ARRIVED_AT_6,
    wholeUntil: WHOLE_UNTIL_6,
    nextTrial: NEXT_TRIAL_6,
    trialPause: TRIAL_PAUSE_6,
    unansweredSince: UNANSWERED_SINCE_6,
    unheardSince: UNHEARD_SINCE_6,
    cutArrivedAt: CUT_ARRIVED_AT_6,
    cutUntil: CUT_UNTIL_6,
  },
  requirePlain: requirePlainIpv6,
  takeHop: (asm, offset) => {
    asm.load(1, 1, FRAME, offset + 7);
    asm.op('sub', 1, 1);
    asm.store(1, FRAME, offset + 7, reg(1));
  },
  // The addresses are in the header and, complemented, in what the transport header sums up to.
  sumOfComplete: (asm, offset) => {
    asm.load(1, 3, FRAME, offset + 6);
    asm.op('shl', 3, 8);
    addPayloadLength(asm, IPV6_HEADER);
    complement(asm);
    addPayloadLength(asm, IPV6_HEADER);
    addToSum(asm, offset, 4);
    addToSum(asm, offset + 6, 2);
    foldSum(asm, 3, 1);
  },
};

/** A header at `offset` of the frame that is not the plain one, is a fragment, or whose TTL runs out here: passes. */
export function requirePlainIpv4(asm: Assembler, offset: number): void {
  asm.load(1, 1, FRAME, offset);
  asm.jumpIf('ne', 1, VERSION_4_NO_OPTIONS, 'pass');
  asm.load(2, 1, FRAME, offset + 6);
  asm.jumpIf('set', 1, FRAGMENT_BITS, 'pass');
  asm.load(1, 1, FRAME, offset + 8);
  asm.jumpIf('le', 1, 1, 'pass');
}

/** As `decrementTtl` of checksum.ts, on a header in the frame. */
export function decrementTtl(asm: Assembler, offset: number): void {
  asm.load(1, 1, FRAME, offset + 8);
  asm.op('sub', 1, 1);
  asm.store(1, FRAME, offset + 8, reg(1));
  asm.load(2, 1, FRAME, offset + 10);
  asm.op('add', 1, be16(0x0100));
  asm.jumpIf('lt', 1, 0xffff, 'ttl-no-carry');
  asm.op('add', 1, 1);
  asm.label('ttl-no-carry');
  asm.store(2, FRAME, offset + 10, reg(1));
}

/** No extension headers, and so no fragments: what is behind the header is TCP, UDP or ICMPv6, and its destination one host. */
function requirePlainIpv6(asm: Assembler, offset: number): void {
  asm.load(1, 1, FRAME, offset);
  asm.op('and', 1, VERSION_BITS);
  asm.jumpIf('ne', 1, IPV6.version, 'pass');
  asm.load(1, 1, FRAME, offset + 6);
  asm.jumpIf('eq', 1, PROTO_TCP, 'plain-protocol');
  asm.jumpIf('eq', 1, PROTO_UDP, 'plain-protocol');
  asm.jumpIf('ne', 1, PROTO_ICMPV6, 'pass');
  asm.label('plain-protocol');
  asm.load(1, 1, FRAME, offset + 7);
  asm.jumpIf('le', 1, 1, 'pass');
  asm.load(1, 1, FRAME, offset + 24);
  asm.jumpIf('eq', 1, FIRST_OF_MULTICAST_6, 'pass');
}
