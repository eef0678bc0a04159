import assert from 'node:assert/strict';
import { test } from 'node:test';
import { eventually } from '../../test/netns/waiting.ts';
import { backendKind } from '../backend/registry.ts';
import { parseNetConf } from '../config/net-conf.ts';
import type { NetworkConfig } from '../config/network-config.ts';
import { ipv4Of, parseIpv4 } from '../ip/ipv4.ts';
import { parsePrefix4 } from '../ip/prefix.ts';
import type { GateRules } from '../lease/gate-rules.ts';
import { type Lease, type LeaseKey, leaseKey } from '../lease/lease.ts';
import type { LeaseUpdate, SubnetManager } from '../subnet/subnet-manager.ts';
import { LeaseUpdateQueue } from '../subnet/update-queue.ts';
import { LeaseSession, type SessionParts } from './lease-session.ts';

const config = parseNetConf('{"Network": "10.244.0.0/16"}', {
  source: 'test',
  validation: 'full',
  backends: backendKind,
});

function lease(subnet: string, publicIp: string): Lease {
  return {
    subnets: { ipv4: parsePrefix4(subnet)!, ipv6: undefined },
    attrs: {
      publicAddresses: { ipv4: parseIpv4(publicIp)!, ipv6: undefined },
      backendType: '',
      backendData: { ipv4: undefined, ipv6: undefined },
    },
    expiresAtMs: undefined,
  };
}

const own: Lease = { ...lease('10.244.1.0/24', '192.168.77.1'), origin: { holder: 'mine', since: 9 } };
const other = lease('10.244.2.0/24', '192.168.77.2');

const RULES: GateRules = {
  ...{ ipv4: config.ipv4, ipv6: undefined, planned: true, routesWholeNetwork: true, networksBeside: [] },
  ...{ ownAddresses: [parseIpv4('192.168.77.1')!], onLink: [], requireNodeAddress: false, capacity: 65_535 },
};
const nextTurn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

/** Counts the peers that it was told of, each time. */
function planeOf(config: NetworkConfig, programmed: number[]): SessionParts['plane'] {
  const keys = new Set<LeaseKey>();
  const note = (): void => void programmed.push(keys.size);
  return {
    ...{ config, usesPeerData: false },
    program: (_own, peers) => {
      keys.clear();
      for (const peer of peers) keys.add(leaseKey(peer));
      note();
    },
    update: (_own, events) => {
      for (const { type, lease } of events) {
        if (type === 'set') keys.add(leaseKey(lease));
        else keys.delete(leaseKey(lease));
      }
      note();
    },
  };
}

/** A session whose updates come from `queue`; `settled` resolves once all of them have been dealt with. */
function sessionOf(
  peers: readonly Lease[],
  holdLease: SubnetManager['holdLease'] = async function* (_lease, signal) {
    await new Promise((resolve) => signal.addEventListener('abort', resolve));
  },
) {
  const queue = new LeaseUpdateQueue();
  const programmed: number[] = [];
  const known: number[] = [];
  const seen: LeaseUpdate['type'][] = [];
  const quiet = () => {};
  const lines: string[] = [];
  const said = (text: string) => void lines.push(text);
  const session = new LeaseSession(
    {
      rules: RULES,
      record: () => {},
      log: { info: quiet, warn: said, error: said, verbose: quiet },
      plane: planeOf(config, programmed),
      manager: {
        watchLeases: () => queue.drain(),
        holdLease,
      },
      onUpdate: (type) => void seen.push(type),
      onKnown: (_own, current) => void known.push(current.size),
    },
    own,
    peers,
  );
  const settled = async (updates: number) => {
    await eventually(`${updates} updates`, () => seen.length >= updates);
    await nextTurn();
    await nextTurn();
  };
  return { queue, session, programmed, known, settled, lines };
}

test('everything read again with nothing changed programs nothing', async () => {
  const { queue, session, programmed, known, settled } = sessionOf([]);
  queue.snapshot([own, other]);
  await session.peersKnown;
  assert.deepEqual(programmed, [0, 1]);
  queue.snapshot([{ ...other, attrs: { ...other.attrs } }, own]);
  queue.set({ ...other, expiresAtMs: 1 });
  await settled(3);
  assert.deepEqual(programmed, [0, 1]);
  assert.deepEqual(known, [1]);
  queue.snapshot([own]);
  await eventually('the peer is gone', () => programmed.length >= 3);
  assert.deepEqual(programmed, [0, 1, 0]);
  queue.end();
  await session[Symbol.asyncDispose]();
});

test('the first list counts also when it says what was known before', async () => {
  const { queue, session, programmed, known } = sessionOf([other]);
  queue.snapshot([own, other]);
  await session.peersKnown;
  assert.deepEqual(programmed, [1, 1]);
  assert.deepEqual(known, [1]);
  queue.end();
  await session[Symbol.asyncDispose]();
});

test('100,000 entries are dealt with in slices, and are programmed some times, not 100,000 times', async () => {
  const attrs = other.attrs;
  const wide = parseNetConf('{"Network": "10.0.0.0/8", "SubnetLen": 26}', {
    source: 'test',
    validation: 'full',
    backends: backendKind,
  });
  const entry = (n: number): Lease => ({
    subnets: { ipv4: { addr: ipv4Of(0x0a000000 + (n + 8) * 64), length: 26 }, ipv6: undefined },
    attrs: { ...attrs, publicAddresses: { ...attrs.publicAddresses, ipv4: ipv4Of(0xc0000000 + n) } },
    expiresAtMs: undefined,
    origin: { since: n },
  });
  const all = Array.from({ length: 100_000 }, (_, n) => entry(n));
  let turns = 0;
  let done = false;
  const count = (): void => {
    turns++;
    if (!done) setImmediate(count).unref();
  };
  const programmed: number[] = [];
  const session = new LeaseSession(
    {
      rules: { ...RULES, ipv4: wide.ipv4 },
      record: () => {},
      log: { info: () => {}, warn: () => {}, error: assert.fail, verbose: () => {} },
      plane: planeOf(wide, programmed),
      manager: {
        // All of them are there at once, as after an outage of the store: nothing makes the consumer wait.
        async *watchLeases(_config, signal) {
          yield { type: 'snapshot', leases: [] };
          for (const each of all) yield { type: 'set', lease: each };
          done = true;
          await new Promise((resolve) => signal.addEventListener('abort', resolve));
        },
        async *holdLease(_lease, signal) {
          await new Promise((resolve) => signal.addEventListener('abort', resolve));
        },
      },
      onUpdate: () => {},
      onKnown: () => {},
    },
    { ...own, subnets: { ...own.subnets, ipv4: parsePrefix4('10.0.1.0/26')! } },
    [],
  );
  count();
  await eventually('all that there is room for', () => done && programmed.at(-1) === 65_535);
  // Others had their turn all the while.
  assert.ok(turns > 20, `${turns} turns of the event loop`);
  assert.ok(programmed.length < 1_000, `${programmed.length} times`);
  assert.deepEqual(session.refused, { 'too-many': 100_000 - 65_535 });
  await session[Symbol.asyncDispose]();
});

test('an update that cannot be taken in is said, and the next one counts', async () => {
  const { queue, session, programmed, settled, lines } = sessionOf([]);
  queue.snapshot([own]);
  await session.peersKnown;
  const broken = { ...other, attrs: undefined } as unknown as Lease;
  queue.set(broken);
  await settled(2);
  queue.set(lease('10.244.3.0/24', '192.168.77.3'));
  await eventually('the next one counts', () => programmed.at(-1) === 1);
  assert.ok(lines.some((line) => line.startsWith('Could not apply a change of the leases (set)')));
  queue.end();
  await session[Symbol.asyncDispose]();
});

test('what is not believed is said and counted; a host that is the newcomer to its own subnet says so until it is not', async () => {
  const { queue, session, programmed, lines } = sessionOf([]);
  const rival = { ...lease('10.244.1.0/24', '192.168.77.9'), origin: { holder: 'rival', since: 3 } };
  queue.snapshot([lease('0.0.0.0/0', '192.168.77.2'), lease('10.244.3.0/24', '127.0.0.1'), own]);
  await session.peersKnown;
  assert.equal(programmed.at(-1), 0);
  assert.deepEqual(session.refused, { 'outside-network': 1, 'address-not-unicast': 1 });
  assert.equal(session.failure, undefined);
  queue.set(rival);
  const failure = await eventually('the rival is noticed', () => session.failure);
  assert.match(failure, /overlaps 10\.244\.1\.0\/24 of 192\.168\.77\.9 \(node "rival"\), which came first/);
  for (const reason of ['outside-network', 'address-not-unicast', 'overlaps-own']) {
    assert.equal(lines.filter((line) => line.endsWith(`[${reason}]`)).length, 1, reason);
  }
  queue.removed('10.244.1.0-24' as LeaseKey, 'rival');
  await eventually('the rival is gone', () => session.failure === undefined);
  queue.end();
  await session[Symbol.asyncDispose]();
});

test('a lease that is lost is how the session ends', async () => {
  const { queue, session } = sessionOf([], async function* () {
    yield { type: 'lost', reason: 'somebody has it' };
  });
  assert.deepEqual(await session.ended, { type: 'lost', reason: 'somebody has it' });
  queue.end();
  await session[Symbol.asyncDispose]();
});

for (const [name, fail] of [
  ['keeping the lease', () => sessionOf([], () => broken())],
  [
    'watching the peers',
    () => {
      const made = sessionOf([]);
      made.queue.fail(new Error('broken for good'));
      return made;
    },
  ],
] as const) {
  test(`an error while ${name} is a value, and no rejection that nobody handles`, async () => {
    const unhandled: unknown[] = [];
    const note = (error: unknown): void => void unhandled.push(error);
    process.on('unhandledRejection', note);
    const { queue, session } = fail();
    const end = await session.ended;
    // Told after the microtasks, before the next turn.
    await new Promise((resolve) => setTimeout(resolve, 10));
    process.off('unhandledRejection', note);
    assert.equal(end.type, 'failed');
    assert.match(String(end.type === 'failed' && end.error), /broken for good/);
    assert.deepEqual(unhandled, []);
    queue.end();
    await session[Symbol.asyncDispose]();
  });
}

test('a store that stops telling without being asked to is a failure as well', async () => {
  const { queue, session } = sessionOf([]);
  queue.end();
  const end = await session.ended;
  assert.match(String(end.type === 'failed' && end.error), /watching the leases ended without being told to/);
  await session[Symbol.asyncDispose]();
});

// biome-ignore lint/correctness/useYield: it fails before
async function* broken(): AsyncGenerator<never, void, void> {
  throw new Error('broken for good');
}
