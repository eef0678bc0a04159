import assert from 'node:assert/strict';
import { beforeEach, it } from 'node:test';
import { leaseKey } from '../../lease/lease.ts';
import type { SubnetReport } from '../report.ts';
import type { LeaseUpdate } from '../subnet-manager.ts';
import { LeaseUpdateQueue } from '../update-queue.ts';
import type { KeyValue } from './etcd-api.ts';
import type { EtcdClient } from './etcd-client.ts';
import { LeaseRegistry } from './lease-registry.ts';
import { WatchedLeases } from './watched-leases.ts';

const BOUND_MS = 86_400_000;
// What is watched is given here: nobody is asked.
const registry = new LeaseRegistry(undefined as unknown as EtcdClient, '/coreos.com/network', Date.now);

function key(name: string, value: string, { revision = 1, lease = '7' } = {}): KeyValue {
  return {
    ...{ key: Buffer.from(`/coreos.com/network/subnets/${name}`), value: Buffer.from(value) },
    ...{ create_revision: '1', mod_revision: String(revision), lease },
  };
}

const leaseOf = (publicIp: string): string => JSON.stringify({ PublicIP: publicIp, BackendType: 'udp' });

let reports: SubnetReport[];
let leases: WatchedLeases;
beforeEach(() => {
  reports = [];
  leases = new WatchedLeases(registry, (report) => reports.push(report), { backendData: true, bound: () => BOUND_MS });
});

/** What `change` gives to the consumer of a queue. */
async function told(change: (queue: LeaseUpdateQueue) => void): Promise<LeaseUpdate[]> {
  const queue = new LeaseUpdateQueue();
  change(queue);
  const updates: LeaseUpdate[] = [];
  while (queue.pending > 0) {
    const { value } = await queue.drain().next();
    updates.push(value!);
  }
  return updates;
}

const held = (): string[] => leases.leases().map((lease) => `${leaseKey(lease)} until ${lease.expiresAtMs}`);

it('has the leases of a listing and of what followed it; a reservation does not expire', async () => {
  const listing = [
    key('10.5.1.0-24', leaseOf('192.0.2.1')),
    key('10.5.2.0-24', leaseOf('192.0.2.2'), { lease: '0' }),
    key('no-subnet', leaseOf('192.0.2.3')),
  ];
  await leases.reset(listing.map((kv) => registry.listed(kv, { data: true })));
  assert.deepEqual(held(), [`10.5.1.0-24 until ${BOUND_MS}`, '10.5.2.0-24 until undefined']);

  const [added] = await told((queue) => leases.put(key('10.5.3.0-24', leaseOf('192.0.2.3')), queue));
  assert.ok(added?.type === 'set' && leaseKey(added.lease) === '10.5.3.0-24');
  assert.deepEqual(await told((queue) => leases.delete(key('10.5.1.0-24', ''), queue)), [
    { type: 'removed', key: '10.5.1.0-24' },
  ]);
  assert.deepEqual(await told((queue) => leases.delete(key('10.5.9.0-24', ''), queue)), [], 'nobody has known it');
  assert.deepEqual(held(), ['10.5.2.0-24 until undefined', `10.5.3.0-24 until ${BOUND_MS}`]);
});

it('keeps what a damaged entry said before, and reports each damage once', async () => {
  await told((queue) => leases.put(key('10.5.1.0-24', leaseOf('192.0.2.1')), queue));
  const damaged = key('10.5.1.0-24', '{', { revision: 2 });
  await told((queue) => leases.put(damaged, queue));
  await leases.reset([registry.listed(damaged, { data: true })]);
  assert.deepEqual(held(), [`10.5.1.0-24 until ${BOUND_MS}`]);
  assert.deepEqual(
    reports.map(({ type }) => type),
    ['entry-unreadable'],
  );
  await told((queue) => leases.put(key('10.5.1.0-24', '[', { revision: 3 }), queue));
  assert.equal(reports.length, 2, 'another damage');
});

it('reports a key of a megabyte by its beginning', async () => {
  await told((queue) => leases.put(key('x'.repeat(1 << 20), ''), queue));
  const [report] = reports;
  assert.ok(report?.type === 'entry-unreadable');
  assert.equal(report.key, `${'x'.repeat(100)}…`);
});
