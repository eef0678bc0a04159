import { setImmediate as nextTurn } from 'node:timers/promises';
import type { Slot } from '../peer-table-layout.ts';
import { SIGN_PAYLOAD_BYTES } from './sign.ts';

/** What a packet worker tells the fast path: what has passed the forwarder's socket, and so the host's rules for it. */
export interface PeerSignals {
  /** Datagrams to that address have left. */
  sent(slot: Slot, address: number): void;
  /** Datagrams from that address have come. */
  received(slot: Slot, address: number): void;
  /** A sign has come; its payload is SIGN_PAYLOAD_BYTES at `offset`. */
  sign(slot: Slot, address: number, bytes: Uint8Array, offset: number): void;
}

export type PeerSignal =
  | { readonly type: 'sent' | 'received'; readonly address: number }
  | { readonly type: 'sign'; readonly address: number; readonly payload: Uint8Array };

/** Of one peer, one of a kind in that time: a stranger under its name must not keep the main thread busy. */
const EVERY_MS: Readonly<Record<PeerSignal['type'], number>> = { sent: 200, received: 200, sign: 2 };
const TYPES = ['sent', 'received', 'sign'] as const;
// Int32 words: entries written, entries read; then entries of type, address, payload.
const WRITTEN = 0;
const READ = 1;
const HEADER_WORDS = 16;
const PAYLOAD = 2;
const ENTRY_WORDS = PAYLOAD + SIGN_PAYLOAD_BYTES / 4;
const ENTRIES = 1_024; // a power of 2: the counts wrap

const entryAt = (count: number): number => HEADER_WORDS + (count & (ENTRIES - 1)) * ENTRY_WORDS;

/** A queue in shared memory from one packet worker to the main thread. What finds no room is lost: it comes again. */
export class SignalQueue {
  readonly buffer: SharedArrayBuffer;
  readonly #words: Int32Array;
  readonly #bytes: Uint8Array;

  static allocate(): SignalQueue {
    return new SignalQueue(new SharedArrayBuffer((HEADER_WORDS + ENTRIES * ENTRY_WORDS) * 4));
  }

  constructor(buffer: SharedArrayBuffer) {
    this.buffer = buffer;
    this.#words = new Int32Array(buffer);
    this.#bytes = new Uint8Array(buffer);
  }

  /** @param clock milliseconds, monotonic. @param slots of the peer table. */
  writer(clock: () => number, slots: number): PeerSignals {
    const put = (type: PeerSignal['type']): PeerSignals['sign'] => {
      const dueAt = new Float64Array(slots);
      const every = EVERY_MS[type];
      const code = TYPES.indexOf(type);
      return (slot, address, bytes, offset) => {
        const now = clock();
        if (slot === 0 || now < (dueAt[slot] ?? Number.POSITIVE_INFINITY)) return;
        dueAt[slot] = now + every;
        this.#put(code, address, bytes, offset);
      };
    };
    const none = new Uint8Array(0);
    const [sent, received, sign] = [put('sent'), put('received'), put('sign')];
    return {
      sent: (slot, address) => sent(slot, address, none, 0),
      received: (slot, address) => received(slot, address, none, 0),
      sign,
    };
  }

  #put(type: number, address: number, bytes: Uint8Array, offset: number): void {
    const words = this.#words;
    const written = Atomics.load(words, WRITTEN);
    if (((written - Atomics.load(words, READ)) | 0) >= ENTRIES) return;
    const at = entryAt(written);
    words[at] = type;
    words[at + 1] = address;
    if (bytes.length > 0) this.#bytes.set(bytes.subarray(offset, offset + SIGN_PAYLOAD_BYTES), (at + PAYLOAD) * 4);
    Atomics.store(words, WRITTEN, (written + 1) | 0);
    Atomics.notify(words, WRITTEN);
  }

  /** Hands over what comes from now on, until disposed. One reader at a time. */
  read(take: (signal: PeerSignal) => void): Disposable {
    const words = this.#words;
    Atomics.store(words, READ, Atomics.load(words, WRITTEN));
    const ended = new AbortController();
    void this.#readUntil(take, ended.signal);
    return {
      [Symbol.dispose]: () => {
        ended.abort();
        Atomics.notify(words, WRITTEN);
      },
    };
  }

  async #readUntil(take: (signal: PeerSignal) => void, ended: AbortSignal): Promise<void> {
    const words = this.#words;
    while (!ended.aborted) {
      const written = Atomics.load(words, WRITTEN);
      for (let next = Atomics.load(words, READ); next !== written; next = (next + 1) | 0) {
        take(this.#entry(entryAt(next)));
        Atomics.store(words, READ, (next + 1) | 0);
      }
      await Atomics.waitAsync(words, WRITTEN, written).value;
      // However many come: the rest of this thread has its turn.
      await nextTurn();
    }
  }

  #entry(at: number): PeerSignal {
    const type = TYPES[this.#words[at]!]!;
    const address = this.#words[at + 1]! >>> 0;
    if (type !== 'sign') return { type, address };
    const from = (at + PAYLOAD) * 4;
    return { type, address, payload: this.#bytes.slice(from, from + SIGN_PAYLOAD_BYTES) };
  }
}
