// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
/**
 * What a datagram of a peer must be, whichever program takes it from the device: before the kernel joins packets (XDP) or behind that
 * (tcx). The headers lie in the frame, at the same places in both programs.
 */
import { IP_FLAG_DF, IPV4_MIN_HEADER, IPV6_HEADER, PROTO_UDP, UDP_HEADER } from '../wire.ts';
import { type Assembler, reg } from './assembler.ts';
import { type Family, type FastPathMaps, requirePlainIpv4 } from './family.ts';
import { be16, be32, FRAME, foldSum } from './frame-words.ts';
import {
  ACCEPT_UNTIL,
  DISTRUST_UNTIL,
  EXPECT_TAG,
  EXPECT_TAG_WHOLE,
  GRANT_VALUE_BYTES,
  SUBNET_ENDPOINT,
  SUBNET_SLOT,
  WAY_BACK_UNTIL,
} from './layout.ts';
import {
  type Clock,
  CONTEXT,
  CSUM_DIFF,
  ETHERNET_HEADER,
  endpointLookup,
  FIB_BYTES,
  FIB_LOOKUP_SKIP_NEIGH,
  findWay,
  frameAddress,
  LONGEST_KEY_BYTES,
  loadBytes,
  loadGrant,
  type Measured,
  MS,
  OUTER_TTL,
  type ProgramOptions,
  SKB_GSO_SIZE,
  subnetLookup,
} from './skb-program.ts';

// The frame, below R10.
export const OUTER = -72;
export const UDP = OUTER + IPV4_MIN_HEADER;
export const INNER = UDP + UDP_HEADER;
export const KEY: number = OUTER - LONGEST_KEY_BYTES;
export const SLOT: number = KEY - 8;
export const MEASURED: Measured = { packets: SLOT - 8, bytes: SLOT - 16 };
export const NOW: number = SLOT - 24;
export const KNOWN: number = SLOT - 32;
export const CLOCK: Clock = { now: NOW, known: KNOWN };
export const GRANT = KNOWN - GRANT_VALUE_BYTES;
export const FIB = GRANT - FIB_BYTES;
/** A word that is not 0 when nobody reads the socket. */
export const UNREAD = FIB - 8;

/** That our super-packets arrive holds for that long after the peer said so: a pause in a conversation does not end it. */
const WHOLE_HOLDS_NS = 2_000 * MS;
/** A wrong tag comes from somebody who guesses: nothing is learned for so long that there are too many to guess. */
const DISTRUST_NS = 100 * MS;
/** How far a super-packet that is cut counts on from its tag, at most. */
const SEGMENTS = 128;
/** How often routing is asked about the way back to a peer. */
const WAY_BACK_NS = 100 * MS;

export function requireOuterHeaders(asm: Assembler, { ownAddress, ownPort }: ProgramOptions): void {
  requirePlainIpv4(asm, OUTER);
  // What may be fragmented has an identification that means something, and has lost the flag on its way.
  asm.load(2, 1, FRAME, OUTER + 6);
  asm.jumpIf('ne', 1, be16(IP_FLAG_DF), 'pass');
  asm.load(1, 1, FRAME, OUTER + 9);
  asm.jumpIf('ne', 1, PROTO_UDP, 'pass');
  asm.load(2, 1, FRAME, UDP + 2);
  asm.jumpIf('ne', 1, be16(ownPort), 'pass');
  asm.load(4, 1, FRAME, OUTER + 16);
  asm.op32('mov', 2, be32(ownAddress));
  asm.jumpIf('ne', 1, reg(2), 'pass');
  // Nobody has checked this header yet; the inner one will be by the kernel, as any that arrives.
  asm.op('mov', 1, 0);
  asm.op('mov', 2, 0);
  frameAddress(asm, 3, OUTER);
  asm.op('mov', 4, IPV4_MIN_HEADER);
  asm.op('mov', 5, 0);
  asm.call(CSUM_DIFF);
  asm.op32('mov', 0, reg(0));
  foldSum(asm, 0, 1);
  asm.jumpIf('ne', 0, 0xffff, 'pass');
}

/**
 * The inner packet's header behind the outer ones, which are in the frame with the first bytes of it. Goes to `label` when its version
 * is another one.
 */
export function loadInnerOf(asm: Assembler, family: Family, label: string, helper?: number): void {
  asm.load(1, 1, FRAME, INNER);
  asm.op('and', 1, 0xf0);
  asm.jumpIf('ne', 1, family.version, label);
  if (family.header === IPV4_MIN_HEADER) return;
  const at = ETHERNET_HEADER + IPV4_MIN_HEADER + UDP_HEADER + IPV4_MIN_HEADER;
  loadBytes(asm, at, INNER + IPV4_MIN_HEADER, IPV6_HEADER - IPV4_MIN_HEADER, helper);
}

/**
 * The sender's datagrams reach the forwarder's socket, as the agent knows, and the way back to it leads through the device that
 * they come from: a forged outer source is refused as by rp_filter=1, and our own address, which routing has no way to, too.
 * R8 = what is known of the sender.
 */
export function requireGrant(asm: Assembler, options: ProgramOptions): void {
  loadGrant(asm, options.maps, OUTER + 12, GRANT);
  endpointLookup(asm, options.maps, OUTER + 12);
  asm.load(8, 2, FRAME, KNOWN);
  asm.load(8, 1, FRAME, GRANT + ACCEPT_UNTIL);
  asm.jumpIf('le', 1, reg(2), 'pass');
  requireWayBack(asm, options, 'way-back-known');
}

/** In: R8 what is known of the sender. */
export function requireWayBack(asm: Assembler, options: ProgramOptions, label: string): void {
  asm.load(8, 0, FRAME, NOW);
  asm.load(8, 1, 8, WAY_BACK_UNTIL);
  asm.jumpIf('gt', 1, reg(0), label);
  for (let offset = 0; offset < FIB_BYTES; offset += 8) asm.store(8, FRAME, FIB + offset, 0);
  findWay(asm, options, { fib: FIB, address: OUTER + 12, flags: FIB_LOOKUP_SKIP_NEIGH });
  asm.load(8, 1, FRAME, NOW);
  asm.op('add', 1, WAY_BACK_NS);
  asm.store(8, 8, WAY_BACK_UNTIL, reg(1));
  asm.label(label);
}

/**
 * The outer identification is one of two numbers that the agent gave the sender, by the forwarder's socket. Only who has them
 * is believed that it is heard, that our super-packets arrive, or that one of its own has: whoever forges its address, or a
 * middlebox that writes identifications of its own, teaches us nothing. Nor does a datagram of a socket, which is taken only while
 * this host has no agent. Where super-packets cannot arrive in one piece, nothing is learned of that. In: R8 what is known of the sender.
 */
export function learnFromTag(asm: Assembler, { known }: Family, whole: 'may-be-whole' | 'never-whole'): void {
  asm.load(2, 1, FRAME, UDP + 6);
  asm.jumpIf('ne', 1, 0, 'learned');
  asm.load(8, 2, FRAME, NOW);
  asm.load(8, 1, 8, DISTRUST_UNTIL);
  asm.jumpIf('gt', 1, reg(2), 'learned');
  asm.load(2, 1, FRAME, OUTER + 4);
  asm.load(2, 3, FRAME, GRANT + EXPECT_TAG);
  asm.jumpIf('eq', 1, reg(3), 'tagged');
  asm.load(2, 4, FRAME, GRANT + EXPECT_TAG_WHOLE);
  asm.jumpIf('ne', 1, reg(4), 'untagged');
  asm.op('mov', 1, reg(2));
  asm.op('add', 1, WHOLE_HOLDS_NS);
  asm.store(8, 8, known.wholeUntil, reg(1));
  asm.store(8, 8, known.unansweredSince, 0);
  asm.store(8, 8, known.nextTrial, 0);
  asm.store(8, 8, known.trialPause, 0);
  asm.label('tagged');
  asm.store(8, 8, known.unheardSince, 0);
  if (whole === 'may-be-whole') learnFromArrival(asm, known);
  asm.jump('learned');

  asm.label('untagged');
  asm.toBig16(1);
  for (const tag of [3, 4] as const) {
    asm.toBig16(tag);
    asm.op('mov', 5, reg(1));
    asm.op('sub', 5, reg(tag));
    asm.op('and', 5, 0xffff);
    asm.jumpIf('lt', 5, SEGMENTS, 'learned');
  }
  asm.op('add', 2, DISTRUST_NS);
  asm.store(8, 8, DISTRUST_UNTIL, reg(2));
  asm.label('learned');
}

/** A router, which shows in the TTL, looks into what it forwards and would misread the long MAC header of `PREPEND`. */
function learnFromArrival(asm: Assembler, { arrivedAt }: Family['known']): void {
  asm.load(4, 1, CONTEXT, SKB_GSO_SIZE);
  asm.jumpIf('eq', 1, 0, 'learned');
  asm.load(1, 1, FRAME, OUTER + 8);
  asm.jumpIf('ne', 1, OUTER_TTL, 'learned');
  asm.store(8, 8, arrivedAt, reg(2));
}

/** In: R9 length of the frame, out: of the inner packet. Padding behind it, or several datagrams put together, are the forwarder's. */
export function requireLengths(asm: Assembler, family: Family): void {
  asm.op('sub', 9, ETHERNET_HEADER);
  requireLength(asm, OUTER + 2);
  asm.op('sub', 9, IPV4_MIN_HEADER);
  requireLength(asm, UDP + 4);
  asm.op('sub', 9, UDP_HEADER);
  family.requirePlain(asm, INNER);
  requireLength(asm, INNER + family.lengthAt, family.lengthLacks);
}

function requireLength(asm: Assembler, offset: number, lacks = 0): void {
  asm.load(2, 1, FRAME, offset);
  asm.toBig16(1);
  if (lacks !== 0) asm.op('add', 1, lacks);
  asm.jumpIf('ne', 1, reg(9), 'pass');
}

/** The inner source must be of a subnet whose host sent this: the strictest of what `--source-check` may ask for. */
export function requireSource(asm: Assembler, maps: FastPathMaps, family: Family): void {
  subnetLookup(asm, maps, family, KEY, INNER + family.sourceAt);
  asm.load(4, 1, 0, SUBNET_ENDPOINT);
  asm.load(4, 2, FRAME, OUTER + 12);
  asm.jumpIf('ne', 1, reg(2), 'pass');
  asm.load(4, 1, 0, SUBNET_SLOT);
  asm.store(8, FRAME, SLOT, reg(1));
}
