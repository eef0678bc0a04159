import type { Lease } from '../lease/lease.ts';
import { type EntryId, entryId, type LeaseKey } from '../lease/lease.ts';
import type { LeaseUpdate } from './subnet-manager.ts';

/**
 * The buffer between a store's watch and its consumer: never longer than one snapshot and one change for each entry, so a
 * consumer that is slower than the store skips states that are history by then and never makes the watch wait.
 * One consumer; `end` finishes it, `fail` makes its next step reject.
 */
export class LeaseUpdateQueue {
  #snapshot: readonly Lease[] | undefined;
  readonly #changes = new Map<EntryId, LeaseUpdate>();
  #wake: (() => void) | undefined;
  #ended = false;
  #failure: { readonly error: unknown } | undefined;

  /** How many changes wait for the consumer. */
  get pending(): number {
    return this.#changes.size;
  }

  /** Everything buffered before is superseded. */
  snapshot(leases: readonly Lease[]): void {
    this.#snapshot = leases;
    this.#changes.clear();
    this.#wake?.();
  }

  set(lease: Lease): void {
    this.#change(entryId(lease), { type: 'set', lease });
  }

  removed(key: LeaseKey, holder?: string): void {
    this.#change(
      entryId(key, holder),
      holder === undefined ? { type: 'removed', key } : { type: 'removed', key, holder },
    );
  }

  /** Buffered updates are dropped: whoever ends a watch does not want them any more. */
  end(): void {
    this.#ended = true;
    this.#wake?.();
  }

  fail(error: unknown): void {
    this.#failure ??= { error };
    this.#wake?.();
  }

  #change(key: EntryId, update: LeaseUpdate): void {
    this.#changes.delete(key); // so that the order is that of the latest changes
    this.#changes.set(key, update);
    this.#wake?.();
  }

  async *drain(): AsyncGenerator<LeaseUpdate, void, void> {
    for (;;) {
      if (this.#ended) return;
      if (this.#snapshot !== undefined) {
        const leases = this.#snapshot;
        this.#snapshot = undefined;
        yield { type: 'snapshot', leases };
        continue;
      }
      const first = this.#changes.entries().next();
      if (first.done !== true) {
        const [key, update] = first.value;
        this.#changes.delete(key);
        yield update;
        continue;
      }
      if (this.#failure !== undefined) throw this.#failure.error;
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
      this.#wake = undefined;
    }
  }
}
