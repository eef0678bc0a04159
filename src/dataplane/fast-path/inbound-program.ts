// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
import { ENCAPSULATION_OVERHEAD, IP_FLAG_DF, IPV4_MIN_HEADER, PROTO_UDP, UDP_HEADER } from '../wire.ts';
import { Assembler, reg } from './assembler.ts';
import { answerSign } from './kernel-answer.ts';
import {
  ACCEPT_UNTIL,
  ARRIVED_AT,
  DISTRUST_UNTIL,
  EXPECT_TAG,
  EXPECT_TAG_WHOLE,
  GRANT_VALUE_BYTES,
  NEXT_TRIAL,
  RX_PACKETS,
  SUBNET_ENDPOINT,
  SUBNET_SLOT,
  TRIAL_PAUSE,
  UNANSWERED_SINCE,
  UNHEARD_SINCE,
  WAY_BACK_UNTIL,
  WHOLE_UNTIL,
} from './layout.ts';
import {
  ADJ_ROOM_FIXED_GSO,
  ADJ_ROOM_MAC,
  be16,
  be32,
  begin,
  type Clock,
  CONTEXT,
  CSUM_DIFF,
  count,
  decrementTtl,
  ETHERNET_HEADER,
  end,
  endpointLookup,
  type FastPathMaps,
  FIB_BYTES,
  FIB_LOOKUP_SKIP_NEIGH,
  FRAME,
  findWay,
  foldSum,
  frameAddress,
  jumpIfUnread,
  loadBytes,
  loadGrant,
  type Measured,
  MS,
  measurePacket,
  measureSuperPacket,
  OUTER_TTL,
  type ProgramOptions,
  REDIRECT,
  REDIRECT_INGRESS,
  readClock,
  requireBareAck,
  requireOwn,
  requirePlainIpv4,
  SKB_ADJUST_ROOM,
  SKB_GSO_SIZE,
  SKB_LENGTH,
  SKB_PACKET_TYPE,
  SKB_VLAN_PRESENT,
  storeBytes,
  subnetLookup,
} from './skb-program.ts';

/** Where the inner packet begins in what the device has received. */
const INNER_IN_PACKET = ETHERNET_HEADER + ENCAPSULATION_OVERHEAD;

// The frame, below R10.
const OUTER = -48;
const UDP = OUTER + IPV4_MIN_HEADER;
const INNER = UDP + UDP_HEADER;
const KEY = -56;
const SLOT = -64;
const MEASURED: Measured = { packets: -72, bytes: -80 };
const NOW = -88;
const KNOWN = -96;
const CLOCK: Clock = { now: NOW, known: KNOWN };
const GRANT = KNOWN - GRANT_VALUE_BYTES;
const FIB = GRANT - FIB_BYTES;
/** A word that is not 0 when nobody reads the socket. */
const UNREAD = FIB - 8;

/** That our super-packets arrive holds for that long after the peer said so: a pause in a conversation does not end it. */
const WHOLE_HOLDS_NS = 2_000 * MS;
/** A wrong tag comes from somebody who guesses: nothing is learned for so long that there are too many to guess. */
const DISTRUST_NS = 100 * MS;
/** How far a super-packet that is cut counts on from its tag, at most. */
const SEGMENTS = 128;
/** How often routing is asked about the way back to a peer. */
const WAY_BACK_NS = 100 * MS;
/** `PACKET_HOST` (linux/if_packet.h): for this host's MAC address. */
const PACKET_HOST = 0;

/**
 * For what the underlay's device receives (tcx ingress): takes the outer headers off datagrams that a peer's fast path sent, and
 * hands the inner packet to the TUN device's receiving side. They are known by having no UDP checksum, which a socket's datagrams
 * always have: those are the forwarder's, so that packets of one flow do not part here.
 *
 * It takes nothing that the host and the forwarder would not: from peers whose datagrams the forwarder's socket receives, so
 * netfilter and the like have their say; for this host, from where the way back leads; with a source that is the
 * peer's, and for a container of this host.
 *
 * While nobody reads the socket, because this host has no agent, what is plain is taken here though a socket sent it, and the peers'
 * questions are answered (kernel-answer.ts).
 *
 * Peers of a host that cuts super-packets itself mostly do as well: their data come in datagrams that the kernel joins for the
 * forwarder, and what comes alone and is taken here is bare acknowledgements.
 */
export function inboundProgram(options: ProgramOptions): Uint8Array {
  const { maps, tunIndex, segmentation, destinationCheck } = options;
  const asm = new Assembler();
  begin(asm);
  asm.load(4, 1, CONTEXT, SKB_VLAN_PRESENT);
  asm.jumpIf('ne', 1, 0, 'pass');
  asm.load(4, 1, CONTEXT, SKB_PACKET_TYPE);
  asm.jumpIf('ne', 1, PACKET_HOST, 'pass');
  loadBytes(asm, ETHERNET_HEADER, OUTER, ENCAPSULATION_OVERHEAD + IPV4_MIN_HEADER);
  requireOuterHeaders(asm, options);
  readClock(asm, maps, CLOCK, KEY);
  divideByReader(asm, options);
  requireLengths(asm);
  requireSource(asm, maps);
  if (destinationCheck !== 'off') requireOwn(asm, maps, KEY, INNER + 16);
  if (segmentation === 'host') {
    asm.load(8, 1, FRAME, UNREAD);
    asm.jumpIf('ne', 1, 0, 'whatever-it-is');
    requireBareAck(asm, INNER, INNER_IN_PACKET + IPV4_MIN_HEADER, KEY);
    asm.label('whatever-it-is');
  }
  requireGrant(asm, options);
  measurePacket(asm, MEASURED);
  if (segmentation === 'beyond') {
    measureIfSuperPacket(asm);
    learnFromTag(asm);
  }
  asm.op('mov', 1, reg(CONTEXT));
  asm.op('mov', 2, -ENCAPSULATION_OVERHEAD);
  asm.op('mov', 3, ADJ_ROOM_MAC);
  asm.op('mov', 4, ADJ_ROOM_FIXED_GSO);
  asm.call(SKB_ADJUST_ROOM);
  asm.jumpIf('ne', 0, 0, 'pass');
  decrementTtl(asm, INNER);
  storeBytes(asm, ETHERNET_HEADER + 8, INNER + 8, 4);
  count(asm, maps, SLOT, RX_PACKETS, MEASURED);
  asm.op('mov', 1, tunIndex);
  asm.op('mov', 2, REDIRECT_INGRESS);
  asm.call(REDIRECT);
  asm.exit();
  end(asm);
  return asm.assemble();
}

/**
 * A datagram with a checksum was sent by a socket, or is to be joined with others: it is for this host's socket, and passes, unless
 * nobody reads that.
 */
function divideByReader(asm: Assembler, options: ProgramOptions): void {
  asm.store(8, FRAME, UNREAD, 0);
  if (options.segmentation === 'beyond') {
    asm.load(2, 1, FRAME, UDP + 6);
    asm.jumpIf('eq', 1, 0, 'candidate');
    jumpIfUnread(asm, CLOCK, OUTER, FIB, 'unread');
    noteWayBack(asm, options);
  } else {
    jumpIfUnread(asm, CLOCK, OUTER, FIB, 'unread');
    asm.load(2, 1, FRAME, UDP + 6);
    asm.jumpIf('eq', 1, 0, 'candidate');
  }
  asm.jump('pass');
  asm.label('unread');
  asm.store(8, FRAME, UNREAD, 1);
  answerSign(asm, options, { clock: CLOCK, outer: OUTER, udp: UDP, inner: INNER, grant: GRANT, fib: FIB, end: UNREAD });
  asm.label('candidate');
}

function requireOuterHeaders(asm: Assembler, { ownAddress, ownPort }: ProgramOptions): void {
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
function requireGrant(asm: Assembler, options: ProgramOptions): void {
  loadGrant(asm, options.maps, OUTER + 12, GRANT);
  endpointLookup(asm, options.maps, OUTER + 12);
  asm.load(8, 2, FRAME, KNOWN);
  asm.load(8, 1, FRAME, GRANT + ACCEPT_UNTIL);
  asm.jumpIf('le', 1, reg(2), 'pass');
  requireWayBack(asm, options, 'way-back-known');
}

/** In: R8 what is known of the sender. */
function requireWayBack(asm: Assembler, options: ProgramOptions, label: string): void {
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
 * Of a peer's datagram to the socket, as its questions are: the agent must not invite packets that are then left because the way
 * back to their sender leads elsewhere, for the forwarder cannot finish their checksums.
 */
function noteWayBack(asm: Assembler, options: ProgramOptions): void {
  endpointLookup(asm, options.maps, OUTER + 12);
  requireWayBack(asm, options, 'way-back-noted');
}

function measureIfSuperPacket(asm: Assembler): void {
  asm.load(4, 1, CONTEXT, SKB_GSO_SIZE);
  asm.jumpIf('eq', 1, 0, 'single');
  measureSuperPacket(asm, MEASURED, INNER, INNER_IN_PACKET + IPV4_MIN_HEADER, KEY);
  asm.label('single');
}

/**
 * The outer identification is one of two numbers that the agent gave the sender, by the forwarder's socket. Only who has them
 * is believed that it is heard, that our super-packets arrive, or that one of its own has: whoever forges its address, or a
 * middlebox that writes identifications of its own, teaches us nothing. Nor does a datagram of a socket, which is taken only while
 * this host has no agent. In: R8 what is known of the sender.
 */
function learnFromTag(asm: Assembler): void {
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
  learnFromArrival(asm);
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

/** R9 = length of the inner packet. Padding behind it, or several datagrams put together, are the forwarder's. */
function requireLengths(asm: Assembler): void {
  asm.load(4, 9, CONTEXT, SKB_LENGTH);
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
function requireSource(asm: Assembler, maps: FastPathMaps): void {
  subnetLookup(asm, maps, KEY, INNER + 12);
  asm.load(4, 1, 0, SUBNET_ENDPOINT);
  asm.load(4, 2, FRAME, OUTER + 12);
  asm.jumpIf('ne', 1, reg(2), 'pass');
  asm.load(4, 1, 0, SUBNET_SLOT);
  asm.store(8, FRAME, SLOT, reg(1));
}
