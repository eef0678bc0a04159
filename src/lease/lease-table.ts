import { FAMILIES } from '../ip/family.ts';
import { equalJson } from './json-value.ts';
import type { Lease, LeaseAttrs, LeaseEvent, LeaseKey } from './lease.ts';
import type { LeaseChange } from './lease-gate.ts';

/**
 * The peers of this host: turns what the gate admits into the events that matter to a backend. After any sequence of calls, a
 * consumer that has followed the events holds exactly `peers`. Applying changes costs what they are, not what there is.
 *
 * What flannel gets wrong is right here: attributes that changed between two lists of the store are sent again.
 */
export class LeaseTable {
  readonly #leases = new Map<LeaseKey, Lease>();
  #list: readonly Lease[] | undefined;

  /** All peers, in no particular order. */
  get peers(): readonly Lease[] {
    this.#list ??= [...this.#leases.values()];
    return this.#list;
  }

  get size(): number {
    return this.#leases.size;
  }

  /**
   * Removals come first, so that a subnet cut differently does not lose its new routes. No event for a lease of which only the
   * expiration has moved.
   */
  apply(changes: readonly LeaseChange[]): LeaseEvent[] {
    if (changes.length > 0) this.#list = undefined;
    const [removed, set]: [LeaseEvent[], LeaseEvent[]] = [[], []];
    for (const { key, lease } of changes) {
      const before = this.#leases.get(key);
      if (lease === undefined) {
        this.#leases.delete(key);
        if (before !== undefined) removed.push({ type: 'removed', lease: before });
        continue;
      }
      this.#leases.set(key, lease);
      if (before === undefined || !sameAttrs(before.attrs, lease.attrs)) set.push({ type: 'set', lease, before });
    }
    return [...removed, ...set];
  }
}

function samePublicAddress(a: LeaseAttrs, b: LeaseAttrs): boolean {
  return FAMILIES.every(({ key }) => a.publicAddresses[key] === b.publicAddresses[key]);
}

/** Whether two hosts say the same of themselves. */
export function sameAttrs(a: LeaseAttrs, b: LeaseAttrs): boolean {
  return (
    a === b ||
    (samePublicAddress(a, b) &&
      a.backendType === b.backendType &&
      FAMILIES.every(({ key }) => equalJson(a.backendData[key], b.backendData[key])))
  );
}
