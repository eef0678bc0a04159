import { type Lease, type LeaseKey, leaseKey } from '../../lease/lease.ts';
import type { ReportSink } from '../report.ts';
import type { LeaseUpdateQueue } from '../update-queue.ts';
import type { Int64, KeyValue } from './etcd-api.ts';
import type { LeaseRegistry, ListedKey } from './lease-registry.ts';

const MAX_NAME_SHOWN = 100;
/** Entries that are read before others have their turn: some ten milliseconds. */
const SLICE = 1_000;

export interface WatchedLeasesOptions {
  /** Whether the data of backends is read. */
  readonly backendData: boolean;
  /** When a lease that is read now expires at the latest, in milliseconds since the epoch. */
  readonly bound: () => number;
}

/** What the watch of all leases has seen, by lease. */
export class WatchedLeases {
  readonly #registry: LeaseRegistry;
  readonly #report: ReportSink;
  readonly #options: WatchedLeasesOptions;
  #leases = new Map<LeaseKey, Lease>();
  /** Keys that were reported, with the revision that was: each damage is told once. */
  #reported = new Map<string, Int64>();

  constructor(registry: LeaseRegistry, report: ReportSink, options: WatchedLeasesOptions) {
    this.#registry = registry;
    this.#report = report;
    this.#options = options;
  }

  leases(): Lease[] {
    return [...this.#leases.values()];
  }

  /** In slices: in a large cluster others have their turn meanwhile. Nothing else may be called until it resolves. */
  async reset(keys: readonly ListedKey[]): Promise<void> {
    const leases = new Map<LeaseKey, Lease>();
    const names = new Set(keys.map(({ kv }) => this.#registry.nameOf(kv)));
    this.#reported = new Map([...this.#reported].filter(([name]) => names.has(name)));
    for (const [i, listed] of keys.entries()) {
      if (i % SLICE === SLICE - 1) await new Promise((resolve) => setImmediate(resolve));
      const lease = this.#read(listed);
      if (lease !== undefined) leases.set(leaseKey(lease), lease);
    }
    this.#leases = leases;
  }

  /** A key was written; `queue` is told when it is a lease. */
  put(kv: KeyValue, queue: LeaseUpdateQueue): void {
    const lease = this.#read(this.#registry.listed(kv, { data: this.#options.backendData }));
    if (lease === undefined) return;
    this.#leases.set(leaseKey(lease), lease);
    queue.set(lease);
  }

  /** A key is gone; `queue` is told when it was a lease. */
  delete(deleted: KeyValue, queue: LeaseUpdateQueue): void {
    const { kv } = this.#registry.listed(deleted, { data: false });
    this.#reported.delete(this.#registry.nameOf(kv));
    const key = this.#registry.leaseKeyOf(kv);
    if (key === undefined || !this.#leases.delete(key)) return;
    queue.removed(key);
  }

  /** The lease that a key says now; the one it said before when it cannot be read. */
  #read({ kv, entry, problem }: ListedKey): Lease | undefined {
    if (problem !== undefined) {
      const name = this.#registry.nameOf(kv);
      if (this.#reported.get(name) !== kv.mod_revision) {
        this.#reported.set(name, kv.mod_revision);
        this.#report({ type: 'entry-unreadable', key: nameShown(name), reason: problem });
      }
    }
    if (entry?.attrs === undefined) {
      const key = this.#registry.leaseKeyOf(kv);
      return key === undefined ? undefined : this.#leases.get(key);
    }
    const { subnets, attrs, since } = entry;
    return { subnets, attrs, expiresAtMs: kv.lease === '0' ? undefined : this.#options.bound(), origin: { since } };
  }
}

/** An etcd key may be a megabyte long. */
function nameShown(name: string): string {
  return name.length <= MAX_NAME_SHOWN ? name : `${name.slice(0, MAX_NAME_SHOWN)}…`;
}
