import type { IpAddr } from '../ip/address.ts';
import { ipv4Of } from '../ip/ipv4.ts';
import { DROP_REASONS, type DropReasonName } from './drop-reason.ts';
import { ADDRESS6_WORDS, address6Of } from './prefix6-words.ts';

/** Whose packets were refused for the address that they come from or go to, and how many. */
export interface RefusedSender {
  /** Outer source address of the datagrams. */
  readonly sender: IpAddr;
  readonly reason: DropReasonName;
  /**
   * The inner address that was refused, of the first packet seen: its destination where that was the reason, else its source.
   * `undefined`: the packet had none.
   */
  readonly inner: IpAddr | undefined;
  readonly packets: number;
}

const ROWS = 32;
// A row: reason, packets (0 = empty), IP versions of sender and inner address (0: there is none), and the two in four words each, of which
// IPv4 takes the first.
const ROW_WORDS = 12;
const REASON = 0;
const PACKETS = 1;
const SENDER_VERSION = 2;
const INNER_VERSION = 3;
const SENDER = 4;
const INNER = 8;
const HALF_WORDS = ROWS * ROW_WORDS;
const ACTIVE = 0;
const HEADER_WORDS = 4;

/** An address in memory that a DataView shows. */
export interface AddressAt {
  readonly version: 4 | 6;
  readonly at: number;
}

/**
 * How the packet worker tells the control plane who was refused: a few rows of shared memory, and no message. There are two halves.
 * The worker fills one, the control plane reads the other and then has them exchanged, so that it reads what nobody has written to
 * since the time before. Memory is fixed: senders beyond the first 32 of a while are only counted, in the drop counters.
 */
export class RefusedSenders {
  readonly buffer: SharedArrayBuffer;
  readonly #words: Int32Array;

  static allocate(): RefusedSenders {
    return new RefusedSenders(new SharedArrayBuffer((HEADER_WORDS + 2 * HALF_WORDS) * 4));
  }

  constructor(buffer: SharedArrayBuffer) {
    this.buffer = buffer;
    this.#words = new Int32Array(buffer);
  }

  /** For the one packet worker that receives. @param reason a number of drop-reason.ts. */
  note(view: DataView, sender: AddressAt, reason: number, inner: AddressAt | undefined, packets: number): void {
    const words = this.#words;
    const base = HEADER_WORDS + Atomics.load(words, ACTIVE) * HALF_WORDS;
    for (let row = base; row < base + HALF_WORDS; row += ROW_WORDS) {
      const present = words[row + PACKETS]!;
      if (present === 0) {
        words[row + REASON] = reason;
        words[row + SENDER_VERSION] = sender.version;
        words[row + INNER_VERSION] = inner?.version ?? 0;
        copyAddress(words, row + SENDER, view, sender);
        if (inner !== undefined) copyAddress(words, row + INNER, view, inner);
        words[row + PACKETS] = packets;
        return;
      }
      if (words[row + REASON] === reason && isAddress(words, row + SENDER, view, sender)) {
        words[row + PACKETS] = Math.min(present + packets, 0x7fff_ffff);
        return;
      }
    }
  }

  /** For the control plane: what was noted between the last two calls but one. */
  take(): RefusedSender[] {
    const words = this.#words;
    const other = 1 - Atomics.load(words, ACTIVE);
    const base = HEADER_WORDS + other * HALF_WORDS;
    const taken: RefusedSender[] = [];
    for (let row = base; row < base + HALF_WORDS && words[row + PACKETS] !== 0; row += ROW_WORDS) {
      taken.push({
        sender: addressIn(words, row + SENDER, words[row + SENDER_VERSION]!),
        reason: DROP_REASONS[words[row + REASON]!] ?? 'none',
        inner:
          words[row + INNER_VERSION] === 0 ? undefined : addressIn(words, row + INNER, words[row + INNER_VERSION]!),
        packets: words[row + PACKETS]!,
      });
    }
    words.fill(0, base, base + HALF_WORDS);
    Atomics.store(words, ACTIVE, other);
    return taken;
  }
}

function wordsOf({ version }: AddressAt): number {
  return version === 4 ? 1 : ADDRESS6_WORDS;
}

function copyAddress(words: Int32Array, to: number, view: DataView, from: AddressAt): void {
  for (let index = 0; index < wordsOf(from); index++) words[to + index] = view.getInt32(from.at + 4 * index);
}

/** All senders come from one underlay, so of one version. */
function isAddress(words: Int32Array, at: number, view: DataView, other: AddressAt): boolean {
  for (let index = 0; index < wordsOf(other); index++) {
    if (words[at + index] !== view.getInt32(other.at + 4 * index)) return false;
  }
  return true;
}

function addressIn(words: Int32Array, at: number, version: number): IpAddr {
  return version === 4 ? ipv4Of(words[at]! >>> 0) : address6Of(words, at);
}
