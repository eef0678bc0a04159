/**
 * What the kernel says of its own types (BTF, Documentation/bpf/btf.rst): where a member lies in a structure of this very build, and what
 * the values of an enumeration are called. Pure; every offset is checked against the length.
 */
import { WeftError } from '../errors.ts';

const MAGIC = 0xeb9f;
const KIND = {
  array: 3,
  struct: 4,
  union: 5,
  enum: 6,
  funcProto: 13,
  variable: 14,
  dataSection: 15,
  declTag: 17,
  enum64: 19,
};
/** Bytes after the common head of a type, for those that have some whatever their count; INT is kind 1. */
const FIXED_TAIL: Readonly<Record<number, number>> = { 1: 4, [KIND.array]: 12, [KIND.variable]: 4, [KIND.declTag]: 4 };
const EACH_TAIL: Readonly<Record<number, number>> = {
  [KIND.struct]: 12,
  [KIND.union]: 12,
  [KIND.enum]: 8,
  [KIND.funcProto]: 8,
  [KIND.dataSection]: 12,
  [KIND.enum64]: 12,
};

interface TypeHead {
  readonly kind: number;
  readonly count: number;
  readonly hasBitfields: boolean;
  readonly nameAt: number;
  readonly tailAt: number;
}

/** The types of one kernel. */
export class Btf {
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  readonly #strings: number;
  /** By number, from 1. */
  readonly #types: TypeHead[] = [];
  readonly #named = new Map<string, TypeHead>();

  /** @throws WeftError WEFT_TRACE_UNAVAILABLE when this is no BTF. */
  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    try {
      if (this.#view.getUint16(0, true) !== MAGIC) throw new RangeError('it does not start with the mark of BTF');
      const head = this.#view.getUint32(4, true);
      this.#strings = head + this.#view.getUint32(16, true);
      this.#readTypes(head + this.#view.getUint32(8, true), this.#view.getUint32(12, true));
    } catch (error) {
      throw new WeftError('WEFT_TRACE_UNAVAILABLE', `failed to read the types of the kernel: ${String(error)}`, {
        cause: error,
      });
    }
  }

  /** Bytes from the start of the structure, also of a member of an unnamed part of it. @throws WeftError WEFT_TRACE_UNAVAILABLE */
  offsetOf(structure: string, member: string): number {
    const type = this.#named.get(structure);
    const bits = type && this.#bitsTo(type, member);
    if (bits !== undefined) return bits / 8;
    throw new WeftError('WEFT_TRACE_UNAVAILABLE', `this kernel has no ${member} in struct ${structure}`);
  }

  /** Names by value; empty when there is no such enumeration. */
  enumNames(name: string): ReadonlyMap<number, string> {
    const type = this.#named.get(`enum ${name}`);
    if (type === undefined) return new Map();
    return new Map(
      Array.from({ length: type.count }, (_, i) => {
        const at = type.tailAt + 8 * i;
        return [this.#view.getInt32(at + 4, true), this.#string(this.#view.getUint32(at, true))] as const;
      }),
    );
  }

  #readTypes(from: number, length: number): void {
    this.#types.push({ kind: 0, count: 0, hasBitfields: false, nameAt: 0, tailAt: 0 });
    for (let at = from; at < from + length; ) {
      const info = this.#view.getUint32(at + 4, true);
      const [kind, count] = [(info >>> 24) & 0x1f, info & 0xffff];
      const nameAt = this.#view.getUint32(at, true);
      const type = { kind, count, hasBitfields: info >>> 31 === 1, nameAt, tailAt: at + 12 };
      this.#types.push(type);
      if (nameAt !== 0 && kind === KIND.struct) this.#named.set(this.#string(nameAt), type);
      if (nameAt !== 0 && kind === KIND.enum) this.#named.set(`enum ${this.#string(nameAt)}`, type);
      at += 12 + (FIXED_TAIL[kind] ?? 0) + (EACH_TAIL[kind] ?? 0) * count;
    }
  }

  #bitsTo(type: TypeHead, member: string): number | undefined {
    for (let i = 0; i < type.count; i++) {
      const at = type.tailAt + 12 * i;
      const nameAt = this.#view.getUint32(at, true);
      const raw = this.#view.getUint32(at + 8, true);
      const bits = type.hasBitfields ? raw & 0xff_ffff : raw;
      if (nameAt !== 0) {
        if (this.#string(nameAt) === member) return bits;
        continue;
      }
      const inner = this.#types[this.#view.getUint32(at + 4, true)];
      if (inner === undefined || (inner.kind !== KIND.struct && inner.kind !== KIND.union)) continue;
      const further = this.#bitsTo(inner, member);
      if (further !== undefined) return bits + further;
    }
    return undefined;
  }

  #string(at: number): string {
    const start = this.#strings + at;
    const end = this.#bytes.indexOf(0, start);
    return Buffer.from(this.#bytes.buffer, this.#bytes.byteOffset + start, Math.max(0, end - start)).toString('latin1');
  }
}
