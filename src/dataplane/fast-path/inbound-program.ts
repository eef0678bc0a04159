// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
import { Assembler, reg } from './assembler.ts';
import { type Family, IPV4 } from './family.ts';
import { jumpIfUnread } from './forwarder-socket.ts';
import { FRAME } from './frame-words.ts';
import {
  CLOCK,
  FIB,
  GRANT,
  INNER,
  KEY,
  learnFromTag,
  loadHeaders,
  loadInnerOf,
  MEASURED,
  outerAt,
  outerSource,
  requireGrant,
  requireLengths,
  requireOuterHeaders,
  requireSource,
  requireWayBack,
  SLOT,
  UDP,
  UNREAD,
} from './inbound-checks.ts';
import { answerSign, jumpIfSign } from './kernel-answer.ts';
import { LONG_WAY_UNTIL, RX_PACKETS, XDP_MARK, XDP_MARK_BYTES } from './layout.ts';
import { familiesOf, mustBeMarked, type Outer, outerOf } from './outer.ts';
import { count, measurePacket, measureSuperPacket, requireBareAck } from './packet-size.ts';
import {
  ADJ_ROOM_FIXED_GSO,
  ADJ_ROOM_MAC,
  CONTEXT,
  ETHERNET_HEADER,
  end,
  endpointLookup,
  jumpIfLongWayEmpty,
  LONG_WAY_NS,
  MS,
  type ProgramOptions,
  REDIRECT,
  REDIRECT_INGRESS,
  readClock,
  requireEtherType,
  requireOwn,
  SKB_ADJUST_ROOM,
  SKB_DATA,
  SKB_DATA_META,
  SKB_GSO_SIZE,
  SKB_LENGTH,
  SKB_PACKET_TYPE,
  SKB_VLAN_PRESENT,
  storeBytes,
} from './skb-program.ts';

/** Where the transport header of the inner packet begins in what the device has received. */
const transportAt = ({ overhead }: Outer, { header }: Family): number => ETHERNET_HEADER + overhead + header;

/** As `LONG_WAY_NS`, of a datagram alone: two of them a second must not show among a thousand round trips. */
const ALONE_NS = 2 * MS;

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
 * Peers of a host that cuts super-packets itself mostly do as well: their bulk data come in datagrams that the kernel joins for the
 * forwarder. What comes alone is taken here, unless it could overtake data that are still on that way: then bare acknowledgements alone.
 */
export function inboundProgram(options: ProgramOptions): Uint8Array {
  const { maps, tunIndex } = options;
  const asm = new Assembler();
  asm.op('mov', CONTEXT, reg(1));
  takeFromXdp(asm, tunIndex);
  requireEtherType(asm, outerOf(options).family.etherType, 'pass');
  asm.load(4, 1, CONTEXT, SKB_VLAN_PRESENT);
  asm.jumpIf('ne', 1, 0, 'pass');
  asm.load(4, 1, CONTEXT, SKB_PACKET_TYPE);
  asm.jumpIf('ne', 1, PACKET_HOST, 'pass');
  loadHeaders(asm, options);
  requireOuterHeaders(asm, options);
  readClock(asm, maps, CLOCK, KEY);
  divideByReader(asm, options);
  for (const family of familiesOf(options)) {
    const other = `not-${family.name}`;
    asm.within(family.name, () => takeInner(asm, options, family, other));
    asm.label(other);
  }
  end(asm);
  return asm.assemble();
}

/** What a datagram contains is handed to the TUN device, if it is of that family; goes to `other` else. */
function takeInner(asm: Assembler, options: ProgramOptions, family: Family, other: string): void {
  const { maps, tunIndex, segmentation, destinationCheck } = options;
  const outer = outerOf(options);
  loadInnerOf(asm, options, family, other);
  asm.load(4, 9, CONTEXT, SKB_LENGTH);
  requireLengths(asm, outer, family);
  requireSource(asm, options, family);
  if (destinationCheck !== 'off') requireOwn(asm, maps, family, KEY, INNER + family.destinationAt);
  requireGrant(asm, options);
  if (segmentation === 'host') {
    asm.load(8, 1, FRAME, UNREAD);
    asm.jumpIf('ne', 1, 0, 'whatever-it-is');
    jumpIfLongWayEmpty(asm, CLOCK, 'whatever-it-is');
    requireBareAck(asm, family, INNER, transportAt(outer, family), KEY);
    asm.label('whatever-it-is');
  }
  measurePacket(asm, MEASURED);
  if (segmentation === 'beyond') {
    measureIfSuperPacket(asm, outer, family);
    learnFromTag(asm, outer, family, 'may-be-whole');
  }
  asm.op('mov', 1, reg(CONTEXT));
  asm.op('mov', 2, -outer.overhead);
  asm.op('mov', 3, ADJ_ROOM_MAC);
  asm.op('mov', 4, ADJ_ROOM_FIXED_GSO | (mustBeMarked(outer, family) ? family.decapsulated : 0));
  asm.call(SKB_ADJUST_ROOM);
  asm.jumpIf('ne', 0, 0, 'pass');
  family.takeHop(asm, INNER);
  storeBytes(asm, ETHERNET_HEADER + family.hopAt, INNER + family.hopAt, 4);
  count(asm, maps, SLOT, RX_PACKETS, MEASURED);
  enterTun(asm, tunIndex);
}

/** What the program before GRO (xdp-program.ts) has taken is known by its metadata, which nobody else can put there. */
function takeFromXdp(asm: Assembler, tunIndex: number): void {
  asm.load(4, 1, CONTEXT, SKB_DATA_META);
  asm.load(4, 2, CONTEXT, SKB_DATA);
  asm.op('mov', 3, reg(1));
  asm.op('add', 3, XDP_MARK_BYTES);
  asm.jumpIf('gt', 3, reg(2), 'not-by-xdp');
  asm.load(XDP_MARK_BYTES, 3, 1, 0);
  asm.jumpIf('ne', 3, XDP_MARK, 'not-by-xdp');
  // A card may have taken a VLAN's tag off, which the program before could not see; the host would not take that packet.
  asm.load(4, 1, CONTEXT, SKB_VLAN_PRESENT);
  asm.jumpIf('ne', 1, 0, 'drop');
  enterTun(asm, tunIndex);
  asm.label('not-by-xdp');
}

function enterTun(asm: Assembler, tunIndex: number): void {
  asm.op('mov', 1, tunIndex);
  asm.op('mov', 2, REDIRECT_INGRESS);
  asm.call(REDIRECT);
  asm.exit();
}

/**
 * A datagram with a checksum was sent by a socket, or is to be joined with others: it is for this host's socket, and passes, unless
 * nobody reads that.
 */
function divideByReader(asm: Assembler, options: ProgramOptions): void {
  const outer = outerOf(options);
  const at = outerAt(outer);
  asm.store(8, FRAME, UNREAD, 0);
  if (options.segmentation === 'beyond') {
    asm.load(2, 1, FRAME, UDP + 6);
    if (outer.family === IPV4) asm.jumpIf('eq', 1, 0, 'candidate');
    else jumpUnlessForSocket(asm, 'candidate');
    jumpIfUnread(asm, outer, CLOCK, at, FIB, 'unread');
    noteWayBack(asm, options);
  } else {
    jumpIfUnread(asm, outer, CLOCK, at, FIB, 'unread');
    asm.load(2, 1, FRAME, UDP + 6);
    asm.jumpIf('eq', 1, 0, 'candidate');
    jumpIfSign(asm, INNER, 'pass');
    noteLongWay(asm, options);
  }
  asm.jump('pass');
  asm.label('unread');
  asm.store(8, FRAME, UNREAD, 1);
  answerSign(asm, options, { clock: CLOCK, outer: at, udp: UDP, inner: INNER, grant: GRANT, fib: FIB, end: UNREAD });
  asm.label('candidate');
}

/** Over IPv6 a peer's question has no checksum either. It is the only packet of IPv4 there. In: R1 the checksum. */
function jumpUnlessForSocket(asm: Assembler, label: string): void {
  asm.jumpIf('ne', 1, 0, 'for-socket');
  asm.load(1, 1, FRAME, INNER);
  asm.op('and', 1, 0xf0);
  asm.jumpIf('ne', 1, IPV4.version, label);
  asm.label('for-socket');
}

/**
 * Of a peer's datagram to the socket, as its questions are: the agent must not invite packets that are then left because the way
 * back to their sender leads elsewhere, for the forwarder cannot finish their checksums.
 */
function noteWayBack(asm: Assembler, options: ProgramOptions): void {
  endpointLookup(asm, options.maps, outerSource(options));
  requireWayBack(asm, options, 'way-back-noted');
}

/**
 * Of a peer's datagram to the socket: what comes behind it must not overtake it. One that the kernel could not join with others has no
 * queue in front of it: earlier versions send a packet that way once a second.
 */
function noteLongWay(asm: Assembler, options: ProgramOptions): void {
  endpointLookup(asm, options.maps, outerSource(options));
  asm.load(8, 1, FRAME, CLOCK.now);
  asm.load(4, 2, CONTEXT, SKB_GSO_SIZE);
  asm.op('mov', 3, ALONE_NS);
  asm.jumpIf('eq', 2, 0, 'alone');
  asm.op('mov', 3, LONG_WAY_NS);
  asm.label('alone');
  asm.op('add', 1, reg(3));
  asm.load(8, 2, 8, LONG_WAY_UNTIL);
  asm.jumpIf('ge', 2, reg(1), 'pass');
  asm.store(8, 8, LONG_WAY_UNTIL, reg(1));
}

function measureIfSuperPacket(asm: Assembler, outer: Outer, family: Family): void {
  asm.load(4, 1, CONTEXT, SKB_GSO_SIZE);
  asm.jumpIf('eq', 1, 0, 'single');
  measureSuperPacket(asm, family, MEASURED, INNER, transportAt(outer, family), KEY);
  asm.label('single');
}
