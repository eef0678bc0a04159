import { DROP_REASONS, type DropReasonName } from './drop-reason.ts';

/** Whose packets were refused for the address that they come from or go to, and how many. */
export interface RefusedSender {
  /** Outer source address of the datagrams. */
  readonly sender: number;
  readonly reason: DropReasonName;
  /** The inner address that was refused, of the first packet seen: its destination where that was the reason, else its source; 0: none. */
  readonly inner: number;
  readonly packets: number;
}

const ROWS = 32;
// A row: sender, reason, inner address, packets; packets 0 = empty.
const ROW_WORDS = 4;
const HALF_WORDS = ROWS * ROW_WORDS;
const ACTIVE = 0;
const HEADER_WORDS = 4;

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
  note(sender: number, reason: number, inner: number, packets: number): void {
    const words = this.#words;
    const base = HEADER_WORDS + Atomics.load(words, ACTIVE) * HALF_WORDS;
    for (let row = base; row < base + HALF_WORDS; row += ROW_WORDS) {
      const present = words[row + 3]!;
      if (present === 0) {
        words[row] = sender;
        words[row + 1] = reason;
        words[row + 2] = inner;
        words[row + 3] = packets;
        return;
      }
      if (words[row] === (sender | 0) && words[row + 1] === reason) {
        words[row + 3] = Math.min(present + packets, 0x7fff_ffff);
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
    for (let row = base; row < base + HALF_WORDS && words[row + 3] !== 0; row += ROW_WORDS) {
      taken.push({
        sender: words[row]! >>> 0,
        reason: DROP_REASONS[words[row + 1]!] ?? 'none',
        inner: words[row + 2]! >>> 0,
        packets: words[row + 3]!,
      });
    }
    words.fill(0, base, base + HALF_WORDS);
    Atomics.store(words, ACTIVE, other);
    return taken;
  }
}
