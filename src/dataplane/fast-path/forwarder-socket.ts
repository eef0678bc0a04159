// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
/** Whether somebody reads what a program leaves to the forwarder's socket. */
import { type Assembler, reg } from './assembler.ts';
import { be16, FRAME, frameAddress } from './frame-words.ts';
import { addressWords, type Outer, outerOf } from './outer.ts';
import { type Clock, CONTEXT, jumpIfUnattended, type ProgramOptions, SECOND_NS } from './skb-program.ts';

/** Helper functions by number (`enum bpf_func_id`). */
const SK_LOOKUP_UDP = 85;
const SK_RELEASE = 86;
/** `BPF_F_CURRENT_NETNS` */
const CURRENT_NETWORK_NAMESPACE = -1;
/** An agent that starts opens its socket long before it reads from it; what has one later than that is another program. */
const SOCKET_COUNTS_AFTER_SECONDS = 30;

/**
 * Goes to `label` when nobody reads what comes for the forwarder's socket: there is none; or there is one, but no agent since a moment
 * ago, so that it is one that is about to start. Later a socket is that of another program on this port, such as flannel's.
 * @param at the outer IP header in the frame, and the UDP header behind it.
 * @param tuple 36 bytes of the frame.
 */
export function jumpIfUnread(
  asm: Assembler,
  { family }: Outer,
  { now, known }: Clock,
  at: number,
  tuple: number,
  label: string,
): void {
  asm.load(8, 1, FRAME, known);
  asm.load(8, 2, FRAME, now);
  asm.jumpIf('ge', 1, reg(2), 'look-for-socket');
  asm.op('sub', 2, reg(1));
  asm.op('mov', 1, SECOND_NS);
  asm.op('mul', 1, SOCKET_COUNTS_AFTER_SECONDS);
  asm.jumpIf('le', 2, reg(1), label);
  asm.label('look-for-socket');
  const tupleBytes = 2 * family.addressBytes + 4;
  for (let word = 0; word < tupleBytes; word += 4) {
    asm.load(4, 1, FRAME, at + family.sourceAt + word);
    asm.store(4, FRAME, tuple + word, reg(1));
  }
  jumpWithoutSocket(asm, tuple, tupleBytes, label);
}

/** @param tuple `struct bpf_sock_tuple` in the frame: addresses and ports, as they lie in the headers of what the socket would receive. */
function jumpWithoutSocket(asm: Assembler, tuple: number, tupleBytes: number, label: string): void {
  asm.op('mov', 1, reg(CONTEXT));
  frameAddress(asm, 2, tuple);
  asm.op('mov', 3, tupleBytes);
  asm.op('mov', 4, CURRENT_NETWORK_NAMESPACE);
  asm.op('mov', 5, 0);
  asm.call(SK_LOOKUP_UDP);
  asm.jumpIf('eq', 0, 0, label);
  asm.op('mov', 1, reg(0));
  asm.call(SK_RELEASE);
}

/** Whom a packet is for, by offsets in the frame. */
export interface Recipient {
  readonly address: number;
  /** be16 */
  readonly port: number;
}

/**
 * Goes to `label` when the forwarder would not get what this program leaves to it: there has been no agent for a moment, or the
 * socket is gone, as with an agent that was killed just now. For packets that would take the long way: others need not know so soon.
 * R0 to R5 are lost.
 * @param tuple 36 bytes of the frame.
 */
export function jumpIfForwarderIsGone(
  asm: Assembler,
  options: Pick<ProgramOptions, 'ownAddress' | 'ownPort'>,
  clock: Clock,
  { address, port }: Recipient,
  tuple: number,
  label: string,
): void {
  jumpIfUnattended(asm, clock, label);
  const { addressBytes } = outerOf(options).family;
  for (let word = 0; word < addressBytes; word += 4) {
    asm.load(4, 1, FRAME, address + word);
    asm.store(4, FRAME, tuple + word, reg(1));
  }
  for (const [index, word] of addressWords(options.ownAddress).entries()) {
    asm.store(4, FRAME, tuple + addressBytes + 4 * index, word);
  }
  asm.load(2, 1, FRAME, port);
  asm.store(2, FRAME, tuple + 2 * addressBytes, reg(1));
  asm.store(2, FRAME, tuple + 2 * addressBytes + 2, be16(options.ownPort));
  jumpWithoutSocket(asm, tuple, 2 * addressBytes + 4, label);
}
