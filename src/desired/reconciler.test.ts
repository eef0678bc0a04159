import assert from 'node:assert/strict';
import { describe, it, mock, type TestContext } from 'node:test';
import { FakeKernel } from '../../test/fakes/fake-kernel.ts';
import { eventually } from '../../test/netns/waiting.ts';
import { parseAddr, parsePrefix } from '../ip/address.ts';
import { describeOp, type Op } from './op.ts';
import type { Problem } from './problem.ts';
import { Reconciler, type ReconcilerOptions } from './reconciler.ts';
import { describeRoute, EMPTY_WANTED_STATE, type Route, type WantedState, WEFT_ROUTE_PROTOCOL } from './state.ts';

const route = (text: string): Route => ({
  type: 'unicast',
  dst: parsePrefix(text)!,
  dev: 'flannel0',
  via: undefined,
  onlink: false,
  scope: 'global',
  metric: undefined,
});

const wantedState = (...routes: string[]): WantedState => ({
  ...EMPTY_WANTED_STATE,
  links: [{ kind: 'tun', name: 'flannel0', mtuBytes: 1472 }],
  addresses: [
    { link: 'flannel0', addr: parseAddr('10.244.1.0')!, prefixLength: 32, scope: 'global', prefixRoute: true },
  ],
  routes: routes.map(route),
  networks: [parsePrefix('10.244.0.0/16')!],
  staleRoutes: 'everywhere',
});

const WANTED = wantedState('10.244.0.0/16');

interface Rig extends AsyncDisposable {
  readonly kernel: FakeKernel;
  readonly reconciler: Reconciler;
  readonly changes: string[][];
  readonly repairs: string[][];
  readonly failures: string[];
  readonly problems: (readonly Problem[])[];
}

function rig(options: Partial<ReconcilerOptions> = {}): Rig {
  const kernel = new FakeKernel();
  kernel.addLink({ name: 'flannel0', kind: 'tun', up: false });
  const changes: string[][] = [];
  const repairs: string[][] = [];
  const failures: string[] = [];
  const problems: (readonly Problem[])[] = [];
  const reconciler = new Reconciler({
    kernel,
    debounceMs: 1,
    echoMs: 0,
    onChange: (ops) => changes.push(ops.map(describeOp)),
    onRepair: (ops) => repairs.push(ops.map(describeOp)),
    onFailure: (failure) => failures.push(failure.message),
    onProblems: (list) => problems.push(list),
    ...options,
  });
  return {
    kernel,
    reconciler,
    changes,
    repairs,
    failures,
    problems,
    [Symbol.asyncDispose]: () => reconciler[Symbol.asyncDispose](),
  };
}

/** Until the kernel has been looked at and its own notices have been worked off. */
async function settled({ kernel, reconciler }: Rig): Promise<void> {
  for (let reads = -1; reads !== kernel.reads; ) {
    reads = kernel.reads;
    await reconciler.idle();
    await new Promise(setImmediate);
    await reconciler.idle();
  }
}

describe('Reconciler', () => {
  it('does nothing before it knows what is wanted', async () => {
    await using r = rig();
    await r.reconciler.idle();
    assert.equal(r.kernel.reads, 0);
    assert.equal(r.kernel.listeners, 0);
  });

  it('reaches the wanted state and counts its operations', async () => {
    await using r = rig();
    r.reconciler.set(WANTED);
    await settled(r);
    assert.equal(r.kernel.routes.length, 1);
    const stats = r.reconciler.stats();
    assert.deepEqual(stats.operations, { 'link-set': 1, 'address-add': 1, 'route-add': 1 });
    assert.deepEqual(stats.repairs, {});
    assert.equal(stats.converged, true);
    assert.equal(stats.failures, 0);
    assert.equal(stats.lastError, undefined);
    assert.deepEqual(r.repairs, []);
    assert.deepEqual(r.changes, [
      [
        'set link flannel0 mtu 1472 up',
        'add address 10.244.1.0/32 dev flannel0',
        'add route 10.244.0.0/16 dev flannel0',
      ],
    ]);
  });

  it('does not even look at the kernel when the same is wanted again', async () => {
    await using r = rig();
    r.reconciler.set(WANTED);
    await settled(r);
    const { reads } = r.kernel;
    const applied = r.kernel.applied.length;
    r.reconciler.set(wantedState('10.244.0.0/16'));
    await settled(r);
    assert.equal(r.kernel.reads, reads);
    assert.equal(r.kernel.applied.length, applied);
  });

  it('puts back what somebody takes away, and says what', async () => {
    await using r = rig();
    r.reconciler.set(WANTED);
    await settled(r);

    r.changes.length = 0;

    r.kernel.deleteRoutes(() => true);
    await settled(r);
    assert.deepEqual(r.repairs.splice(0), [['add route 10.244.0.0/16 dev flannel0']]);
    assert.deepEqual(r.changes, [], 'what was put back is told once');

    r.kernel.flushAddresses('flannel0');
    assert.deepEqual(r.kernel.routes, []);
    await settled(r);
    assert.deepEqual(r.repairs.splice(0), [
      ['add address 10.244.1.0/32 dev flannel0', 'add route 10.244.0.0/16 dev flannel0'],
    ]);

    r.kernel.setLink('flannel0', { up: false, mtuBytes: 1500 });
    await settled(r);
    assert.deepEqual(r.repairs.splice(0), [['set link flannel0 mtu 1472 up', 'add route 10.244.0.0/16 dev flannel0']]);
    assert.deepEqual(r.reconciler.stats().repairs, { 'route-add': 3, 'address-add': 1, 'link-set': 1 });
  });

  it('follows what is wanted: one run for many changes, none of them a repair', async () => {
    await using r = rig();
    r.reconciler.set(WANTED);
    await settled(r);
    r.kernel.applied.length = 0;
    for (let i = 2; i < 100; i++) r.reconciler.set(wantedState('10.244.0.0/16', `10.9.${i}.0/24`));
    await settled(r);
    assert.deepEqual(r.kernel.applied.map(describeOp), ['add route 10.9.99.0/24 dev flannel0']);
    r.reconciler.set(WANTED);
    await settled(r);
    assert.equal(describeOp(r.kernel.applied.at(-1)!), 'delete route 10.9.99.0/24 dev flannel0');
    assert.deepEqual(r.repairs, []);
  });

  it('does not look at the kernel before it does what a change of the wanted state asks for', async () => {
    await using r = rig({ echoMs: 60_000 });
    r.reconciler.set(WANTED);
    await r.reconciler.idle();
    const { reads } = r.kernel;
    for (let i = 1; i <= 5; i++) {
      r.reconciler.set(wantedState('10.244.0.0/16', `10.9.${i}.0/24`));
      await r.reconciler.idle();
    }
    assert.equal(r.kernel.reads, reads);
    assert.deepEqual(r.kernel.routes.map((found) => describeRoute(found)).sort(), [
      '10.244.0.0/16 dev flannel0',
      '10.9.5.0/24 dev flannel0',
    ]);
    // Other links, of which nothing was read: now it must.
    r.reconciler.set({ ...WANTED, links: [...WANTED.links, { kind: 'external', name: 'eth0' }] });
    await r.reconciler.idle();
    assert(r.kernel.reads > reads);
    assert.deepEqual(r.reconciler.stats().problems, [{ type: 'link-missing', link: 'eth0' }]);
  });

  it('gives a peer its part, changes it and takes it away, without a look at the kernel in between', async () => {
    await using r = rig({ echoMs: 60_000 });
    const part = (text: string) => ({ routes: [route(text)], neighbours: [], fdb: [] });
    r.reconciler.setPeer('early', part('10.9.1.0/24'));
    await r.reconciler.idle();
    assert.equal(r.kernel.reads, 0, 'nothing is done before the host’s own part is known');
    r.reconciler.set(WANTED);
    await r.reconciler.idle();
    const { reads } = r.kernel;
    r.kernel.applied.length = 0;
    r.changes.length = 0;
    r.reconciler.setPeer('late', part('10.9.2.0/24'));
    await r.reconciler.idle();
    r.reconciler.setPeer('late', part('10.9.3.0/24'));
    await r.reconciler.idle();
    r.reconciler.setPeer('late', part('10.9.3.0/24'));
    r.reconciler.setPeer('early', undefined);
    await r.reconciler.idle();
    assert.deepEqual(r.kernel.applied.map(describeOp), [
      'add route 10.9.2.0/24 dev flannel0',
      'add route 10.9.3.0/24 dev flannel0',
      'delete route 10.9.2.0/24 dev flannel0',
      'delete route 10.9.1.0/24 dev flannel0',
    ]);
    assert.deepEqual(r.changes.flat(), r.kernel.applied.map(describeOp));
    assert.equal(r.changes.length, 3, 'a run each, and none for what was already so');
    assert.equal(r.kernel.reads, reads);
    assert.deepEqual([...r.reconciler.peers], ['late']);
  });

  it('says so when two peers want one route, and gives it to the first', async () => {
    await using r = rig();
    const part = (metric: number) => ({
      routes: [{ ...route('10.9.1.0/24'), via: parseAddr(`10.0.0.${metric}`) }],
      neighbours: [],
      fdb: [],
    });
    r.reconciler.set(WANTED);
    r.reconciler.setPeer('first', part(1));
    r.reconciler.setPeer('second', part(2));
    await settled(r);
    assert.deepEqual(
      r.kernel.routes.map((found) => describeRoute(found)).filter((text) => text.startsWith('10.9')),
      ['10.9.1.0/24 via 10.0.0.1 dev flannel0'],
    );
    assert.deepEqual(
      r.reconciler.stats().problems.map(({ type }) => type),
      ['route-twice'],
    );
    r.reconciler.setPeer('first', undefined);
    await settled(r);
    assert.deepEqual(
      r.kernel.routes.map((found) => describeRoute(found)).filter((text) => text.startsWith('10.9')),
      ['10.9.1.0/24 via 10.0.0.2 dev flannel0'],
    );
    assert.deepEqual(r.reconciler.stats().problems, []);
  });

  it('looks at the kernel after an echo’s time, and then counts what is missing as taken away', async () => {
    await using r = rig({ echoMs: 5 });
    r.reconciler.set(WANTED);
    await r.reconciler.idle();
    r.reconciler.set(wantedState('10.244.0.0/16', '10.9.1.0/24'));
    await r.reconciler.idle();
    const repaired = Promise.withResolvers<void>();
    r.kernel.applied.length = 0;
    const apply = r.kernel.apply.bind(r.kernel);
    r.kernel.apply = async (ops, signal) => {
      const results = await apply(ops, signal);
      repaired.resolve();
      return results;
    };
    r.kernel.deleteRoutes(() => true);
    await repaired.promise;
    await settled(r);
    assert.deepEqual(r.repairs, [['add route 10.244.0.0/16 dev flannel0', 'add route 10.9.1.0/24 dev flannel0']]);
  });

  it('never runs twice at once, and looks again after a change during a run', async () => {
    await using r = rig();
    let reading = 0;
    const read = r.kernel.read.bind(r.kernel);
    r.kernel.read = async (wanted, signal) => {
      assert.equal(reading++, 0);
      const state = await read(wanted, signal);
      // What comes now is not in what was read.
      if (r.kernel.reads === 1) {
        r.reconciler.set(wantedState('10.244.0.0/16', '10.9.1.0/24'));
        r.kernel.setLink('flannel0', { mtuBytes: 9000 });
      }
      await new Promise(setImmediate);
      reading--;
      return state;
    };
    r.reconciler.set(WANTED);
    await settled(r);
    assert.equal(r.kernel.routes.length, 2);
    assert.equal(r.kernel.links.get('flannel0')?.mtuBytes, 1472);
  });

  it('says once what stands in the way, and goes on when it is gone', async () => {
    await using r = rig();
    r.kernel.removeLink('flannel0');
    r.reconciler.set(WANTED);
    await settled(r);
    r.kernel.notify();
    await settled(r);
    assert.deepEqual(r.problems.splice(0), [[{ type: 'link-missing', link: 'flannel0' }]]);
    assert.equal(r.reconciler.stats().problems.length, 1);
    r.kernel.addLink({ name: 'flannel0', kind: 'tun', up: false });
    await settled(r);
    assert.deepEqual(r.problems, [[]]);
    assert.equal(r.kernel.routes.length, 1);
    assert.deepEqual(r.repairs, []);
  });

  it('goes on after a failed operation, tries it again, and counts no repair when it succeeds', async () => {
    await using r = rig({ backoffMs: 1 });
    let refusals = 0;
    const succeeded = Promise.withResolvers<void>();
    r.kernel.refuse = (op) => {
      if (describeOp(op) !== 'add route 10.9.1.0/24 dev flannel0') return undefined;
      if (++refusals <= 3) return 'RTNETLINK answers: Network is unreachable';
      succeeded.resolve();
      return undefined;
    };
    r.reconciler.set(wantedState('10.9.1.0/24', '10.244.0.0/16'));
    await succeeded.promise;
    await settled(r);
    assert.equal(r.kernel.routes.length, 2);
    assert.equal(r.reconciler.stats().failures, 3);
    assert.equal(
      r.reconciler.stats().lastError?.message,
      'add route 10.9.1.0/24 dev flannel0: RTNETLINK answers: Network is unreachable',
    );
    assert.deepEqual(r.repairs, []);
    assert.equal(r.reconciler.stats().converged, true);
  });

  it('counts repairs beside an operation that keeps failing', async () => {
    await using r = rig({ backoffMs: 60_000 });
    r.kernel.refuse = (op) =>
      op.type === 'route-add' && describeOp(op).includes('10.9.1.0')
        ? 'Error: Nexthop has invalid gateway.'
        : undefined;
    r.reconciler.set(wantedState('10.9.1.0/24', '10.244.0.0/16'));
    await settled(r);
    r.kernel.deleteRoutes(() => true);
    await settled(r);
    assert.deepEqual(r.repairs, [['add route 10.244.0.0/16 dev flannel0']]);
    assert.equal(r.reconciler.stats().converged, false);
  });

  it('has no failure when the host has what it needs, and before anything is wanted', async () => {
    await using r = rig();
    assert.equal(r.reconciler.failure, undefined);
    r.reconciler.set(WANTED);
    await r.reconciler.settled(new AbortController().signal);
    assert.equal(r.reconciler.failure, undefined);
  });

  it('has a failure while somebody else has the route, whose route that is, and none once it is gone', async () => {
    await using r = rig();
    r.kernel.addForeignRoute({
      ...{ type: 'unicast', dst: parsePrefix('10.244.0.0/16')!, metric: 0, dev: 'eth1', via: undefined },
      ...{ onlink: false, scope: 'link', protocol: 2, elaborate: false },
    });
    r.reconciler.set(WANTED);
    await assert.rejects(r.reconciler.settled(new AbortController().signal), {
      code: 'WEFT_KERNEL_STATE',
      message:
        /^10\.244\.0\.0\/16 is already routed by another program .*; eth1 has an address in that subnet: choose another Network/,
    });
    assert.equal(r.reconciler.stats().converged, false);
    r.kernel.deleteRoutes(() => true);
    await settled(r);
    assert.equal(r.reconciler.failure, undefined);
    assert.equal(r.reconciler.stats().converged, true);
  });

  it('has a failure while the kernel refuses what the host needs, with the kernel’s words', async () => {
    await using r = rig({ backoffMs: 1 });
    r.kernel.refuse = () => 'RTNETLINK answers: Operation not permitted';
    r.reconciler.set(WANTED);
    await assert.rejects(r.reconciler.settled(new AbortController().signal), /Operation not permitted/);
    r.kernel.refuse = () => undefined;
    await eventually('the failure is over', () => r.reconciler.failure === undefined);
    assert.equal(r.kernel.routes.length, 1);
  });

  it('has no failure because of what one peer cannot have', async () => {
    await using r = rig({ backoffMs: 60_000 });
    r.kernel.refuse = (op) => (describeOp(op).includes('10.9.1.0') ? 'Error: Nexthop has invalid gateway.' : undefined);
    r.reconciler.set(WANTED);
    const [route] = wantedState('10.9.1.0/24').routes;
    r.reconciler.setPeer('10.9.1.0-24', { routes: [route!], neighbours: [], fdb: [] });
    await r.reconciler.settled(new AbortController().signal);
    assert.equal(r.reconciler.stats().converged, false);
  });

  it('removes stale routes of its own when it starts', async () => {
    await using r = rig();
    r.kernel.addForeignRoute({
      type: 'unicast',
      dst: parsePrefix('10.99.0.0/16')!,
      metric: 0,
      dev: 'eth0',
      via: parseAddr('192.168.77.9'),
      onlink: false,
      scope: 'global',
      protocol: WEFT_ROUTE_PROTOCOL,
      elaborate: false,
    });
    r.reconciler.set(WANTED);
    await settled(r);
    assert.deepEqual(
      r.kernel.routes.map((found) => found.dst),
      [parsePrefix('10.244.0.0/16')],
    );
  });

  it('leaves the kernel as it is when it stops, and does not run again', async () => {
    const r = rig();
    r.reconciler.set(WANTED);
    await settled(r);
    await r.reconciler[Symbol.asyncDispose]();
    assert.equal(r.kernel.listeners, 0);
    const { reads } = r.kernel;
    r.kernel.deleteRoutes(() => true);
    r.reconciler.set(wantedState('10.9.1.0/24'));
    await r.reconciler.idle();
    assert.equal(r.kernel.reads, reads);
  });

  it('ends a run that is on its way when it stops', async () => {
    const r = rig();
    const entered = Promise.withResolvers<void>();
    r.kernel.read = (_wanted, signal) => {
      entered.resolve();
      return new Promise((_, reject) => signal.addEventListener('abort', () => reject(signal.reason), { once: true }));
    };
    r.reconciler.set(WANTED);
    await entered.promise;
    await r.reconciler[Symbol.asyncDispose]();
    assert.deepEqual(r.failures, []);
  });

  it('listens again when listening ends', async () => {
    await using r = rig({ backoffMs: 1 });
    const changes = r.kernel.changes.bind(r.kernel);
    let times = 0;
    r.kernel.changes = (wanted, signal) => {
      times++;
      if (times === 1) throw new Error('no monitor');
      return changes(wanted, signal);
    };
    r.reconciler.set(WANTED);
    await eventually('it listens', () => r.kernel.listeners > 0);
    assert.equal(times, 2);
    assert.match(r.failures[0]!, /no monitor/);
  });

  describe('and the clock', () => {
    let nowMs = 0;
    /** Time goes on by `ticking` alone: a busy machine takes its own between two ticks. */
    const stopClock = (t: TestContext): void => {
      mock.timers.enable({ apis: ['setTimeout'] });
      t.after(() => mock.timers.reset());
      t.mock.method(performance, 'now', () => nowMs);
    };
    const ticking = async (ms: number): Promise<void> => {
      nowMs += ms;
      mock.timers.tick(ms);
      for (let i = 0; i < 20; i++) await new Promise((resolve) => process.nextTick(resolve));
    };
    const deaf = (r: Rig): void => {
      r.kernel.changes = async function* (_wanted, signal) {
        yield* [];
        await new Promise((resolve) => signal.addEventListener('abort', resolve, { once: true }));
      };
    };

    it('looks every 30 s even when the kernel says nothing', async (t) => {
      stopClock(t);
      await using r = rig();
      deaf(r);
      r.reconciler.set(WANTED);
      await ticking(0);
      r.kernel.routes = [];
      await ticking(29_999);
      assert.equal(r.kernel.routes.length, 0);
      await ticking(1);
      assert.equal(r.kernel.routes.length, 1);
      assert.deepEqual(r.repairs, [['add route 10.244.0.0/16 dev flannel0']]);
    });

    it('does not look at the kernel after changes of peers, before it is time to', async (t) => {
      stopClock(t);
      await using r = rig({ echoMs: 200 });
      deaf(r);
      r.reconciler.set(WANTED);
      await ticking(0);
      const { reads } = r.kernel;
      for (let i = 1; i <= 20; i++) {
        r.reconciler.setPeer(`peer ${i}`, { routes: [route(`10.9.${i}.0/24`)], neighbours: [], fdb: [] });
        await ticking(0);
        await ticking(1_000);
      }
      assert.equal(r.kernel.routes.length, 21);
      assert.equal(r.kernel.reads, reads);
      await ticking(30_000);
      assert.equal(r.kernel.reads, reads + 1);
    });

    it('waits twice as long after each failure, up to a limit', async (t) => {
      stopClock(t);
      await using r = rig({ backoffMs: 100, maxBackoffMs: 350 });
      deaf(r);
      r.kernel.readError = new Error('dump failed');
      r.reconciler.set(WANTED);
      await ticking(0);
      for (const [i, delayMs] of [100, 200, 350, 350].entries()) {
        assert.equal(r.kernel.reads, i + 1);
        await ticking(delayMs - 1);
        assert.equal(r.kernel.reads, i + 1);
        await ticking(1);
      }
      assert.equal(r.reconciler.stats().failures, 5);
      assert.equal(r.reconciler.stats().lastError?.message, 'dump failed');
      r.kernel.readError = undefined;
      await ticking(350);
      assert.equal(r.kernel.routes.length, 1);
    });

    it('repairs more slowly the more often somebody undoes it, and within half a second', async (t) => {
      stopClock(t);
      await using r = rig({ debounceMs: 20 });
      const wanted: (() => void)[] = [];
      r.kernel.changes = async function* (_wanted, signal) {
        for (;;) {
          const { promise, resolve } = Promise.withResolvers<void>();
          wanted.push(resolve);
          signal.addEventListener('abort', () => resolve(), { once: true });
          await promise;
          if (signal.aborted) return;
          yield;
        }
      };
      r.reconciler.set(WANTED);
      await ticking(0);
      for (const delayMs of [20, 40, 80, 160, 320, 500, 500]) {
        r.kernel.routes = [];
        wanted.at(-1)!();
        await ticking(0);
        await ticking(delayMs - 1);
        assert.equal(r.kernel.routes.length, 0, `${delayMs}`);
        await ticking(1);
        assert.equal(r.kernel.routes.length, 1, `${delayMs}`);
      }
      // A run that finds all in order ends the fight.
      wanted.at(-1)!();
      await ticking(0);
      await ticking(500);
      r.kernel.routes = [];
      wanted.at(-1)!();
      await ticking(0);
      await ticking(20);
      assert.equal(r.kernel.routes.length, 1);
    });
  });

  it('is without failure where a setting cannot be had, which is a problem all the same', async () => {
    await using r = rig();
    const name = 'net/ipv6/conf/flannel0/accept_ra';
    r.kernel.sysctls.set(name, { name, value: '1', writable: false });
    r.reconciler.set({ ...WANTED, sysctls: [{ link: 'flannel0', name, value: '0', risk: 'peers can do harm' }] });
    await settled(r);
    assert.equal(r.reconciler.failure, undefined);
    assert.deepEqual(r.failures, []);
    assert.deepEqual(
      r.reconciler.stats().problems.map(({ type }) => type),
      ['sysctl-read-only'],
    );
    // Somebody does it on the host; the next look finds nothing in the way.
    r.kernel.sysctls.set(name, { name, value: '0', writable: false });
    r.kernel.notify();
    await settled(r);
    assert.deepEqual(r.problems.at(-1), []);
  });

  it('applies nothing but what the difference says', async () => {
    await using r = rig();
    const before: Op[] = [...r.kernel.applied];
    r.reconciler.set(EMPTY_WANTED_STATE);
    await settled(r);
    assert.deepEqual(r.kernel.applied, before);
  });
});
