import { PACKETS_MODULE } from './wasm/packets-module.ts';
import { ARENA_PAGES } from './wasm/pages.ts';

const PAGE = 65_536;

/** Cuts segments out of a super-packet; see wasm/packets.as.ts. */
export type Segment = (
  ip: number,
  headerLength: number,
  headers: number,
  size: number,
  index: number,
  count: number,
  header: number,
  stride: number,
  iovecs: number,
) => void;

/** How many packets continue a run of segments; see wasm/packets.as.ts. */
export type Continue = (
  first: number,
  headers: number,
  ip: number,
  length: number,
  most: number,
  older: number,
  sequence: number,
  identification: number,
  iovec: number,
) => number;

/** One worker's memory: packets, headers and the kernel's message structures, all in one block that never moves. */
export interface Arena {
  readonly bytes: Uint8Array;
  /** Big-endian by default, as packets are; pass `true` for the host's (little-endian) structures. */
  readonly view: DataView;
  readonly size: number;
  /** Address of byte 0 in this process, 0 in memory-only tests: `base + offset` is what system calls get. */
  readonly base: number;
  /** `base` in halves: the low one as a signed 32-bit number, so that pointers are put together without floating point. */
  readonly baseLow: number;
  readonly baseHigh: number;
  /** Partial ones'-complement sum, little-endian words, folded to 16 bits (RFC 1071). */
  readonly sum16: (offset: number, length: number) => number;
  /** 1 when the IPv4 packet at `offset`, its header 20 bytes long, has right header and TCP or UDP checksums, else 0. */
  readonly valid4: (offset: number, length: number) => number;
  /** 1 when the IPv6 packet at `offset`, without extension headers, has a right TCP or UDP checksum, else 0. */
  readonly valid6: (offset: number, length: number) => number;
  readonly segment4: Segment;
  readonly segment6: Segment;
  readonly continue4: Continue;
  readonly continue6: Continue;
}

/** @param addressOf gives the address of the memory for system calls; left out by devices that make none. */
export function createArena(addressOf?: (bytes: Uint8Array) => number): Arena {
  const memory = new WebAssembly.Memory({ initial: ARENA_PAGES, maximum: ARENA_PAGES, shared: true });
  const module = new WebAssembly.Module(Buffer.from(PACKETS_MODULE, 'base64'));
  const bytes = new Uint8Array(memory.buffer);
  const base = addressOf?.(bytes) ?? 0;
  const { exports } = new WebAssembly.Instance(module, { env: { memory, base: BigInt(base) } });
  return {
    bytes,
    view: new DataView(memory.buffer),
    size: ARENA_PAGES * PAGE,
    base,
    baseLow: base | 0,
    baseHigh: Math.floor(base / 0x1_0000_0000),
    sum16: exports.sum16 as Arena['sum16'],
    valid4: exports.valid4 as Arena['valid4'],
    valid6: exports.valid6 as Arena['valid6'],
    segment4: exports.segment4 as Segment,
    segment6: exports.segment6 as Segment,
    continue4: exports.continue4 as Continue,
    continue6: exports.continue6 as Continue,
  };
}

/** Hands out the arena's regions once, at start; a region that does not fit is a programming error. */
export class ArenaLayout {
  readonly arena: Arena;
  #next = 64; // offset 0 is never handed out, so that 0 can mean "none"

  constructor(arena: Arena) {
    this.arena = arena;
  }

  take(length: number, align = 64): number {
    const offset = Math.ceil(this.#next / align) * align;
    if (offset + length > this.arena.size) throw new RangeError(`arena exhausted: ${length} bytes at ${offset}`);
    this.#next = offset + length;
    return offset;
  }
}

/** Writes a 64-bit pointer to an arena offset where the kernel will read it. */
export function putPointer(arena: Arena, at: number, offset: number): void {
  const low = (arena.baseLow + offset) | 0;
  const carry = low >>> 0 < offset ? 1 : 0;
  arena.view.setInt32(at, low, true);
  arena.view.setInt32(at + 4, arena.baseHigh + carry, true);
}

export const IOVEC_SIZE = 16;

/** One `struct iovec` (bits/types/struct_iovec.h, 64-bit). */
export function putIovec(arena: Arena, at: number, offset: number, length: number): void {
  putPointer(arena, at, offset);
  arena.view.setUint32(at + 8, length, true);
  arena.view.setUint32(at + 12, 0, true);
}
