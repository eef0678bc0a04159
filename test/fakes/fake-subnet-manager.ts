import { backendKind } from '../../src/backend/registry.ts';
import { parseNetConf } from '../../src/config/net-conf.ts';
import type { NetworkConfig } from '../../src/config/network-config.ts';
import { WeftError } from '../../src/errors.ts';
import { FAMILIES, perFamily } from '../../src/ip/family.ts';
import { parsePrefix4 } from '../../src/ip/prefix.ts';
import { type Lease, type LeaseAttrs, type LeaseKey, leaseKey } from '../../src/lease/lease.ts';
import {
  chooseLease,
  EVERYWHERE,
  isLive,
  isOf,
  judgeOwn,
  type Networks,
  type StoredEntry,
} from '../../src/subnet/lease-choice.ts';
import type { ReportSink } from '../../src/subnet/report.ts';
import type {
  AcquireOptions,
  LeaseUpdate,
  OwnLeaseEvent,
  SubnetManager,
  WatchOptions,
} from '../../src/subnet/subnet-manager.ts';
import { LeaseUpdateQueue } from '../../src/subnet/update-queue.ts';

const DAY_MS = 86_400_000;

/**
 * A lease store in memory, with the hands of a test on it: what is done here reaches every manager at once, without
 * timers. Time is `nowMs` and moves by `advance` only, except that it starts at the real time.
 */
export class FakeLeaseStore {
  nowMs: number = Date.now();
  netConf: string | undefined;
  readonly #entries = new Map<LeaseKey, StoredEntry>();
  readonly #rubbish = new Set<string>();
  readonly #listeners = new Set<() => void>();
  #up = Promise.withResolvers<void>();
  #available = true;
  #flowing = Promise.withResolvers<void>();

  constructor() {
    this.#up.resolve();
    this.#flowing.resolve();
  }

  get available(): boolean {
    return this.#available;
  }

  /** Resolves when the store takes writes. */
  get flowing(): Promise<void> {
    return Promise.all([this.#up.promise, this.#flowing.promise]).then(() => {});
  }

  get rubbish(): readonly string[] {
    return [...this.#rubbish];
  }

  entries(): StoredEntry[] {
    return [...this.#entries.values()];
  }

  put(entry: StoredEntry): void {
    this.#entries.set(leaseKey(entry), entry);
    this.#changed();
  }

  delete(key: LeaseKey): void {
    this.#entries.delete(key);
    this.#changed();
  }

  /** Puts an unreadable value under `key`; one that is no IPv4 lease key holds no subnet. */
  corrupt(key: string): void {
    const subnet = parsePrefix4(key.replace('-', '/'));
    if (subnet === undefined) {
      this.#rubbish.add(key);
      this.#changed();
    } else {
      const expiresAtMs = this.#entries.get(key as LeaseKey)?.expiresAtMs;
      this.put({ subnets: { ipv4: subnet, ipv6: undefined }, attrs: undefined, expiresAtMs });
    }
  }

  expireNow(key: LeaseKey): void {
    const entry = this.#entries.get(key);
    if (entry !== undefined) this.put({ ...entry, expiresAtMs: this.nowMs });
  }

  advance(ms: number): void {
    this.nowMs += ms;
    this.#changed();
  }

  setAvailable(available: boolean): void {
    if (this.#available === available) return;
    this.#available = available;
    if (available) this.#up.resolve();
    else this.#up = Promise.withResolvers<void>();
    this.#changed();
  }

  /** While stalled, writes wait; reads and watches go on. */
  setStalled(stalled: boolean): void {
    if (stalled) this.#flowing = Promise.withResolvers<void>();
    else this.#flowing.resolve();
  }

  subscribe(listener: () => void): Disposable {
    this.#listeners.add(listener);
    return { [Symbol.dispose]: () => this.#listeners.delete(listener) };
  }

  #changed(): void {
    for (const listener of [...this.#listeners]) listener();
  }
}

export interface FakeSubnetManagerOptions {
  readonly leaseTtlMs?: number;
  readonly renewMarginMs?: number;
  readonly report?: ReportSink;
  readonly random?: () => number;
}

/** A subnet manager on a FakeLeaseStore; passes the same contract suite as the real ones. */
export class FakeSubnetManager implements SubnetManager {
  readonly name = 'Fake Subnet Manager';
  /** The leases that completeLease was called with. */
  readonly completed: Lease[] = [];
  readonly #store: FakeLeaseStore;
  readonly #leaseTtlMs: number;
  readonly #renewMarginMs: number;
  readonly #report: ReportSink;
  readonly #random: () => number;
  readonly #closing = new AbortController();
  #networks: Networks = EVERYWHERE;

  constructor(store: FakeLeaseStore, options: FakeSubnetManagerOptions = {}) {
    this.#store = store;
    this.#leaseTtlMs = options.leaseTtlMs ?? DAY_MS;
    this.#renewMarginMs = options.renewMarginMs ?? DAY_MS / 24;
    this.#report = options.report ?? (() => {});
    this.#random = options.random ?? Math.random;
  }

  async networkConfig(signal: AbortSignal): Promise<NetworkConfig> {
    signal.throwIfAborted();
    if (this.#store.netConf === undefined) {
      throw new WeftError(
        'WEFT_CONFIG_MISSING',
        'reading the network configuration from the fake store: none is there',
      );
    }
    return parseNetConf(this.#store.netConf, { source: 'the fake store', validation: 'full', backends: backendKind });
  }

  async acquireLease(
    config: NetworkConfig,
    attrs: LeaseAttrs,
    signal: AbortSignal,
    options: AcquireOptions = {},
  ): Promise<Lease> {
    const ends = AbortSignal.any([signal, this.#closing.signal]);
    ends.throwIfAborted();
    await Promise.race([this.#store.flowing, aborted(ends)]);
    ends.throwIfAborted();
    this.#networks = config;
    const { nowMs } = this.#store;
    const choice = chooseLease({
      config,
      attrs,
      entries: this.#store
        .entries()
        .filter((entry) => isLive(entry, nowMs) || isOf(entry, options.held?.attrs ?? attrs) || isOf(entry, attrs)),
      previous: options.previous,
      held: options.held,
      hostAddresses: options.hostAddresses,
      random: this.#random,
      report: this.#report,
    });
    for (const entry of choice.remove) this.#store.delete(leaseKey(entry));
    const { subnets } = choice.type === 'reuse' ? choice.entry : choice;
    const permanent = choice.type === 'reuse' && choice.entry.expiresAtMs === undefined;
    const lease: Lease = {
      subnets,
      attrs,
      expiresAtMs: permanent ? undefined : nowMs + this.#leaseTtlMs,
    };
    for (const entry of this.#store.entries()) {
      if (!isLive(entry, nowMs)) this.#store.delete(leaseKey(entry));
    }
    this.#store.put(lease);
    this.#report({ type: choice.type === 'reuse' ? 'lease-reused' : 'lease-allocated', lease });
    return lease;
  }

  async *holdLease(lease: Lease, signal: AbortSignal): AsyncGenerator<OwnLeaseEvent, void, void> {
    const ends = AbortSignal.any([signal, this.#closing.signal]);
    let own = lease;
    let outage = false;
    for (;;) {
      using change = this.#change(ends);
      if (ends.aborted) return;
      if (!this.#store.available) {
        if (!outage) {
          outage = true;
          const error = new WeftError('WEFT_STORE_UNAVAILABLE', 'using the fake store: it was switched off');
          this.#report({ type: 'store-failed', failure: 'Error renewing lease', error, retryInMs: 0 });
          yield { type: 'store-unavailable', error };
        }
      } else {
        const { nowMs } = this.#store;
        const verdict = judgeOwn(own, this.#store.entries(), nowMs, this.#networks);
        if (verdict.type === 'lost') {
          yield verdict;
          return;
        }
        const entry = verdict.type === 'absent' ? undefined : verdict.entry;
        const permanent = entry !== undefined && entry.expiresAtMs === undefined;
        const due = entry?.expiresAtMs !== undefined && entry.expiresAtMs - this.#renewMarginMs <= nowMs;
        let next: Lease = { ...own, attrs: entry?.attrs ?? own.attrs, expiresAtMs: entry?.expiresAtMs };
        if (verdict.type !== 'held' || due) {
          next = { ...next, expiresAtMs: permanent ? undefined : nowMs + this.#leaseTtlMs };
          this.#store.put(next);
          this.#report({ type: verdict.type === 'held' ? 'lease-renewed' : 'lease-retaken', lease: next });
        }
        const changed = next.expiresAtMs !== own.expiresAtMs || !sameAttrs(next.attrs, own.attrs);
        own = next;
        if (changed || outage || verdict.type !== 'held') {
          outage = false;
          yield { type: 'renewed', lease: own };
        }
      }
      await change.happened;
    }
  }

  async *watchLeases(
    _config: NetworkConfig,
    signal: AbortSignal,
    { backendData = true }: WatchOptions = {},
  ): AsyncGenerator<LeaseUpdate, void, void> {
    const ends = AbortSignal.any([signal, this.#closing.signal]);
    const queue = new LeaseUpdateQueue();
    const known = new Map<LeaseKey, { readonly entry: StoredEntry; readonly lease: Lease }>();
    const reported = new Set<string>();
    let first = true;
    const look = (): void => {
      if (ends.aborted) {
        queue.end();
        return;
      }
      if (!this.#store.available) {
        const error = new WeftError('WEFT_STORE_UNAVAILABLE', 'using the fake store: it was switched off');
        this.#report({ type: 'store-failed', failure: 'Error watching leases', error, retryInMs: 0 });
        return;
      }
      const gone = new Set(known.keys());
      const unreadable = new Set(this.#store.rubbish);
      for (const entry of this.#store.entries()) {
        const key = leaseKey(entry);
        if (!isLive(entry, this.#store.nowMs)) continue;
        gone.delete(key);
        if (entry.attrs === undefined) unreadable.add(key);
        const before = known.get(key);
        const said = entry.attrs ?? before?.lease.attrs;
        if (before?.entry === entry || said === undefined) continue;
        const attrs = backendData ? said : { ...said, backendData: perFamily(() => undefined) };
        const lease = { ...entry, attrs };
        known.set(key, { entry, lease });
        queue.set(lease);
      }
      for (const key of gone) {
        known.delete(key);
        queue.removed(key);
      }
      for (const key of unreadable) {
        if (!reported.has(key)) this.#report({ type: 'entry-unreadable', key, reason: 'corrupted by the test' });
        reported.add(key);
      }
      if (first) queue.snapshot([...known.values()].map(({ lease }) => lease));
      first = false;
    };
    using _subscription = this.#store.subscribe(look);
    ends.addEventListener('abort', look);
    look();
    yield* queue.drain();
  }

  async completeLease(lease: Lease, signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    this.completed.push(lease);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closing.abort(new Error('the subnet manager was closed'));
  }

  /** The next change of the store or of `ends`, from now on. */
  #change(ends: AbortSignal): Disposable & { readonly happened: Promise<void> } {
    const { promise, resolve } = Promise.withResolvers<void>();
    const subscription = this.#store.subscribe(resolve);
    ends.addEventListener('abort', () => resolve(), { once: true });
    return { happened: promise, [Symbol.dispose]: () => subscription[Symbol.dispose]() };
  }
}

function aborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => signal.addEventListener('abort', () => resolve(), { once: true }));
}

function sameAttrs(a: LeaseAttrs, b: LeaseAttrs): boolean {
  return (
    FAMILIES.every(({ key }) => a.publicAddresses[key] === b.publicAddresses[key]) &&
    a.backendType === b.backendType &&
    JSON.stringify(a.backendData) === JSON.stringify(b.backendData)
  );
}
