import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { ipv4Of } from '../ip/ipv4.ts';
import { prefix4 } from '../ip/prefix.ts';
import { type Lease, type LeaseKey, leaseKey } from '../lease/lease.ts';
import type { LeaseUpdate } from './subnet-manager.ts';
import { LeaseUpdateQueue } from './update-queue.ts';

function lease(subnet: number, version: number): Lease {
  const attrs = {
    publicAddresses: { ipv4: ipv4Of(version), ipv6: undefined },
    backendType: '',
    backendData: { ipv4: undefined, ipv6: undefined },
  };
  return {
    subnets: { ipv4: prefix4(ipv4Of(0x0a050000 + subnet * 256), 24), ipv6: undefined },
    attrs,
    expiresAtMs: undefined,
  };
}

function apply(picture: Map<LeaseKey, Lease>, update: LeaseUpdate): void {
  if (update.type === 'removed') picture.delete(update.key);
  else if (update.type === 'set') picture.set(leaseKey(update.lease), update.lease);
  else {
    picture.clear();
    for (const each of update.leases) picture.set(leaseKey(each), each);
  }
}

/** One step of a store's history; `read` is the consumer taking one update. */
const step = fc.oneof(
  fc.record({ type: fc.constant('set' as const), subnet: fc.nat(5) }),
  fc.record({ type: fc.constant('removed' as const), subnet: fc.nat(5) }),
  fc.record({ type: fc.constant('snapshot' as const), subnets: fc.uniqueArray(fc.nat(5)) }),
  fc.record({ type: fc.constant('read' as const) }),
);

describe('LeaseUpdateQueue', () => {
  it('brings every consumer, however slow, to the state of the store, with bounded memory', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 60 }), async (steps) => {
        const queue = new LeaseUpdateQueue();
        const updates = queue.drain();
        const truth = new Map<LeaseKey, Lease>();
        const picture = new Map<LeaseKey, Lease>();
        let version = 0;
        let waiting = 0;
        queue.snapshot([]);
        waiting = 1;
        for (const each of steps) {
          version++;
          if (each.type === 'read') {
            if (waiting === 0) continue;
            const { value } = await updates.next();
            if (value !== undefined) apply(picture, value);
            waiting = 0;
            continue;
          }
          waiting = 1;
          if (each.type === 'set') {
            queue.set(lease(each.subnet, version));
            apply(truth, { type: 'set', lease: lease(each.subnet, version) });
          } else if (each.type === 'removed') {
            queue.removed(leaseKey(lease(each.subnet, 0)));
            apply(truth, { type: 'removed', key: leaseKey(lease(each.subnet, 0)) });
          } else {
            const leases = each.subnets.map((subnet) => lease(subnet, version));
            queue.snapshot(leases);
            apply(truth, { type: 'snapshot', leases });
          }
        }
        queue.fail(new Error('drained'));
        let taken = 0;
        await assert.rejects(async () => {
          for await (const update of updates) {
            apply(picture, update);
            taken++;
          }
        }, /drained/);
        assert.ok(taken <= 7, `${taken} updates were buffered for 6 keys`);
        assert.deepEqual(picture, truth);
      }),
    );
  });

  it('ends at once, whatever is buffered', async () => {
    const queue = new LeaseUpdateQueue();
    queue.snapshot([lease(1, 1)]);
    queue.end();
    assert.equal((await queue.drain().next()).done, true);
  });

  it('wakes a waiting consumer', async () => {
    const queue = new LeaseUpdateQueue();
    const updates = queue.drain();
    const pending = updates.next();
    queue.set(lease(3, 1));
    assert.deepEqual(await pending, { done: false, value: { type: 'set', lease: lease(3, 1) } });
    const ending = updates.next();
    queue.end();
    assert.equal((await ending).done, true);
  });
});
