import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { ipv4Of } from '../ip/ipv4.ts';
import { prefix4 } from '../ip/prefix.ts';
import { type Lease, type LeaseEvent, type LeaseKey, leaseKey } from '../lease/lease.ts';
import { DuePeers } from './due-peers.ts';

/** Each call makes another lease of that subnet. */
function leaseOf(subnet: number): Lease {
  return {
    subnets: { ipv4: prefix4(ipv4Of(0x0af40000 + subnet * 256), 24), ipv6: undefined },
    attrs: {
      publicAddresses: { ipv4: ipv4Of(0xc0a84d00 + subnet), ipv6: undefined },
      ...{ backendType: '', backendData: { ipv4: undefined, ipv6: undefined } },
    },
    expiresAtMs: undefined,
  };
}

const set = (lease: Lease): LeaseEvent => ({ type: 'set', lease, before: undefined });

const keysOf = (taken: ReturnType<DuePeers['take']>): string[] =>
  taken.map(([key, peer]) => `${peer === undefined ? '-' : '+'}${key}`);

describe('peers that are due', () => {
  const [a, b, c] = [leaseOf(1), leaseOf(2), leaseOf(3)];

  it('are those that are new, changed or gone; once', () => {
    const peers = new DuePeers();
    peers.set([a, b], []);
    assert.deepEqual(keysOf(peers.take()), ['+10.244.1.0-24', '+10.244.2.0-24']);
    assert.deepEqual(peers.take(), []);
    peers.set([a, b, c], []);
    assert.deepEqual(keysOf(peers.take()), ['+10.244.3.0-24']);
    peers.change([set(leaseOf(2))]);
    assert.deepEqual(keysOf(peers.take()), ['+10.244.2.0-24']);
  });

  it('go first, whatever came first', () => {
    const peers = new DuePeers();
    peers.set([a], []);
    peers.take();
    peers.change([set(c), { type: 'removed', lease: a }]);
    assert.deepEqual(keysOf(peers.take()), ['-10.244.1.0-24', '+10.244.3.0-24']);
  });

  it('are all of them when what they were programmed for is no more', () => {
    const peers = new DuePeers();
    peers.set([a, b], []);
    peers.take();
    peers.again();
    assert.deepEqual(keysOf(peers.take()), ['+10.244.1.0-24', '+10.244.2.0-24']);
  });

  it('are foreseen ones that are not wanted', () => {
    const peers = new DuePeers();
    peers.set([a], [leaseKey(a), leaseKey(b)]);
    assert.deepEqual(keysOf(peers.take()), ['-10.244.2.0-24', '+10.244.1.0-24']);
  });

  it('make of what is programmed what is wanted, in any order of changes', () => {
    const step = fc.oneof(
      fc.record({ kind: fc.constant('set' as const), subnets: fc.uniqueArray(fc.nat(5)) }),
      fc.record({ kind: fc.constant('change' as const), subnet: fc.nat(5), isSet: fc.boolean() }),
      fc.record({ kind: fc.constant('take' as const) }),
      fc.record({ kind: fc.constant('again' as const) }),
    );
    fc.assert(
      fc.property(fc.array(step), (steps) => {
        const peers = new DuePeers();
        const programmed = new Map<LeaseKey, Lease>();
        let wanted = new Map<LeaseKey, Lease>();
        const take = (): void => {
          for (const [key, peer] of peers.take()) {
            if (peer === undefined) programmed.delete(key);
            else programmed.set(key, peer);
          }
        };
        for (const one of steps) {
          if (one.kind === 'take') take();
          else if (one.kind === 'again') peers.again();
          else if (one.kind === 'set') {
            const list = one.subnets.map((subnet) => wanted.get(leaseKey(leaseOf(subnet))) ?? leaseOf(subnet));
            wanted = new Map(list.map((lease) => [leaseKey(lease), lease]));
            peers.set(list, []);
          } else {
            const lease = leaseOf(one.subnet);
            if (one.isSet) wanted.set(leaseKey(lease), lease);
            else wanted.delete(leaseKey(lease));
            peers.change([one.isSet ? set(lease) : { type: 'removed', lease }]);
          }
        }
        take();
        assert.deepEqual(
          [...programmed].sort(([x], [y]) => (x < y ? -1 : 1)),
          [...wanted].sort(([x], [y]) => (x < y ? -1 : 1)),
        );
      }),
    );
  });
});
