import type { Slot } from './peer-table-layout.ts';

/**
 * Gives each peer a slot of the counters for as long as it is known, so that its counters survive every change of the table.
 * A slot is given to another peer only when no fresh one is left: late packets of the old peer could still be counted.
 */
export class PeerSlots {
  readonly #capacity: number;
  readonly #slots = new Map<string, Slot>();
  readonly #released: Slot[] = [];
  #next = 1;

  /** @param capacity number of slots, slot 0 (nobody) included. */
  constructor(capacity: number) {
    this.#capacity = capacity;
  }

  /**
   * The slots of exactly these peers, in order; all others are released.
   * @returns undefined in place of a slot when there are more peers than slots.
   */
  assign(keys: readonly string[], onReuse: (slot: Slot) => void): (Slot | undefined)[] {
    const wanted = new Set(keys);
    for (const [key, slot] of this.#slots) {
      if (wanted.has(key)) continue;
      this.#slots.delete(key);
      this.#released.push(slot);
    }
    return keys.map((key) => this.#slotOf(key, onReuse));
  }

  #slotOf(key: string, onReuse: (slot: Slot) => void): Slot | undefined {
    const held = this.#slots.get(key);
    if (held !== undefined) return held;
    let slot: Slot | undefined;
    if (this.#next < this.#capacity) slot = this.#next++;
    else {
      slot = this.#released.shift();
      if (slot !== undefined) onReuse(slot);
    }
    if (slot !== undefined) this.#slots.set(key, slot);
    return slot;
  }

  /** `undefined` for a peer that has none. */
  of(key: string): Slot | undefined {
    return this.#slots.get(key);
  }

  /** Known peers and their slots, for metrics and status. */
  entries(): IterableIterator<[string, Slot]> {
    return this.#slots.entries();
  }
}
