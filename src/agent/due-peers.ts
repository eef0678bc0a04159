import { type Lease, type LeaseEvent, type LeaseKey, leaseKey } from '../lease/lease.ts';

/** The peers that are wanted, and which of them, and of those that go, are not programmed as they are wanted. */
export class DuePeers {
  #wanted = new Map<LeaseKey, Lease>();
  readonly #due = new Set<LeaseKey>();

  /**
   * These and no others. One whose lease is the one that is wanted already is not due.
   * @param foreseen known somewhere although they were never wanted: they go unless they are wanted now.
   */
  set(peers: readonly Lease[], foreseen: readonly LeaseKey[]): void {
    const wanted = new Map(peers.map((peer) => [leaseKey(peer), peer]));
    for (const key of [...this.#wanted.keys(), ...foreseen]) if (!wanted.has(key)) this.#due.add(key);
    for (const [key, peer] of wanted) if (this.#wanted.get(key) !== peer) this.#due.add(key);
    this.#wanted = wanted;
  }

  /** The same with these changes; costs what they are, not what there is. */
  change(events: readonly LeaseEvent[]): void {
    for (const { type, lease } of events) {
      const key = leaseKey(lease);
      if (type === 'set') this.#wanted.set(key, lease);
      else this.#wanted.delete(key);
      this.#due.add(key);
    }
  }

  /** All that are wanted are due: what they were programmed for is no more. */
  again(): void {
    for (const key of this.#wanted.keys()) this.#due.add(key);
  }

  /** Those that are due; `undefined` for one that goes. */
  *due(): Iterable<readonly [LeaseKey, Lease | undefined]> {
    for (const key of this.#due) yield [key, this.#wanted.get(key)];
  }

  /** The same, to be programmed in this order; none is due after that. */
  take(): readonly (readonly [LeaseKey, Lease | undefined])[] {
    const due = [...this.due()];
    this.#due.clear();
    // Removals come first, so that a subnet cut differently does not lose its new routes.
    return [...due.filter(([, peer]) => peer === undefined), ...due.filter(([, peer]) => peer !== undefined)];
  }
}
