/** Frames of several devices in the order of their times, although their sockets are read one after the other. */

/** What one read of one socket has brought. */
export interface ReadOf<T> {
  /** In the order of the socket. */
  readonly frames: readonly T[];
  /** Whether the socket may hold more. */
  readonly isCut: boolean;
}

/**
 * A frame that comes after its socket was read is older than one that another socket has given meanwhile. So what is younger than the
 * start of a round of reads, or than the last frame of a socket that was not read to its end, is kept for the next round.
 */
export class InOrder<T extends { readonly timeNs: bigint }> {
  #kept: T[] = [];

  /** @param startedNs when the round began, by the clock of the frames. @returns what can be written now. */
  round(startedNs: bigint, reads: readonly ReadOf<T>[]): T[] {
    let until = startedNs;
    for (const { frames, isCut } of reads) {
      const last = frames.at(-1);
      if (isCut && last !== undefined && last.timeNs < until) until = last.timeNs;
    }
    const all = [...this.#kept, ...reads.flatMap(({ frames }) => frames)].sort(byTime);
    const first = all.findIndex(({ timeNs }) => timeNs > until);
    this.#kept = first === -1 ? [] : all.splice(first);
    return all;
  }

  /** What was kept: nothing is read any more. */
  rest(): T[] {
    return this.#kept.splice(0);
  }
}

function byTime(a: { readonly timeNs: bigint }, b: { readonly timeNs: bigint }): number {
  return a.timeNs < b.timeNs ? -1 : a.timeNs > b.timeNs ? 1 : 0;
}
