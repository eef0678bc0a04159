import type { HostPart } from '../backend/backend.ts';
import type { SourceCheck } from '../dataplane/source-check.ts';
import { OUTER_FILTER_PREFIX, type OuterFilter, type OuterTraffic } from '../desired/outer-filter.ts';
import { describeError } from '../errors.ts';
import { formatPrefix, type IpAddr, type IpPrefix } from '../ip/address.ts';
import { present } from '../ip/family.ts';
import type { Lease, LeaseKey } from '../lease/lease.ts';
import type { Log } from '../log/log.ts';
import type { AgentHost } from './ports.ts';

export interface OuterSourcesParts {
  readonly filters: AgentHost['outerFilters'];
  readonly name: string;
  readonly log: Pick<Log, 'info' | 'warn' | 'error'>;
  /** From one look at whether the filter is still there to the next. Default 10,000. */
  readonly lookMs?: number;
}

/**
 * Lets packets into the tunnel only from addresses that hosts of the network have published, where the kernel would unwrap them from
 * anybody. What a peer adds or takes away is that alone; a filter that somebody removes comes back. It stays when the agent ends: those
 * who were peers then are still let in.
 */
export class OuterSources implements AsyncDisposable {
  readonly #parts: OuterSourcesParts;
  readonly #stop = new AbortController();
  readonly #peers = new Map<LeaseKey, readonly IpAddr[]>();
  #traffic: readonly OuterTraffic[] | undefined;
  /** What the kernel's filter lets in, as far as known; `undefined`: it has to be made. */
  #there: ReadonlySet<IpAddr> | undefined;
  #wake: (() => void) | undefined;
  #isDue = false;
  #running: Promise<void> | undefined;
  #failure: string | undefined;

  constructor(parts: OuterSourcesParts) {
    this.#parts = parts;
  }

  /** Nothing to check: a filter of an earlier run goes. Takes effect soon. */
  set(traffic: readonly OuterTraffic[]): void {
    if (JSON.stringify(traffic) !== JSON.stringify(this.#traffic)) this.#there = undefined;
    const isFirst = this.#traffic === undefined;
    this.#traffic = traffic;
    this.#soon();
    if (isFirst) this.#running = this.#run();
  }

  setPeer(key: LeaseKey, addresses: readonly IpAddr[] | undefined): void {
    if (addresses === undefined) this.#peers.delete(key);
    else this.#peers.set(key, addresses);
    this.#soon();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort();
    this.#soon();
    await this.#running;
  }

  #soon(): void {
    this.#isDue = true;
    this.#wake?.();
  }

  /** Never rejects. */
  async #run(): Promise<void> {
    const { filters, name, log, lookMs = 10_000 } = this.#parts;
    const { signal } = this.#stop;
    // What is said in one turn counts together: peers that are known are never missing from the first filter.
    await new Promise(setImmediate);
    while (!signal.aborted) {
      this.#isDue = false;
      try {
        await this.#bringAbout();
        if (this.#failure !== undefined) log.info('The outer source of tunnelled packets is checked again');
        this.#failure = undefined;
      } catch (error) {
        if (signal.aborted) return;
        const failure = describeError(error);
        if (failure !== this.#failure)
          log.error(`The outer source of tunnelled packets is not checked: ${failure}. Retrying`);
        this.#failure = failure;
        this.#there = undefined;
      }
      // Where nothing is to be checked, nothing can be missing.
      const isIdle = this.#traffic?.length === 0 && this.#there !== undefined;
      if (!this.#isDue) await this.#until(isIdle ? undefined : lookMs);
      if (this.#isDue || this.#there === undefined || signal.aborted) continue;
      const names = await filters.names(signal).catch(() => undefined);
      if (names === undefined || names.includes(name)) continue;
      log.warn(`Restored the filter ${name} of tunnelled packets, which another program had removed`);
      this.#there = undefined;
    }
  }

  /** Until there is something to do, or the time is over where there is one. */
  async #until(ms: number | undefined): Promise<void> {
    const woken = Promise.withResolvers<void>();
    this.#wake = woken.resolve;
    const timer = ms === undefined ? undefined : setTimeout(woken.resolve, ms);
    timer?.unref();
    await woken.promise;
    clearTimeout(timer);
    this.#wake = undefined;
  }

  async #bringAbout(): Promise<void> {
    const { filters, name } = this.#parts;
    const { signal } = this.#stop;
    const traffic = this.#traffic ?? [];
    if (traffic.length === 0) {
      if (this.#there !== undefined) return;
      if ((await filters.names(signal)).includes(name)) await filters.remove(name, signal);
      this.#there = new Set();
      return;
    }
    const wanted = new Set([...this.#peers.values()].flat());
    const there = this.#there;
    if (there === undefined) {
      const filter: OuterFilter = { name, traffic, sources: [...wanted] };
      await filters.replace(filter, signal);
    } else {
      const added = [...wanted].filter((addr) => !there.has(addr));
      const removed = [...there].filter((addr) => !wanted.has(addr));
      if (added.length + removed.length > 0) await filters.change(name, added, removed, signal);
    }
    this.#there = wanted;
  }
}

/** The same for the agent of a network whenever it starts. */
export function outerFilterName(networks: readonly IpPrefix[]): string {
  return `${OUTER_FILTER_PREFIX}${formatPrefix(networks[0]!).replaceAll(/[^0-9a-f]+/g, '_')}`;
}

/** What is to be checked with that `--source-check`. */
export function outerTraffic(outer: HostPart['outer'], check: SourceCheck): readonly OuterTraffic[] {
  if (outer === undefined || check === 'off') return [];
  return outer.from === 'loose' || check === 'strict' ? outer.traffic : [];
}

/** From which a host sends, as far as others know. */
export function addressesOf({ attrs }: Lease): readonly IpAddr[] {
  return present(attrs.publicAddresses);
}
