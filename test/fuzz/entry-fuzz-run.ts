import { describeError } from '../../src/errors.ts';
import { equalJson } from '../../src/lease/json-value.ts';
import { type Lease, leaseKey } from '../../src/lease/lease.ts';
import { decodeLeaseValue, encodeLeaseValue } from '../../src/lease/lease-codec.ts';
import { LeaseTable } from '../../src/lease/lease-table.ts';
import type { EtcdClient } from '../../src/subnet/etcd/etcd-client.ts';
import { LeaseRegistry } from '../../src/subnet/etcd/lease-registry.ts';
import { annotationKeys, DEFAULT_ANNOTATION_PREFIX } from '../../src/subnet/kube/annotations.ts';
import { nodeLease } from '../../src/subnet/kube/node-lease.ts';
import { nodeRecord } from '../../src/subnet/kube/node-record.ts';
import { decodeRow } from '../../src/subnet/local/lease-row.ts';
import { type StoreEntry, storeEntry } from './entry-source.ts';
import { Random } from './random.ts';

export interface EntryFuzzOptions {
  readonly entries: number;
  readonly seed: number;
}

/** What the parsers made of the entries, by store. */
export interface EntryFuzzTotals {
  readonly entries: number;
  readonly etcdLeases: number;
  readonly localLeases: number;
  readonly nodeLeases: number;
  readonly refused: number;
  /** Of one entry, all parsers and what follows, in milliseconds. */
  readonly slowestMs: number;
}

export class EntryFuzzFailure extends Error {}

/** A line of the log; a message that is longer has a store's text in it that was not cut. */
const MAX_MESSAGE = 1_000;
const PREFIX = '/coreos.com/network';

/**
 * Random entries through the parsers of the three stores and what follows them. Nothing may be thrown but the one error by
 * which a Node is refused; messages are short; what is read can be compared, written, and read again.
 * @throws EntryFuzzFailure with the entry that shows what is wrong.
 */
export function runEntryFuzz({ entries, seed }: EntryFuzzOptions): EntryFuzzTotals {
  const random = new Random(seed);
  const annotations = annotationKeys(DEFAULT_ANNOTATION_PREFIX);
  // Decoding asks nobody.
  const registry = new LeaseRegistry(undefined as unknown as EtcdClient, PREFIX, Date.now);
  const table = new LeaseTable();
  const totals = { entries: 0, etcdLeases: 0, localLeases: 0, nodeLeases: 0, refused: 0, slowestMs: 0 };
  let before: Lease | undefined;

  const follow = (lease: Lease): void => {
    const text = encodeLeaseValue(lease.attrs);
    const again = decodeLeaseValue(text);
    if (!again.ok) throw new Error(`what was read cannot be read again: ${again.reason}`);
    if (again.attrs.publicAddresses.ipv4 !== lease.attrs.publicAddresses.ipv4)
      throw new Error('another address after writing and reading');
    if (!equalJson(lease.attrs.backendData.ipv4, lease.attrs.backendData.ipv4))
      throw new Error('data is not equal to itself');
    if (before !== undefined) equalJson(before.attrs.backendData.ipv4, lease.attrs.backendData.ipv4);
    const [key, gone] = [leaseKey(lease), before && leaseKey(before)];
    before = lease;
    table.apply([...(gone === undefined || gone === key ? [] : [{ key: gone, lease: undefined }]), { key, lease }]);
    if (table.peers[0] !== lease) throw new Error('the table does not have it');
    if (random.oneIn(3)) table.apply([{ key, lease: undefined }]);
  };
  const refuse = (reason: string): void => {
    totals.refused++;
    if (reason.length > MAX_MESSAGE) throw new Error(`a message of ${reason.length} characters`);
  };

  const etcd = (key: string, value: string): void => {
    const revisions = { create_revision: '1', mod_revision: '1', version: '1' };
    const kv = { key: Buffer.from(`${PREFIX}/subnets/${key}`), value: Buffer.from(value), ...revisions, lease: '0' };
    const { entry, problem } = registry.decode(kv, { data: !random.oneIn(3) });
    if (problem !== undefined) refuse(problem);
    if (entry?.attrs === undefined) return;
    totals.etcdLeases++;
    follow({ ...entry, attrs: entry.attrs });
  };
  const local = (key: string, value: string): void => {
    const { entry, problem } = decodeRow({ key, value, expiresAtMs: null }, { data: !random.oneIn(3) });
    if (problem !== undefined) refuse(problem);
    if (entry?.attrs === undefined) return;
    totals.localLeases++;
    follow({ ...entry, attrs: entry.attrs });
  };
  const kube = (node: unknown): void => {
    let lease: Lease | undefined;
    try {
      const record = nodeRecord(node, annotations, 'node-7');
      lease = nodeLease(record, { ipv4: true, ipv6: random.oneIn(2) }, annotations, { data: !random.oneIn(3) });
    } catch (error) {
      // One of another class would be a mistake of ours.
      if (!(error instanceof Error) || error.constructor !== Error) throw error;
      refuse(error.message);
    }
    if (lease === undefined) return;
    totals.nodeLeases++;
    follow(lease);
  };
  const feed = (entry: StoreEntry): void => {
    if (entry.store === 'kube') kube(entry.node);
    else if (entry.store === 'etcd') etcd(entry.key, entry.value);
    else local(entry.key, entry.value);
  };

  for (; totals.entries < entries; totals.entries++) {
    const { state } = random;
    const entry = storeEntry(random);
    const startedAt = performance.now();
    try {
      feed(entry);
    } catch (error) {
      const shown = JSON.stringify(entry).slice(0, 2_000);
      throw new EntryFuzzFailure(`after state ${state}: ${describeError(error)}\n${shown}`, { cause: error });
    }
    totals.slowestMs = Math.max(totals.slowestMs, performance.now() - startedAt);
  }
  return totals;
}
