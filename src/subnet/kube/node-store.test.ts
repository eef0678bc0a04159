import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FakeKubeApi, type FakeNode } from '../../../test/fakes/fake-kube-api.ts';
import { eventually, PATIENCE_MS } from '../../../test/netns/waiting.ts';
import { annotationKeys, DEFAULT_ANNOTATION_PREFIX } from './annotations.ts';
import { loadKubeAccess } from './kube-access.ts';
import { KubeApi } from './kube-api.ts';
import type { NodeRecord } from './node-record.ts';
import { type NodeFeed, NodeStore } from './node-store.ts';

const KEYS = annotationKeys(DEFAULT_ANNOTATION_PREFIX);

function node(name: string, data: string): FakeNode {
  const { ipv4, ipv6 } = KEYS.backendData;
  return { metadata: { name, annotations: { [ipv4]: data, [ipv6]: data } } };
}

/** What a feed was told of each node last: its data for IPv4. */
class Told implements NodeFeed {
  readonly backendData: boolean;
  readonly data = new Map<string, string | undefined>();

  constructor(backendData: boolean) {
    this.backendData = backendData;
  }

  replaced(nodes: Iterable<NodeRecord>): void {
    this.data.clear();
    for (const each of nodes) this.set(each);
  }

  set({ name, backendData: { ipv4, ipv6 } }: NodeRecord): void {
    assert.equal(ipv4, ipv6);
    this.data.set(name, ipv4);
  }

  deleted(name: string): void {
    this.data.delete(name);
  }
}

test('what other nodes publish for the backend is kept only while somebody wants it, and read again when somebody does', async () => {
  await using fake = await FakeKubeApi.start();
  const access = await loadKubeAccess({ kubeconfigFile: '', apiUrl: fake.url, env: {} }, () => {});
  const abort = new AbortController();
  const signal = AbortSignal.any([abort.signal, AbortSignal.timeout(PATIENCE_MS)]);
  using api = new KubeApi(access, 'test');
  const store = new NodeStore({
    ...{ api, annotations: KEYS, ownName: 'own', addresses: false, report: () => {}, signal },
    timing: { retry: { firstMs: 2, maxMs: 10 } },
  });
  for (const name of ['own', 'peer']) fake.put(node(name, `of ${name}`));
  await store.synced(signal);

  const without = new Told(false);
  const detach = store.attach(without);
  assert.deepEqual(
    [...without.data],
    [
      ['own', 'of own'],
      ['peer', undefined],
    ],
  );
  fake.put(node('late', 'of late'));
  await eventually('a node that comes later', () => without.data.has('late') || undefined);
  assert.equal(without.data.get('late'), undefined);
  detach();

  const wanting = new Told(true);
  store.attach(wanting);
  assert.equal(wanting.data.size, 0, 'nothing is told before it is whole');
  await eventually('all of them', () => wanting.data.get('late') === 'of late' || undefined);
  assert.deepEqual(wanting.data.get('peer'), 'of peer');
  fake.put(node('peer', 'anew'));
  await eventually('a change', () => wanting.data.get('peer') === 'anew' || undefined);
  abort.abort();
  await store.ended();
});
