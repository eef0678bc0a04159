// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
import { PROTO_TCP, PROTO_UDP, UDP_HEADER } from '../wire.ts';
import { Assembler, type Register, reg, type Size } from './assembler.ts';
import type { Family } from './family.ts';
import { jumpIfUnread } from './forwarder-socket.ts';
import { addToSum, CSUM_DIFF, FRAME, foldSum } from './frame-words.ts';
import {
  CLOCK,
  FIB,
  INNER,
  KEY,
  learnFromTag,
  loadHeaders,
  loadInnerOf,
  MEASURED,
  NOW,
  outerAt,
  requireGrant,
  requireLengths,
  requireOuterHeaders,
  requireSource,
  SLOT,
  UDP,
  UNREAD,
} from './inbound-checks.ts';
import { NEXT_TO_SOCKET, RX_PACKETS, XDP_MARK, XDP_MARK_BYTES } from './layout.ts';
import { familiesOf, type Outer, outerOf } from './outer.ts';
import { count, measurePacket } from './packet-size.ts';
import { CONTEXT, ETHERNET_HEADER, end, type ProgramOptions, readClock, requireOwn, SECOND_NS } from './skb-program.ts';

/** Offsets in `struct xdp_md` (include/uapi/linux/bpf.h). */
const XDP_DATA = 0;
const XDP_DATA_END = 4;
const XDP_DATA_META = 8;
/** Helper functions by number (`enum bpf_func_id`). */
const XDP_ADJUST_HEAD = 44;
const XDP_ADJUST_META = 54;
/** As of the last tick, at most 10 ms ago. Nothing here is measured more finely, and the clock itself costs each packet 30 ns. */
const KTIME_GET_COARSE_NS = 160;
const XDP_GET_BUFF_LEN = 188;
/** `enum xdp_action` */
const XDP_DROP = 1;
const XDP_PASS = 2;

// The frame goes on below that of the checks.
const ETHERNET = UNREAD - 16;
const SUM = ETHERNET - 8;

const innerInPacket = ({ overhead }: Outer): number => ETHERNET_HEADER + overhead;
/** Longer than a frame without fragments can be: XDP has one page for it. */
const LONGEST_TRANSPORT = 4_095;
/** `bpf_csum_diff` takes no more at once. */
const LARGEST_CHUNK = 512;
/** A bulk's datagrams are not the first choice for the socket: behind that a packet counts as one. */
const SHORT_PACKET = 256;

export interface XdpProgramOptions extends ProgramOptions {
  /** Of the underlay's device: six bytes. */
  readonly ownMac: readonly number[];
}

/**
 * For what the underlay's device receives, before the kernel joins packets (XDP, native): takes the outer headers off whatever a peer
 * has sent that is in order, sent by its fast path or by its forwarder, and marks it for the inbound program, which hands it to the TUN
 * device. In between the kernel joins TCP's segments as those of any connection (GRO).
 *
 * The checks are those of the inbound program, and then the sums: the card has looked at the outer datagram at most, and the kernel
 * would take its word for the inner packet's. What has not got them finished (between namespaces of one machine) or wrong, is no
 * TCP, UDP or ICMP, or is unusual in any other way, passes as it came.
 *
 * Once a second a datagram of a peer passes to the forwarder's socket all the same: it shows that the host's rules still let it.
 */
export function xdpProgram(options: XdpProgramOptions): Uint8Array {
  const { maps, ownMac } = options;
  const outer = outerOf(options);
  const asm = new Assembler();
  asm.op('mov', CONTEXT, reg(1));
  asm.call(XDP_GET_BUFF_LEN);
  asm.op('mov', 9, reg(0));
  loadFromPacket(asm, 0, ETHERNET, ETHERNET_HEADER);
  requireFrameForUs(asm, outer, ownMac);
  loadHeaders(asm, options, loadFromPacket);
  requireOuterHeaders(asm, options);
  readClock(asm, maps, CLOCK, KEY, KTIME_GET_COARSE_NS);
  for (const family of familiesOf(options)) {
    const other = `not-${family.name}`;
    asm.within(family.name, () => takeInner(asm, options, family, other));
    asm.label(other);
  }
  end(asm, { pass: XDP_PASS, drop: XDP_DROP });
  return asm.assemble();
}

/** What a datagram contains is handed on, if it is of that family; goes to `other` else. In: R9 length of the frame. */
function takeInner(asm: Assembler, options: ProgramOptions, family: Family, other: string): void {
  const { maps, segmentation, destinationCheck } = options;
  const outer = outerOf(options);
  loadInnerOf(asm, options, family, other, loadFromPacket);
  requireLengths(asm, outer, family);
  requireSource(asm, options, family);
  if (destinationCheck !== 'off') requireOwn(asm, maps, family, KEY, INNER + family.destinationAt);
  requireGrant(asm, options);
  measurePacket(asm, MEASURED);
  sumTransport(asm, outer, family);
  requireInnerSum(asm, outer, family);
  requireOuterSum(asm, outer, family);
  leaveSomeToSocket(asm, outer);
  if (segmentation === 'beyond') learnFromTag(asm, outer, family, 'never-whole');
  handOn(asm, outer, family);
  count(asm, maps, SLOT, RX_PACKETS, MEASURED);
  asm.op('mov', 0, XDP_PASS);
  asm.exit();
}

function requireFrameForUs(asm: Assembler, { family }: Outer, ownMac: readonly number[]): void {
  for (let offset = 0; offset < 6; offset += 2) {
    asm.load(2, 1, FRAME, ETHERNET + offset);
    asm.jumpIf('ne', 1, ownMac[offset]! | (ownMac[offset + 1]! << 8), 'pass');
  }
  asm.load(2, 1, FRAME, ETHERNET + 12);
  asm.jumpIf('ne', 1, family.etherType, 'pass');
}

/**
 * In: R9 length of the inner packet. Out: R9 that of its transport segment, and the sum of that in the frame, folded. A loop would
 * need a kernel's leave; so the length is taken apart by powers of two.
 */
function sumTransport(asm: Assembler, outer: Outer, { header }: Family): void {
  const cursor: Register = 7;
  asm.op('sub', 9, header);
  asm.jumpIf('gt', 9, LONGEST_TRANSPORT, 'pass');
  asm.store(8, FRAME, SUM, 0);
  asm.load(4, cursor, CONTEXT, XDP_DATA);
  asm.op('add', cursor, innerInPacket(outer) + header);
  let part = 0;
  const take = (bytes: number, add: () => void): void => {
    const done = `summed-${part++}`;
    asm.jumpIf('lt', 9, bytes, done);
    asm.load(4, 1, CONTEXT, XDP_DATA_END);
    asm.op('mov', 2, reg(cursor));
    asm.op('add', 2, bytes);
    asm.jumpIf('gt', 2, reg(1), 'pass');
    add();
    asm.op('add', cursor, bytes);
    asm.op('sub', 9, bytes);
    asm.label(done);
  };
  const addChunk = (bytes: number): void => {
    asm.op('mov', 1, 0);
    asm.op('mov', 2, 0);
    asm.op('mov', 3, reg(cursor));
    asm.op('mov', 4, bytes);
    asm.load(8, 5, FRAME, SUM);
    asm.call(CSUM_DIFF);
    asm.op32('mov', 0, reg(0));
    asm.store(8, FRAME, SUM, reg(0));
  };
  const addTail = (bytes: 1 | 2): void => {
    asm.load(bytes, 1, cursor, 0);
    asm.load(8, 2, FRAME, SUM);
    asm.op('add', 2, reg(1));
    asm.store(8, FRAME, SUM, reg(2));
  };
  for (let left = LONGEST_TRANSPORT + 1; left > LARGEST_CHUNK; left -= LARGEST_CHUNK) {
    take(LARGEST_CHUNK, () => addChunk(LARGEST_CHUNK));
  }
  for (let bytes = LARGEST_CHUNK / 2; bytes >= 4; bytes /= 2) take(bytes, () => addChunk(bytes));
  take(2, () => addTail(2));
  take(1, () => addTail(1));
  asm.load(8, 3, FRAME, SUM);
  for (let round = 0; round < 2; round++) foldSum(asm, 3, 1);
  asm.store(8, FRAME, SUM, reg(3));
  asm.load(8, 9, FRAME, MEASURED.bytes);
  asm.op('sub', 9, header);
}

/** Passes unless the sum in R3 is that of something with its checksum. */
function requireSum(asm: Assembler): void {
  for (let round = 0; round < 2; round++) foldSum(asm, 3, 1);
  asm.jumpIf('ne', 3, 0xffff, 'pass');
}

/** Adds the addresses of the header at `ip` of the frame to R3, and the protocol. */
function addPseudoHeader(asm: Assembler, { sourceAt, addressBytes, protocolAt }: Family, ip: number): void {
  for (let word = 0; word < 2 * addressBytes; word += 4) addToSum(asm, ip + sourceAt + word, 4);
  asm.load(1, 1, FRAME, ip + protocolAt);
  asm.op('shl', 1, 8);
  asm.op('add', 3, reg(1));
}

/** In: R9 length of the transport segment. */
function requireInnerSum(asm: Assembler, outer: Outer, family: Family): void {
  const { header, protocolAt, icmp, udpNeedsChecksum } = family;
  asm.load(8, 3, FRAME, SUM);
  asm.load(1, 1, FRAME, INNER + protocolAt);
  asm.jumpIf('eq', 1, icmp.protocol, icmp.hasPseudoHeader ? 'pseudo-header' : 'inner-sum');
  asm.jumpIf('eq', 1, PROTO_TCP, 'pseudo-header');
  asm.jumpIf('ne', 1, PROTO_UDP, 'pass');
  loadFromPacket(asm, innerInPacket(outer) + header + 6, KEY, 2);
  asm.load(8, 3, FRAME, SUM);
  asm.load(2, 1, FRAME, KEY);
  asm.jumpIf('eq', 1, 0, udpNeedsChecksum ? 'pass' : 'inner-sum-right');
  asm.label('pseudo-header');
  addPseudoHeader(asm, family, INNER);
  asm.op('mov', 1, reg(9));
  asm.toBig16(1);
  asm.op('add', 3, reg(1));
  asm.label('inner-sum');
  requireSum(asm);
  asm.label('inner-sum-right');
}

/** The host would look at it before it gave the datagram to the socket. */
function requireOuterSum(asm: Assembler, outer: Outer, { header }: Family): void {
  asm.load(2, 1, FRAME, UDP + 6);
  asm.jumpIf('eq', 1, 0, 'outer-sum-right');
  asm.load(8, 3, FRAME, SUM);
  for (let offset = 0; offset < header; offset += 4) addToSum(asm, INNER + offset, 4);
  for (let offset = 0; offset < UDP_HEADER; offset += 4) addToSum(asm, UDP + offset, 4);
  addPseudoHeader(asm, outer.family, outerAt(outer));
  addToSum(asm, UDP + 4, 2);
  requireSum(asm);
  asm.label('outer-sum-right');
}

/**
 * What the agent grants holds for some seconds after its socket has received something from the peer. A datagram with a checksum may
 * be a socket's; a short one now and then, or a longer one when none has come, is worth its detour. In: R8 what is known of the sender.
 */
function leaveSomeToSocket(asm: Assembler, outer: Outer): void {
  asm.load(2, 1, FRAME, UDP + 6);
  asm.jumpIf('eq', 1, 0, 'not-for-socket');
  asm.load(8, 0, FRAME, NOW);
  asm.load(8, 1, 8, NEXT_TO_SOCKET);
  asm.load(8, 2, FRAME, MEASURED.bytes);
  asm.jumpIf('le', 2, SHORT_PACKET, 'short-packet');
  asm.op('add', 1, SECOND_NS);
  asm.label('short-packet');
  asm.jumpIf('gt', 1, reg(0), 'not-for-socket');
  jumpIfUnread(asm, outer, CLOCK, outerAt(outer), FIB, 'not-for-socket');
  asm.load(8, 0, FRAME, NOW);
  asm.op('add', 0, SECOND_NS);
  asm.store(8, 8, NEXT_TO_SOCKET, reg(0));
  asm.jump('pass');
  asm.label('not-for-socket');
}

/**
 * First the outer headers, then the mark: the kernel would move a mark that is there already. A driver may have no room for marks, and
 * then the packet gets its headers back, which nothing has touched yet.
 */
function handOn(asm: Assembler, { overhead }: Outer, family: Family): void {
  family.takeHop(asm, INNER);
  adjust(asm, XDP_ADJUST_HEAD, overhead, 'pass');
  adjust(asm, XDP_ADJUST_META, -XDP_MARK_BYTES, 'no-room');
  asm.load(4, 1, CONTEXT, XDP_DATA_META);
  asm.load(4, 2, CONTEXT, XDP_DATA);
  asm.op('mov', 3, reg(1));
  asm.op('add', 3, XDP_MARK_BYTES);
  asm.jumpIf('gt', 3, reg(2), 'drop');
  asm.store(XDP_MARK_BYTES, 1, 0, XDP_MARK);
  packetAt(asm, 0, ETHERNET_HEADER + family.header, 'drop');
  for (const [offset, size] of chunks(ETHERNET, ETHERNET_HEADER - 2)) {
    asm.load(size, 2, FRAME, ETHERNET + offset);
    asm.store(size, 1, offset, reg(2));
  }
  asm.store(2, 1, ETHERNET_HEADER - 2, family.etherType);
  asm.load(4, 2, FRAME, INNER + family.hopAt);
  asm.store(4, 1, ETHERNET_HEADER + family.hopAt, reg(2));
  asm.jump('handed-on');
  asm.label('no-room');
  adjust(asm, XDP_ADJUST_HEAD, -overhead, 'drop');
  asm.jump('pass');
  asm.label('handed-on');
}

function adjust(asm: Assembler, helper: number, bytes: number, otherwise: string): void {
  asm.op('mov', 1, reg(CONTEXT));
  asm.op('mov', 2, bytes);
  asm.call(helper);
  asm.jumpIf('ne', 0, 0, otherwise);
}

/** R1 = address of so many bytes of the packet, or goes to `otherwise` when they are not in its first page. R2 and R3 are lost. */
function packetAt(asm: Assembler, offset: number, length: number, otherwise: string): void {
  asm.load(4, 1, CONTEXT, XDP_DATA);
  asm.load(4, 2, CONTEXT, XDP_DATA_END);
  asm.op('mov', 3, reg(1));
  asm.op('add', 3, offset + length);
  asm.jumpIf('gt', 3, reg(2), otherwise);
  if (offset !== 0) asm.op('add', 1, offset);
}

/** As `loadBytes`, without a call: it is done for each packet, and a call for 62 bytes costs more than they do. */
function loadFromPacket(asm: Assembler, packetOffset: number, frameOffset: number, length: number): void {
  packetAt(asm, packetOffset, length, 'pass');
  for (const [offset, size] of chunks(frameOffset, length)) {
    asm.load(size, 2, 1, offset);
    asm.store(size, FRAME, frameOffset + offset, reg(2));
  }
}

/** Bytes of the frame from an offset on, in the largest words that are aligned there, as the kernel demands it: where, and how large. */
function* chunks(frameOffset: number, length: number): Generator<readonly [offset: number, size: Size]> {
  for (let offset = 0; offset < length; ) {
    const size = ([8, 4, 2, 1] as const).find(
      (each) => (frameOffset + offset) % each === 0 && each <= length - offset,
    )!;
    yield [offset, size];
    offset += size;
  }
}
