import type { BackendLookup } from '../../config/backend-config.ts';
import { parseNetConf } from '../../config/net-conf.ts';
import type { NetworkConfig } from '../../config/network-config.ts';
import { WeftError } from '../../errors.ts';
import { type Lease, type LeaseAttrs, type LeaseKey, leaseKey, subnetsKey } from '../../lease/lease.ts';
import { encodeLeaseValue } from '../../lease/lease-codec.ts';
import type { Subnets } from '../../lease/subnets.ts';
import { Backoff, sleep } from '../backoff.ts';
import { chooseLease, EVERYWHERE, judgeOwn, type Networks } from '../lease-choice.ts';
import { asError, Outage } from '../outage.ts';
import { formatSubnets, type ReportSink } from '../report.ts';
import type { AcquireOptions, LeaseUpdate, OwnLeaseEvent, SubnetManager, WatchOptions } from '../subnet-manager.ts';
import { LeaseUpdateQueue } from '../update-queue.ts';
import type { Int64, KeyRecord, KeyValue, WatchResponse } from './etcd-api.ts';
import { EtcdClient, type EtcdClientOptions } from './etcd-client.ts';
import { EtcdError } from './etcd-error.ts';
import { type Binding, entriesOf, LeaseRegistry, type Listing, PERMANENT } from './lease-registry.ts';
import { Timer } from './timer.ts';
import { WatchedLeases } from './watched-leases.ts';

export interface EtcdSubnetManagerOptions extends EtcdClientOptions {
  /** Key prefix; `/coreos.com/network` unless given. */
  readonly prefix?: string;
  /** Which backends the network configuration may name. */
  readonly backends: BackendLookup;
  /** What subnet.env says, for the manager's name; it is used only when given to acquireLease. */
  readonly previous?: Subnets;
  /** Life of a lease that nobody renews; 86,400 unless given, as flannel has it. */
  readonly leaseTtlSeconds?: number;
  /** How long before its end a lease is renewed; one hour unless given. Less than the lease's life. */
  readonly renewMarginMs?: number;
  readonly report?: ReportSink;
  /** Milliseconds since the epoch. */
  readonly now?: () => number;
  /** 0 ≤ x < 1. */
  readonly random?: () => number;
}

const DAY_SECONDS = 86_400;
const HOUR_MS = 3_600_000;
const RETRY = { firstMs: 100, maxMs: 5_000 };
const RACE = { firstMs: 20, maxMs: 1_000 };
/** A watch that broke sooner than that did not really work: the next attempt waits longer. */
const SETTLED_MS = 5_000;

/** etcd tells the rest of a lease in whole seconds. */
const ROUNDING_MS = 2_000;
/**
 * The rest of a lease is asked for at least every half of the renewal margin, because this host's clock is no measure of it:
 * it may be set. Not more often than this.
 */
const MIN_LOOK_MS = 1_000;

/** The own key as it was last seen. */
interface Held {
  readonly kv: KeyValue;
  readonly binding: Binding;
  /** From where to watch for later changes. */
  readonly revision: Int64;
}

type Tended = { readonly type: 'held'; readonly lease: Lease; readonly held: Held; readonly changed: boolean };
type Lost = Extract<OwnLeaseEvent, { readonly type: 'lost' }>;

/**
 * flannel's etcd subnet manager: the same keys and values, 24-hour leases, a new etcd lease for each renewal. Beyond
 * flannel: every write is a compare-and-set, reservations stay permanent, no entry can harm the others, and an outage of
 * any length ends with the same subnet unless another host has taken it.
 *
 * The expiration of other hosts' leases is an upper bound (a whole lease from now): asking etcd for each would cost a
 * request for each node at each start of each node, and etcd tells when a lease ends.
 */
export class EtcdSubnetManager implements SubnetManager {
  readonly name: string;
  readonly #client: EtcdClient;
  readonly #backends: BackendLookup;
  readonly #registry: LeaseRegistry;
  readonly #leaseTtlSeconds: number;
  readonly #renewMarginMs: number;
  readonly #report: ReportSink;
  readonly #now: () => number;
  readonly #random: () => number;
  readonly #closing = new AbortController();
  /** Those in which this host has its lease. */
  #networks: Networks = EVERYWHERE;

  /**
   * Contacts nobody yet. @throws WeftError WEFT_USAGE for a bad endpoint; RangeError when the renewal margin is not below
   * the lease's life.
   */
  constructor(options: EtcdSubnetManagerOptions) {
    const previous = formatSubnets(options.previous ?? { ipv4: undefined, ipv6: undefined });
    this.name = `Etcd Local Manager with Previous Subnet: ${previous === '' ? 'None' : previous}`;
    this.#backends = options.backends;
    this.#leaseTtlSeconds = options.leaseTtlSeconds ?? DAY_SECONDS;
    this.#renewMarginMs = options.renewMarginMs ?? HOUR_MS;
    if (!(this.#renewMarginMs < this.#leaseTtlSeconds * 1000)) {
      throw new RangeError(`renewal margin of ${this.#renewMarginMs} ms in a lease of ${this.#leaseTtlSeconds} s`);
    }
    this.#report = options.report ?? (() => {});
    this.#now = options.now ?? Date.now;
    this.#random = options.random ?? Math.random;
    this.#client = new EtcdClient(options);
    this.#registry = new LeaseRegistry(this.#client, options.prefix ?? '/coreos.com/network', this.#now);
    if (this.#client.insecureEndpoints.length > 0) {
      const reason = 'no certificate provided: connecting to etcd with http. This is insecure';
      this.#report({ type: 'insecure', reason });
    }
  }

  async networkConfig(signal: AbortSignal): Promise<NetworkConfig> {
    const { configKey } = this.#registry;
    const text = await this.#persist("Couldn't fetch network config", signal, (ends) => this.#registry.config(ends));
    if (text === undefined) {
      throw new WeftError(
        'WEFT_CONFIG_MISSING',
        'flannel config not found in etcd store. Did you create your config using etcdv3 API?',
        {
          hint: `For example: ETCDCTL_API=3 etcdctl put ${configKey} '{"Network": "10.244.0.0/16", "Backend": {"Type": "udp"}}'`,
        },
      );
    }
    return parseNetConf(text, { source: `etcd key ${configKey}`, validation: 'full', backends: this.#backends });
  }

  async acquireLease(
    config: NetworkConfig,
    attrs: LeaseAttrs,
    signal: AbortSignal,
    options: AcquireOptions = {},
  ): Promise<Lease> {
    const race = new Backoff(RACE, this.#random);
    this.#networks = config;
    return await this.#persist('Error acquiring lease', signal, async (ends) => {
      for (;;) {
        const lease = await this.#tryAcquire(config, attrs, options, ends);
        if (lease !== undefined) return lease;
        await sleep(race.nextMs(), ends);
      }
    });
  }

  async *holdLease(lease: Lease, signal: AbortSignal): AsyncGenerator<OwnLeaseEvent, void, void> {
    const ends = AbortSignal.any([signal, this.#closing.signal]);
    const outage = this.#outage('Error renewing lease');
    const flapping = new Backoff(RETRY, this.#random);
    let own = lease;
    let held: Held | undefined;
    let scheduledForMs: number | undefined;
    while (!ends.aborted) {
      let waitMs = 0;
      let event: OwnLeaseEvent | undefined;
      try {
        const tended: Tended | Lost = await this.#tend(own, held, ends);
        if (tended.type === 'lost') {
          yield tended;
          return;
        }
        own = tended.lease;
        held = tended.held;
        if (tended.changed || outage.announced) event = { type: 'renewed', lease: own };
        outage.over();
        if (own.expiresAtMs !== undefined && Math.abs(own.expiresAtMs - (scheduledForMs ?? 0)) > ROUNDING_MS) {
          scheduledForMs = own.expiresAtMs;
          this.#report({ type: 'renewal-scheduled', delayMs: this.#untilRenewalMs(held.binding) });
        }
      } catch (error) {
        if (ends.aborted) return;
        waitMs = outage.failed(error);
        held = undefined;
        if (outage.announce()) event = { type: 'store-unavailable', error: asError(error) };
      }
      if (event !== undefined) yield event;
      if (held !== undefined) {
        const sinceMs = performance.now();
        const what = await this.#untilSomethingHappens(leaseKey(own), held, ends);
        if (performance.now() - sinceMs > SETTLED_MS) flapping.reset();
        if (what === 'broken') waitMs = flapping.nextMs();
        // The clock of this host may have been set meanwhile: etcd is asked how long the lease really lasts.
        if (what === 'due') held = undefined;
      }
      if (waitMs > 0) await sleep(waitMs, ends).catch(() => {});
    }
  }

  async *watchLeases(
    _config: NetworkConfig,
    signal: AbortSignal,
    { backendData = true }: WatchOptions = {},
  ): AsyncGenerator<LeaseUpdate, void, void> {
    const stop = new AbortController();
    const ends = AbortSignal.any([signal, this.#closing.signal, stop.signal]);
    const queue = new LeaseUpdateQueue();
    const pump = this.#pump(queue, backendData, ends).then(
      () => queue.end(),
      (error) => queue.fail(error),
    );
    try {
      yield* queue.drain();
    } finally {
      stop.abort();
      await pump;
    }
  }

  /** etcd is told nothing more: peers use a lease as soon as it is there. */
  async completeLease(_lease: Lease, signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closing.abort(new Error('the subnet manager was closed'));
    this.#client[Symbol.dispose]();
  }

  #outage(failure: string): Outage {
    return new Outage({ failure, report: this.#report, retry: RETRY, random: this.#random });
  }

  /** Does `work` again and again while etcd is away. */
  async #persist<T>(failure: string, signal: AbortSignal, work: (ends: AbortSignal) => Promise<T>): Promise<T> {
    const ends = AbortSignal.any([signal, this.#closing.signal]);
    const outage = this.#outage(failure);
    for (;;) {
      try {
        ends.throwIfAborted();
        const result = await work(ends);
        outage.over();
        return result;
      } catch (error) {
        ends.throwIfAborted();
        if (!(error instanceof EtcdError) || !error.temporary) throw error;
        await sleep(outage.failed(error), ends);
      }
    }
  }

  /** `undefined` when another host was faster somewhere: look again. */
  async #tryAcquire(
    config: NetworkConfig,
    attrs: LeaseAttrs,
    { previous, held, hostAddresses }: AcquireOptions,
    signal: AbortSignal,
  ): Promise<Lease | undefined> {
    const listing = await this.#registry.list(signal);
    const choice = chooseLease({
      config,
      attrs,
      entries: entriesOf(listing),
      previous,
      held,
      hostAddresses,
      random: this.#random,
      report: this.#report,
    });
    for (const entry of choice.remove) await this.#registry.delete(entry.kv, signal);
    const value = encodeLeaseValue(attrs);

    if (choice.type === 'reuse') {
      const { kv, subnets } = choice.entry;
      const binding = kv.lease === '0' ? PERMANENT : await this.#registry.grant(this.#leaseTtlSeconds, signal);
      if (!(await this.#replace(kv, Buffer.from(value), binding, signal))) return undefined;
      const lease: Lease = { subnets, attrs, expiresAtMs: binding.expiresAtMs };
      this.#report({ type: 'lease-reused', lease });
      return lease;
    }

    const { subnets } = choice;
    const binding = await this.#create(subnets, value, listing, signal);
    if (binding === undefined) return undefined;
    const lease: Lease = { subnets, attrs, expiresAtMs: binding.expiresAtMs };
    this.#report({ type: 'lease-allocated', lease });
    return lease;
  }

  /** `undefined` when the subnets are not free any more. */
  async #create(subnets: Subnets, value: string, listing: Listing, signal: AbortSignal): Promise<Binding | undefined> {
    const binding = await this.#registry.grant(this.#leaseTtlSeconds, signal);
    const outcome = await this.#registry.create(subnets, value, binding, listing.revision, this.#networks, signal);
    if (outcome === 'created') return binding;
    await this.#quietly(() => this.#registry.revoke(binding.id, signal));
    this.#report({ type: 'create-race-lost', key: subnetsKey(subnets) });
    return undefined;
  }

  /**
   * Writes the own key, unless somebody has touched it since it was read (`undefined`); otherwise the revision. Of the two
   * etcd leases, the old and the new one, that which is not used gives back its place at once instead of in a day.
   */
  async #replace(kv: KeyRecord, value: Buffer, binding: Binding, signal: AbortSignal): Promise<Int64 | undefined> {
    const revision = await this.#registry.replace(kv, value, binding, signal);
    const unused = revision === undefined ? binding.id : kv.lease;
    if (unused !== PERMANENT.id) await this.#quietly(() => this.#registry.revokeUnused(unused, signal));
    return revision;
  }

  /** For what only tidies up: an etcd lease that cannot be given back ends by itself. */
  async #quietly(work: () => Promise<void>): Promise<void> {
    try {
      await work();
    } catch (error) {
      if (!(error instanceof EtcdError)) throw error;
    }
  }

  /** One look at the own key: renews it when that is due, puts it right, or creates it again. */
  async #tend(own: Lease, before: Held | undefined, signal: AbortSignal): Promise<Tended | Lost> {
    const key = leaseKey(own);
    for (;;) {
      signal.throwIfAborted();
      const { kv, revision } = await this.#registry.get(key, signal);
      if (kv === undefined) {
        const tended = await this.#retake(own, signal);
        if (tended !== undefined) return tended;
        continue;
      }
      const entry = this.#registry.decode(kv).entry;
      const verdict = judgeOwn(own, entry === undefined ? [] : [entry], this.#now(), this.#networks);
      switch (verdict.type) {
        case 'lost':
          return verdict;
        case 'held': {
          const { attrs } = verdict.entry;
          const seen = before?.kv.mod_revision === kv.mod_revision;
          const binding = seen ? before.binding : await this.#registry.bindingOf(kv, signal);
          if (this.#untilRenewalMs(binding) > 0) {
            const held = { kv, binding, revision };
            const lease = { ...own, attrs, expiresAtMs: binding.expiresAtMs };
            // The first look knows the expiration no better than to a second: that is no change.
            const changed = before === undefined ? !sameValue(attrs, own.attrs) : !seen;
            return { type: 'held', lease, held, changed };
          }
          const tended = await this.#rewrite(kv, { ...own, attrs }, kv.value, signal);
          if (tended === undefined) continue;
          this.#report({ type: 'lease-renewed', lease: tended.lease });
          return tended;
        }
        case 'damaged': {
          const tended = await this.#rewrite(kv, own, Buffer.from(encodeLeaseValue(own.attrs)), signal);
          if (tended === undefined) continue;
          this.#report({ type: 'lease-retaken', lease: tended.lease });
          return tended;
        }
        case 'absent':
          throw new Error(`unreachable: ${key} was read and is absent`);
      }
    }
  }

  /** `undefined` when somebody wrote the key meanwhile: look again. */
  async #rewrite(kv: KeyValue, own: Lease, value: Buffer, signal: AbortSignal): Promise<Tended | undefined> {
    const permanent = own.expiresAtMs === undefined && kv.lease === '0';
    const binding = permanent ? PERMANENT : await this.#registry.grant(this.#leaseTtlSeconds, signal);
    const revision = await this.#replace(kv, value, binding, signal);
    if (revision === undefined) return undefined;
    const held = { kv: { ...kv, value, lease: binding.id, mod_revision: revision }, binding, revision };
    return { type: 'held', lease: { ...own, expiresAtMs: binding.expiresAtMs }, held, changed: true };
  }

  /** Creates the vanished key again, unless somebody else has a part of the subnet by now. */
  async #retake(own: Lease, signal: AbortSignal): Promise<Tended | Lost | undefined> {
    const listing = await this.#registry.list(signal);
    const verdict = judgeOwn(own, entriesOf(listing), this.#now(), this.#networks);
    if (verdict.type === 'lost') return verdict;
    if (verdict.type !== 'absent') return undefined;
    const value = encodeLeaseValue(own.attrs);
    const binding = await this.#create(own.subnets, value, listing, signal);
    if (binding === undefined) return undefined;
    const { kv, revision } = await this.#registry.get(leaseKey(own), signal);
    if (kv === undefined || kv.lease !== binding.id) return undefined;
    const lease = { ...own, expiresAtMs: binding.expiresAtMs };
    this.#report({ type: 'lease-retaken', lease });
    return { type: 'held', lease, held: { kv, binding, revision }, changed: true };
  }

  #untilRenewalMs({ expiresAtMs }: Binding): number {
    return expiresAtMs === undefined ? Number.POSITIVE_INFINITY : expiresAtMs - this.#renewMarginMs - this.#now();
  }

  /** Until the own key changes, it is time to look at its lease, the watch breaks, or `signal` fires. */
  async #untilSomethingHappens(
    key: LeaseKey,
    held: Held,
    signal: AbortSignal,
  ): Promise<'changed' | 'due' | 'broken' | 'ended'> {
    const dueInMs = this.#untilRenewalMs(held.binding);
    const lookInMs = Math.min(dueInMs, Math.max(MIN_LOOK_MS, this.#renewMarginMs / 2));
    using due = dueInMs === Number.POSITIVE_INFINITY ? undefined : new Timer(lookInMs);
    const until = due === undefined ? signal : AbortSignal.any([signal, due.signal]);
    try {
      const next = String(BigInt(held.revision) + 1n);
      for await (const response of this.#registry.watchOne(key, next, until)) {
        if (response.events.length > 0) return 'changed';
        if (response.canceled || isBehind(response, next)) return 'broken';
      }
      return due?.signal.aborted === true && !signal.aborted ? 'due' : 'ended';
    } catch (error) {
      if (!(error instanceof WeftError)) throw error;
      return 'broken';
    }
  }

  /** Feeds the queue until `signal` fires. A broken watch goes on where it was; only what is compacted is read anew. */
  async #pump(queue: LeaseUpdateQueue, backendData: boolean, signal: AbortSignal): Promise<void> {
    const outage = this.#outage('Error watching leases');
    const bound = (): number => this.#now() + this.#leaseTtlSeconds * 1000;
    const view = new WatchedLeases(this.#registry, this.#report, { backendData, bound });
    let next: Int64 | undefined;
    let why: string | undefined;
    while (!signal.aborted) {
      try {
        if (next === undefined) {
          const listing = await this.#registry.list(signal, { data: backendData });
          await view.reset(listing.keys);
          signal.throwIfAborted();
          queue.snapshot(view.leases());
          if (why !== undefined) this.#report({ type: 'resynchronised', leases: view.leases().length, reason: why });
          next = String(BigInt(listing.revision) + 1n);
        }
        const from = next;
        for await (const response of this.#registry.watchAll(from, signal)) {
          if (response.compact_revision !== '0') {
            why = `etcd has compacted what happened since revision ${next}`;
            next = undefined;
            break;
          }
          if (response.canceled) throw new Error(`etcd ended the watch: ${response.cancel_reason}`);
          if (isBehind(response, from)) {
            why = `etcd is at revision ${response.header.revision}, before ${from}: it was restored or replaced`;
            next = undefined;
            break;
          }
          outage.over();
          for (const event of response.events) {
            if (event.type === 'PUT') view.put(event.kv, queue);
            else view.delete(event.kv, queue);
            if (!response.fragment) next = String(BigInt(event.kv.mod_revision) + 1n);
          }
          // A message without events that is not the first is a progress report: all before it has been sent.
          if (response.events.length === 0 && !response.created) next = String(BigInt(response.header.revision) + 1n);
        }
      } catch (error) {
        if (signal.aborted) return;
        await sleep(outage.failed(error), signal).catch(() => {});
      }
    }
  }
}

/** Waiting for a revision that the store has yet to reach would miss everything up to it. */
function isBehind(response: WatchResponse, from: Int64): boolean {
  return response.created && BigInt(response.header.revision) + 1n < BigInt(from);
}

function sameValue(a: LeaseAttrs, b: LeaseAttrs): boolean {
  return encodeLeaseValue(a) === encodeLeaseValue(b);
}
