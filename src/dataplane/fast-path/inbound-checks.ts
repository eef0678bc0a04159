// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
/**
 * What a datagram of a peer must be, whichever program takes it from the device: before the kernel joins packets (XDP) or behind that
 * (tcx). The headers lie in the frame, at the same places in both programs.
 */
import { IP_FLAG_DF, IPV4_MIN_HEADER, PROTO_UDP, UDP_HEADER } from '../wire.ts';
import { type Assembler, reg } from './assembler.ts';
import {
  ACCEPT_UNTIL,
  ARRIVED_AT,
  DISTRUST_UNTIL,
  EXPECT_TAG,
  EXPECT_TAG_WHOLE,
  GRANT_VALUE_BYTES,
  NEXT_TRIAL,
  SUBNET_ENDPOINT,
  SUBNET_SLOT,
  TRIAL_PAUSE,
  UNANSWERED_SINCE,
  UNHEARD_SINCE,
  WAY_BACK_UNTIL,
  WHOLE_UNTIL,
} from './layout.ts';
import {
  be16,
  be32,
  type Clock,
  CONTEXT,
  CSUM_DIFF,
  ETHERNET_HEADER,
  endpointLookup,
  type FastPathMaps,
  FIB_BYTES,
  FIB_LOOKUP_SKIP_NEIGH,
  FRAME,
  findWay,
  foldSum,
  frameAddress,
  loadGrant,
  type Measured,
  MS,
  OUTER_TTL,
  type ProgramOptions,
  requirePlainIpv4,
  SKB_GSO_SIZE,
  subnetLookup,
} from './skb-program.ts';

// The frame, below R10.
export const OUTER = -48;
export const UDP = OUTER + IPV4_MIN_HEADER;
export const INNER = UDP + UDP_HEADER;
export const KEY = -56;
export const SLOT = -64;
export const MEASURED: Measured = { packets: -72, bytes: -80 };
export const NOW = -88;
export const KNOWN = -96;
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
export function learnFromTag(asm: Assembler, whole: 'may-be-whole' | 'never-whole'): void {
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
  asm.store(8, 8, WHOLE_UNTIL, reg(1));
  asm.store(8, 8, UNANSWERED_SINCE, 0);
  asm.store(8, 8, NEXT_TRIAL, 0);
  asm.store(8, 8, TRIAL_PAUSE, 0);
  asm.label('tagged');
  asm.store(8, 8, UNHEARD_SINCE, 0);
  if (whole === 'may-be-whole') learnFromArrival(asm);
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
function learnFromArrival(asm: Assembler): void {
  asm.load(4, 1, CONTEXT, SKB_GSO_SIZE);
  asm.jumpIf('eq', 1, 0, 'learned');
  asm.load(1, 1, FRAME, OUTER + 8);
  asm.jumpIf('ne', 1, OUTER_TTL, 'learned');
  asm.store(8, 8, ARRIVED_AT, reg(2));
}

/** In: R9 length of the frame, out: of the inner packet. Padding behind it, or several datagrams put together, are the forwarder's. */
export function requireLengths(asm: Assembler): void {
  asm.op('sub', 9, ETHERNET_HEADER);
  requireLength(asm, OUTER + 2);
  asm.op('sub', 9, IPV4_MIN_HEADER);
  requireLength(asm, UDP + 4);
  asm.op('sub', 9, UDP_HEADER);
  requirePlainIpv4(asm, INNER);
  requireLength(asm, INNER + 2);
}

function requireLength(asm: Assembler, offset: number): void {
  asm.load(2, 1, FRAME, offset);
  asm.toBig16(1);
  asm.jumpIf('ne', 1, reg(9), 'pass');
}

/** The inner source must be of a subnet whose host sent this: the strictest of what `--source-check` may ask for. */
export function requireSource(asm: Assembler, maps: FastPathMaps): void {
  subnetLookup(asm, maps, KEY, INNER + 12);
  asm.load(4, 1, 0, SUBNET_ENDPOINT);
  asm.load(4, 2, FRAME, OUTER + 12);
  asm.jumpIf('ne', 1, reg(2), 'pass');
  asm.load(4, 1, 0, SUBNET_SLOT);
  asm.store(8, FRAME, SLOT, reg(1));
}
