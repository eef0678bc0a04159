// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
import { IPV4_MIN_HEADER } from '../wire.ts';
import { type Assembler, reg } from './assembler.ts';
import { type Family, IPV4 } from './family.ts';
import { be16, be32, CSUM_DIFF, FRAME, frameAddress } from './frame-words.ts';
import { ACCEPT_UNTIL, EXPECT_TAG, EXPECT_TAG_WHOLE, NEXT_ANSWER } from './layout.ts';
import { familiesOf, OUTER_TTL, outerOf } from './outer.ts';
import {
  ALONE,
  ARRIVED_HOLDS_MS,
  ARRIVES,
  ARRIVES_6,
  PROTO_EXPERIMENT,
  SIGN_BYTES,
  SIGN_MAGIC,
  SIGN_PAYLOAD_BYTES,
  SIGN_TTL,
  SIGN_VERSION,
  TAKES,
  TAKES_6,
  TAKES_CUT,
} from './sign.ts';
import {
  type Clock,
  CONTEXT,
  ETHERNET_HEADER,
  endpointLookup,
  L4_CSUM_REPLACE,
  loadBytes,
  loadGrant,
  MS,
  type ProgramOptions,
  SKB_LENGTH,
  storeBytes,
} from './skb-program.ts';
import { FIB_BYTES, FIB_LOOKUP_SKIP_NEIGH, findWay, NEXT_HOP_BYTES, sendToNeighbour } from './underlay-way.ts';

/** Places in the frame of the inbound program. */
export interface Received {
  readonly clock: Clock;
  /** Headers of the datagram, as they came, and FIB_BYTES and the grant to be filled in here. */
  readonly outer: number;
  readonly udp: number;
  readonly inner: number;
  readonly grant: number;
  readonly fib: number;
  /** Below here the frame is free. */
  readonly end: number;
}

/** `encodeSign`: where things are in the payload. */
const VERSION = 4;
const FLAGS = 5;
const TAG = 6;
const TAG_WHOLE = 8;
const NONCE = 12;
const ECHO = 20;
const ANSWER_EVERY_NS = 5 * MS;
/** `BPF_F_MARK_MANGLED_0`: a sum of 0 is none, and stays so. */
const MARK_MANGLED_0 = 0x20;

/**
 * A peer's question (sign.ts) goes back as its answer, as the agent would have given it: that this program is alive, and takes what
 * it took when the agent ended. Else the peer would turn to the forwarder, where nobody is. Only who might send by the fast path
 * then is answered, one to one; a question that is none, or may not be answered, passes. Whatever is no sign goes on behind.
 */
export function answerSign(asm: Assembler, options: ProgramOptions, received: Received): void {
  const { clock, outer, udp, inner, grant, fib, end } = received;
  const { family, overhead, ttlAt, finish } = outerOf(options);
  const source = outer + family.sourceAt;
  const signInPacket = ETHERNET_HEADER + overhead;
  const payloadInPacket = signInPacket + IPV4_MIN_HEADER;
  const question = end - 32;
  const answer = question - 32;
  const nextHop = answer - NEXT_HOP_BYTES - 4;
  jumpIfSign(asm, inner, 'sign');
  asm.jump('no-sign');
  asm.label('sign');
  asm.load(4, 1, CONTEXT, SKB_LENGTH);
  asm.jumpIf('ne', 1, signInPacket + SIGN_BYTES, 'pass');
  loadBytes(asm, payloadInPacket, question, SIGN_PAYLOAD_BYTES);
  asm.load(4, 1, FRAME, question);
  asm.op32('mov', 2, be32(SIGN_MAGIC));
  asm.jumpIf('ne', 1, reg(2), 'pass');
  asm.load(1, 1, FRAME, question + VERSION);
  asm.jumpIf('ne', 1, SIGN_VERSION, 'pass');
  loadNumber(asm, question + NONCE);
  asm.jumpIf('eq', 3, 0, 'pass');
  // An answer that asks as well: an agent that is about to take these programs over waits for it.
  loadNumber(asm, question + ECHO);
  asm.jumpIf('ne', 3, 0, 'pass');
  // It goes back to where it came from; a network's hosts have one port.
  asm.load(2, 1, FRAME, udp);
  asm.jumpIf('ne', 1, be16(options.ownPort), 'pass');

  loadGrant(asm, options.maps, source, grant);
  endpointLookup(asm, options.maps, source);
  asm.load(8, 2, FRAME, clock.known);
  asm.load(8, 1, FRAME, grant + ACCEPT_UNTIL);
  asm.jumpIf('le', 1, reg(2), 'pass');
  asm.load(8, 2, FRAME, clock.now);
  asm.load(8, 1, 8, NEXT_ANSWER);
  asm.jumpIf('gt', 1, reg(2), 'pass');
  asm.op('add', 2, ANSWER_EVERY_NS);
  asm.store(8, 8, NEXT_ANSWER, reg(2));
  for (let offset = 0; offset < FIB_BYTES; offset += 8) asm.store(8, FRAME, fib + offset, 0);
  findWay(asm, options, { fib, address: source, flags: FIB_LOOKUP_SKIP_NEIGH });

  writeAnswer(asm, options, received, question, answer);
  // Addresses change places, which leaves sums as they are; so the payload alone counts.
  frameAddress(asm, 1, question);
  asm.op('mov', 2, SIGN_PAYLOAD_BYTES);
  frameAddress(asm, 3, answer);
  asm.op('mov', 4, SIGN_PAYLOAD_BYTES);
  asm.op('mov', 5, 0);
  asm.call(CSUM_DIFF);
  asm.op('mov', 4, reg(0));
  asm.op('mov', 1, reg(CONTEXT));
  asm.op('mov', 2, ETHERNET_HEADER + family.header + 6);
  asm.op('mov', 3, 0);
  asm.op('mov', 5, MARK_MANGLED_0);
  asm.call(L4_CSUM_REPLACE);
  asm.jumpIf('ne', 0, 0, 'drop');
  storeBytes(asm, payloadInPacket, answer, SIGN_PAYLOAD_BYTES);
  swapAddresses(asm, IPV4, inner);
  storeBytes(asm, signInPacket + IPV4.sourceAt, inner + IPV4.sourceAt, 2 * IPV4.addressBytes);
  swapAddresses(asm, family, outer);
  asm.store(1, FRAME, outer + ttlAt, OUTER_TTL);
  finish(asm, outer);
  storeBytes(asm, ETHERNET_HEADER, outer, family.header);
  sendToNeighbour(asm, options, fib, nextHop);
  asm.label('no-sign');
}

/** R3 is 0 when the number of 64 bits at `at` of the frame is. R1 and R2 are lost. */
function loadNumber(asm: Assembler, at: number): void {
  asm.load(4, 1, FRAME, at);
  asm.load(4, 2, FRAME, at + 4);
  asm.op('mov', 3, reg(1));
  asm.op('add', 3, reg(2));
}

/** Goes to `label` when the header at `inner` of the frame may be a sign's: no data of a container. R1 is lost. */
export function jumpIfSign(asm: Assembler, inner: number, label: string): void {
  const isNot = `not-${label}-sign`;
  asm.load(1, 1, FRAME, inner + 8);
  asm.jumpIf('ne', 1, SIGN_TTL, isNot);
  asm.load(1, 1, FRAME, inner + 9);
  asm.jumpIf('eq', 1, PROTO_EXPERIMENT, label);
  asm.label(isNot);
}

/** In: R8 what is known of the peer's host. */
function writeAnswer(
  asm: Assembler,
  options: ProgramOptions,
  { clock, grant }: Received,
  question: number,
  answer: number,
): void {
  for (let offset = 0; offset < SIGN_PAYLOAD_BYTES; offset += 4) asm.store(4, FRAME, answer + offset, 0);
  asm.load(4, 1, FRAME, question);
  asm.store(4, FRAME, answer, reg(1));
  asm.store(1, FRAME, answer + VERSION, SIGN_VERSION);
  // Also where the kernel has refused XDP: without a socket it joins no datagrams either, so the sender's way makes no difference.
  const takes = TAKES | (options.carriesIpv6 ? TAKES_6 : 0) | (options.takesCut ? TAKES_CUT : 0);
  asm.op('mov', 3, ALONE | (options.segmentation === 'beyond' ? takes : 0));
  for (const { name, known } of familiesOf(options)) {
    const never = `${name}-never-arrived`;
    asm.load(8, 1, 8, known.arrivedAt);
    asm.jumpIf('eq', 1, 0, never);
    asm.load(8, 2, FRAME, clock.now);
    asm.op('sub', 2, reg(1));
    asm.op('mov', 1, ARRIVED_HOLDS_MS);
    asm.op('mul', 1, MS);
    asm.jumpIf('gt', 2, reg(1), never);
    asm.op('add', 3, name === 'ipv4' ? ARRIVES : ARRIVES_6);
    asm.label(never);
  }
  asm.store(1, FRAME, answer + FLAGS, reg(3));
  for (const [to, from] of [
    [TAG, EXPECT_TAG],
    [TAG_WHOLE, EXPECT_TAG_WHOLE],
  ] as const) {
    asm.load(2, 1, FRAME, grant + from);
    asm.store(2, FRAME, answer + to, reg(1));
  }
  for (const offset of [0, 4]) {
    asm.load(4, 1, FRAME, question + NONCE + offset);
    asm.store(4, FRAME, answer + ECHO + offset, reg(1));
  }
}

/** Source and destination of the header at `ip` of the frame. */
function swapAddresses(asm: Assembler, { sourceAt, destinationAt, addressBytes }: Family, ip: number): void {
  for (let word = 0; word < addressBytes; word += 4) {
    asm.load(4, 1, FRAME, ip + sourceAt + word);
    asm.load(4, 2, FRAME, ip + destinationAt + word);
    asm.store(4, FRAME, ip + sourceAt + word, reg(2));
    asm.store(4, FRAME, ip + destinationAt + word, reg(1));
  }
}
