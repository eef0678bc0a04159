// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
import { IPV6_HEADER, MAX_UDP_PAYLOAD, PROTO_TCP, PROTO_UDP, UDP_HEADER } from '../wire.ts';
import { Assembler, reg } from './assembler.ts';
import type { Family, FastPathMaps } from './family.ts';
import { jumpIfForwarderIsGone, type Recipient } from './forwarder-socket.ts';
import { addToSum, be16, FRAME, foldSum, frameAddress } from './frame-words.ts';
import {
  GRANT_VALUE_BYTES,
  LONG_WAY_UNTIL,
  NEXT_ASK,
  SEND_TAG,
  SEND_TAG_WHOLE,
  SUBNET_ENDPOINT,
  TAG_CUT_ARRIVED,
  TAG_SUPER,
  TAKES_CUT_UNTIL,
  TX_PACKETS,
} from './layout.ts';
import { addressWords, familiesOf, mustBeMarked, type Outer, outerOf } from './outer.ts';
import {
  count,
  jumpIfNoPayload,
  type Measured,
  measurePacket,
  measureSuperPacket,
  requireBareAck,
} from './packet-size.ts';
import {
  ADJ_ROOM_ENCAP_L4_UDP,
  ADJ_ROOM_FIXED_GSO,
  ADJ_ROOM_MAC,
  type Clock,
  CONTEXT,
  ETHERNET_HEADER,
  end,
  endpointLookup,
  jumpIfLongWayEmpty,
  jumpIfUnattended,
  LONG_WAY_NS,
  LONGEST_KEY_BYTES,
  loadBytes,
  loadGrant,
  MAP_UPDATE,
  MS,
  type ProgramOptions,
  REDIRECT,
  readClock,
  requireEtherType,
  requireOwn,
  SECOND_NS,
  SKB_ADJUST_ROOM,
  SKB_CHANGE_HEAD,
  SKB_GSO_SIZE,
  SKB_LENGTH,
  SKB_WIRE_LENGTH,
  storeBytes,
  subnetLookup,
} from './skb-program.ts';
import {
  FIB_BYTES,
  FIB_DESTINATION_MAC,
  FIB_NO_NEIGHBOUR,
  FIB_SOURCE_MAC,
  findWay,
  sendToNeighbour,
} from './underlay-way.ts';

// The frame, below R10.
/** The first bytes of the inner header, and before them UDP, outer IP and Ethernet: as much as those of IPv6 take. */
const INNER_START = -16;
const UDP = INNER_START - UDP_HEADER;
const HEADERS = -80;
const outerAt = ({ family }: Outer): number => UDP - family.header;
/** The inner IP header as it came. */
const IP: number = HEADERS - IPV6_HEADER;
const KEY: number = IP - LONGEST_KEY_BYTES;
/** Copy of the subnet's value. */
const SUBNET: number = KEY - 24;
const FIB: number = SUBNET - FIB_BYTES;
const MEASURED: Measured = { packets: FIB - 8, bytes: FIB - 16 };
/** How headers are put in front; see `grow`. */
const METHOD: number = FIB - 24;
/** Of the longest inner packet that this one becomes. */
const LONGEST: number = FIB - 32;
/** What the outer header shall say its payload is, and its tag (big endian). */
const INNER_LENGTH: number = FIB - 40;
const TAG: number = FIB - 48;
const NEXT_HOP: number = FIB - 72;
const GRANT = NEXT_HOP - GRANT_VALUE_BYTES;
const NOW = GRANT - 8;
const KNOWN = NOW - 8;
const CLOCK: Clock = { now: NOW, known: KNOWN };
/** What lies below is written before it is read, on every way. */
const FRAME_START = NOW;
/** Not 0 for what is cut on the way. */
const IS_CUT = KNOWN - 8;
const TUPLE = IS_CUT - 40;

const ENCAPSULATE = 0;
const PREPEND = 1;

const LONGEST_PAUSE_SECONDS = 600;
/** How soon TCP sends again what is not acknowledged (TCP_RTO_MIN): by then it must be able to go another way. */
const UNANSWERED_NS = 200 * MS;
/** A super-packet that arrived is said to have arrived for that long: a delayed acknowledgement has it still. */
const ARRIVED_NS = 100 * MS;

/**
 * For packets that leave by the TUN device: puts an Ethernet, an IP and a UDP header in front of those the forwarder would
 * send unchanged but for the TTL, and sends them out of the underlay's device. Runs where the device would queue them for the
 * forwarder (tcx egress).
 */
export function outboundProgram(options: ProgramOptions): Uint8Array {
  const asm = new Assembler();
  asm.op('mov', CONTEXT, reg(1));
  for (const family of familiesOf(options)) {
    const other = `not-${family.name}`;
    asm.within(family.name, () => carry(asm, options, family, other));
    asm.label(other);
  }
  end(asm);
  return asm.assemble();
}

/** Packets of that family; goes to `other` with any other. */
function carry(asm: Assembler, options: ProgramOptions, family: Family, other: string): void {
  requireEtherType(asm, family.etherType, other);
  // The verifier wants every byte written that a merged path may read.
  for (let offset = FRAME_START; offset < HEADERS; offset += 8) asm.store(8, FRAME, offset, 0);
  loadBytes(asm, 0, IP, family.header);
  family.requirePlain(asm, IP);
  asm.load(4, 9, CONTEXT, SKB_LENGTH);
  asm.load(2, 1, FRAME, IP + family.lengthAt);
  asm.toBig16(1);
  if (family.lengthLacks !== 0) asm.op('add', 1, family.lengthLacks);
  asm.jumpIf('ne', 1, reg(9), 'pass');
  asm.jumpIf('gt', 9, MAX_UDP_PAYLOAD, 'pass');
  // A peer's program takes from us what is of our subnet, and what it leaves to its forwarder must be complete: that a device may
  // still finish the checksum is not known there any more.
  if (options.segmentation === 'beyond') requireOwn(asm, options.maps, family, KEY, IP + family.sourceAt);
  const outer = outerOf(options);
  findPeer(asm, options.maps, outer, family);
  measure(asm, options.segmentation, family);
  requireFit(asm, outer);
  endpointLookup(asm, options.maps, SUBNET + SUBNET_ENDPOINT);
  readClock(asm, options.maps, CLOCK, KEY);
  askInTime(asm, options.maps, outer);
  requireGrant(asm, options.maps, family);
  // What this host cuts leaves in plain datagrams, which any peer can receive.
  if (options.segmentation === 'beyond') decideByWhatIsKnown(asm, options, family);
  asm.label('accepted');
  findWay(asm, options, {
    fib: FIB,
    ...recipientOf(options),
    length: LONGEST,
    flags: 0,
    otherwise: () => requireResolvable(asm, options, family),
  });
  if (mustBeMarked(outer, family)) markSingle(asm);
  grow(asm, outer);
  writeHeaders(asm, options, family);
  storeBytes(asm, 0, outerAt(outer) - ETHERNET_HEADER, ETHERNET_HEADER + outer.overhead + family.rewritten);
  count(asm, options.maps, SUBNET + outer.layout.subnetSlot, TX_PACKETS, MEASURED);
  send(asm, options, family);
}

/**
 * The kernel still takes a packet of IPv6 for one after `PREPEND`: rules for what leaves the underlay's device would not see the IPv4 that
 * it is then, and neighbour entries of IPv4 would not take it. The tunnel's mark changes that. A super-packet cannot do without
 * `PREPEND` where it is to be cut into datagrams that the receiver can join, or its receiver is not to cut it.
 */
function markSingle(asm: Assembler): void {
  asm.jumpIf('ne', 7, 0, 'not-single');
  asm.store(8, FRAME, METHOD, ENCAPSULATE);
  asm.label('not-single');
}

/**
 * Through the neighbour entry; but that takes a packet for what its outer headers say, which a super-packet that this host cuts is
 * not, nor one of IPv6 in IPv4 with `PREPEND`. Then a socket's packets keep the entry true, and while there is no socket, single packets.
 */
function send(asm: Assembler, options: ProgramOptions, family: Family): void {
  const isMarked = mustBeMarked(outerOf(options), family);
  if (options.segmentation === 'host' || isMarked) {
    asm.jumpIf('ne', 7, 0, 'send-as-it-is');
    if (isMarked) asm.jump('send-to-neighbour');
    else jumpIfUnattended(asm, CLOCK, 'send-to-neighbour');
    asm.label('send-as-it-is');
    asm.op('mov', 1, options.underlayIndex);
    asm.op('mov', 2, 0);
    asm.call(REDIRECT);
    asm.exit();
    asm.label('send-to-neighbour');
  }
  sendToNeighbour(asm, options, FIB, NEXT_HOP);
}

/**
 * A socket's packets make the kernel ask for a MAC address that it does not know, so this one goes by the forwarder; but while nobody is
 * there to take that way, by the neighbour entry, if it can. In: R0 what routing says, R7 size of segments.
 */
function requireResolvable(asm: Assembler, options: ProgramOptions, family: Family): void {
  asm.jumpIf('ne', 0, FIB_NO_NEIGHBOUR, 'pass');
  if (options.segmentation === 'host' || mustBeMarked(outerOf(options), family)) asm.jumpIf('ne', 7, 0, 'pass');
  jumpIfForwarderIsGone(asm, options, CLOCK, recipientOf(options), TUPLE, 'way-without-address');
  asm.jump('pass');
  asm.label('way-without-address');
  // The agent's last word may hold yet, and `send` would believe it.
  asm.store(8, FRAME, KNOWN, 0);
}

const recipientOf = (options: ProgramOptions): Recipient => ({
  address: SUBNET + SUBNET_ENDPOINT,
  port: SUBNET + outerOf(options).layout.subnetPort,
});

function findPeer(asm: Assembler, maps: FastPathMaps, { layout }: Outer, family: Family): void {
  subnetLookup(asm, maps, family, KEY, IP + family.destinationAt);
  for (let offset = 0; offset < layout.subnetValueBytes; offset += 4) {
    asm.load(4, 1, 0, offset);
    asm.store(4, FRAME, SUBNET + offset, reg(1));
  }
}

/** R7 = size of segments, 0 when this is one packet. */
function measure(asm: Assembler, segmentation: ProgramOptions['segmentation'], family: Family): void {
  measurePacket(asm, MEASURED);
  asm.store(8, FRAME, LONGEST, reg(9));
  asm.store(8, FRAME, INNER_LENGTH, reg(9));
  asm.store(8, FRAME, METHOD, PREPEND);
  asm.load(4, 7, CONTEXT, SKB_GSO_SIZE);
  asm.jumpIf('eq', 7, 0, 'measured');
  measureSuperPacket(asm, family, MEASURED, IP, family.header, KEY);
  if (segmentation === 'host') {
    // Segments of one length can have one outer header, whose length is theirs; else the kernel must write one for each.
    asm.op('mov', 2, reg(9));
    asm.op('sub', 2, reg(1));
    asm.op('mov', 3, reg(2));
    asm.op('mod', 3, reg(7));
    asm.jumpIf('eq', 3, 0, 'equal-segments');
    asm.store(8, FRAME, METHOD, ENCAPSULATE);
    asm.jump('headers-known');
    asm.label('equal-segments');
    requireNoInnerHeaders(asm, family);
    asm.label('headers-known');
  }
  asm.op('add', 1, reg(7));
  asm.jumpIf('ge', 1, reg(9), 'measured');
  asm.store(8, FRAME, LONGEST, reg(1));
  if (segmentation === 'host') {
    asm.load(8, 2, FRAME, METHOD);
    asm.jumpIf('eq', 2, ENCAPSULATE, 'measured');
    asm.store(8, FRAME, INNER_LENGTH, reg(1));
  }
  asm.label('measured');
}

/**
 * A tunnel of a container's own (VXLAN) sends super-packets of UDP as well, but they are cut behind the headers inside, so that segments are
 * longer than they seem here. The length that the kernel counts for the wire has the headers of each segment (qdisc_pkt_len_init), which
 * must be those of IP and UDP alone. What the kernel is told to encapsulate it refuses if it is encapsulated already.
 * In: R1 length of those headers, R2 of what follows them, R7 size of segments, R9 length of the packet. R2 and R3 are lost.
 */
function requireNoInnerHeaders(asm: Assembler, family: Family): void {
  asm.load(1, 3, FRAME, IP + family.protocolAt);
  asm.jumpIf('ne', 3, PROTO_UDP, 'headers-known');
  asm.op('sub', 2, reg(7));
  asm.op('mul', 2, reg(1));
  asm.load(4, 3, CONTEXT, SKB_WIRE_LENGTH);
  asm.op('sub', 3, reg(9));
  asm.op('mul', 3, reg(7));
  asm.jumpIf('ne', 3, reg(2), 'pass');
}

/** Longer than the agent's packets may be: the forwarder fragments it, or tells the sender. */
function requireFit(asm: Assembler, { layout }: Outer): void {
  asm.load(8, 1, FRAME, LONGEST);
  asm.load(2, 2, FRAME, SUBNET + layout.subnetMtu);
  asm.jumpIf('gt', 1, reg(2), 'pass');
}

/** The agent renews what it grants only for peers that are sent to. In: R8 what is known of the peer's host. */
function askInTime(asm: Assembler, maps: FastPathMaps, { layout }: Outer): void {
  asm.load(8, 1, 8, NEXT_ASK);
  asm.load(8, 2, FRAME, NOW);
  asm.jumpIf('gt', 1, reg(2), 'asked');
  asm.op('add', 2, SECOND_NS);
  asm.store(8, 8, NEXT_ASK, reg(2));
  for (let word = 0; word < layout.addressBytes; word += 4) {
    asm.load(4, 1, FRAME, SUBNET + SUBNET_ENDPOINT + word);
    asm.store(4, FRAME, KEY + word, reg(1));
  }
  asm.loadMap(1, maps.awaiting);
  frameAddress(asm, 2, KEY);
  frameAddress(asm, 3, KEY);
  asm.op('mov', 4, 0);
  asm.call(MAP_UPDATE);
  asm.label('asked');
}

/** What the host's rules keep from the forwarder's socket must not go round them: the agent knows what passes. R0 = the time. */
function requireGrant(asm: Assembler, maps: FastPathMaps, { grant }: Family): void {
  loadGrant(asm, maps, SUBNET + SUBNET_ENDPOINT, GRANT);
  asm.load(8, 0, FRAME, NOW);
  asm.load(8, 2, FRAME, KNOWN);
  asm.load(8, 1, FRAME, GRANT + grant.sendUntil);
  asm.jumpIf('le', 1, reg(2), 'pass');
}

/** The tag that the peer wants to see. In: R0 the time, R8 what is known of the peer's host. */
function chooseTag(asm: Assembler, { known }: Family): void {
  asm.load(2, 1, FRAME, GRANT + SEND_TAG);
  asm.op('mov', 2, reg(0));
  asm.load(8, 3, 8, known.arrivedAt);
  asm.op('sub', 2, reg(3));
  asm.jumpIf('gt', 2, ARRIVED_NS, 'not-arrived-whole');
  asm.load(2, 1, FRAME, GRANT + SEND_TAG_WHOLE);
  asm.jump('tag-chosen');
  asm.label('not-arrived-whole');
  tellOfCut(asm, known, 0);
  asm.label('tag-chosen');
  asm.store(8, FRAME, TAG, reg(1));
}

/** R1 + `count`, and whether what the peer sent has arrived cut, as be16. In: R0 the time, R8 what is known of the peer's host. */
function tellOfCut(asm: Assembler, known: Family['known'], count: number): void {
  const told = `told-${count}`;
  asm.toBig16(1);
  asm.op('add', 1, count);
  asm.op('mov', 2, reg(0));
  asm.load(8, 3, 8, known.cutArrivedAt);
  asm.op('sub', 2, reg(3));
  asm.jumpIf('gt', 2, ARRIVED_NS, told);
  asm.op('add', 1, TAG_CUT_ARRIVED);
  asm.label(told);
  asm.op('and', 1, 0xffff);
  asm.toBig16(1);
}

/**
 * When a peer's fast path is not heard any more while TCP sends to it, or does not say any more that super-packets arrive, TCP must
 * be able to send again by the forwarder. To see that needs no clock but TCP's own. In: R0 the time, R8 what is known of the peer's
 * host. R0 is lost.
 */
function requireAnswers(asm: Assembler, family: Family): void {
  asm.load(1, 1, FRAME, IP + family.protocolAt);
  asm.jumpIf('ne', 1, PROTO_TCP, 'answered');
  asm.jumpIf('ne', 7, 0, 'data');
  jumpIfNoPayload(asm, family, family.header, KEY, 'answered');
  asm.label('data');
  sinceWhen(asm, family.known.unheardSince);
  asm.jumpIf('eq', 7, 0, 'answered');
  asm.load(8, 1, FRAME, METHOD);
  asm.jumpIf('eq', 1, PREPEND, 'to-be-answered');
  asm.load(8, 1, FRAME, IS_CUT);
  asm.jumpIf('eq', 1, 0, 'answered');
  asm.label('to-be-answered');
  sinceWhen(asm, family.known.unansweredSince);
  asm.label('answered');
}

/** Notes the time when none is noted; goes to `unanswered` when that is longer ago than TCP waits. It may lie ahead: see `hears` of FastPathTables. */
function sinceWhen(asm: Assembler, field: number): void {
  const [waiting, done] = [`waiting-${field}`, `done-${field}`];
  asm.load(8, 2, FRAME, NOW);
  asm.load(8, 1, 8, field);
  asm.jumpIf('ne', 1, 0, waiting);
  asm.store(8, 8, field, reg(2));
  asm.jump(done);
  asm.label(waiting);
  asm.op('add', 1, UNANSWERED_NS);
  asm.jumpIf('gt', 2, reg(1), 'unanswered');
  asm.label(done);
}

/**
 * Whole super-packets are sent only to a peer that said they arrive whole; one goes out now and then to see whether they do.
 * Single packets, whose checksums are still the device's to finish, are sent to any peer that has a fast path; but where
 * super-packets are cut, and one may still be on its way through the forwarder, bare acknowledgements alone: data that overtake each
 * other cost TCP more than a copy. Where those arrive that are cut, all are sent, behind what went the long way. While nobody is there to
 * take the way through the forwarder, all go by the tunnel's mark, which is right everywhere. In: R0 the time, R8 what is known of the peer's host.
 */
function decideByWhatIsKnown(asm: Assembler, options: ProgramOptions, family: Family): void {
  const { known, grant } = family;
  asm.store(8, FRAME, IS_CUT, 0);
  chooseTag(asm, family);
  asm.load(8, 2, FRAME, KNOWN);
  asm.load(8, 1, 8, known.wholeUntil);
  asm.jumpIf('gt', 1, reg(2), 'whole');
  asm.load(8, 1, FRAME, GRANT + grant.wholeUntil);
  asm.jumpIf('le', 1, reg(2), 'not-whole');
  asm.label('whole');
  asm.store(8, 8, known.nextTrial, 0);
  asm.store(8, 8, known.trialPause, 0);
  asm.jump('known');
  asm.label('not-whole');
  asm.store(8, FRAME, METHOD, ENCAPSULATE);
  jumpIfUnattended(asm, CLOCK, 'accepted');
  takeCut(asm, family);
  asm.jumpIf('ne', 7, 0, 'super-packet');
  asm.label('behind-others');
  jumpIfLongWayEmpty(asm, CLOCK, 'known');
  requireBareAck(asm, family, IP, family.header, KEY, 'long-way');
  asm.jump('known');

  asm.label('super-packet');
  asm.op('mov', 2, reg(0));
  asm.op('add', 2, LONG_WAY_NS);
  asm.store(8, 8, LONG_WAY_UNTIL, reg(2));
  // UDP's would be lost for good where this goes wrong.
  asm.load(1, 2, FRAME, IP + family.protocolAt);
  asm.jumpIf('ne', 2, PROTO_TCP, 'long-way');
  asm.load(8, 2, 8, known.nextTrial);
  asm.jumpIf('gt', 2, reg(0), 'long-way');
  asm.load(8, 1, 8, known.trialPause);
  asm.op('shl', 1, 1);
  asm.jumpIf('ne', 1, 0, 'tried-before');
  asm.op('mov', 1, 1);
  asm.label('tried-before');
  asm.jumpIf('le', 1, LONGEST_PAUSE_SECONDS, 'pause');
  asm.op('mov', 1, LONGEST_PAUSE_SECONDS);
  asm.label('pause');
  asm.store(8, 8, known.trialPause, reg(1));
  asm.op('mul', 1, SECOND_NS);
  asm.op('add', 0, reg(1));
  asm.store(8, 8, known.nextTrial, reg(0));
  asm.label('known');
  requireAnswers(asm, family);
  asm.jump('accepted');
  asm.label('unanswered');
  asm.store(8, FRAME, METHOD, ENCAPSULATE);
  asm.store(8, 8, known.cutUntil, 0);
  asm.label('long-way');
  jumpIfForwarderIsGone(asm, options, CLOCK, recipientOf(options), TUPLE, 'accepted');
  asm.jump('pass');
}

/**
 * To a peer that takes what is cut super-packets go with a tag that it knows them by, also the one that is sent to see whether they
 * arrive. Goes to `behind-others` when they do: then nothing needs the forwarder. In: R0 the time, R8 what is known of the peer's host.
 */
function takeCut(asm: Assembler, { known }: Family): void {
  asm.load(8, 2, FRAME, KNOWN);
  asm.load(8, 1, FRAME, GRANT + TAKES_CUT_UNTIL);
  asm.jumpIf('le', 1, reg(2), 'not-cut');
  asm.jumpIf('eq', 7, 0, 'tag-told');
  asm.load(2, 1, FRAME, GRANT + SEND_TAG);
  tellOfCut(asm, known, TAG_SUPER);
  asm.store(8, FRAME, TAG, reg(1));
  asm.label('tag-told');
  asm.load(8, 2, FRAME, KNOWN);
  asm.load(8, 1, 8, known.cutUntil);
  asm.jumpIf('le', 1, reg(2), 'not-cut');
  asm.store(8, FRAME, IS_CUT, 1);
  asm.jump('behind-others');
  asm.label('not-cut');
}

/**
 * Room for the headers. `ENCAPSULATE` tells the kernel that this is a UDP tunnel, so that it, or a device, cuts a super-packet as
 * one: right everywhere, but the receiver cannot take that mark off again (Linux ≤ 7.0), and its bridge then cuts the
 * super-packet. `PREPEND` gives the packet a long MAC header: nobody looks into it, and all segments get the same one.
 */
function grow(asm: Assembler, { overhead, encapsulated }: Outer): void {
  asm.load(8, 1, FRAME, METHOD);
  asm.jumpIf('eq', 1, PREPEND, 'prepend');
  asm.op('mov', 1, reg(CONTEXT));
  asm.op('mov', 2, overhead);
  asm.op('mov', 3, ADJ_ROOM_MAC);
  asm.op('mov', 4, ADJ_ROOM_FIXED_GSO | encapsulated | ADJ_ROOM_ENCAP_L4_UDP);
  asm.call(SKB_ADJUST_ROOM);
  asm.jumpIf('ne', 0, 0, 'pass');
  changeHead(asm, ETHERNET_HEADER, 'drop');
  asm.jump('grown');
  asm.label('prepend');
  changeHead(asm, ETHERNET_HEADER + overhead, 'pass');
  asm.label('grown');
}

function changeHead(asm: Assembler, bytes: number, otherwise: string): void {
  asm.op('mov', 1, reg(CONTEXT));
  asm.op('mov', 2, bytes);
  asm.op('mov', 3, 0);
  asm.call(SKB_CHANGE_HEAD);
  asm.jumpIf('ne', 0, 0, otherwise);
}

function writeHeaders(asm: Assembler, options: ProgramOptions, family: Family): void {
  const { ownAddress, ownPort, segmentation } = options;
  const outer = outerOf(options);
  const at = outerAt(outer);
  const ethernet = at - ETHERNET_HEADER;
  for (let offset = 0; offset < 6; offset += 2) {
    asm.load(2, 1, FRAME, FIB + FIB_DESTINATION_MAC + offset);
    asm.store(2, FRAME, ethernet + offset, reg(1));
    asm.load(2, 1, FRAME, FIB + FIB_SOURCE_MAC + offset);
    asm.store(2, FRAME, ethernet + 6 + offset, reg(1));
  }
  asm.store(2, FRAME, ethernet + 12, outer.family.etherType);

  asm.load(8, 9, FRAME, INNER_LENGTH);
  outer.write(asm, at, TAG);
  const { sourceAt, destinationAt, addressBytes } = outer.family;
  for (const [index, word] of addressWords(ownAddress).entries()) {
    asm.store(4, FRAME, at + sourceAt + 4 * index, word);
  }
  for (let word = 0; word < addressBytes; word += 4) {
    asm.load(4, 1, FRAME, SUBNET + SUBNET_ENDPOINT + word);
    asm.store(4, FRAME, at + destinationAt + word, reg(1));
  }
  outer.finish(asm, at);

  asm.store(2, FRAME, UDP, be16(ownPort));
  asm.load(2, 1, FRAME, SUBNET + outer.layout.subnetPort);
  asm.store(2, FRAME, UDP + 2, reg(1));
  asm.op('mov', 1, reg(9));
  asm.op('add', 1, UDP_HEADER);
  asm.toBig16(1);
  asm.store(2, FRAME, UDP + 4, reg(1));
  // "None" (RFC 768, and RFC 6935 for tunnels over IPv6): the inner packet has its own. By it the peer's kernel knows what came by a fast path.
  asm.store(2, FRAME, UDP + 6, 0);
  family.takeHop(asm, IP);
  if (segmentation === 'host') checksumOfSegments(asm, outer, family);

  for (let offset = 0; offset < family.rewritten; offset += 4) {
    asm.load(4, 1, FRAME, IP + offset);
    asm.store(4, FRAME, INNER_START + offset, reg(1));
  }
}

/**
 * A UDP checksum for segments of one length, so that the receiver can put them together again (UDP GRO wants one). No payload
 * is looked at: an IPv4 header with its checksum sums up to 0, and a TCP or UDP segment with its checksum to the complement of its
 * pseudo header, whatever it carries (Documentation/networking/checksum-offloads.rst: local checksum offload).
 */
function checksumOfSegments(asm: Assembler, outer: Outer, family: Family): void {
  asm.jumpIf('eq', 7, 0, 'no-checksum');
  asm.load(8, 1, FRAME, METHOD);
  asm.jumpIf('eq', 1, ENCAPSULATE, 'no-checksum');
  family.sumOfComplete(asm, IP);
  asm.op('add', 3, be16(PROTO_UDP));
  const { sourceAt, addressBytes } = outer.family;
  for (let word = 0; word < 2 * addressBytes; word += 4) addToSum(asm, outerAt(outer) + sourceAt + word, 4);
  addToSum(asm, UDP, 4);
  addToSum(asm, UDP + 4, 2);
  addToSum(asm, UDP + 4, 2);
  foldSum(asm, 3, 1);
  asm.op('xor', 3, 0xffff);
  asm.jumpIf('ne', 3, 0, 'checksum');
  asm.op('mov', 3, 0xffff);
  asm.label('checksum');
  asm.store(2, FRAME, UDP + 6, reg(3));
  asm.label('no-checksum');
}
