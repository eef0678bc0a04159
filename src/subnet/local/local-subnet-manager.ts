import { readFile } from 'node:fs/promises';
import type { BackendLookup } from '../../config/backend-config.ts';
import { parseNetConf } from '../../config/net-conf.ts';
import type { NetworkConfig } from '../../config/network-config.ts';
import { WeftError } from '../../errors.ts';
import type { Lease, LeaseAttrs } from '../../lease/lease.ts';
import { overlap } from '../../lease/subnets.ts';
import { Backoff, sleep } from '../backoff.ts';
import { chooseLease, EVERYWHERE, isAt, isLive, isOf, judgeOwn, type Networks } from '../lease-choice.ts';
import { asError, Outage } from '../outage.ts';
import type { ReportSink, SubnetReport } from '../report.ts';
import type { AcquireOptions, LeaseUpdate, OwnLeaseEvent, SubnetManager, WatchOptions } from '../subnet-manager.ts';
import { decodeRow, encodeRow, type RowEntry } from './lease-row.ts';
import { type LeaseRow, LeaseStore, StoreBusyError } from './lease-store.ts';
import { LeaseView } from './lease-view.ts';

export interface LocalSubnetManagerOptions {
  /** The SQLite file that all agents of this machine share; made when absent. Must lie on a local file system. */
  readonly storePath: string;
  /** net-conf.json. */
  readonly netConfPath: string;
  readonly backends: BackendLookup;
  /** Life of a lease that nobody renews; 24 hours unless given. */
  readonly leaseTtlMs?: number;
  /** How long before its end a lease is renewed; one hour unless given. Less than `leaseTtlMs`. */
  readonly renewMarginMs?: number;
  /** How often the store is asked whether it changed; 150 ms unless given. */
  readonly pollMs?: number;
  readonly report?: ReportSink;
  /** Milliseconds since the epoch. */
  readonly now?: () => number;
  /** 0 ≤ x < 1. */
  readonly random?: () => number;
}

const DAY_MS = 86_400_000;
const HOUR_MS = 3_600_000;
const RETRY = { firstMs: 20, maxMs: 1_000 };
/** A lock held by others is an everyday wait until it has lasted this long: then it is an outage. */
const BUSY_PATIENCE_MS = 5_000;

/**
 * Subnet manager for agents on one machine: they share an SQLite file and need no server. Whatever needs all leases to
 * be known (allocation, renewal, taking a lease again) is decided and written in one transaction.
 */
export class LocalSubnetManager implements SubnetManager {
  readonly name: string;
  readonly #options: LocalSubnetManagerOptions;
  readonly #leaseTtlMs: number;
  readonly #renewMarginMs: number;
  readonly #pollMs: number;
  readonly #report: ReportSink;
  readonly #now: () => number;
  readonly #random: () => number;
  readonly #closing = new AbortController();
  /** Those in which this host has its lease. */
  #networks: Networks = EVERYWHERE;
  #store: LeaseStore | undefined;
  /** Counts openings: versions of different files must never look equal. */
  #opened = 0;

  /** Opens nothing yet. @throws RangeError when the renewal margin is not below the lease's life. */
  constructor(options: LocalSubnetManagerOptions) {
    this.name = `Local Subnet Manager - ${options.storePath}`;
    this.#options = options;
    this.#leaseTtlMs = options.leaseTtlMs ?? DAY_MS;
    this.#renewMarginMs = options.renewMarginMs ?? HOUR_MS;
    if (!(this.#renewMarginMs < this.#leaseTtlMs)) {
      throw new RangeError(`renewal margin of ${this.#renewMarginMs} ms in a lease of ${this.#leaseTtlMs} ms`);
    }
    this.#pollMs = options.pollMs ?? 150;
    this.#report = options.report ?? (() => {});
    this.#now = options.now ?? Date.now;
    this.#random = options.random ?? Math.random;
  }

  async networkConfig(signal: AbortSignal): Promise<NetworkConfig> {
    signal.throwIfAborted();
    const path = this.#options.netConfPath;
    let text: string;
    try {
      text = await readFile(path, { encoding: 'utf8', signal });
    } catch (error) {
      signal.throwIfAborted();
      const cause = error instanceof Error ? error : new Error(String(error));
      if ('code' in cause && cause.code === 'ENOENT') {
        throw new WeftError('WEFT_CONFIG_MISSING', `failed to read net conf: ${path} does not exist`, {
          hint: 'Create it, for example with {"Network": "10.244.0.0/16"}, or name another file with --net-config-path.',
          cause,
        });
      }
      throw new WeftError('WEFT_CONFIG_UNREADABLE', `failed to read net conf: ${cause.message}`, {
        hint: 'Check that it is a file that this user can read.',
        cause,
      });
    }
    return parseNetConf(text, { source: path, validation: 'full', backends: this.#options.backends });
  }

  async acquireLease(
    config: NetworkConfig,
    attrs: LeaseAttrs,
    signal: AbortSignal,
    options: AcquireOptions = {},
  ): Promise<Lease> {
    const ends = AbortSignal.any([signal, this.#closing.signal]);
    const backoff = new Backoff(RETRY, this.#random);
    this.#networks = config;
    for (;;) {
      ends.throwIfAborted();
      const reports: SubnetReport[] = [];
      try {
        const lease = this.#open().transact((transaction) => {
          reports.length = 0;
          const nowMs = this.#now();
          const entries = decode(transaction.rows());
          // An own lease that ran out is as good as one that did not, as long as nobody has taken it since.
          const held = entries.filter(
            (entry) =>
              isLive(entry, nowMs) ||
              isOf(entry, attrs) ||
              isAt(entry, options.hostAddresses ?? []) ||
              (options.held !== undefined && isOf(entry, options.held.attrs)),
          );
          const choice = chooseLease({
            config,
            attrs,
            entries: held,
            previous: options.previous,
            held: options.held,
            hostAddresses: options.hostAddresses,
            random: this.#random,
            report: (report) => reports.push(report),
          });
          for (const entry of choice.remove) transaction.delete(entry.row.key);
          const permanent = choice.type === 'reuse' && choice.entry.expiresAtMs === undefined;
          const { subnets } = choice.type === 'reuse' ? choice.entry : choice;
          const taken: Lease = {
            subnets,
            attrs,
            expiresAtMs: permanent ? undefined : nowMs + this.#leaseTtlMs,
          };
          for (const entry of entries) {
            if (!isLive(entry, nowMs) && overlap(entry.subnets, subnets)) transaction.delete(entry.row.key);
          }
          transaction.put(encodeRow(taken));
          reports.push({ type: choice.type === 'reuse' ? 'lease-reused' : 'lease-allocated', lease: taken });
          return taken;
        });
        for (const report of reports) this.#report(report);
        return lease;
      } catch (error) {
        if (!(error instanceof StoreBusyError)) throw error;
        const retryInMs = backoff.nextMs();
        this.#report({ type: 'store-failed', failure: 'Error acquiring lease', error, retryInMs });
        await sleep(retryInMs, ends);
      }
    }
  }

  async *holdLease(lease: Lease, signal: AbortSignal): AsyncGenerator<OwnLeaseEvent, void, void> {
    const ends = AbortSignal.any([signal, this.#closing.signal]);
    const outage = this.#outage('Error renewing lease');
    let own = lease;
    let seen: string | undefined;
    let busySinceMs: number | undefined;
    let scheduledForMs: number | undefined;
    while (!ends.aborted) {
      let waitMs = this.#pollMs;
      let event: OwnLeaseEvent | undefined;
      try {
        const store = this.#open();
        const version = this.#version(store);
        if (version !== seen || this.#isDue(own.expiresAtMs)) {
          const outcome = this.#tend(store, own);
          if (outcome.type === 'lost') {
            yield outcome;
            return;
          }
          seen = version;
          if (outcome.changed) event = { type: 'renewed', lease: outcome.lease };
          own = outcome.lease;
        }
        if (outage.announced) event ??= { type: 'renewed', lease: own };
        outage.over();
        busySinceMs = undefined;
        if (own.expiresAtMs !== undefined && own.expiresAtMs !== scheduledForMs) {
          scheduledForMs = own.expiresAtMs;
          const delayMs = own.expiresAtMs - this.#renewMarginMs - this.#now();
          this.#report({ type: 'renewal-scheduled', delayMs });
        }
      } catch (error) {
        waitMs = outage.failed(error);
        busySinceMs ??= this.#now();
        const patient = error instanceof StoreBusyError && this.#now() - busySinceMs < BUSY_PATIENCE_MS;
        if (!patient && outage.announce()) event = { type: 'store-unavailable', error: asError(error) };
      }
      if (event !== undefined) yield event;
      if (!(await pause(waitMs, ends))) return;
    }
  }

  async *watchLeases(
    _config: NetworkConfig,
    signal: AbortSignal,
    { backendData = true }: WatchOptions = {},
  ): AsyncGenerator<LeaseUpdate, void, void> {
    const ends = AbortSignal.any([signal, this.#closing.signal]);
    const outage = this.#outage('Error watching leases');
    const view = new LeaseView(this.#report, backendData);
    let seen: string | undefined;
    while (!ends.aborted) {
      let waitMs = this.#pollMs;
      let updates: LeaseUpdate[] = [];
      try {
        const store = this.#open();
        const version = this.#version(store);
        const nowMs = this.#now();
        if (version !== seen) updates = view.update(store.rows(), nowMs);
        else if (nowMs >= view.nextExpiryMs) updates = view.expire(nowMs);
        if (seen === undefined) updates = [{ type: 'snapshot', leases: view.leases() }];
        seen = version;
        outage.over();
      } catch (error) {
        waitMs = outage.failed(error);
      }
      for (const update of updates) {
        if (ends.aborted) return;
        yield update;
      }
      if (!(await pause(waitMs, ends))) return;
    }
  }

  /** Nothing to tell a store that only its own machine reads. */
  async completeLease(_lease: Lease, signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closing.abort(new Error('the subnet manager was closed'));
    // Every use of the store is one synchronous step, so nobody is in the middle of one.
    this.#store?.[Symbol.dispose]();
    this.#store = undefined;
  }

  #outage(failure: string): Outage {
    return new Outage({ failure, report: this.#report, retry: RETRY, random: this.#random });
  }

  #isDue(expiresAtMs: number | undefined): boolean {
    return expiresAtMs !== undefined && expiresAtMs - this.#renewMarginMs <= this.#now();
  }

  /** The store at the path as it is now. A file that was moved away or replaced is left, or agents would part ways. */
  #open(): LeaseStore {
    this.#closing.signal.throwIfAborted();
    if (this.#store?.replaced() === true) {
      this.#store[Symbol.dispose]();
      this.#store = undefined;
    }
    if (this.#store === undefined) {
      this.#store = LeaseStore.open(this.#options.storePath);
      this.#opened++;
    }
    return this.#store;
  }

  #version(store: LeaseStore): string {
    return `${this.#opened}.${store.version()}`;
  }

  /**
   * One look at the own lease: renews it when it is due, takes it again when it is gone. Takes the write lock only when
   * there is something to write, and then looks again.
   */
  #tend(store: LeaseStore, own: Lease): Tended {
    const seen = judgeOwn(own, decode(store.rows()), this.#now(), this.#networks);
    if (seen.type === 'lost') return seen;
    if (seen.type === 'held' && !this.#isDue(seen.entry.expiresAtMs)) {
      const lease = { ...own, attrs: seen.entry.attrs, expiresAtMs: seen.entry.expiresAtMs };
      return { type: 'held', lease, changed: !equalRows(encodeRow(lease), encodeRow(own)) };
    }
    const written = store.transact((transaction): Tended & { readonly renewal?: boolean } => {
      const nowMs = this.#now();
      const verdict = judgeOwn(own, decode(transaction.rows()), nowMs, this.#networks);
      if (verdict.type === 'lost') return verdict;
      const attrs = verdict.type === 'held' ? verdict.entry.attrs : own.attrs;
      const permanent = verdict.type !== 'absent' && verdict.entry.expiresAtMs === undefined;
      const lease = { ...own, attrs, expiresAtMs: permanent ? undefined : nowMs + this.#leaseTtlMs };
      transaction.put(encodeRow(lease));
      return { type: 'held', lease, changed: true, renewal: verdict.type === 'held' };
    });
    if (written.type === 'lost') return written;
    this.#report({ type: written.renewal === true ? 'lease-renewed' : 'lease-retaken', lease: written.lease });
    return written;
  }
}

type Tended =
  | { readonly type: 'held'; readonly lease: Lease; readonly changed: boolean }
  | { readonly type: 'lost'; readonly reason: string };

/** Rows whose key is no lease key hold no subnet; watchLeases reports them. */
function decode(rows: readonly LeaseRow[]): RowEntry[] {
  return rows.flatMap((row) => decodeRow(row).entry ?? []);
}

function equalRows(a: LeaseRow, b: LeaseRow): boolean {
  return a.value === b.value && a.expiresAtMs === b.expiresAtMs;
}

/** False when `signal` fired meanwhile. */
async function pause(ms: number, signal: AbortSignal): Promise<boolean> {
  try {
    await sleep(ms, signal);
    return true;
  } catch (error) {
    if (signal.aborted) return false;
    throw error;
  }
}
