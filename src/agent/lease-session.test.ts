import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Backend } from '../backend/backend.ts';
import { parseNetConf } from '../config/net-conf.ts';
import { parseIpv4 } from '../ip/ipv4.ts';
import { parsePrefix4 } from '../ip/prefix.ts';
import type { Lease } from '../lease/lease.ts';
import type { LeaseUpdate, SubnetManager } from '../subnet/subnet-manager.ts';
import { LeaseUpdateQueue } from '../subnet/update-queue.ts';
import { LeaseSession } from './lease-session.ts';

const config = parseNetConf('{"Network": "10.244.0.0/16"}', { source: 'test', validation: 'full' });
const backend: Backend = {
  attrs: {
    publicIp: undefined,
    publicIpv6: undefined,
    backendType: '',
    backendData: undefined,
    backendV6Data: undefined,
  },
  usesPeerData: false,
  mtuBytes: 1_500,
  host: () => assert.fail('not asked for'),
  peer: () => assert.fail('not asked for'),
};

function lease(subnet: string, publicIp: string): Lease {
  const attrs = { publicIpv6: undefined, backendType: '', backendData: undefined, backendV6Data: undefined };
  return {
    subnet: parsePrefix4(subnet)!,
    ipv6Subnet: undefined,
    attrs: { ...attrs, publicIp: parseIpv4(publicIp)! },
    expiresAtMs: undefined,
  };
}

const own = lease('10.244.1.0/24', '192.168.77.1');
const other = lease('10.244.2.0/24', '192.168.77.2');

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
  const session = new LeaseSession(
    {
      log: { info: quiet, warn: quiet, error: quiet, verbose: quiet },
      plane: { config, backend, program: (_own, current) => void programmed.push(current.length) },
      manager: {
        watchLeases: () => queue.drain(),
        holdLease,
      },
      onUpdate: (type) => void seen.push(type),
      onKnown: (_own, current) => void known.push(current.length),
    },
    own,
    peers,
  );
  const settled = async (updates: number) => {
    while (seen.length < updates) await new Promise((resolve) => setImmediate(resolve));
  };
  return { queue, session, programmed, known, settled };
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
  await settled(4);
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
