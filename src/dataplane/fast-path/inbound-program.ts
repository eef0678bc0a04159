// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
import type { Ipv4Addr } from '../../ip/ipv4.ts';
import { ENCAPSULATION_OVERHEAD, IPV4_MIN_HEADER, PROTO_UDP, UDP_HEADER } from '../wire.ts';
import { Assembler, reg } from './assembler.ts';
import {
  ARRIVES_UNTIL,
  CAPABLE_UNTIL,
  NEXT_SIGN,
  NEXT_TRIAL,
  RX_PACKETS,
  SUBNET_ENDPOINT,
  SUBNET_SLOT,
  TRIAL_PAUSE,
  WHOLE_UNTIL,
} from './layout.ts';
import {
  ADJ_ROOM_FIXED_GSO,
  ADJ_ROOM_MAC,
  be16,
  be32,
  begin,
  CONTEXT,
  CSUM_DIFF,
  count,
  decrementTtl,
  ETHERNET_HEADER,
  end,
  endpointLookup,
  type FastPathMaps,
  FRAME,
  foldSum,
  frameAddress,
  KTIME_GET_NS,
  loadBytes,
  MAP_UPDATE,
  MARK_FAST,
  MARK_WHOLE_BIT,
  type Measured,
  measurePacket,
  measureSuperPacket,
  OUTER_TTL,
  type ProgramOptions,
  REDIRECT,
  REDIRECT_INGRESS,
  requireBareAck,
  requirePlainIpv4,
  SECOND_NS,
  SKB_ADJUST_ROOM,
  SKB_GSO_SIZE,
  SKB_LENGTH,
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
const HOLDS_UNTIL = -88;

/**
 * For how long something learned from a packet holds: long enough that a pause in a conversation does not end it, and no longer
 * than TCP may be kept waiting when a peer comes back without a fast path.
 */
const HOLDS_NS = 2_000_000_000;

/**
 * For what the underlay's device receives (tcx ingress): takes the outer headers off datagrams that a peer's fast path sent, and
 * hands the inner packet to the TUN device's receiving side. They are known by their mark and by having no UDP checksum, which
 * a socket's datagrams always have: those are the forwarder's, so that packets of one flow do not part here. Of both it learns
 * what the peer's host can do.
 *
 * Peers of a host that cuts super-packets itself mostly do as well: their data come in datagrams that the kernel joins for the
 * forwarder, and what comes alone and is taken here is bare acknowledgements.
 */
export function inboundProgram(options: Omit<ProgramOptions, 'underlayIndex'>): Uint8Array {
  const { maps, ownAddress, ownPort, tunIndex, segmentation } = options;
  const asm = new Assembler();
  begin(asm);
  asm.load(4, 1, CONTEXT, SKB_VLAN_PRESENT);
  asm.jumpIf('ne', 1, 0, 'pass');
  loadBytes(asm, ETHERNET_HEADER, OUTER, ENCAPSULATION_OVERHEAD + IPV4_MIN_HEADER);
  if (segmentation === 'host') requireNoChecksum(asm);
  requireOuterHeaders(asm, ownAddress, ownPort);
  if (segmentation === 'beyond') {
    learnFromMark(asm, maps);
    requireNoChecksum(asm);
  }
  requireLengths(asm);
  requireSource(asm, maps);
  measurePacket(asm, MEASURED);
  if (segmentation === 'host') {
    requireBareAck(asm, INNER, INNER_IN_PACKET + IPV4_MIN_HEADER, KEY);
  } else {
    learnFromArrival(asm);
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

/** A datagram with a checksum was sent by a socket, or is to be joined with others. */
function requireNoChecksum(asm: Assembler): void {
  asm.load(2, 1, FRAME, UDP + 6);
  asm.jumpIf('ne', 1, 0, 'pass');
}

function requireOuterHeaders(asm: Assembler, ownAddress: Ipv4Addr, ownPort: number): void {
  requirePlainIpv4(asm, OUTER);
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

/** R8 = what is known of the sender. Whoever sends without the mark has no fast path, or none any more. */
function learnFromMark(asm: Assembler, maps: FastPathMaps): void {
  endpointLookup(asm, maps, OUTER + 12);
  asm.load(1, 1, FRAME, OUTER + 4);
  asm.jumpIf('eq', 1, MARK_FAST >>> 8, 'marked');
  asm.store(8, 8, CAPABLE_UNTIL, 0);
  asm.store(8, 8, WHOLE_UNTIL, 0);
  asm.jump('pass');
  asm.label('marked');
  asm.call(KTIME_GET_NS);
  asm.op('add', 0, HOLDS_NS);
  asm.store(8, FRAME, HOLDS_UNTIL, reg(0));
  asm.store(8, 8, CAPABLE_UNTIL, reg(0));
  asm.load(1, 1, FRAME, OUTER + 5);
  asm.jumpIf('lt', 1, MARK_WHOLE_BIT, 'mark-learned');
  asm.store(8, 8, WHOLE_UNTIL, reg(0));
  asm.store(8, 8, NEXT_TRIAL, 0);
  asm.store(8, 8, TRIAL_PAUSE, 0);
  asm.label('mark-learned');
  answerInTime(asm, maps);
  // A sign has done its work.
  asm.load(1, 1, FRAME, INNER);
  asm.jumpIf('eq', 1, 0, 'drop');
}

/** Nothing may go the other way for long: the agent then sends a sign. In: R0 until when what is learned now holds. */
function answerInTime(asm: Assembler, maps: FastPathMaps): void {
  asm.op('sub', 0, HOLDS_NS);
  asm.load(8, 1, 8, NEXT_SIGN);
  asm.jumpIf('gt', 1, reg(0), 'heard');
  asm.op('add', 0, SECOND_NS);
  asm.store(8, 8, NEXT_SIGN, reg(0));
  asm.loadMap(1, maps.awaiting);
  frameAddress(asm, 2, OUTER + 12);
  frameAddress(asm, 3, OUTER + 12);
  asm.op('mov', 4, 0);
  asm.call(MAP_UPDATE);
  asm.label('heard');
}

/**
 * Of a super-packet, which is counted as such. A router, which shows in the TTL, looks into what it forwards and would misread the
 * long MAC header of `PREPEND`.
 */
function learnFromArrival(asm: Assembler): void {
  asm.load(4, 1, CONTEXT, SKB_GSO_SIZE);
  asm.jumpIf('eq', 1, 0, 'arrival-learned');
  measureSuperPacket(asm, MEASURED, INNER, INNER_IN_PACKET + IPV4_MIN_HEADER, KEY);
  asm.load(1, 1, FRAME, OUTER + 8);
  asm.jumpIf('ne', 1, OUTER_TTL, 'arrival-learned');
  asm.load(8, 1, FRAME, HOLDS_UNTIL);
  asm.store(8, 8, ARRIVES_UNTIL, reg(1));
  asm.label('arrival-learned');
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
