import { FAMILIES, present } from '../ip/family.ts';
import { equalJson } from './json-value.ts';
import { type Lease, type LeaseAttrs, type LeaseEvent, type LeaseKey, leaseKey } from './lease.ts';
import { agree } from './subnets.ts';

/**
 * The peers of this host: turns what the store says into the events that matter to a backend. After any sequence of
 * calls, a consumer that has followed the events holds exactly `peers()`.
 *
 * What flannel gets wrong is right here: attributes that changed between two snapshots are sent again, and the own
 * subnet never appears, neither as a peer nor as a removed one.
 */
export class LeaseTable {
  /** All that the store has, the own lease included: it may turn out to be another host's. */
  readonly #leases = new Map<LeaseKey, Lease>();
  readonly #own: Lease | undefined;

  constructor(own?: Lease) {
    this.#own = own;
  }

  /** All leases but the own one, in no particular order. */
  peers(): Lease[] {
    return [...this.#leases.values()].filter((lease) => !this.#isOwn(lease));
  }

  /** The store holds exactly these. Removals come first, so that a subnet cut differently does not lose its new routes. */
  applySnapshot(leases: readonly Lease[]): LeaseEvent[] {
    const snapshot = new Map(leases.map((lease) => [leaseKey(lease), lease]));
    const gone = [...this.#leases.keys()].filter((key) => !snapshot.has(key));
    return [
      ...gone.flatMap((key) => this.#remove(key)),
      ...[...snapshot.values()].flatMap((lease) => this.#set(lease)),
    ];
  }

  /** No event when only the expiration has moved. */
  #set(lease: Lease): LeaseEvent[] {
    const key = leaseKey(lease);
    const known = this.#leases.get(key);
    this.#leases.set(key, lease);
    if (this.#isOwn(lease) || (known !== undefined && sameAttrs(known.attrs, lease.attrs))) return [];
    return [setEvent(lease)];
  }

  #remove(key: LeaseKey): LeaseEvent[] {
    const lease = this.#leases.get(key);
    if (lease === undefined) return [];
    this.#leases.delete(key);
    return this.#isOwn(lease) ? [] : [removedEvent(lease)];
  }

  #isOwn({ subnets }: Lease): boolean {
    const own = this.#own?.subnets;
    return own !== undefined && present(own).length > 0 && agree(own, subnets);
  }
}

function setEvent(lease: Lease): LeaseEvent {
  return { type: 'set', lease };
}

function removedEvent(lease: Lease): LeaseEvent {
  return { type: 'removed', lease };
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
