import { posix } from 'node:path';
import { type LeaseKey, subnetsKey } from '../../lease/lease.ts';
import { decodeLeaseValue, parseEtcdLeaseKey, parseLeaseKey } from '../../lease/lease-codec.ts';
import { overlap, type Subnets } from '../../lease/subnets.ts';
import { heldOf, type Networks, type StoredEntry } from '../lease-choice.ts';
import type { Int64, KeyRecord, KeyValue, RequestOp, WatchResponse } from './etcd-api.ts';
import type { EtcdClient } from './etcd-client.ts';
import { isCompacted, isTooLong } from './etcd-error.ts';

/** An etcd key below `subnets/` that holds a subnet. */
export interface EtcdEntry extends StoredEntry {
  readonly kv: KeyRecord;
}

/** `entry` is there when the key can be read, `problem` when anything cannot. */
export interface DecodedKeyValue {
  readonly entry: EtcdEntry | undefined;
  readonly problem: string | undefined;
}

/** A key of a listing, as it was read. What it held is not kept: whoever may write one may write a megabyte into each. */
export interface ListedKey extends DecodedKeyValue {
  readonly kv: KeyRecord;
}

export interface Listing {
  readonly keys: readonly ListedKey[];
  /** The store's revision that the listing shows. */
  readonly revision: Int64;
}

/** What a key is bound to; `id` '0' is nothing, for a reservation. */
export interface Binding {
  readonly id: Int64;
  /** Milliseconds since the epoch; `undefined` for a reservation. */
  readonly expiresAtMs: number | undefined;
}

export const PERMANENT: Binding = { id: '0', expiresAtMs: undefined };

/** Keys fetched by one request. A cluster of 5,000 nodes needs a few, none of them big. Fewer are where they are not small. */
const PAGE = 2_000;
/** Of a key that is kept, from its ends: its name, and the subnet that it may end with. */
const KEPT_OF_KEY = 512;

/** flannel's part of an etcd: `<prefix>/config` and `<prefix>/subnets/10.5.1.0-24`. One method, one step. */
export class LeaseRegistry {
  readonly configKey: string;
  readonly #subnetsPrefix: string;
  readonly #client: EtcdClient;
  readonly #now: () => number;

  /** @param prefix `/coreos.com/network`; joined with what follows as Go's path.Join does, by which flannel finds its keys. */
  constructor(client: EtcdClient, prefix: string, now: () => number) {
    this.configKey = posix.join(prefix, 'config');
    this.#subnetsPrefix = `${posix.join(prefix, 'subnets')}/`;
    this.#client = client;
    this.#now = now;
  }

  async config(signal: AbortSignal): Promise<string | undefined> {
    const request = { key: Buffer.from(this.configKey) };
    const { kvs } = await this.#client.call('Range', request, `reading ${this.configKey} from etcd`, signal);
    return kvs[0]?.value.toString('utf8');
  }

  /** The name of a key for people: what stands below `subnets/`. */
  nameOf(kv: KeyRecord): string {
    return kv.key.toString('utf8').slice(this.#subnetsPrefix.length);
  }

  /** The lease that a key stands for, whatever its value; `undefined` when it is no lease key. */
  leaseKeyOf(kv: KeyRecord): LeaseKey | undefined {
    const name = this.nameOf(kv);
    return parseLeaseKey(name) === undefined ? undefined : (name as LeaseKey);
  }

  /**
   * Reads one key. Flannel takes other spellings of a subnet for the subnet too (10.5.1.7-24); such a key keeps others
   * from having that subnet, but is nobody's lease here.
   * @param options see decodeLeaseValue.
   */
  decode(kv: KeyValue, options: { readonly data?: boolean } = {}): DecodedKeyValue {
    const name = this.nameOf(kv);
    const expiresAtMs = kv.lease === '0' ? undefined : Number.POSITIVE_INFINITY;
    const subnets = parseLeaseKey(name);
    if (subnets === undefined) {
      const held = parseEtcdLeaseKey(name);
      if (held === undefined) return { entry: undefined, problem: 'the key names no subnet' };
      return {
        entry: { subnets: held, attrs: undefined, expiresAtMs, since: sinceOf(kv), kv },
        problem: `the key is an unusual spelling of ${subnetsKey(held)}`,
      };
    }
    const value = decodeLeaseValue(kv.value.toString('utf8'), options);
    return {
      entry: { subnets, attrs: value.ok ? value.attrs : undefined, expiresAtMs, since: sinceOf(kv), kv },
      problem: value.ok ? undefined : value.reason,
    };
  }

  /**
   * All keys below `subnets/`, at one revision.
   * @param options see decodeLeaseValue.
   */
  async list(signal: AbortSignal, options: { readonly data: boolean } = { data: false }): Promise<Listing> {
    for (;;) {
      try {
        return await this.#list(options, signal);
      } catch (error) {
        // The revision of the first page was compacted before the last page was fetched.
        if (!isCompacted(error)) throw error;
      }
    }
  }

  async #list(options: { readonly data: boolean }, signal: AbortSignal): Promise<Listing> {
    const keys: ListedKey[] = [];
    let from = Buffer.from(this.#subnetsPrefix);
    let revision: Int64 | undefined;
    let limit = PAGE;
    for (;;) {
      const at = revision === undefined ? {} : { revision };
      const request = { key: from, range_end: this.#end, limit, ...at };
      const answer = this.#client.call('Range', request, 'reading the leases from etcd', signal);
      const page = await answer.catch((error: unknown) => {
        if (!isTooLong(error) || limit === 1) throw error;
        return undefined;
      });
      if (page === undefined) {
        limit = Math.ceil(limit / 4);
        continue;
      }
      revision ??= page.header.revision;
      for (const kv of page.kvs) keys.push(this.listed(kv, options));
      const last = page.kvs.at(-1);
      if (!page.more || last === undefined) return { keys, revision };
      from = Buffer.concat([last.key, Buffer.of(0)]);
    }
  }

  /** Nothing of it is a part of the message that it came in, which would stay in memory as a whole. */
  listed(kv: KeyValue, options: { readonly data: boolean }): ListedKey {
    const { entry, problem } = this.decode(kv, options);
    const { create_revision, mod_revision, lease } = kv;
    const kept = { key: keptOf(kv.key), create_revision, mod_revision, lease };
    return { kv: kept, entry: entry && { ...entry, kv: kept }, problem };
  }

  /** The key of one lease as it is now, and the store's revision. */
  async get(
    key: LeaseKey,
    signal: AbortSignal,
  ): Promise<{ readonly kv: KeyValue | undefined; readonly revision: Int64 }> {
    const request = { key: this.#key(key) };
    const { kvs, header } = await this.#client.call('Range', request, `reading the lease ${key} from etcd`, signal);
    return { kv: kvs[0], revision: header.revision };
  }

  /** A new etcd lease, to bind a key to. */
  async grant(ttlSeconds: number, signal: AbortSignal): Promise<Binding> {
    const fromMs = this.#now();
    const { ID, TTL } = await this.#client.call('LeaseGrant', { TTL: ttlSeconds }, 'getting an etcd lease', signal);
    return { id: ID, expiresAtMs: fromMs + Number(TTL) * 1000 };
  }

  /** Gives an etcd lease back, and deletes what is bound to it. */
  async revoke(id: Int64, signal: AbortSignal): Promise<void> {
    await this.#client.call('LeaseRevoke', { ID: id }, 'giving an etcd lease back', signal);
  }

  /** Gives an etcd lease back when no key is bound to it any more. */
  async revokeUnused(id: Int64, signal: AbortSignal): Promise<void> {
    const request = { ID: id, keys: true };
    const { TTL, keys } = await this.#client.call('LeaseTimeToLive', request, 'looking up an etcd lease', signal);
    if (TTL !== '-1' && keys.length === 0) await this.revoke(id, signal);
  }

  /** The end of what a key is bound to; the present when etcd does not know it any more. */
  async bindingOf(kv: KeyRecord, signal: AbortSignal): Promise<Binding> {
    if (kv.lease === '0') return PERMANENT;
    const request = { ID: kv.lease, keys: false };
    const { TTL } = await this.#client.call('LeaseTimeToLive', request, 'looking up an etcd lease', signal);
    return { id: kv.lease, expiresAtMs: this.#now() + Math.max(0, Number(TTL)) * 1000 };
  }

  /**
   * Creates the key of a lease. `revision` is that of the listing in which the subnets were free: `taken` when the key
   * exists by now; `overlapped` when others, that overlap it, were created since (then it has been withdrawn again).
   * @param networks what lies outside them holds nothing.
   */
  async create(
    subnets: Subnets,
    value: string,
    binding: Binding,
    revision: Int64,
    networks: Networks,
    signal: AbortSignal,
  ): Promise<'created' | 'taken' | 'overlapped'> {
    const name = subnetsKey(subnets);
    const key = this.#key(name);
    const since = String(BigInt(revision) + 1n);
    const { succeeded, responses, header } = await this.#client.call(
      'Txn',
      {
        compare: [{ key, result: 'EQUAL', target: 'VERSION', version: '0' }],
        success: [
          { request_put: { key, value: Buffer.from(value), lease: binding.id } },
          {
            request_range: {
              key: Buffer.from(this.#subnetsPrefix),
              range_end: this.#end,
              keys_only: true,
              min_create_revision: since,
            },
          },
        ],
        failure: [],
      },
      `creating the lease ${name} in etcd`,
      signal,
    );
    if (!succeeded) return 'taken';
    const recent = responses[1]?.response_range?.kvs ?? [];
    const overlapped = recent.some((kv) => {
      if (kv.key.equals(key)) return false;
      const other = this.decode(kv).entry;
      return other !== undefined && overlap(heldOf(other, networks), subnets);
    });
    if (!overlapped) return 'created';
    // Of two overlapping leases the older one stands; its owner need not look.
    await this.#compareAndDo(
      key,
      header.revision,
      { request_delete_range: { key } },
      `withdrawing the lease ${name}`,
      signal,
    );
    return 'overlapped';
  }

  /** Writes a key that nobody has touched since it was read; false when somebody has. */
  async replace(kv: KeyRecord, value: Buffer, binding: Binding, signal: AbortSignal): Promise<Int64 | undefined> {
    const put = { request_put: { key: kv.key, value, lease: binding.id } };
    return await this.#compareAndDo(
      kv.key,
      kv.mod_revision,
      put,
      `writing the lease ${this.nameOf(kv)} to etcd`,
      signal,
    );
  }

  /** Deletes a key that nobody has touched since it was read. */
  async delete(kv: KeyRecord, signal: AbortSignal): Promise<void> {
    const name = this.nameOf(kv);
    await this.#compareAndDo(
      kv.key,
      kv.mod_revision,
      { request_delete_range: { key: kv.key } },
      `deleting the lease ${name} from etcd`,
      signal,
    );
  }

  /** Changes to all leases from a revision on; as EtcdClient.watch. */
  watchAll(from: Int64, signal: AbortSignal): AsyncGenerator<WatchResponse, void, void> {
    const range = { key: Buffer.from(this.#subnetsPrefix), range_end: this.#end };
    return this.#client.watch(
      { create_request: { ...range, start_revision: from, progress_notify: true, fragment: true } },
      'watching the leases in etcd',
      signal,
    );
  }

  /** Changes to one lease. */
  watchOne(key: LeaseKey, from: Int64, signal: AbortSignal): AsyncGenerator<WatchResponse, void, void> {
    return this.#client.watch(
      { create_request: { key: this.#key(key), start_revision: from, progress_notify: false, fragment: false } },
      `watching the lease ${key} in etcd`,
      signal,
    );
  }

  /** The revision of the change, or undefined when the key has another one than `modRevision` by now. */
  async #compareAndDo(
    key: Buffer,
    modRevision: Int64,
    operation: RequestOp,
    attempted: string,
    signal: AbortSignal,
  ): Promise<Int64 | undefined> {
    const { succeeded, header } = await this.#client.call(
      'Txn',
      {
        compare: [{ key, result: 'EQUAL', target: 'MOD', mod_revision: modRevision }],
        success: [operation],
        failure: [],
      },
      attempted,
      signal,
    );
    return succeeded ? header.revision : undefined;
  }

  #key(name: LeaseKey): Buffer {
    return Buffer.from(`${this.#subnetsPrefix}${name}`);
  }

  /** The first key behind those with the prefix, whose last character is `/`. */
  get #end(): Buffer {
    const end = Buffer.from(this.#subnetsPrefix);
    end[end.length - 1] = end.at(-1)! + 1;
    return end;
  }
}

/** Of a key that is longer than any of a lease, both ends, which say what it is about. */
function keptOf(key: Buffer): Buffer {
  if (key.length <= 2 * KEPT_OF_KEY) return Buffer.from(key);
  return Buffer.concat([key.subarray(0, KEPT_OF_KEY), key.subarray(-KEPT_OF_KEY)]);
}

/** A key that is written again, as by a renewal, keeps its creation; one that was deleted and made again does not. */
function sinceOf(kv: KeyRecord): number {
  return Number(kv.create_revision);
}

/** Those that hold a subnet. */
export function entriesOf({ keys }: Listing): EtcdEntry[] {
  return keys.flatMap(({ entry }) => entry ?? []);
}
