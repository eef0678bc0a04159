import { type Lease, type LeaseKey, leaseKey } from '../../lease/lease.ts';
import { isLive } from '../lease-choice.ts';
import type { ReportSink } from '../report.ts';
import type { LeaseUpdate } from '../subnet-manager.ts';
import { decodeRow } from './lease-row.ts';
import type { LeaseRow } from './lease-store.ts';

interface Known {
  readonly value: string;
  readonly lease: Lease;
}

/** What a watch has told its consumer so far; compares it with the whole table, which is small and in memory. */
export class LeaseView {
  readonly #known = new Map<LeaseKey, Known>();
  /** Unreadable rows that were reported, with the text that was: each damage is told once. */
  #reported = new Map<string, string>();
  readonly #report: ReportSink;
  readonly #backendData: boolean;

  constructor(report: ReportSink, backendData: boolean) {
    this.#report = report;
    this.#backendData = backendData;
  }

  leases(): Lease[] {
    return [...this.#known.values()].map((known) => known.lease);
  }

  /** The time at which `expire` has something to say next; Infinity when never. */
  get nextExpiryMs(): number {
    let next = Number.POSITIVE_INFINITY;
    for (const { lease } of this.#known.values()) next = Math.min(next, lease.expiresAtMs ?? next);
    return next;
  }

  expire(nowMs: number): LeaseUpdate[] {
    const updates: LeaseUpdate[] = [];
    for (const [key, { lease }] of this.#known) {
      if (isLive(lease, nowMs)) continue;
      this.#known.delete(key);
      updates.push({ type: 'removed', key });
    }
    return updates;
  }

  /** Takes the table as it is now. A row that has become unreadable keeps the attributes it had. */
  update(rows: readonly LeaseRow[], nowMs: number): LeaseUpdate[] {
    const updates: LeaseUpdate[] = [];
    const reported = new Map<string, string>();
    const live = new Set<LeaseKey>();
    for (const row of rows) {
      const { entry, problem } = decodeRow(row, { data: this.#backendData });
      if (problem !== undefined) {
        if (this.#reported.get(row.key) !== row.value) {
          this.#report({ type: 'entry-unreadable', key: row.key, reason: problem });
        }
        reported.set(row.key, row.value);
      }
      if (entry === undefined || !isLive(entry, nowMs)) continue;
      const key = leaseKey(entry);
      const known = this.#known.get(key);
      const attrs = entry.attrs ?? known?.lease.attrs;
      if (attrs === undefined) continue;
      live.add(key);
      if (known !== undefined && known.lease.expiresAtMs === entry.expiresAtMs) {
        if (known.value === row.value || entry.attrs === undefined) continue;
      }
      const lease: Lease = {
        subnets: entry.subnets,
        attrs,
        expiresAtMs: entry.expiresAtMs,
      };
      this.#known.set(key, { value: row.value, lease });
      updates.push({ type: 'set', lease });
    }
    for (const key of this.#known.keys()) {
      if (live.has(key)) continue;
      this.#known.delete(key);
      updates.push({ type: 'removed', key });
    }
    this.#reported = reported;
    return updates;
  }
}
