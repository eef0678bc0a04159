/** R0 result, R1–R5 arguments (lost in calls), R6–R9 kept, R10 frame pointer (read only). */
export type Register = 0 | 1 | 2 | 3 | 4 | 5 | 6 | 7 | 8 | 9 | 10;

/** Bytes of a load or store. */
export type Size = 1 | 2 | 4 | 8;

/** A map that the loader has made: its descriptor goes into the instruction. */
export interface MapReference {
  readonly fd: number;
}

const LDX = 0x01;
const LD_IMM_64 = 0x18;
const ST = 0x02;
const STX = 0x03;
const ALU = 0x04;
const JMP = 0x05;
const ALU64 = 0x07;
const MODE_MEM = 0x60;
const MODE_ATOMIC = 0xc0;
const SOURCE_REGISTER = 0x08;
const SIZE_BITS: Readonly<Record<Size, number>> = { 4: 0x00, 2: 0x08, 1: 0x10, 8: 0x18 };
const PSEUDO_MAP_FD = 1;
const CALL = 0x80 | JMP;
const EXIT = 0x90 | JMP;
const TO_BIG_ENDIAN = 0xd0 | SOURCE_REGISTER | ALU;

const ARITHMETIC = {
  add: 0x00,
  sub: 0x10,
  mul: 0x20,
  and: 0x50,
  shl: 0x60,
  shr: 0x70,
  mod: 0x90,
  xor: 0xa0,
  mov: 0xb0,
};
export type Arithmetic = keyof typeof ARITHMETIC;

/** Comparisons are unsigned; `set` asks whether any bit is common. */
const CONDITIONS = { eq: 0x10, gt: 0x20, ge: 0x30, set: 0x40, ne: 0x50, lt: 0xa0, le: 0xb0 };
export type Condition = keyof typeof CONDITIONS;

/** A register, or a constant of 32 bits (sign-extended in 64-bit operations). */
export type Operand = { readonly reg: Register } | number;

export const reg = (number: Register): { readonly reg: Register } => ({ reg: number });

const INSTRUCTION_BYTES = 8;

/** @throws RangeError for one that would become another. */
function constant(value: number): number {
  if (Number.isInteger(value) && value >= -(2 ** 31) && value < 2 ** 32) return value;
  throw new RangeError(`${value} is no constant of 32 bits`);
}

interface Instruction {
  readonly code: number;
  readonly dst: Register;
  readonly src: number;
  readonly offset: number | { readonly label: string; readonly scope: string };
  readonly imm: number;
}

/**
 * An assembler for eBPF (RFC 9669): methods append instructions, labels are resolved at the end. Only what weft's programs
 * need. Fields of packets and of kernel structures are little endian here, as on the machines weft runs on; `toBig16` turns
 * a half word.
 */
export class Assembler {
  readonly #instructions: Instruction[] = [];
  readonly #labels = new Map<string, number>();
  #scope = '';

  #emit(code: number, dst: Register, src: number, offset: Instruction['offset'], imm: number): void {
    this.#instructions.push({ code, dst, src, offset, imm });
  }

  #emitOperand(code: number, dst: Register, operand: Operand, offset: Instruction['offset']): void {
    if (typeof operand === 'number') this.#emit(code, dst, 0, offset, constant(operand));
    else this.#emit(code | SOURCE_REGISTER, dst, operand.reg, offset, 0);
  }

  /** 64-bit arithmetic: dst = dst op operand. */
  op(operation: Arithmetic, dst: Register, operand: Operand): void {
    this.#emitOperand(ALU64 | ARITHMETIC[operation], dst, operand, 0);
  }

  /** 32-bit arithmetic; clears the upper half. */
  op32(operation: Arithmetic, dst: Register, operand: Operand): void {
    this.#emitOperand(ALU | ARITHMETIC[operation], dst, operand, 0);
  }

  /** Swaps the bytes of the low half word and clears the rest. */
  toBig16(dst: Register): void {
    this.#emit(TO_BIG_ENDIAN, dst, 0, 0, 16);
  }

  /** dst = memory at base + offset, zero-extended. */
  load(size: Size, dst: Register, base: Register, offset: number): void {
    this.#emit(LDX | MODE_MEM | SIZE_BITS[size], dst, base, offset, 0);
  }

  store(size: Size, base: Register, offset: number, operand: Operand): void {
    if (typeof operand === 'number') this.#emit(ST | MODE_MEM | SIZE_BITS[size], base, 0, offset, constant(operand));
    else this.#emit(STX | MODE_MEM | SIZE_BITS[size], base, operand.reg, offset, 0);
  }

  /** Adds src to the 64-bit word at base + offset in one step. */
  atomicAdd(base: Register, offset: number, src: Register): void {
    this.#emit(STX | MODE_ATOMIC | SIZE_BITS[8], base, src, offset, ARITHMETIC.add);
  }

  loadMap(dst: Register, map: MapReference): void {
    this.#emit(LD_IMM_64, dst, PSEUDO_MAP_FD, 0, map.fd);
    this.#emit(0, 0, 0, 0, 0);
  }

  /** Jumps to `label` when the 64-bit comparison holds. */
  jumpIf(condition: Condition, dst: Register, operand: Operand, label: string): void {
    this.#emitOperand(JMP | CONDITIONS[condition], dst, operand, { label, scope: this.#scope });
  }

  jump(label: string): void {
    this.#emit(JMP, 0, 0, { label, scope: this.#scope }, 0);
  }

  /** Names the next instruction. @throws RangeError when the name is taken. */
  label(name: string): void {
    const scoped = this.#scope + name;
    if (this.#labels.has(scoped)) throw new RangeError(`label ${scoped} is there twice`);
    this.#labels.set(scoped, this.#instructions.length);
  }

  /**
   * What `emit` names is its own, so that the same pieces of code can be there once more in another scope. Jumps in it go to the labels
   * of the scope, and to those outside where it has none of that name. Scopes do not nest.
   */
  within(scope: string, emit: () => void): void {
    this.#scope = `${scope}/`;
    emit();
    this.#scope = '';
  }

  /** @param helper number of a helper function, `enum bpf_func_id` of linux/bpf.h. */
  call(helper: number): void {
    this.#emit(CALL, 0, 0, 0, helper);
  }

  exit(): void {
    this.#emit(EXIT, 0, 0, 0, 0);
  }

  /** The program as the kernel takes it: 8 bytes an instruction. @throws RangeError for a jump to a label that is nowhere. */
  assemble(): Uint8Array {
    const bytes = new Uint8Array(this.#instructions.length * INSTRUCTION_BYTES);
    const view = new DataView(bytes.buffer);
    this.#instructions.forEach(({ code, dst, src, offset, imm }, index) => {
      const at = index * INSTRUCTION_BYTES;
      view.setUint8(at, code);
      view.setUint8(at + 1, (src << 4) | dst);
      view.setInt16(at + 2, typeof offset === 'number' ? offset : this.#distance(index, offset), true);
      view.setInt32(at + 4, imm, true);
    });
    return bytes;
  }

  #distance(from: number, { label, scope }: { readonly label: string; readonly scope: string }): number {
    const to = this.#labels.get(scope + label) ?? this.#labels.get(label);
    if (to === undefined) throw new RangeError(`jump to label ${label}, which is nowhere`);
    return to - from - 1;
  }
}
