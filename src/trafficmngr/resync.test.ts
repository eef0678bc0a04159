import assert from 'node:assert/strict';
import { describe, it, type TestContext } from 'node:test';
import { FakeRuleStore, FakeTrafficManager } from '../../test/fakes/fake-traffic-manager.ts';
import { parsePrefix4 } from '../ip/prefix.ts';
import { type ResyncEvent, TrafficResync } from './resync.ts';
import { type TrafficOptions, trafficRules } from './rules.ts';

const OPTIONS: TrafficOptions = {
  ipv4: { network: parsePrefix4('10.244.0.0/16')!, subnet: parsePrefix4('10.244.1.0/24')! },
  ipv6: undefined,
  ipMasq: true,
  randomFully: true,
  forwardRules: true,
};

/** A loop on a fake manager and a fake clock. */
class Bench implements AsyncDisposable {
  readonly store = new FakeRuleStore();
  readonly manager = new FakeTrafficManager(this.store);
  readonly events: ResyncEvent[] = [];
  readonly resync: TrafficResync;
  readonly #controller = new AbortController();
  readonly #running: Promise<void>;
  readonly #test: TestContext;

  constructor(test: TestContext) {
    test.mock.timers.enable({ apis: ['setTimeout', 'Date'] });
    this.#test = test;
    this.resync = new TrafficResync({
      manager: this.manager,
      wanted: trafficRules(OPTIONS),
      intervalMs: 5000,
      onEvent: (event) => this.events.push(event),
    });
    this.#running = this.resync.run(this.#controller.signal);
  }

  async pass(ms: number): Promise<void> {
    this.#test.mock.timers.tick(ms);
    await this.settle();
  }

  /** The fake manager has no real waits: everything due is done after the next turn of the loop. */
  async settle(): Promise<void> {
    await new Promise((resolve) => setImmediate(resolve));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#controller.abort();
    await this.#running;
  }
}

describe('TrafficResync', () => {
  it('checks once an interval, the first time after one', async (t) => {
    await using bench = new Bench(t);
    await bench.pass(4999);
    assert.equal(bench.resync.counters.checks, 0);
    await bench.pass(1);
    assert.equal(bench.resync.counters.checks, 1);
    await bench.pass(5000);
    assert.equal(bench.resync.counters.checks, 2);
    assert.equal(bench.resync.counters.lastSuccessAtMs, Date.now());
  });

  it('tells what it repaired, counts it, and knows a fight', async (t) => {
    await using bench = new Bench(t);
    await bench.pass(5000);
    const streaks: number[] = [];
    for (let i = 0; i < 3; i++) {
      bench.events.length = 0;
      bench.store.chain(4, 'forward')?.pop();
      await bench.pass(5000);
      const [event] = bench.events;
      assert.ok(event?.type === 'repaired');
      assert.deepEqual(event.repairs, [
        { problem: 'missing', family: 4, where: 'fake/forward', rule: 'to 10.244.0.0/16 accept' },
      ]);
      streaks.push(event.streak);
    }
    assert.deepEqual(streaks, [2, 3, 4]);
    assert.equal(bench.resync.counters.repairs.missing, 5);
    bench.events.length = 0;
    await bench.pass(5000);
    assert.deepEqual(bench.events, []);
    bench.store.chain(4, 'forward')?.reverse();
    await bench.pass(5000);
    const [event] = bench.events as ResyncEvent[];
    assert.ok(event?.type === 'repaired' && event.streak === 1);
    assert.equal(bench.resync.counters.repairs.order, 1);
  });

  it('checks at once when asked, and the next time a whole interval later', async (t) => {
    await using bench = new Bench(t);
    await bench.pass(4000);
    bench.resync.trigger();
    await bench.settle();
    assert.equal(bench.resync.counters.checks, 1);
    await bench.pass(4999);
    assert.equal(bench.resync.counters.checks, 1);
    await bench.pass(1);
    assert.equal(bench.resync.counters.checks, 2);
  });

  it('takes up other rules at once', async (t) => {
    await using bench = new Bench(t);
    await bench.pass(5000);
    bench.resync.setWanted(trafficRules({ ...OPTIONS, ipMasq: false }));
    await bench.settle();
    assert.equal(bench.store.chain(4, 'masquerade'), undefined);
    assert.equal(bench.store.chain(4, 'forward')?.length, 2);
  });

  it('checks once more when asked during a check', async (t) => {
    await using bench = new Bench(t);
    const { promise: entered, resolve: enter } = Promise.withResolvers<void>();
    const { promise: go, resolve: release } = Promise.withResolvers<void>();
    const ensure = t.mock.method(bench.manager, 'ensure', async () => {
      enter();
      await go;
      return [];
    });
    bench.resync.trigger();
    await entered;
    bench.resync.trigger();
    bench.resync.trigger();
    release();
    await bench.settle();
    assert.equal(ensure.mock.callCount(), 2);
  });

  it('goes on after failures, tells each once, and tells when it is over', async (t) => {
    await using bench = new Bench(t);
    bench.manager.failWith = new Error('Permission denied');
    await bench.pass(5000);
    await bench.pass(5000);
    assert.deepEqual(
      bench.events.map(({ type }) => type),
      ['failed'],
    );
    bench.manager.failWith = new Error('another reason');
    await bench.pass(5000);
    assert.deepEqual(
      bench.events.map(({ type }) => type),
      ['failed', 'failed'],
    );
    assert.equal(bench.resync.counters.failures, 3);
    assert.equal(bench.resync.counters.lastSuccessAtMs, undefined);
    bench.manager.failWith = undefined;
    await bench.pass(5000);
    assert.deepEqual(bench.events.map(({ type }) => type).slice(2), ['recovered', 'repaired']);
  });

  it('ends without an event when aborted during a check', async (t) => {
    const bench = new Bench(t);
    const { promise: entered, resolve: enter } = Promise.withResolvers<void>();
    t.mock.method(bench.manager, 'ensure', (_wanted: unknown, signal: AbortSignal) => {
      enter();
      return new Promise((_resolve, reject) => signal.addEventListener('abort', () => reject(signal.reason)));
    });
    bench.resync.trigger();
    await entered;
    await bench[Symbol.asyncDispose]();
    assert.deepEqual(bench.events, []);
  });

  it('refuses an interval that would make it spin', () => {
    const options = { manager: new FakeTrafficManager(), wanted: trafficRules(OPTIONS), onEvent: () => undefined };
    for (const intervalMs of [0, -1, Number.NaN]) {
      assert.throws(() => new TrafficResync({ ...options, intervalMs }), RangeError);
    }
  });
});
