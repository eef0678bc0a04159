// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
/** How long the headers of a packet are, what it carries, and how it is counted. */
import { PROTO_TCP, PROTO_UDP, TCP_ACK, UDP_HEADER } from '../wire.ts';
import { type Assembler, reg } from './assembler.ts';
import type { Family, FastPathMaps } from './family.ts';
import { FRAME } from './frame-words.ts';
import { CONTEXT, loadBytes, mapLookup } from './skb-program.ts';

/** Offset in `struct __sk_buff` (include/uapi/linux/bpf.h). */
const SKB_GSO_SEGMENTS = 164;

/** R1 = length of IP and TCP header; `at` is the data offset, and what shares its byte, in the frame. */
function tcpHeadersLength(asm: Assembler, { header }: Family, at: number): void {
  asm.load(1, 1, FRAME, at);
  asm.op('shr', 1, 4);
  asm.op('shl', 1, 2);
  asm.op('add', 1, header);
}

/**
 * R1 = length of IP and transport header of a super-packet, TCP's or UDP's; any other passes.
 * @param ipOffset of its IP header in the frame.
 * @param transportOffset of its transport header in the packet.
 * @param scratch 8 bytes of the frame.
 */
function headersLength(
  asm: Assembler,
  family: Family,
  ipOffset: number,
  transportOffset: number,
  scratch: number,
): void {
  asm.load(1, 2, FRAME, ipOffset + family.protocolAt);
  asm.op('mov', 1, family.header + UDP_HEADER);
  asm.jumpIf('eq', 2, PROTO_UDP, 'headers-measured');
  asm.jumpIf('ne', 2, PROTO_TCP, 'pass');
  loadBytes(asm, transportOffset + 12, scratch, 1);
  tcpHeadersLength(asm, family, scratch);
  asm.label('headers-measured');
}

/**
 * Passes unless the packet is TCP's word that data arrived and nothing else: no payload, no flag but ACK. One that overtakes
 * data of its own flow does no harm, for it says nothing about them. In: R9 length of the packet. Arguments as above.
 */
export function requireBareAck(
  asm: Assembler,
  family: Family,
  ipOffset: number,
  transportOffset: number,
  scratch: number,
  otherwise = 'pass',
): void {
  asm.load(1, 1, FRAME, ipOffset + family.protocolAt);
  asm.jumpIf('ne', 1, PROTO_TCP, otherwise);
  loadBytes(asm, transportOffset + 12, scratch, 2);
  asm.load(1, 1, FRAME, scratch + 1);
  asm.jumpIf('ne', 1, TCP_ACK, otherwise);
  tcpHeadersLength(asm, family, scratch);
  asm.jumpIf('ne', 1, reg(9), otherwise);
}

/** Goes to `label` when a TCP packet, R9 bytes long, has no payload. Arguments as above. */
export function jumpIfNoPayload(
  asm: Assembler,
  family: Family,
  transportOffset: number,
  scratch: number,
  label: string,
): void {
  loadBytes(asm, transportOffset + 12, scratch, 1);
  tcpHeadersLength(asm, family, scratch);
  asm.jumpIf('ge', 1, reg(9), label);
}

/** Where a program counts a packet before it adds the sums to a peer's: two 64-bit words of its frame. */
export interface Measured {
  readonly packets: number;
  readonly bytes: number;
}

/** One packet, R9 bytes long. */
export function measurePacket(asm: Assembler, { packets, bytes }: Measured): void {
  asm.store(8, FRAME, packets, 1);
  asm.store(8, FRAME, bytes, reg(9));
}

/**
 * A super-packet, R9 bytes long, as the forwarder counts it: as what it is cut into, headers included each time. R1 = length of
 * those; one that is neither TCP's nor UDP's passes. Arguments as above.
 */
export function measureSuperPacket(
  asm: Assembler,
  family: Family,
  { packets, bytes }: Measured,
  ipOffset: number,
  transportOffset: number,
  scratch: number,
): void {
  headersLength(asm, family, ipOffset, transportOffset, scratch);
  asm.load(4, 2, CONTEXT, SKB_GSO_SEGMENTS);
  asm.jumpIf('gt', 2, 0, 'segments-known');
  asm.op('mov', 2, 1);
  asm.label('segments-known');
  asm.store(8, FRAME, packets, reg(2));
  asm.op('sub', 2, 1);
  asm.op('mul', 2, reg(1));
  asm.op('add', 2, reg(9));
  asm.store(8, FRAME, bytes, reg(2));
}

/** Adds what was measured to the peer's counters at `counterOffset`. */
export function count(
  asm: Assembler,
  maps: FastPathMaps,
  slotOffset: number,
  counterOffset: number,
  { packets, bytes }: Measured,
): void {
  mapLookup(asm, maps.counters, slotOffset, 'uncounted');
  asm.load(8, 1, FRAME, packets);
  asm.atomicAdd(0, counterOffset, 1);
  asm.load(8, 1, FRAME, bytes);
  asm.atomicAdd(0, counterOffset + 8, 1);
  asm.label('uncounted');
}
