import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { FakeKubeApi, type FakeNode } from '../../../test/fakes/fake-kube-api.ts';
import { eventually, PATIENCE_MS } from '../../../test/netns/waiting.ts';
import type { SubnetReport } from '../report.ts';
import { loadKubeAccess } from './kube-access.ts';
import { KubeApi } from './kube-api.ts';
import { type ReflectorEvent, type ReflectorTiming, reflect } from './reflector.ts';

interface Item {
  readonly name: string;
  readonly value: string;
}

const FAST: ReflectorTiming = { watchSeconds: [240, 480], silenceMs: 20_000, retry: { firstMs: 2, maxMs: 10 } };

function node(name: string, value = ''): FakeNode {
  return { metadata: { name, annotations: { value } } };
}

function reduce(object: unknown): Item {
  const { metadata } = object as FakeNode;
  if (typeof metadata?.annotations?.value !== 'string') throw new Error('it has no value');
  return { name: metadata.name, value: metadata.annotations.value };
}

/** One reflector on a fake server, and what it has told so far. */
class Follower implements AsyncDisposable {
  readonly picture = new Map<string, string>();
  readonly events: ReflectorEvent<Item>['type'][] = [];
  readonly reports: SubnetReport[] = [];
  readonly #abort = new AbortController();
  readonly #source: AsyncGenerator<ReflectorEvent<Item>, never>;
  readonly #api: KubeApi;

  private constructor(api: KubeApi, timing: Partial<ReflectorTiming>) {
    this.#api = api;
    const signal = AbortSignal.any([this.#abort.signal, AbortSignal.timeout(PATIENCE_MS)]);
    const report = (one: SubnetReport) => void this.reports.push(one);
    this.#source = reflect({ api, path: '/api/v1/nodes', reduce, report, timing: { ...FAST, ...timing } }, signal);
  }

  static async of(fake: FakeKubeApi, timing: Partial<ReflectorTiming> = {}): Promise<Follower> {
    const access = await loadKubeAccess({ kubeconfigFile: '', apiUrl: fake.url, env: {} }, () => {});
    return new Follower(new KubeApi(access, 'test'), timing);
  }

  /** Takes events until `wanted` is satisfied by one of them. */
  async until(wanted: (event: ReflectorEvent<Item>) => boolean): Promise<void> {
    for (;;) {
      const { value: event } = await this.#source.next();
      this.events.push(event.type);
      switch (event.type) {
        case 'replaced': {
          const kept = [...event.unreadable].flatMap((name) => [[name, this.picture.get(name)]] as const);
          this.picture.clear();
          for (const [name, value] of kept) if (value !== undefined) this.picture.set(name, value);
          for (const { name, value } of event.items) this.picture.set(name, value);
          break;
        }
        case 'set':
          this.picture.set(event.item.name, event.item.value);
          break;
        case 'deleted':
          this.picture.delete(event.name);
          break;
      }
      if (wanted(event)) return;
    }
  }

  untilType(type: ReflectorEvent<Item>['type']): Promise<void> {
    return this.until((event) => event.type === type);
  }

  untilNode(name: string, value: string): Promise<void> {
    return this.until(() => this.picture.get(name) === value);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#abort.abort(new Error('over'));
    await this.#source.next().catch(() => {});
    this.#api[Symbol.dispose]();
  }
}

function lists(fake: FakeKubeApi): string[] {
  return fake.requests.filter(({ query }) => !query.has('watch')).map(({ query }) => query.toString());
}

function watches(fake: FakeKubeApi): URLSearchParams[] {
  return fake.requests.filter(({ query }) => query.get('watch') === 'true').map(({ query }) => query);
}

describe('reflector', () => {
  test('lists in pages, then watches from there with bookmarks and a time limit of its own', async () => {
    await using fake = await FakeKubeApi.start();
    for (let i = 0; i < 1_203; i++) fake.put(node(`n${i}`, 'old'));
    await using follower = await Follower.of(fake);
    await follower.untilType('replaced');
    assert.equal(follower.picture.size, 1_203);
    fake.put(node('late', 'x'));
    fake.put(node('n7', 'new'));
    fake.remove('n8');
    await follower.untilType('deleted');
    assert.equal(follower.picture.get('late'), 'x');
    assert.equal(follower.picture.get('n7'), 'new');
    assert.equal(follower.picture.has('n8'), false);
    assert.equal(lists(fake)[0], 'limit=500&resourceVersion=0');
    assert.equal(lists(fake).length, 3);
    const [watch] = watches(fake);
    assert.equal(watch?.get('resourceVersion'), '1303');
    assert.equal(watch?.get('allowWatchBookmarks'), 'true');
    const seconds = Number(watch?.get('timeoutSeconds'));
    assert.ok(seconds >= 240 && seconds <= 480);
  });

  test('goes on from the last bookmark when a watch reaches its time limit', async () => {
    await using fake = await FakeKubeApi.start();
    fake.put(node('a', '1'));
    await using follower = await Follower.of(fake);
    await follower.untilType('replaced');
    const waiting = follower.untilNode('b', '1');
    await opened(fake, 1);
    fake.advance(50);
    fake.bookmark();
    const bookmarked = fake.version;
    fake.endWatches();
    await opened(fake, 2);
    fake.put(node('b', '1'));
    await waiting;
    assert.equal(watches(fake)[1]?.get('resourceVersion'), String(bookmarked));
    assert.equal(lists(fake).length, 1);
    assert.deepEqual(follower.events, ['replaced', 'set']);
  });

  test('loses nothing when the connection is reset', async () => {
    await using fake = await FakeKubeApi.start();
    fake.put(node('a', '1'));
    await using follower = await Follower.of(fake);
    await follower.untilType('replaced');
    const waiting = follower.untilNode('c', '1');
    await opened(fake, 1);
    fake.dropWatches();
    fake.put(node('b', '1'));
    fake.remove('a');
    await opened(fake, 2);
    fake.put(node('c', '1'));
    await waiting;
    assert.deepEqual([...follower.picture.keys()].sort(), ['b', 'c']);
    assert.deepEqual(follower.events, ['replaced', 'set', 'deleted', 'set']);
  });

  for (const expiredAs of ['status', 'event'] as const) {
    test(`lists again when its version is forgotten, told by ${expiredAs}`, async () => {
      await using fake = await FakeKubeApi.start();
      fake.expiredAs = expiredAs;
      fake.put(node('a', '1'));
      fake.put(node('b', '1'));
      await using follower = await Follower.of(fake);
      await follower.untilType('replaced');
      const waiting = follower.untilType('replaced');
      await opened(fake, 1);
      fake.silenceWatches();
      fake.remove('a');
      fake.put(node('b', '2'));
      fake.compact();
      fake.endWatches();
      await waiting;
      assert.deepEqual(Object.fromEntries(follower.picture), { b: '2' });
      assert.equal(follower.events.includes('unavailable'), false);
      // The newest state is wanted now, not one that some cache may have.
      assert.equal(lists(fake).at(-1), 'limit=500');
    });
  }

  test('takes a silent watch for dead', async () => {
    await using fake = await FakeKubeApi.start();
    fake.put(node('a', '1'));
    await using follower = await Follower.of(fake, { silenceMs: 50 });
    await follower.untilType('replaced');
    const waiting = follower.untilNode('b', '1');
    await opened(fake, 1);
    fake.silenceWatches();
    fake.put(node('b', '1'));
    await waiting;
    assert.equal(follower.events.includes('unavailable'), false);
    assert.deepEqual(follower.events, ['replaced', 'set']);
  });

  test('tells of an outage once, and resumes without a list', async () => {
    await using fake = await FakeKubeApi.start();
    fake.put(node('a', '1'));
    await using follower = await Follower.of(fake);
    await follower.untilType('replaced');
    const waiting = follower.untilType('unavailable');
    await opened(fake, 1);
    const port = await fake.goAway();
    await waiting;
    fake.put(node('b', '1'));
    const failures = () => follower.reports.filter(({ type }) => type === 'store-failed').length;
    const back = follower.untilNode('b', '1');
    await settled(() => failures() >= 3);
    await fake.comeBack(port);
    await back;
    assert.deepEqual(follower.events, ['replaced', 'unavailable', 'available', 'set']);
    assert.equal(follower.reports.at(-1)?.type, 'store-answered');
    assert.equal(lists(fake).filter((query) => query.startsWith('limit=500')).length, 1);
  });

  test('waits for a server that is not there yet, and for one that refuses', async () => {
    await using fake = await FakeKubeApi.start();
    const port = await fake.goAway();
    await fake.comeBack(port);
    fake.put(node('a', '1'));
    fake.override = () => ({
      status: 403,
      body: { kind: 'Status', reason: 'Forbidden', message: 'nodes is forbidden' },
    });
    await using follower = await Follower.of(fake);
    await follower.untilType('unavailable');
    const waiting = follower.untilType('replaced');
    await settled(() => follower.reports.length >= 4);
    fake.override = undefined;
    await waiting;
    assert.deepEqual(follower.events, ['unavailable', 'available', 'replaced']);
    const [first] = follower.reports;
    assert.ok(first?.type === 'store-failed' && /403 nodes is forbidden/.test(first.error.message));
  });

  test('skips and reports objects that cannot be read, in a list and in a watch', async () => {
    await using fake = await FakeKubeApi.start();
    fake.put(node('a', '1'));
    fake.put({ metadata: { name: 'bad' } });
    await using follower = await Follower.of(fake);
    await follower.until((event) => event.type === 'replaced' && event.unreadable.has('bad'));
    assert.deepEqual([...follower.picture.keys()], ['a']);
    const waiting = follower.untilNode('c', '1');
    await opened(fake, 1);
    fake.put({ metadata: { name: 'a' } });
    fake.put({ metadata: { name: 'worse' } });
    fake.inject('{"type":"SURPRISE","object":{"metadata":{"name":"odd"}}}\n{"type":"MODIFIED","object":null}\nnull\n');
    fake.put(node('c', '1'));
    await waiting;
    assert.deepEqual(Object.fromEntries(follower.picture), { a: '1', c: '1' });
    const unreadable = follower.reports.flatMap((report) => (report.type === 'entry-unreadable' ? [report.key] : []));
    const unnamed = 'an unnamed object of /api/v1/nodes';
    assert.deepEqual(unreadable, ['bad', 'a', 'worse', 'odd', unnamed, unnamed]);
    assert.equal(watches(fake).length, 1);
  });

  test('knows whose object it is that is too much to be read, and sees it go', async () => {
    await using fake = await FakeKubeApi.start();
    let deep: unknown = 1;
    for (let depth = 0; depth < 200; depth++) deep = [deep];
    const tooMuch = (name: string): FakeNode => ({ metadata: { name, annotations: { value: '9' }, deep } });
    fake.put(node('a', '1'));
    fake.put(tooMuch('b'));
    await using follower = await Follower.of(fake);
    await follower.until((event) => event.type === 'replaced' && event.unreadable.has('b'));
    const waiting = follower.untilNode('c', '1');
    await opened(fake, 1);
    fake.put(tooMuch('a'));
    fake.put(node('c', '1'));
    await waiting;
    assert.deepEqual(Object.fromEntries(follower.picture), { a: '1', c: '1' }, 'it stays as it was');
    const unreadable = follower.reports.flatMap((report) => (report.type === 'entry-unreadable' ? [report.key] : []));
    assert.deepEqual(unreadable, ['b', 'a']);
    const gone = follower.untilType('deleted');
    fake.remove('a');
    await gone;
    assert.deepEqual([...follower.picture.keys()], ['c']);
  });

  test('lists again when a watch only ever brings rubbish', async () => {
    await using fake = await FakeKubeApi.start();
    fake.put(node('a', '1'));
    await using follower = await Follower.of(fake);
    await follower.untilType('replaced');
    const waiting = follower.untilType('replaced');
    for (let n = 1; n <= 3; n++) {
      await opened(fake, n);
      fake.inject('{"type":"MODIFIED","object":{"metad\n');
    }
    await waiting;
    assert.equal(lists(fake).filter((query) => query.startsWith('limit=500')).length, 2);
  });

  test('takes the whole list in one piece when it changes faster than it can be paged', async () => {
    await using fake = await FakeKubeApi.start();
    for (let i = 0; i < 600; i++) fake.put(node(`n${i}`, '1'));
    fake.override = ({ query }) => {
      if (query.has('continue')) fake.compact();
      return undefined;
    };
    await using follower = await Follower.of(fake);
    await follower.untilType('replaced');
    assert.equal(follower.picture.size, 600);
    assert.equal(lists(fake).at(-1), '');
  });

  test('lists again when the server comes back with an older state', async () => {
    await using fake = await FakeKubeApi.start();
    fake.put(node('a', '1'));
    fake.put(node('b', '1'));
    await using follower = await Follower.of(fake);
    await follower.untilType('replaced');
    const waiting = follower.untilType('replaced');
    await opened(fake, 1);
    const port = await fake.goAway();
    fake.goBack([node('a', '0')], 50);
    await fake.comeBack(port);
    await waiting;
    assert.deepEqual(Object.fromEntries(follower.picture), { a: '0' });
  });

  test('ends with the reason of the signal, also in the middle of a watch', async () => {
    await using fake = await FakeKubeApi.start();
    const access = await loadKubeAccess({ kubeconfigFile: '', apiUrl: fake.url, env: {} }, () => {});
    using api = new KubeApi(access, 'test');
    const abort = new AbortController();
    const source = reflect({ api, path: '/api/v1/nodes', reduce, report: () => {}, timing: FAST }, abort.signal);
    await source.next();
    const pending = source.next();
    await opened(fake, 1);
    const reason = new Error('enough');
    abort.abort(reason);
    await assert.rejects(pending, reason);
  });

  test('whatever happens to connections and history, the picture becomes that of the server', async () => {
    const names = fc.integer({ min: 0, max: 5 }).map((n) => `n${n}`);
    const step = fc.oneof(
      { weight: 4, arbitrary: fc.record({ do: fc.constant('put' as const), name: names, value: fc.string() }) },
      { weight: 2, arbitrary: fc.record({ do: fc.constant('remove' as const), name: names }) },
      fc.record({ do: fc.constantFrom('drop', 'end', 'silence', 'compact', 'bookmark', 'rubbish', 'turn' as const) }),
    );
    await fc.assert(
      fc.asyncProperty(
        fc.array(step, { maxLength: 25 }),
        fc.constantFrom('status', 'event'),
        async (steps, expiredAs) => {
          await using fake = await FakeKubeApi.start();
          fake.expiredAs = expiredAs as 'status' | 'event';
          await using follower = await Follower.of(fake, { silenceMs: 30 });
          await follower.untilType('replaced');
          const waiting = follower.untilNode('last', 'one');
          for (const one of steps) {
            if (one.do === 'put') fake.put(node(one.name, one.value));
            else if (one.do === 'remove') fake.remove(one.name);
            else if (one.do === 'drop') fake.dropWatches();
            else if (one.do === 'end') fake.endWatches();
            else if (one.do === 'silence') fake.silenceWatches();
            else if (one.do === 'compact') fake.compact();
            else if (one.do === 'bookmark') fake.bookmark();
            else if (one.do === 'rubbish') fake.inject('}\n');
            else await new Promise(setImmediate);
          }
          fake.put(node('last', 'one'));
          await waiting;
          const expected = new Map(
            [...Array(6).keys()].flatMap((n) => {
              const value = fake.node(`n${n}`)?.metadata.annotations?.value;
              return value === undefined ? [] : [[`n${n}`, value] as const];
            }),
          );
          follower.picture.delete('last');
          assert.deepEqual(new Map([...follower.picture].sort()), expected);
        },
      ),
      { numRuns: 40 },
    );
  });
});

/** Until the fake has had that many watches, and the latest is open. */
async function opened(fake: FakeKubeApi, count: number): Promise<void> {
  await settled(() => watches(fake).length >= count && fake.openWatches > 0);
}

async function settled(condition: () => boolean): Promise<void> {
  await eventually(String(condition), condition);
}
