// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
/** Words in the frame of a program, their order, and sums over them (RFC 1071). */

import { type Assembler, type Register, reg } from './assembler.ts';

export const FRAME: Register = 10;

/** `bpf_csum_diff` (`enum bpf_func_id`). */
export const CSUM_DIFF = 28;

/** dst = address of the frame at offset. */
export function frameAddress(asm: Assembler, dst: Register, offset: number): void {
  asm.op('mov', dst, reg(FRAME));
  asm.op('add', dst, offset);
}

/** Host to network order, as a constant for a little-endian store or comparison. */
export const be16 = (value: number): number => ((value >>> 8) & 0xff) | ((value & 0xff) << 8);
export const be32 = (value: number): number =>
  (value >>> 24) | ((value >>> 8) & 0xff00) | ((value & 0xff00) << 8) | (value << 24);

/** Folds the sum in a register to 16 bits, by way of another. */
export function foldSum(asm: Assembler, sum: Register, scratch: Register): void {
  for (let round = 0; round < 2; round++) {
    asm.op('mov', scratch, reg(sum));
    asm.op('shr', scratch, 16);
    asm.op('and', sum, 0xffff);
    asm.op('add', sum, reg(scratch));
  }
}

/** Adds to sum (R3) the words at an offset of the frame, by way of R1 and R2; `length` 2 or 4 bytes. */
export function addToSum(asm: Assembler, offset: number, length: 2 | 4): void {
  asm.load(length, 1, FRAME, offset);
  if (length === 4) {
    asm.op('mov', 2, reg(1));
    asm.op('shr', 2, 16);
    asm.op('and', 1, 0xffff);
    asm.op('add', 3, reg(2));
  }
  asm.op('add', 3, reg(1));
}
