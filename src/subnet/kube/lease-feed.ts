import type { NetworkConfig } from '../../config/network-config.ts';
import { type Lease, leaseKey } from '../../lease/lease.ts';
import { sameAttrs } from '../../lease/lease-table.ts';
import { asError } from '../outage.ts';
import type { ReportSink } from '../report.ts';
import type { LeaseUpdate } from '../subnet-manager.ts';
import { LeaseUpdateQueue } from '../update-queue.ts';
import type { AnnotationKeys } from './annotations.ts';
import { type LeaseFamilies, leaseFamilies, nodeLease } from './node-lease.ts';
import type { NodeRecord } from './node-record.ts';
import type { NodeFeed } from './node-store.ts';

export interface LeaseFeedOptions {
  readonly config: NetworkConfig;
  readonly annotations: AnnotationKeys;
  /** More waiting changes than this are handed over as one snapshot. */
  readonly depth: number;
  /** Whether the consumer wants what peers publish for the backend. */
  readonly backendData: boolean;
  readonly report: ReportSink;
}

/** Turns what happens to Node objects into what happens to leases, for one consumer. */
export class LeaseFeed implements NodeFeed {
  readonly #options: LeaseFeedOptions;
  readonly #families: LeaseFamilies;
  readonly #queue = new LeaseUpdateQueue();
  /** The last lease of each node that could be read. Several may have one subnet: lease/lease-gate.ts decides. */
  #byNode = new Map<string, Lease>();
  #synced = false;

  constructor(options: LeaseFeedOptions) {
    this.#options = options;
    this.#families = leaseFamilies(options.config);
  }

  get backendData(): boolean {
    return this.#options.backendData;
  }

  /** All nodes there are; those in `unreadable` keep the lease they had. */
  replaced(nodes: Iterable<NodeRecord>, unreadable: ReadonlySet<string>): void {
    const before = this.#byNode;
    this.#byNode = new Map();
    for (const name of unreadable) {
      const lease = before.get(name);
      if (lease !== undefined) this.#byNode.set(name, lease);
    }
    for (const node of nodes) {
      const lease = this.#read(node, before.get(node.name));
      if (lease !== undefined) this.#byNode.set(node.name, lease);
    }
    if (this.#synced) {
      this.#options.report({ type: 'resynchronised', leases: this.#byNode.size, reason: 'all nodes were listed' });
    }
    this.#synced = true;
    this.#queue.snapshot(this.#leases());
  }

  set(node: NodeRecord): void {
    const before = this.#byNode.get(node.name);
    const lease = this.#read(node, before);
    if (lease === undefined) {
      this.deleted(node.name);
      return;
    }
    if (before !== undefined) {
      const sameSubnets = leaseKey(before) === leaseKey(lease);
      if (sameSubnets && sameAttrs(before.attrs, lease.attrs) && sameOrigin(before, lease)) return;
      if (!sameSubnets) this.deleted(node.name);
    }
    this.#byNode.set(node.name, lease);
    this.#change(() => this.#queue.set(lease));
  }

  deleted(name: string): void {
    const lease = this.#byNode.get(name);
    if (lease === undefined) return;
    this.#byNode.delete(name);
    this.#change(() => this.#queue.removed(leaseKey(lease), name));
  }

  end(): void {
    this.#queue.end();
  }

  updates(): AsyncGenerator<LeaseUpdate, void, void> {
    return this.#queue.drain();
  }

  #read(node: NodeRecord, before: Lease | undefined): Lease | undefined {
    try {
      return nodeLease(node, this.#families, this.#options.annotations, { data: this.#options.backendData });
    } catch (error) {
      this.#options.report({ type: 'entry-unreadable', key: node.name, reason: asError(error).message });
      return before;
    }
  }

  #change(add: () => void): void {
    if (this.#queue.pending < this.#options.depth) {
      add();
      return;
    }
    const text = `Channel buffer full (EVENT_QUEUE_DEPTH=${this.#options.depth}), handing over all ${this.#byNode.size} leases at once instead of single changes`;
    this.#options.report({ type: 'note', severity: 'warning', text });
    this.#queue.snapshot(this.#leases());
  }

  #leases(): Lease[] {
    return [...this.#byNode.values()];
  }
}

function sameOrigin({ origin: a }: Lease, { origin: b }: Lease): boolean {
  const [left, right] = [a?.addresses ?? [], b?.addresses ?? []];
  return a?.since === b?.since && left.length === right.length && left.every((address, i) => address === right[i]);
}
