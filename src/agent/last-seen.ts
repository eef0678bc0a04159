/** When the count of packets from each peer was last seen to have risen. */
export class LastSeen {
  readonly #seen = new Map<string, { packets: number; atMs: number }>();
  readonly #now: () => number;

  constructor(now: () => number = Date.now) {
    this.#now = now;
  }

  /**
   * @param packets from that peer so far; `undefined`: nobody counts them.
   * @returns milliseconds since the epoch; `undefined` when nothing has come.
   */
  at(id: string, packets: number | undefined): number | undefined {
    if (packets === undefined || packets === 0) return undefined;
    const seen = this.#seen.get(id);
    if (seen?.packets === packets) return seen.atMs;
    const atMs = this.#now();
    this.#seen.set(id, { packets, atMs });
    return atMs;
  }

  /** Forgets all others. */
  keepOnly(ids: ReadonlySet<string>): void {
    for (const id of this.#seen.keys()) if (!ids.has(id)) this.#seen.delete(id);
  }
}
