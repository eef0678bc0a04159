import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { describe, it } from 'node:test';
import { describeOp, type Op } from '../../src/desired/op.ts';
import { Reconciler } from '../../src/desired/reconciler.ts';
import {
  type ActualState,
  describeRoute,
  EMPTY_WANTED_STATE,
  type UnicastRoute,
  type WantedState,
  WEFT_ROUTE_PROTOCOL,
} from '../../src/desired/state.ts';
import { formatAddr, parseAddr, parsePrefix } from '../../src/ip/address.ts';
import { openRealHost, type RealHost } from './kernel-harness.ts';

const prefix = (text: string) => parsePrefix(text) ?? assert.fail(text);
const addr = (text: string) => parseAddr(text) ?? assert.fail(text);

function route(dst: string, change: Partial<UnicastRoute> = {}): UnicastRoute {
  return {
    type: 'unicast',
    dst: prefix(dst),
    dev: 'flannel0',
    via: undefined,
    onlink: false,
    scope: 'global',
    metric: undefined,
    ...change,
  };
}

const WANTED: WantedState = {
  ...EMPTY_WANTED_STATE,
  links: [
    { kind: 'external', name: 'eth0' },
    { kind: 'tun', name: 'flannel0', mtuBytes: 1472 },
  ],
  addresses: [
    { link: 'flannel0', addr: addr('10.244.1.0'), prefixLength: 32, scope: 'global', prefixRoute: true },
    { link: 'flannel0', addr: addr('fd10:244:0:1::'), prefixLength: 128, scope: 'global', prefixRoute: true },
  ],
  routes: [
    route('10.244.0.0/16'),
    route('10.245.2.0/24', { dev: 'eth0', via: addr('192.168.77.2') }),
    route('fd10:244::/48'),
  ],
  networks: [prefix('10.244.0.0/16')],
  staleRoutes: 'everywhere',
};

const signal = new AbortController().signal;

/** Generous: it says that the test hangs, not that the reconciler is slow. */
const HANGS_MS = 120_000;

interface Watched {
  readonly reconciler: Reconciler;
  /** Once everything of `expected` was put back, in whatever order and number of runs. */
  repaired(expected: readonly string[]): Promise<void>;
}

function watch(host: RealHost): Watched {
  const pending = new Map<string, () => void>();
  const seen = new Set<string>();
  const onRepair = (ops: readonly Op[]): void => {
    for (const op of ops) {
      seen.add(describeOp(op));
      pending.get(describeOp(op))?.();
    }
  };
  // No safety net: what comes back comes back because the kernel said so.
  const reconciler = new Reconciler({ kernel: host.kernel, onRepair, resyncMs: 3_600_000 });
  return {
    reconciler,
    async repaired(expected) {
      const waits = expected.map((text) => {
        if (seen.has(text)) return Promise.resolve();
        const { promise, resolve } = Promise.withResolvers<void>();
        pending.set(text, resolve);
        return promise;
      });
      const { promise: hangs, reject } = Promise.withResolvers<never>();
      const timer = setTimeout(() => {
        const { failures, lastError, runs } = reconciler.stats();
        reject(new Error(`not repaired: ${expected.join('; ')}: ${JSON.stringify({ failures, lastError, runs })}`));
      }, HANGS_MS);
      try {
        await Promise.race([Promise.all(waits), hangs]);
      } finally {
        clearTimeout(timer);
        seen.clear();
        pending.clear();
      }
      await reconciler.idle();
    },
  };
}

async function routes(host: RealHost): Promise<string[]> {
  const state = await host.kernel.read(WANTED, signal);
  return state.routes
    .filter((found) => found.protocol !== 2)
    .map((found) => `${describeRoute(found)} proto ${found.protocol}`)
    .sort();
}

const EXPECTED_ROUTES = [
  '10.244.0.0/16 dev flannel0 proto 241',
  '10.245.2.0/24 via 192.168.77.2 dev eth0 proto 241',
  'fd10:244::/48 dev flannel0 metric 1024 proto 241',
];

function addressesOf(state: ActualState, link: string): string[] {
  return state.addresses
    .filter((found) => found.link === link)
    .map((found) => `${formatAddr(found.addr)}/${found.prefixLength}`)
    .filter((text) => !text.startsWith('fe80'))
    .sort();
}

describe('Reconciler on a real kernel', () => {
  it('removes stale routes of an earlier run at start and leaves the routes of others', async () => {
    await using host = await openRealHost();
    await host.addTun('flannel0');
    await host.ip('link', 'set', 'flannel0', 'up');
    await host.addRoute({ dst: '10.244.7.0/24', dev: 'flannel0', protocol: WEFT_ROUTE_PROTOCOL });
    await host.addRoute({ dst: '10.99.0.0/16', dev: 'eth0', protocol: WEFT_ROUTE_PROTOCOL });
    await host.addRoute({ dst: 'fd99::/64', dev: 'eth0', protocol: WEFT_ROUTE_PROTOCOL });
    await host.addRoute({ dst: '10.98.0.0/16', dev: 'eth0', protocol: 3 });
    await host.addRoute({ dst: '10.97.0.0/16', dev: 'flannel0', protocol: 4 });
    await using reconciler = new Reconciler({ kernel: host.kernel });
    reconciler.set(WANTED);
    await reconciler.idle();
    assert.deepEqual(
      await routes(host),
      [...EXPECTED_ROUTES, '10.97.0.0/16 dev flannel0 proto 4', '10.98.0.0/16 dev eth0 proto 3'].sort(),
    );
    assert.equal(reconciler.stats().failures, 0);
    assert.equal(reconciler.stats().converged, true);
  });

  it('puts back routes, addresses, MTU and state that somebody changes by hand', async () => {
    await using host = await openRealHost();
    await host.addTun('flannel0');
    const { reconciler, repaired } = watch(host);
    await using _ = reconciler;
    reconciler.set(WANTED);
    await reconciler.idle();

    await host.deleteRoute('10.244.0.0/16');
    await repaired(['add route 10.244.0.0/16 dev flannel0']);

    await host.deleteRoute('fd10:244::/48');
    await repaired(['add route fd10:244::/48 dev flannel0']);

    await host.flushAddresses('flannel0');
    await repaired([
      'add address 10.244.1.0/32 dev flannel0',
      'add address fd10:244:0:1::/128 dev flannel0',
      'add route 10.244.0.0/16 dev flannel0',
    ]);

    await host.setDown('flannel0');
    await repaired([
      'set link flannel0 up',
      'add address fd10:244:0:1::/128 dev flannel0',
      'add route 10.244.0.0/16 dev flannel0',
      'add route fd10:244::/48 dev flannel0',
    ]);

    await host.setMtu('flannel0', 9000);
    await repaired(['set link flannel0 mtu 1472']);

    await host.ip('route', 'replace', '10.244.0.0/16', 'dev', 'flannel0', 'proto', '241', 'scope', 'link');
    await repaired(['replace route 10.244.0.0/16 dev flannel0']);

    await host.addAddress('flannel0', '10.244.99.0/32');
    await repaired(['delete address 10.244.99.0/32 dev flannel0']);

    assert.deepEqual(await routes(host), EXPECTED_ROUTES);
    const state = await host.kernel.read(WANTED, signal);
    assert.deepEqual(addressesOf(state, 'flannel0'), ['10.244.1.0/32', 'fd10:244:0:1::/128']);
    assert.deepEqual(addressesOf(state, 'eth0'), ['192.168.77.1/24']);
    assert.equal(reconciler.stats().failures, 0);
  });

  it('puts back the route over the uplink after the uplink was down, of which the kernel says nothing', async () => {
    await using host = await openRealHost();
    await host.addTun('flannel0');
    const { reconciler } = watch(host);
    await using _ = reconciler;
    reconciler.set(WANTED);
    await reconciler.idle();
    await host.setDown('eth0');
    await host.ip('link', 'set', 'eth0', 'up');
    await untilRoutes(host, EXPECTED_ROUTES);
  });

  it('waits for the tun device, and takes up a new one', async () => {
    await using host = await openRealHost();
    const appeared: string[] = [];
    const changed: (() => void)[] = [];
    const problems = (count: number): Promise<void> => {
      const { promise, resolve } = Promise.withResolvers<void>();
      if (appeared.at(-1) === String(count)) resolve();
      else changed.push(() => appeared.at(-1) === String(count) && resolve());
      return promise;
    };
    await using reconciler = new Reconciler({
      kernel: host.kernel,
      resyncMs: 3_600_000,
      onProblems: (list) => {
        appeared.push(String(list.length));
        for (const check of changed) check();
      },
    });
    reconciler.set(WANTED);
    await problems(1);
    await host.addTun('flannel0');
    await problems(0);
    await untilRoutes(host, EXPECTED_ROUTES);
    await host.deleteLink('flannel0');
    await problems(1);
    await host.addTun('flannel0');
    await problems(0);
    await untilRoutes(host, EXPECTED_ROUTES);
  });

  it('goes on when `ip monitor` is killed', async () => {
    await using host = await openRealHost();
    await host.addTun('flannel0');
    const { reconciler, repaired } = watch(host);
    await using _ = reconciler;
    reconciler.set(WANTED);
    await reconciler.idle();
    for (let round = 0; round < 2; round++) {
      process.kill(await monitorOf(host), 'SIGKILL');
      await host.deleteRoute('10.244.0.0/16');
      await repaired(['add route 10.244.0.0/16 dev flannel0']);
    }
  });

  it('sets 2,000 routes, then one more, and does nothing when the same is wanted again', async () => {
    await using host = await openRealHost();
    await host.addTun('flannel0');
    await using reconciler = new Reconciler({ kernel: host.kernel });
    const many = Array.from({ length: 2_000 }, (_, i) => route(`10.${100 + (i >> 8)}.${i & 255}.0/24`));
    reconciler.set({ ...WANTED, routes: many });
    await reconciler.idle();
    assert.equal(reconciler.stats().operations['route-add'], 2_000);
    reconciler.set({ ...WANTED, routes: [...many, route('10.90.0.0/24')] });
    await reconciler.idle();
    const { runs, operations } = reconciler.stats();
    assert.equal(operations['route-add'], 2_001);
    reconciler.set({ ...WANTED, routes: [...many, route('10.90.0.0/24')] });
    await reconciler.idle();
    assert.deepEqual(reconciler.stats().operations, operations);
    assert(reconciler.stats().runs - runs <= 1);
    assert.deepEqual(reconciler.stats().repairs, {});
  });
});

/** The pid of the one `ip monitor` in the namespace; it may be on its way. */
async function monitorOf(host: RealHost): Promise<number> {
  const deadline = performance.now() + HANGS_MS;
  while (performance.now() < deadline) {
    for (const pid of (await host.ip('netns', 'pids', host.netns)).trim().split('\n')) {
      const command = await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '');
      if (command.startsWith('ip\0') && command.includes('\0monitor\0')) return Number(pid);
    }
  }
  assert.fail('no ip monitor in the namespace');
}

async function untilRoutes(host: RealHost, expected: readonly string[]): Promise<void> {
  const deadline = performance.now() + HANGS_MS;
  for (;;) {
    const found = await routes(host);
    if (found.join() === expected.join()) return;
    if (performance.now() > deadline) return assert.deepEqual(found, expected);
  }
}
