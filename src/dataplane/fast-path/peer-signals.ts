import { setImmediate as nextTurn } from 'node:timers/promises';
import type { IpAddr } from '../../ip/address.ts';
import { ipv4Of } from '../../ip/ipv4.ts';
import { ipv6At } from '../../ip/ipv6.ts';
import type { Slot } from '../peer-table-layout.ts';
import type { PeerTableReader } from '../peer-table-reader.ts';
import { SIGN_PAYLOAD_BYTES } from './sign.ts';

/** What a packet worker tells the fast path: what has passed the forwarder's socket, and so the host's rules for it. */
export interface PeerSignals {
  /** Datagrams to that endpoint (see `Underlay`) have left; of the slot, which is the one that counts where hosts have IPv6 alone. */
  sent(slot: Slot, address: number): void;
  /** Datagrams from that endpoint have come. */
  received(slot: Slot, address: number): void;
  /** A sign has come; its payload is SIGN_PAYLOAD_BYTES at `offset`. */
  sign(slot: Slot, address: number, bytes: Uint8Array, offset: number): void;
}

export type PeerSignal =
  | { readonly type: 'sent' | 'received'; readonly address: IpAddr }
  | { readonly type: 'sign'; readonly address: IpAddr; readonly payload: Uint8Array };

/** Of one peer, one of a kind in that time: a stranger under its name must not keep the main thread busy. */
const EVERY_MS: Readonly<Record<PeerSignal['type'], number>> = { sent: 200, received: 200, sign: 2 };
/** So many at once, if there was none for as long as they take: a question, and the answer to the one that it was answered with. */
const AT_ONCE: Readonly<Record<PeerSignal['type'], number>> = { sent: 1, received: 1, sign: 2 };
const TYPES = ['sent', 'received', 'sign'] as const;
// Int32 words: entries written, entries read; then entries of type, version of IP, address, payload.
const WRITTEN = 0;
const READ = 1;
const HEADER_WORDS = 16;
const VERSION = 1;
const ADDRESS = 2;
const PAYLOAD: number = ADDRESS + 4;
const ENTRY_WORDS: number = PAYLOAD + SIGN_PAYLOAD_BYTES / 4;
const ENTRIES = 1_024; // a power of 2: the counts wrap

const entryAt = (count: number): number => HEADER_WORDS + (count & (ENTRIES - 1)) * ENTRY_WORDS;

/** A queue in shared memory from one packet worker to the main thread. What finds no room is lost: it comes again. */
export class SignalQueue {
  readonly buffer: SharedArrayBuffer;
  readonly #words: Int32Array;
  readonly #bytes: Uint8Array;
  readonly #view: DataView;

  static allocate(): SignalQueue {
    return new SignalQueue(new SharedArrayBuffer((HEADER_WORDS + ENTRIES * ENTRY_WORDS) * 4));
  }

  constructor(buffer: SharedArrayBuffer) {
    this.buffer = buffer;
    this.#words = new Int32Array(buffer);
    this.#bytes = new Uint8Array(buffer);
    this.#view = new DataView(buffer);
  }

  /**
   * @param clock milliseconds, monotonic.
   * @param slots of the peer table.
   * @param hosts6 that has the hosts' addresses, where they reach each other by IPv6.
   */
  writer(clock: () => number, slots: number, hosts6?: Pick<PeerTableReader, 'putHostAddress6'>): PeerSignals {
    const put = (type: PeerSignal['type']): PeerSignals['sign'] => {
      const dueAt = new Float64Array(slots);
      const every = EVERY_MS[type];
      const early = (AT_ONCE[type] - 1) * every;
      const code = TYPES.indexOf(type);
      return (slot, address, bytes, offset) => {
        const now = clock();
        const due = dueAt[slot] ?? Number.POSITIVE_INFINITY;
        if (slot === 0 || now < due - early) return;
        dueAt[slot] = Math.max(now, due) + every;
        const at = this.#nextEntry();
        if (at === undefined) return;
        const words = this.#words;
        words[at] = code;
        words[at + VERSION] = hosts6 === undefined ? 4 : 6;
        if (hosts6 === undefined) words[at + ADDRESS] = address;
        else hosts6.putHostAddress6(slot, this.#view, (at + ADDRESS) * 4);
        if (bytes.length > 0) this.#bytes.set(bytes.subarray(offset, offset + SIGN_PAYLOAD_BYTES), (at + PAYLOAD) * 4);
        this.#publishEntry();
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

  /** Where there is room; `undefined` when there is none. */
  #nextEntry(): number | undefined {
    const written = Atomics.load(this.#words, WRITTEN);
    return ((written - Atomics.load(this.#words, READ)) | 0) >= ENTRIES ? undefined : entryAt(written);
  }

  #publishEntry(): void {
    Atomics.add(this.#words, WRITTEN, 1);
    Atomics.notify(this.#words, WRITTEN);
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
    const address =
      this.#words[at + VERSION] === 4
        ? ipv4Of(this.#words[at + ADDRESS]! >>> 0)
        : ipv6At(this.#view, (at + ADDRESS) * 4);
    if (type !== 'sign') return { type, address };
    const from = (at + PAYLOAD) * 4;
    return { type, address, payload: this.#bytes.slice(from, from + SIGN_PAYLOAD_BYTES) };
  }
}
