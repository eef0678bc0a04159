import { SO_ATTACH_FILTER, SOL_SOCKET } from './constants.ts';
import { addressOf, setsockopt } from './ffi.ts';

/** Of classic BPF (linux/filter.h): how many instructions to skip when a jump's condition holds, and when not. */
export type FilterInstruction = readonly [code: number, ifTrue: number, ifFalse: number, operand: number];

/** The kernel asks the program of each packet before it queues it. Returns 0 or −errno. */
export function attachSocketFilter(fd: number, program: readonly FilterInstruction[]): number {
  const code = new Uint8Array(new SharedArrayBuffer(program.length * 8));
  const view = new DataView(code.buffer);
  program.forEach(([op, ifTrue, ifFalse, operand], i) => {
    view.setUint16(i * 8, op, true);
    view.setUint8(i * 8 + 2, ifTrue);
    view.setUint8(i * 8 + 3, ifFalse);
    view.setUint32(i * 8 + 4, operand, true);
  });
  const description = new Uint8Array(new SharedArrayBuffer(16));
  const fprog = new DataView(description.buffer);
  fprog.setUint16(0, program.length, true);
  fprog.setBigUint64(8, BigInt(addressOf(code)), true);
  return setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, addressOf(description), description.length);
}
