// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
/** The way of a datagram between the hosts, as the kernel's routing has it, and the last step of it. */
import { PROTO_UDP } from '../wire.ts';
import { type Assembler, reg } from './assembler.ts';
import { be16, FRAME, frameAddress } from './frame-words.ts';
import { addressWords, outerOf } from './outer.ts';
import { CONTEXT, type ProgramOptions } from './skb-program.ts';

/** Helper functions by number (`enum bpf_func_id`). */
const FIB_LOOKUP = 69;
const REDIRECT_NEIGH = 152;
/** `struct bpf_redir_neigh`: address family, next hop. */
export const NEXT_HOP_BYTES = 20;

/** `struct bpf_fib_lookup`. */
export const FIB_BYTES = 64;
export const FIB_SOURCE_MAC = 52;
const FIB_DESTINATION = 32;
export const FIB_DESTINATION_MAC = 58;
const FIB_INDEX = 8;
const FIB_SOURCE = 16;
/** Loopback's: routing is asked as for what a socket of this host sends, `ip rule` included. */
const LOOPBACK_INDEX = 1;
/** `BPF_FIB_LOOKUP_SKIP_NEIGH`, Linux 6.3. */
export const FIB_LOOKUP_SKIP_NEIGH = 4;

/** `BPF_FIB_LKUP_RET_NO_NEIGH`: the route and the next hop's address are in the answer, and no MAC address. */
export const FIB_NO_NEIGHBOUR = 7;

/** What `findWay` asks about, by offsets in the frame. */
export interface Way {
  /** The answer, FIB_BYTES that are zero before. */
  readonly fib: number;
  readonly address: number;
  /** be16; our own by default. */
  readonly port?: number;
  /** 8 bytes, length of the inner packet; the shortest by default. */
  readonly length?: number;
  readonly flags: number;
  /** What to do when the answer, in R0, is not 0: go to `way-found` or `pass`. By default the packet passes. */
  readonly otherwise?: () => void;
}

/**
 * Asks the kernel's routing for the way of a datagram that the forwarder's socket would send to an address. It must lead out of
 * the underlay's device, by the family of that address; else the packet passes.
 */
export function findWay(
  asm: Assembler,
  { ownAddress, ownPort, underlayIndex }: Pick<ProgramOptions, 'ownAddress' | 'ownPort' | 'underlayIndex'>,
  { fib, address, port, length, flags, otherwise }: Way,
): void {
  const { family, addressFamily, overhead } = outerOf({ ownAddress });
  asm.store(1, FRAME, fib, addressFamily);
  asm.store(1, FRAME, fib + 1, PROTO_UDP);
  asm.store(2, FRAME, fib + 2, be16(ownPort));
  asm.store(2, FRAME, fib + 4, be16(ownPort));
  asm.store(2, FRAME, fib + 6, overhead);
  if (port !== undefined) {
    asm.load(2, 1, FRAME, port);
    asm.store(2, FRAME, fib + 4, reg(1));
  }
  if (length !== undefined) {
    asm.load(8, 1, FRAME, length);
    asm.op('add', 1, overhead);
    asm.store(2, FRAME, fib + 6, reg(1));
  }
  asm.store(4, FRAME, fib + FIB_INDEX, LOOPBACK_INDEX);
  for (const [index, word] of addressWords(ownAddress).entries()) {
    asm.store(4, FRAME, fib + FIB_SOURCE + 4 * index, word);
  }
  for (let word = 0; word < family.addressBytes; word += 4) {
    asm.load(4, 1, FRAME, address + word);
    asm.store(4, FRAME, fib + FIB_DESTINATION + word, reg(1));
  }
  asm.op('mov', 1, reg(CONTEXT));
  frameAddress(asm, 2, fib);
  asm.op('mov', 3, FIB_BYTES);
  asm.op('mov', 4, flags);
  asm.call(FIB_LOOKUP);
  if (otherwise === undefined) asm.jumpIf('ne', 0, 0, 'pass');
  else {
    asm.jumpIf('eq', 0, 0, 'way-found');
    otherwise();
    asm.label('way-found');
  }
  asm.load(4, 1, FRAME, fib + FIB_INDEX);
  asm.jumpIf('ne', 1, underlayIndex, 'pass');
  // The next hop of an IPv4 route may have an IPv6 address.
  asm.load(1, 1, FRAME, fib);
  asm.jumpIf('ne', 1, addressFamily, 'pass');
}

/**
 * Sends the packet to the next hop that `findWay` has found, through its neighbour entry, which then knows that it is used.
 * @param nextHop NEXT_HOP_BYTES of the frame.
 */
export function sendToNeighbour(asm: Assembler, options: ProgramOptions, fib: number, nextHop: number): void {
  const { family, addressFamily } = outerOf(options);
  asm.store(4, FRAME, nextHop, addressFamily);
  for (let word = 0; word < family.addressBytes; word += 4) {
    asm.load(4, 1, FRAME, fib + FIB_DESTINATION + word);
    asm.store(4, FRAME, nextHop + 4 + word, reg(1));
  }
  const end = 4 + family.addressBytes;
  for (let offset = end; offset < NEXT_HOP_BYTES; offset += 4) asm.store(4, FRAME, nextHop + offset, 0);
  asm.op('mov', 1, options.underlayIndex);
  frameAddress(asm, 2, nextHop);
  asm.op('mov', 3, NEXT_HOP_BYTES);
  asm.op('mov', 4, 0);
  asm.call(REDIRECT_NEIGH);
  asm.exit();
}
