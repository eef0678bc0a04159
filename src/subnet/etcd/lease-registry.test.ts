import assert from 'node:assert/strict';
import { it } from 'node:test';
import { status } from '@grpc/grpc-js';
import { subnetsKey } from '../../lease/lease.ts';
import type { KeyValue, RangeRequest, RangeResponse } from './etcd-api.ts';
import type { EtcdClient } from './etcd-client.ts';
import { etcdError } from './etcd-error.ts';
import { entriesOf, LeaseRegistry } from './lease-registry.ts';

// What path.Join of Go 1.26 makes of the prefix and `config`.
const JOINED: readonly (readonly [prefix: string, configKey: string])[] = [
  ['/coreos.com/network', '/coreos.com/network/config'],
  ['/coreos.com/network/', '/coreos.com/network/config'],
  ['//coreos.com//network//', '/coreos.com/network/config'],
  ['/coreos.com/./network', '/coreos.com/network/config'],
  ['/coreos.com/x/../network', '/coreos.com/network/config'],
  ['/../network', '/network/config'],
  ['network', 'network/config'],
  ['./network', 'network/config'],
  ['../network', '../network/config'],
  ['/', '/config'],
  ['.', 'config'],
  ['', 'config'],
];

for (const [prefix, configKey] of JOINED) {
  it(`the prefix ${JSON.stringify(prefix)} gives the keys that flannel's gives`, () => {
    // Naming keys asks nobody.
    const registry = new LeaseRegistry(undefined as unknown as EtcdClient, prefix, Date.now);
    assert.equal(registry.configKey, configKey);
    const key = Buffer.from(configKey.replace(/config$/, 'subnets/10.5.1.0-24'));
    const kv = { key, value: Buffer.from(''), create_revision: '1', mod_revision: '1', version: '1', lease: '0' };
    assert.equal(registry.leaseKeyOf(kv), '10.5.1.0-24');
  });
}

/** What a client takes at most, as etcd-client.ts asks for it; each key is counted by what it holds. */
const MOST = 16 << 20;

/** etcd with these keys. */
class FakeEtcd {
  readonly #kvs: readonly KeyValue[];
  readonly pages: number[] = [];

  constructor(keys: ReadonlyMap<string, string>) {
    const revisions = { create_revision: '1', mod_revision: '1', lease: '0' };
    this.#kvs = [...keys]
      .map(([key, value]) => ({ key: Buffer.from(key), value: Buffer.from(value), ...revisions }))
      .sort((a, b) => Buffer.compare(a.key, b.key));
  }

  async call(_method: string, { key, range_end: end, limit = 0 }: RangeRequest): Promise<RangeResponse> {
    const found = this.#kvs.filter((kv) => Buffer.compare(kv.key, key) >= 0 && Buffer.compare(kv.key, end!) < 0);
    const kvs = found.slice(0, limit);
    const bytes = kvs.reduce((sum, kv) => sum + kv.key.length + kv.value.length, 0);
    if (bytes > MOST) {
      const details = `Received message larger than max (${bytes} vs ${MOST})`;
      throw etcdError('reading', 'here', { code: status.RESOURCE_EXHAUSTED, details });
    }
    this.pages.push(kvs.length);
    return { header: { revision: '7' }, kvs, more: found.length > kvs.length };
  }
}

const PREFIX = '/coreos.com/network';
const value = '{"PublicIP":"192.168.77.9","BackendType":"vxlan","BackendData":{"VNI":1}}';

function listingOf(keys: ReadonlyMap<string, string>): { etcd: FakeEtcd; registry: LeaseRegistry } {
  const etcd = new FakeEtcd(keys);
  return { etcd, registry: new LeaseRegistry(etcd as unknown as EtcdClient, PREFIX, Date.now) };
}

it('what somebody writes into keys, be it hundreds of megabytes, is passed over a part at a time and not kept', async () => {
  const megabyte = 'x'.repeat(1 << 20);
  const keys = new Map([[`${PREFIX}/subnets/10.5.9.0-24`, value]]);
  for (let i = 0; i < 100; i++) {
    keys.set(`${PREFIX}/subnets/${String(i).padStart(3, '0')}-junk`, megabyte);
    keys.set(`${PREFIX}/subnets/10.6.${i}.0-24`, megabyte);
  }
  keys.set(`${PREFIX}/subnets/${megabyte}`, '');
  keys.set(`${PREFIX}/subnets/${megabyte}10.5.8.0-24`, value);
  const { etcd, registry } = listingOf(keys);
  const { keys: listed, revision } = await registry.list(new AbortController().signal);
  assert.deepEqual([listed.length, revision], [keys.size, '7']);
  assert.equal(
    etcd.pages.reduce((sum, count) => sum + count),
    keys.size,
  );
  assert.ok(listed.every(({ kv }) => !('value' in kv) && kv.key.length <= 1_024 && kv.key.buffer.byteLength < 1 << 20));
  const entries = entriesOf({ keys: listed, revision });
  assert.deepEqual(
    entries.flatMap(({ attrs, kv }) => (attrs === undefined ? [] : registry.nameOf(kv))),
    ['10.5.9.0-24'],
  );
  // A key that ends so keeps others from having the subnet, as with flannel.
  assert.ok(entries.some(({ subnets, attrs }) => attrs === undefined && subnetsKey(subnets) === '10.5.8.0-24'));
  assert.equal(listed.filter(({ problem }) => problem === undefined).length, 1);
});

it('a list of ordinary leases takes a request for every two thousand, with data of backends where it is wanted', async () => {
  const keys = new Map(
    Array.from({ length: 4_100 }, (_, i) => [`${PREFIX}/subnets/10.${i >> 8}.${i & 255}.0-24`, value]),
  );
  const { etcd, registry } = listingOf(keys);
  const { signal } = new AbortController();
  const dataOf = async (data: boolean) =>
    entriesOf(await registry.list(signal, { data })).map(({ attrs }) => attrs?.backendData.ipv4);
  assert.deepEqual(new Set(await dataOf(false)), new Set([undefined]));
  assert.deepEqual(etcd.pages, [2_000, 2_000, 100]);
  assert.deepEqual((await dataOf(true)).at(-1), { VNI: 1 });
});
