import type { Clock } from './ports.ts';

/**
 * Longest time a worker looks for the next packet before it sleeps, in milliseconds. Longer than a round trip between two
 * hosts takes on a machine that must be woken: only then do the packets of a request and its answer count as close together.
 */
export const BUSY_POLL_MS = 0.1;
/** A step that moves more is no lone packet but part of a stream, which batching serves better. */
export const LONE_PACKET_BYTES = 2_048;

/**
 * Whether it pays to look again for a while before going to sleep. Being woken costs several microseconds, more on a
 * virtual machine, whose idle processor has left it. But a worker that looks for packets that do not come takes a processor
 * from the containers, and in a stream it takes the time in which a batch would gather. So a worker looks only when packets
 * came one by one and close together in both directions, and stops after one look in vain, as the kernel's guest halt polling
 * grows and shrinks (drivers/cpuidle/governors/haltpoll.c). A worker whose packets are far apart never looks.
 * docs/adr/0010-busy-polling.md has the measurements.
 */
export class BusyPoll {
  readonly #now: Clock;
  /** Bytes of the last step of each direction: one Int32 each, shared by the two workers. */
  readonly #lastStep: Int32Array;
  readonly #own: 0 | 1;
  #worthwhile = false;
  #lastMoved = 0;
  /** Whether nothing was there since the last step that moved something. */
  #idle = true;

  /** @param lastStep two words of memory shared with the other direction; this one writes the word `own`. */
  constructor(now: Clock, lastStep: Int32Array, own: 0 | 1) {
    this.#now = now;
    this.#lastStep = lastStep;
    this.#own = own;
  }

  /** A step has moved this many bytes. */
  moved(bytes: number): void {
    const now = this.#now();
    this.#worthwhile = now - this.#lastMoved < BUSY_POLL_MS;
    this.#lastMoved = now;
    this.#lastStep[this.#own] = bytes;
    this.#idle = false;
  }

  /** Whether what comes next is likely a packet by itself, which need not wait for others to be sent with. */
  get expectsLonePacket(): boolean {
    return this.#worthwhile && this.#idle;
  }

  /** Nothing is left to do: whether to look again instead of going to sleep. */
  lookAgain(): boolean {
    this.#idle = true;
    if (!this.#worthwhile) return false;
    this.#worthwhile =
      this.#lastStep[0]! <= LONE_PACKET_BYTES &&
      this.#lastStep[1]! <= LONE_PACKET_BYTES &&
      this.#now() - this.#lastMoved < BUSY_POLL_MS;
    return this.#worthwhile;
  }
}
