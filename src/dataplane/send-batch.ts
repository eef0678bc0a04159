import { type Arena, type ArenaLayout, IOVEC_SIZE, putIovec } from './arena.ts';
import { HEADER_STRIDE, MAX_SEGMENTS, SEND_HEADERS, SEND_IOVECS, SEND_MESSAGES } from './limits.ts';
import { CONTROL_SIZE, initMessage, MESSAGE_SIZE, NAME_STRIDE, setSegmentSize, setVector } from './mmsghdr.ts';
import type { Slot } from './peer-table-layout.ts';
import { MAX_UDP_PAYLOAD } from './wire.ts';

/** Writes where the datagrams of a slot go to `at`, as sendmsg wants it. */
export type PutName = (at: number, slot: Slot) => void;

/**
 * Datagrams on their way out, laid down as the array of messages that sendmmsg takes. Datagrams of one size to one peer
 * that follow each other become one UDP_SEGMENT message (the last may be shorter); payloads stay where they lie.
 */
export class SendBatch {
  readonly #arena: Arena;
  readonly #messages: number;
  readonly #names: number;
  readonly #controls: number;
  readonly #iovecs: number;
  readonly #headers: number;
  readonly #slots = new Int32Array(SEND_MESSAGES);
  readonly #segmentSizes = new Int32Array(SEND_MESSAGES);
  readonly #segments = new Int32Array(SEND_MESSAGES);
  readonly #sizes = new Int32Array(SEND_MESSAGES);
  readonly #firstIovec = new Int32Array(SEND_MESSAGES);
  #maxSegments = MAX_SEGMENTS;
  #count = 0;
  #usedIovecs = 0;
  #usedHeaders = 0;
  // The message that still takes datagrams: index count−1, or none when `#open` is false.
  #open = false;
  #address = 0;
  #port = 0;

  readonly #putName: PutName;

  constructor(layout: ArenaLayout, nameBytes: number, putName: PutName) {
    const { arena } = layout;
    this.#putName = putName;
    this.#arena = arena;
    this.#messages = layout.take(SEND_MESSAGES * MESSAGE_SIZE);
    this.#names = layout.take(SEND_MESSAGES * NAME_STRIDE);
    this.#controls = layout.take(SEND_MESSAGES * CONTROL_SIZE);
    this.#iovecs = layout.take(SEND_IOVECS * IOVEC_SIZE);
    this.#headers = layout.take(SEND_HEADERS * HEADER_STRIDE);
    for (let index = 0; index < SEND_MESSAGES; index++) {
      initMessage(arena, this.message(index), this.name(index), nameBytes, this.#controls + index * CONTROL_SIZE);
    }
  }

  get count(): number {
    return this.#count;
  }

  /** Room for one more datagram, be it one piece or two; when false, send and `reset` first. */
  get hasRoom(): boolean {
    return this.#count < SEND_MESSAGES && this.#usedIovecs + 2 <= SEND_IOVECS && this.#usedHeaders < SEND_HEADERS;
  }

  /** From now on one datagram a message: for kernels or devices that refuse UDP_SEGMENT. */
  disableSegmentation(): void {
    this.#maxSegments = 1;
  }

  /** Where the headers of the datagrams that `reserve` allowed are to be written, one every HEADER_STRIDE bytes. */
  get header(): number {
    return this.#headers + this.#usedHeaders * HEADER_STRIDE;
  }

  /** Where their vector entries are to be written, two for each. */
  get iovec(): number {
    return this.#iovecs + this.#usedIovecs * IOVEC_SIZE;
  }

  /**
   * Adds one datagram that lies in one piece. Call only when `hasRoom`.
   * @param address what tells the hosts apart, with `port`: datagrams to one may share a message.
   */
  add(slot: Slot, address: number, port: number, packet: number, length: number): void {
    this.reserve(slot, address, port, length, 1);
    putIovec(this.#arena, this.iovec, packet, length);
    this.#commit(1, 1, length);
  }

  /**
   * Chooses the message for datagrams of `length` bytes: how many of `most` it takes now, at least one. They are laid down
   * at `header` and `iovec`, and `commitPairs` adds them. Call only when `hasRoom`.
   */
  reserve(slot: Slot, address: number, port: number, length: number, most: number): number {
    let index = this.#count - 1;
    if (
      !this.#open ||
      address !== this.#address ||
      port !== this.#port ||
      length > this.#segmentSizes[index]! ||
      this.#sizes[index]! + length > MAX_UDP_PAYLOAD ||
      this.#segments[index]! >= this.#maxSegments
    ) {
      index = this.#begin(slot, address, port, length);
    }
    if (most === 1 || length < this.#segmentSizes[index]!) return 1; // only the last segment may be shorter
    const byBytes = Math.floor((MAX_UDP_PAYLOAD - this.#sizes[index]!) / length);
    const byVector = (SEND_IOVECS - this.#usedIovecs) >> 1;
    const bySegments = Math.min(this.#maxSegments - this.#segments[index]!, SEND_HEADERS - this.#usedHeaders);
    return Math.max(1, Math.min(most, byBytes, byVector, bySegments));
  }

  /** Adds `count` datagrams of a header and a payload each, `length` bytes together, as `reserve` allowed. */
  commitPairs(count: number, length: number): void {
    this.#usedHeaders += count;
    this.#commit(count, 2 * count, length);
  }

  #commit(count: number, entries: number, length: number): void {
    const index = this.#count - 1;
    this.#usedIovecs += entries;
    this.#segments[index]! += count;
    this.#sizes[index]! += count * length;
    if (length < this.#segmentSizes[index]!) this.#open = false;
  }

  #begin(slot: Slot, address: number, port: number, length: number): number {
    const index = this.#count++;
    this.#slots[index] = slot;
    this.#segmentSizes[index] = length;
    this.#segments[index] = 0;
    this.#sizes[index] = 0;
    this.#firstIovec[index] = this.#usedIovecs;
    this.#putName(this.name(index), slot);
    this.#address = address;
    this.#port = port;
    this.#open = true;
    return index;
  }

  /** Completes the message structures; nothing may be added before `reset`. */
  seal(): void {
    for (let index = 0; index < this.#count; index++) {
      const first = this.#firstIovec[index]!;
      const end = index + 1 < this.#count ? this.#firstIovec[index + 1]! : this.#usedIovecs;
      const message = this.message(index);
      setVector(this.#arena, message, this.#iovecs + first * IOVEC_SIZE, end - first);
      const control = this.#controls + index * CONTROL_SIZE;
      setSegmentSize(this.#arena, message, control, this.#segments[index]! > 1 ? this.#segmentSizes[index]! : 0);
    }
  }

  reset(): void {
    this.#count = 0;
    this.#usedIovecs = 0;
    this.#usedHeaders = 0;
    this.#open = false;
  }

  message(index: number): number {
    return this.#messages + index * MESSAGE_SIZE;
  }

  /** Where the address is that a message goes to. */
  name(index: number): number {
    return this.#names + index * NAME_STRIDE;
  }

  slot(index: number): Slot {
    return this.#slots[index]!;
  }

  segments(index: number): number {
    return this.#segments[index]!;
  }

  segmentSize(index: number): number {
    return this.#segmentSizes[index]!;
  }

  bytes(index: number): number {
    return this.#sizes[index]!;
  }

  /**
   * Calls `send` once for each datagram of a message, as if it had been a message of its own: `bytes` long, its inner IP
   * header at `ip`, of which `present` bytes lie in one piece. The message is changed and cannot be sent whole afterwards.
   * Slow: for kernels that refuse the whole.
   */
  splitMessage(index: number, send: (message: number, bytes: number, ip: number, present: number) => void): void {
    const { view, base } = this.#arena;
    const message = this.message(index);
    const size = this.#segmentSizes[index]!;
    const end = index + 1 < this.#count ? this.#firstIovec[index + 1]! : this.#usedIovecs;
    setSegmentSize(this.#arena, message, this.#controls + index * CONTROL_SIZE, 0);
    let first = this.#firstIovec[index]!;
    let length = 0;
    for (let entry = first; entry < end; entry++) {
      length += view.getUint32(this.#iovecs + entry * IOVEC_SIZE + 8, true);
      if (length < size && entry + 1 < end) continue;
      setVector(this.#arena, message, this.#iovecs + first * IOVEC_SIZE, entry + 1 - first);
      const at = this.#iovecs + first * IOVEC_SIZE;
      const ip = view.getUint32(at, true) + view.getUint32(at + 4, true) * 0x1_0000_0000 - base;
      send(message, length, ip, view.getUint32(at + 8, true));
      first = entry + 1;
      length = 0;
    }
  }
}
