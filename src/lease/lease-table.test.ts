import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { ipv4Of } from '../ip/ipv4.ts';
import { ipv6Of } from '../ip/ipv6.ts';
import { parsePrefix4, parsePrefix6, prefix4, prefix6 } from '../ip/prefix.ts';
import { type JsonValue, type Lease, type LeaseEvent, leaseKey } from './lease.ts';
import type { LeaseChange } from './lease-gate.ts';
import { LeaseTable } from './lease-table.ts';

interface Fields {
  readonly v6?: string;
  readonly host?: number;
  readonly data?: JsonValue;
  readonly expiresAtMs?: number;
}

function lease(subnet: string | undefined, { v6, host = 1, data, expiresAtMs = 1000 }: Fields = {}): Lease {
  return {
    subnets: {
      ipv4: subnet === undefined ? undefined : parsePrefix4(subnet),
      ipv6: v6 === undefined ? undefined : parsePrefix6(v6),
    },
    attrs: {
      publicAddresses: { ipv4: ipv4Of(0x0a620000 + host), ipv6: undefined },
      backendType: 'vxlan',
      backendData: { ipv4: data, ipv6: undefined },
    },
    expiresAtMs,
  };
}

/** As a list of the store is: what is not in it is gone. */
function changesTo(table: LeaseTable, leases: readonly Lease[]): LeaseChange[] {
  const listed = new Map(leases.map((one) => [leaseKey(one), one]));
  const gone = table.peers.map(leaseKey).filter((key) => !listed.has(key));
  return [
    ...Array.from(listed, ([key, one]) => ({ key, lease: one })),
    ...gone.map((key) => ({ key, lease: undefined })),
  ];
}

function list(table: LeaseTable, leases: readonly Lease[]): LeaseEvent[] {
  return table.apply(changesTo(table, leases));
}

function short(events: readonly LeaseEvent[]): string[] {
  return events.map(({ type, lease }) => `${type} ${leaseKey(lease)} of ${lease.attrs.publicAddresses.ipv4! & 255}`);
}

describe('lease table', () => {
  it('reports a snapshot and then only what differs in the next', () => {
    const table = new LeaseTable();
    assert.deepEqual(short(list(table, [lease('10.5.1.0/24'), lease('10.5.2.0/24', { host: 2 })])), [
      'set 10.5.1.0-24 of 1',
      'set 10.5.2.0-24 of 2',
    ]);
    assert.deepEqual(short(list(table, [lease('10.5.3.0/24', { host: 3 }), lease('10.5.1.0/24')])), [
      'removed 10.5.2.0-24 of 2',
      'set 10.5.3.0-24 of 3',
    ]);
  });

  it('sends changed attributes again, from snapshots as well', () => {
    const table = new LeaseTable();
    const mac = (last: string) => ({ VNI: 1, VtepMAC: `aa:00:00:00:00:0${last}` });
    list(table, [lease('10.5.1.0/24', { data: mac('1') })]);
    assert.deepEqual(short(list(table, [lease('10.5.1.0/24', { data: mac('2') })])), ['set 10.5.1.0-24 of 1']);
    const reordered = { VtepMAC: 'aa:00:00:00:00:02', VNI: 1 };
    assert.deepEqual(list(table, [lease('10.5.1.0/24', { data: reordered })]), []);
    const moved = list(table, [lease('10.5.1.0/24', { data: reordered, host: 9 })]);
    assert.deepEqual(short(moved), ['set 10.5.1.0-24 of 9']);
  });

  it('keeps quiet about a new expiration, but remembers it', () => {
    const table = new LeaseTable();
    list(table, [lease('10.5.1.0/24')]);
    assert.deepEqual(list(table, [lease('10.5.1.0/24', { expiresAtMs: 2000 })]), []);
    assert.equal(table.peers[0]?.expiresAtMs, 2000);
  });

  it('tells of a removal what it knew', () => {
    const table = new LeaseTable();
    list(table, [lease('10.5.1.0/24', { data: { VNI: 1 } })]);
    assert.deepEqual(list(table, []), [{ type: 'removed', lease: lease('10.5.1.0/24', { data: { VNI: 1 } }) }]);
  });
});

describe('lease table: against a model', () => {
  const anyLease: fc.Arbitrary<Lease> = fc
    .record({
      v4: fc.option(fc.nat(3), { nil: undefined }),
      v6: fc.option(fc.nat(1), { nil: undefined }),
      host: fc.nat(2),
      data: fc.constantFrom<JsonValue | undefined>(undefined, null, { VNI: 1 }, { VNI: 2, x: [1] }),
      expiresAtMs: fc.nat(3),
    })
    .filter(({ v4, v6 }) => v4 !== undefined || v6 !== undefined)
    .map(({ v4, v6, host, data, expiresAtMs }) => ({
      ...lease(undefined, { host, expiresAtMs }),
      subnets: {
        ipv4: v4 === undefined ? undefined : prefix4(ipv4Of(0x0a050000 + v4 * 256), 24),
        ipv6: v6 === undefined ? undefined : prefix6(ipv6Of((0xfd00n << 112n) + (BigInt(v6) << 64n)), 64),
      },
      attrs: { ...lease(undefined, { host }).attrs, backendData: { ipv4: structuredClone(data), ipv6: undefined } },
    }));
  const step = fc.array(anyLease, { maxLength: 6 });

  it('a consumer that follows the events holds what the store holds; no event is idle', () => {
    fc.assert(
      fc.property(fc.array(step), (steps) => {
        const table = new LeaseTable();
        const store = new Map<string, Lease>();
        const consumer = new Map<string, string>();
        for (const leases of steps) {
          store.clear();
          for (const one of leases) store.set(leaseKey(one), one);
          for (const event of list(table, leases)) {
            const key = leaseKey(event.lease);
            const text = attrsText(event.lease);
            if (event.type === 'set') {
              assert.notEqual(consumer.get(key), text, 'an event without news');
              assert.equal(event.before && attrsText(event.before), consumer.get(key), 'not what the consumer knows');
              consumer.set(key, text);
            } else {
              assert.equal(consumer.get(key), text, 'removed with other attributes than it was set with');
              consumer.delete(key);
            }
          }
          const texts = Array.from(store, ([key, one]) => [key, attrsText(one)] as const);
          assert.deepEqual(sorted(consumer), sorted(texts));
          assert.deepEqual(sorted(table.peers.map((one) => [leaseKey(one), one])), sorted(store));
          assert.equal(table.size, store.size);
        }
      }),
      { numRuns: 300 },
    );
  });

  function attrsText({ attrs }: Lease): string {
    return JSON.stringify([
      attrs.publicAddresses.ipv4,
      attrs.backendType,
      attrs.backendData.ipv4 === undefined ? 'none' : [attrs.backendData.ipv4],
    ]);
  }

  function sorted<T>(entries: Iterable<readonly [string, T]>): (readonly [string, T])[] {
    return [...entries].toSorted(([a], [b]) => (a < b ? -1 : 1));
  }
});
