import assert from 'node:assert/strict';
import { constants } from 'node:os';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { FakeBpfMap, type FakeBpfWrite } from '../../../test/fakes/fake-bpf-map.ts';
import { type PeerText, peerOf } from '../../../test/fakes/memory-dataplane.ts';
import { address } from '../../../test/fakes/packets.ts';
import { address6 } from '../../../test/fakes/packets6.ts';
import { formatAddr, type IpAddr } from '../../ip/address.ts';
import { formatIpv4, type Ipv4Addr, ipv4Of } from '../../ip/ipv4.ts';
import { type Ipv6Addr, parseIpv6 } from '../../ip/ipv6.ts';
import { formatPrefix4, parsePrefix4, parsePrefix6, prefix4 } from '../../ip/prefix.ts';
import type { Ipv4Peer, Peer, PeerTableContent } from '../peer-table.ts';
import { FastPathTables } from './fast-path-tables.ts';
import { mapsBy, underlayLayout } from './layout.ts';
import type { Grant } from './sign-exchange.ts';

const NETWORK = prefix4(ipv4Of(address('10.0.0.0')), 8);
const OWN = prefix4(ipv4Of(address('10.244.1.0')), 24);
const HOST = { ipv4: { network: NETWORK, own: OWN }, ipv6: undefined };
const ENDPOINT_BYTES = 176;
const COUNTER_BYTES = 32;

type MapName = 'subnets' | 'subnets6' | 'endpoints' | 'grants' | 'counters' | 'awaiting';

const viewOf = (bytes: Uint8Array): DataView => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);

/** Keys as a person writes them: a prefix, an address, a slot. */
function keyText({ map, key }: { readonly map: string; readonly key: Uint8Array }): string {
  const view = viewOf(key);
  if (map === 'endpoints' || map === 'grants') return formatIpv4(ipv4Of(view.getUint32(0)));
  if (map === 'counters') return `${view.getUint32(0, true)}`;
  if (map === 'subnets6' || map === 'own6') return Buffer.from(key).toString('hex');
  return formatPrefix4(prefix4(ipv4Of(view.getUint32(4)), view.getUint32(0, true)));
}

function endpointKey(text: string): Uint8Array {
  const key = new Uint8Array(4);
  viewOf(key).setUint32(0, address(text));
  return key;
}

function slotKey(slot: number): Uint8Array {
  const key = new Uint8Array(4);
  viewOf(key).setUint32(0, slot, true);
  return key;
}

/** TX packets, TX bytes, RX packets, RX bytes, as the programs count them. */
function counterValue(...numbers: readonly [bigint, bigint, bigint, bigint]): Uint8Array {
  const value = new Uint8Array(COUNTER_BYTES);
  numbers.forEach((number, index) => {
    viewOf(value).setBigUint64(index * 8, number, true);
  });
  return value;
}

function byKey(map: MapName, entries: ReadonlyMap<string, Uint8Array>): [string, Uint8Array][] {
  return [...entries].map(([hex, value]) => [keyText({ map, key: Buffer.from(hex, 'hex') }), value]);
}

interface Host extends Disposable {
  readonly tables: FastPathTables;
  readonly subnets: FakeBpfMap;
  readonly endpoints: FakeBpfMap;
  readonly grants: FakeBpfMap;
  readonly counters: FakeBpfMap;
  readonly awaiting: FakeBpfMap;
  readonly agent: FakeBpfMap;
  publish(...peers: readonly PeerText[]): void;
  publishPeers(peers: readonly Ipv4Peer[]): void;
  /** What was written since this was called last: `map operation key`. */
  writes(): string[];
  /** Each subnet, and what a program finds there. */
  routes(): string[];
  /** Addresses. */
  peers(): string[];
  /** What a program has learned about an endpoint: any byte that is not 0. */
  learn(endpoint: string, byte: number): void;
  learned(endpoint: string): Uint8Array | undefined;
  /** As a program does. */
  count(slot: number, ...numbers: readonly [bigint, bigint, bigint, bigint]): void;
}

/** With a journal of its own: it is written once in most tests. */
function ownMap(): [journal: FakeBpfWrite[], map: FakeBpfMap] {
  const journal: FakeBpfWrite[] = [];
  return [journal, new FakeBpfMap({ kind: 'hash', name: 'own', keyBytes: 4, valueBytes: 8, maxEntries: 1 }, journal)];
}

/** @param room entries of a map; enough where nothing is said. */
function openHost(room: Partial<Record<MapName, number>> = {}, own: FakeBpfMap = ownMap()[1]): Host {
  const journal: FakeBpfWrite[] = [];
  const make = (kind: 'hash' | 'lpm-trie', name: MapName, keyBytes: number, valueBytes: number): FakeBpfMap =>
    new FakeBpfMap({ kind, name, keyBytes, valueBytes, maxEntries: room[name] ?? 64 }, journal);
  const maps = {
    subnets: make('lpm-trie', 'subnets', 8, 12),
    subnets6: make('lpm-trie', 'subnets6', 20, 12),
    own,
    own6: new FakeBpfMap({ kind: 'hash', name: 'own6', keyBytes: 4, valueBytes: 32, maxEntries: 1 }, journal),
    endpoints: make('hash', 'endpoints', 4, ENDPOINT_BYTES),
    grants: make('hash', 'grants', 4, 56),
    counters: make('hash', 'counters', 4, COUNTER_BYTES),
    awaiting: make('hash', 'awaiting', 4, 4),
    agent: new FakeBpfMap({ kind: 'array', name: 'agent', keyBytes: 4, valueBytes: 16, maxEntries: 1 }),
  };
  const tables = new FastPathTables(maps, underlayLayout(4));
  const publishPeers = (peers: readonly Ipv4Peer[]): void => tables.publish({ ...HOST, peers, mtu: 1_472 });
  return {
    ...maps,
    tables,
    publishPeers,
    publish: (...peers) => publishPeers(peers.map(peerOf)),
    writes: () => journal.splice(0).map((write) => `${write.map} ${write.operation} ${keyText(write)}`),
    routes: () =>
      byKey('subnets', maps.subnets.entries())
        .map(([subnet, value]) => {
          const view = viewOf(value);
          const endpoint = formatIpv4(ipv4Of(view.getUint32(0)));
          return `${subnet} → ${endpoint}:${view.getUint16(4)} slot ${view.getUint32(8, true)}`;
        })
        .sort(),
    peers: () =>
      byKey('endpoints', maps.endpoints.entries())
        .map(([endpoint]) => endpoint)
        .sort(),
    learn: (endpoint, byte) => {
      maps.endpoints.update(endpointKey(endpoint), new Uint8Array(ENDPOINT_BYTES).fill(byte));
      journal.pop();
    },
    learned: (endpoint) => new Map(byKey('endpoints', maps.endpoints.entries())).get(endpoint),
    count: (slot, ...numbers) => {
      maps.counters.update(slotKey(slot), counterValue(...numbers));
      journal.pop();
    },
    [Symbol.dispose]: () => tables[Symbol.dispose](),
  };
}

const A: PeerText = { slot: 1, subnet: '10.1.0.0/16', publicIp: '192.0.2.1' };
const B: PeerText = { slot: 2, subnet: '10.2.3.0/24', publicIp: '192.0.2.2' };
const zeros = (bytes: number): Uint8Array => new Uint8Array(bytes);

describe('FastPathTables: peers', () => {
  it('writes them as the programs read them', () => {
    using host = openHost();
    host.publish({ slot: 0x0102, subnet: '10.2.3.0/24', publicIp: '192.0.2.1', port: 8_285 });
    const hex = (map: FakeBpfMap): string[] =>
      [...map.entries()].map(([key, value]) => `${key}: ${Buffer.from(value).toString('hex')}`);
    // u32 length, address: address, be16 port, u32 slot.
    assert.deepEqual(hex(host.subnets), ['180000000a020300: c0000201205dc00502010000']);
    assert.deepEqual(hex(host.endpoints), [`c0000201: ${'00'.repeat(ENDPOINT_BYTES)}`]);
    assert.deepEqual(hex(host.counters), [`02010000: ${'00'.repeat(COUNTER_BYTES)}`]);
    assert.equal(host.tables.refused, 0);
  });

  it('writes the own subnet and its mask, when it changes', () => {
    const [ownJournal, own] = ownMap();
    using host = openHost({}, own);
    const publish = (subnet: string): void =>
      host.tables.publish({ ...HOST, ipv4: { network: NETWORK, own: parsePrefix4(subnet)! }, peers: [], mtu: 1_472 });
    const written = (): string[] => [...own.entries()].map(([, value]) => Buffer.from(value).toString('hex'));
    publish('10.244.1.0/24');
    publish('10.244.1.0/24');
    assert.deepEqual(written(), ['0af40100ffffff00']);
    publish('10.9.0.0/15');
    assert.deepEqual(written(), ['0a080000fffe0000']);
    assert.equal(ownJournal.length, 2);
    own.failWith = constants.errno.ENOMEM;
    publish('10.7.0.0/16');
    assert.deepEqual(written(), [], 'an old one must not stay in force');
    own.failWith = 0;
    publish('10.7.0.0/16');
    assert.deepEqual(written(), ['0a070000ffff0000']);
    assert.equal(host.tables.refused, 1);
  });

  it('has endpoints and counters there before the subnets that lead to them', () => {
    using host = openHost();
    host.publish(A, B);
    const writes = host.writes();
    assert.deepEqual(writes.toSorted(), [
      'counters add 1',
      'counters add 2',
      'endpoints add 192.0.2.1',
      'endpoints add 192.0.2.2',
      'subnets update 10.1.0.0/16',
      'subnets update 10.2.3.0/24',
    ]);
    const at = (write: string): number => writes.indexOf(write);
    for (const [subnet, endpoint, slot] of [
      ['10.1.0.0/16', '192.0.2.1', 1],
      ['10.2.3.0/24', '192.0.2.2', 2],
    ]) {
      assert.ok(at(`endpoints add ${endpoint}`) < at(`subnets update ${subnet}`), writes.join('\n'));
      assert.ok(at(`counters add ${slot}`) < at(`subnets update ${subnet}`), writes.join('\n'));
    }
  });

  it('writes nothing when nothing has changed, and else what has', () => {
    using host = openHost();
    host.publish(A, B);
    host.writes();
    host.publish(A, B);
    host.publish(B, A);
    assert.deepEqual(host.writes(), []);
    host.publish(A, { ...B, port: 9_000 });
    assert.deepEqual(host.writes(), ['subnets update 10.2.3.0/24']);
    host.publish(A, { ...B, port: 9_000, slot: 3 });
    assert.deepEqual(host.writes(), ['counters add 3', 'subnets update 10.2.3.0/24']);
    assert.deepEqual(host.routes(), ['10.1.0.0/16 → 192.0.2.1:8285 slot 1', '10.2.3.0/24 → 192.0.2.2:9000 slot 3']);
  });

  it('keeps what the programs have learned about an endpoint, whatever else changes', () => {
    using host = openHost();
    host.publish(A);
    host.learn('192.0.2.1', 0x77);
    host.publish(A, B);
    host.publish(A);
    host.publish({ ...A, port: 9_000, slot: 5 });
    host.publish({ ...A, subnet: '10.9.0.0/16' });
    assert.deepEqual(host.learned('192.0.2.1'), zeros(ENDPOINT_BYTES).fill(0x77));
  });

  it('knows nothing about a peer that comes back', () => {
    using host = openHost();
    host.publish(A);
    host.learn('192.0.2.1', 0x77);
    host.publish();
    host.publish(A);
    assert.deepEqual(host.learned('192.0.2.1'), zeros(ENDPOINT_BYTES));
  });

  it('removes a peer that goes: its subnet, then its endpoint; its counters stay', () => {
    using host = openHost();
    host.publish(A, B);
    host.count(2, 1n, 2n, 3n, 4n);
    host.writes();
    host.publish(A);
    assert.deepEqual(host.writes(), [
      'subnets remove 10.2.3.0/24',
      'grants remove 192.0.2.2',
      'endpoints remove 192.0.2.2',
    ]);
    assert.deepEqual(host.routes(), ['10.1.0.0/16 → 192.0.2.1:8285 slot 1']);
    assert.deepEqual(host.peers(), ['192.0.2.1']);
    assert.deepEqual(host.tables.read(2).rx, { packets: 3, bytes: 4 });
    host.publish();
    assert.deepEqual([host.routes(), host.peers()], [[], []]);
  });

  it('keeps an endpoint for as long as it has a subnet', () => {
    using host = openHost();
    const second = { ...B, publicIp: A.publicIp };
    host.publish(A, second);
    host.learn('192.0.2.1', 0x77);
    host.publish(second);
    assert.deepEqual(host.routes(), ['10.2.3.0/24 → 192.0.2.1:8285 slot 2']);
    assert.deepEqual(host.learned('192.0.2.1'), zeros(ENDPOINT_BYTES).fill(0x77));
    host.publish();
    assert.deepEqual(host.peers(), []);
  });

  it('replaces a peer that has moved, without a moment in which its subnet is not there or leads nowhere', () => {
    using host = openHost();
    host.publish(A, B);
    host.writes();
    host.publish({ ...A, publicIp: '192.0.2.9' }, B);
    assert.deepEqual(host.writes(), [
      'endpoints add 192.0.2.9',
      'subnets update 10.1.0.0/16',
      'grants remove 192.0.2.1',
      'endpoints remove 192.0.2.1',
    ]);
    assert.deepEqual(host.routes(), ['10.1.0.0/16 → 192.0.2.9:8285 slot 1', '10.2.3.0/24 → 192.0.2.2:8285 slot 2']);
    assert.deepEqual(host.peers(), ['192.0.2.2', '192.0.2.9']);
  });

  it('takes the first of two peers with one subnet, as the peer table does', () => {
    using host = openHost();
    const second = { ...B, subnet: A.subnet };
    for (let round = 0; round < 2; round++) host.publish(A, second);
    assert.deepEqual(host.routes(), ['10.1.0.0/16 → 192.0.2.1:8285 slot 1']);
    assert.deepEqual(host.peers(), ['192.0.2.1']);
  });

  it('keeps subnets apart that begin at one address', () => {
    using host = openHost();
    const wide = { ...A, subnet: '10.2.0.0/16' };
    const narrow = { ...B, subnet: '10.2.0.0/24' };
    host.publish(wide, narrow);
    assert.deepEqual(host.routes(), ['10.2.0.0/16 → 192.0.2.1:8285 slot 1', '10.2.0.0/24 → 192.0.2.2:8285 slot 2']);
    host.publish(wide);
    assert.deepEqual(host.routes(), ['10.2.0.0/16 → 192.0.2.1:8285 slot 1']);
  });

  it('holds exactly the last ones, whatever was published before (property)', () => {
    const peers: fc.Arbitrary<Ipv4Peer[]> = fc.uniqueArray(
      fc.record({
        slot: fc.integer({ min: 1, max: 9 }),
        subnets: fc.tuple(fc.nat(3), fc.constantFrom(8, 9, 16, 24, 32)).map(([second, length]) => ({
          ipv4: prefix4(ipv4Of((10 << 24) | (second << 16)), length),
          ipv6: undefined,
        })),
        publicAddresses: fc.nat(4).map((last) => ({ ipv4: ipv4Of(address('192.0.2.0') + last), ipv6: undefined })),
        port: fc.constantFrom(8_285, 9_000),
      }),
      { maxLength: 8, selector: ({ subnets }) => formatPrefix4(subnets.ipv4) },
    );
    fc.assert(
      fc.property(fc.array(peers, { minLength: 1, maxLength: 8 }), (publications) => {
        using host = openHost();
        let states = new Map<string, number>();
        const slots = new Set<number>();
        for (const [index, published] of publications.entries()) {
          host.publishPeers(published);
          assert.deepEqual(
            host.routes(),
            published
              .map(({ subnets, publicAddresses, port, slot }) => {
                return `${formatPrefix4(subnets.ipv4)} → ${formatIpv4(publicAddresses.ipv4)}:${port} slot ${slot}`;
              })
              .sort(),
          );
          // Those that stay keep their state; new ones have none.
          const present = new Set(published.map(({ publicAddresses }) => formatIpv4(publicAddresses.ipv4)));
          states = new Map([...present].map((endpoint) => [endpoint, states.get(endpoint) ?? 0]));
          assert.deepEqual(host.peers(), [...present].sort());
          for (const [endpoint, byte] of states) {
            assert.deepEqual(host.learned(endpoint), zeros(ENDPOINT_BYTES).fill(byte));
            host.learn(endpoint, index + 1);
            states.set(endpoint, index + 1);
          }
          for (const { slot } of published) slots.add(slot);
          assert.deepEqual(
            byKey('counters', host.counters.entries())
              .map(([slot]) => Number(slot))
              .sort(),
            [...slots].sort(),
          );
          host.writes();
          host.publishPeers(published.toReversed());
          assert.deepEqual(host.writes(), []);
        }
        assert.equal(host.tables.refused, 0);
      }),
    );
  });
});

describe('FastPathTables: what the kernel refuses', () => {
  it('is counted, harms nobody else, and is tried again when there is room', () => {
    using host = openHost({ subnets: 1 });
    host.publish(A, B);
    assert.deepEqual(host.routes(), ['10.1.0.0/16 → 192.0.2.1:8285 slot 1']);
    assert.equal(host.tables.refused, 1);
    host.publish(A, B);
    assert.equal(host.tables.refused, 2);
    host.publish(B);
    assert.deepEqual(host.routes(), ['10.2.3.0/24 → 192.0.2.2:8285 slot 2'], 'what goes makes room for what comes');
    assert.equal(host.tables.refused, 2);
  });

  it('does not leave an old value of a subnet behind', () => {
    using host = openHost();
    host.publish(A, B);
    host.subnets.failWith = constants.errno.ENOMEM;
    host.publish({ ...A, publicIp: '192.0.2.9' }, B);
    assert.deepEqual(host.routes(), ['10.2.3.0/24 → 192.0.2.2:8285 slot 2']);
    assert.equal(host.tables.refused, 1);
    host.subnets.failWith = 0;
    host.publish({ ...A, publicIp: '192.0.2.9' }, B);
    assert.deepEqual(host.routes(), ['10.1.0.0/16 → 192.0.2.9:8285 slot 1', '10.2.3.0/24 → 192.0.2.2:8285 slot 2']);
    assert.equal(host.tables.refused, 1);
  });

  it('may be an endpoint, which is tried again', () => {
    using host = openHost();
    host.endpoints.failWith = constants.errno.ENOMEM;
    host.publish(A);
    assert.deepEqual(host.peers(), []);
    host.endpoints.failWith = 0;
    host.publish(A);
    assert.deepEqual(host.peers(), ['192.0.2.1']);
  });

  it('may be an endpoint: the others are there, and go as others do', () => {
    using host = openHost({ endpoints: 1 });
    host.publish(A, B);
    assert.deepEqual(host.peers(), ['192.0.2.1']);
    assert.equal(host.tables.refused, 1);
    host.publish();
    assert.deepEqual([host.routes(), host.peers()], [[], []]);
    assert.equal(host.tables.refused, 1, 'what is not there need not be removed');
  });

  it('may be a counter: its peer is there all the same, and nothing is counted for it', () => {
    using host = openHost({ counters: 1 });
    host.publish(A, B);
    assert.deepEqual(host.routes(), ['10.1.0.0/16 → 192.0.2.1:8285 slot 1', '10.2.3.0/24 → 192.0.2.2:8285 slot 2']);
    assert.equal(host.tables.refused, 1);
    assert.deepEqual(host.tables.read(2).tx, { packets: 0, bytes: 0 });
  });
});

describe('FastPathTables: subnets outside the network', () => {
  it('stay out, however a store came by them; the peer’s others are there', () => {
    using host = openHost();
    host.publish(
      A,
      { ...B, subnet: '0.0.0.0/0' },
      { ...B, slot: 3, subnet: '127.0.0.0/8' },
      { ...A, slot: 4, subnet: '10.9.0.0/24' },
    );
    assert.deepEqual(host.routes(), ['10.1.0.0/16 → 192.0.2.1:8285 slot 1', '10.9.0.0/24 → 192.0.2.1:8285 slot 4']);
    assert.deepEqual(host.peers(), ['192.0.2.1']);
  });
});

describe('FastPathTables: IPv6 subnets', () => {
  const IPV6 = { network: parsePrefix6('fd00:244::/32')!, own: parsePrefix6('fd00:244:0:1::/64')! };
  const [peerA, peerB] = [
    peerOf({ ...A, ipv6Subnet: 'fd00:244:0:2::/64', publicIpv6: 'fd00:77::2' }),
    peerOf({ ...B, ipv6Subnet: 'fd00:244:0:2:8000::/65' }),
  ];
  const publish = (host: Host, peers: readonly Peer[], content: Partial<PeerTableContent> = {}): void =>
    host.tables.publish({ ipv4: { network: NETWORK, own: OWN }, ipv6: IPV6, peers, mtu: 1_472, ...content });
  /** As a program looks it up: the endpoint's address and the slot, or nothing. */
  const found = (host: Host, text: string): string | undefined => {
    const key = new Uint8Array(20);
    viewOf(key).setUint32(0, 128, true);
    key.set(address6(text), 4);
    const value = new Uint8Array(12);
    if (host.tables.maps.subnets6.lookup(key, value) < 0) return undefined;
    return `${formatIpv4(ipv4Of(viewOf(value).getUint32(0)))} slot ${viewOf(value).getUint32(8, true)}`;
  };

  it('are found by longest prefix, and go with their peer', () => {
    using host = openHost();
    publish(host, [peerA, peerB]);
    assert.equal(found(host, 'fd00:244:0:2::9'), '192.0.2.1 slot 1');
    assert.equal(found(host, 'fd00:244:0:2:8000::9'), '192.0.2.2 slot 2');
    assert.equal(found(host, 'fd00:244:0:3::9'), undefined);
    assert.deepEqual(host.routes().length, 2);
    publish(host, [peerA]);
    assert.equal(found(host, 'fd00:244:0:2:8000::9'), '192.0.2.1 slot 1');
    assert.deepEqual(host.peers(), ['192.0.2.1']);
  });

  it('stay out where they are not of the network, where there is none, and of a peer that takes no IPv6', () => {
    using host = openHost();
    const wide = { ...peerA, subnets: { ...peerA.subnets, ipv6: parsePrefix6('::/0')! } };
    publish(host, [wide, peerOf(B)]);
    assert.equal(found(host, 'fd00:244:0:2::9'), undefined);
    publish(host, [peerA]);
    publish(host, [peerA], { ipv6: undefined });
    assert.equal(found(host, 'fd00:244:0:2::9'), undefined);
    assert.equal(host.tables.maps.own6.keys().length, 0);
    assert.deepEqual(host.routes(), ['10.1.0.0/16 → 192.0.2.1:8285 slot 1']);
  });

  it('let a peer be known that has no other', () => {
    using host = openHost();
    publish(host, [{ ...peerA, subnets: { ...peerA.subnets, ipv4: undefined } }]);
    assert.deepEqual([host.routes(), host.peers()], [[], ['192.0.2.1']]);
    assert.equal(found(host, 'fd00:244:0:2::9'), '192.0.2.1 slot 1');
  });

  it('of this host: the address and its mask', () => {
    using host = openHost();
    publish(host, []);
    const value = new Uint8Array(32);
    host.tables.maps.own6.lookup(new Uint8Array(4), value);
    assert.equal(
      Buffer.from(value).toString('hex'),
      `fd000244000000010000000000000000${'f'.repeat(16)}${'0'.repeat(16)}`,
    );
  });

  it('outlive an agent, and go with the first table of the next', () => {
    using host = openHost();
    publish(host, [peerA, peerB]);
    const next = new FastPathTables(host.tables.maps, underlayLayout(4));
    assert.equal(found(host, 'fd00:244:0:2:8000::9'), '192.0.2.2 slot 2');
    host.writes();
    next.publish({ ipv4: { network: NETWORK, own: OWN }, ipv6: IPV6, peers: [peerA, peerB], mtu: 1_472 });
    assert.deepEqual(
      host.writes().filter((write) => !write.startsWith('counters')),
      [],
    );
    next.publish({ ipv4: { network: NETWORK, own: OWN }, ipv6: IPV6, peers: [peerA], mtu: 1_472 });
    assert.equal(found(host, 'fd00:244:0:2:8000::9'), '192.0.2.1 slot 1');
  });
});

describe('FastPathTables: grants', () => {
  const GRANT: Grant = {
    ...{ sendUntil: 1n, acceptUntil: 2n, wholeUntil: 3n, sendUntil6: 4n, wholeUntil6: 5n, takesCutUntil: 6n },
    ...{ tag: 0x1122, tagWhole: 0x3344, expectTag: 0x5566, expectTagWhole: 0x7788 },
  };
  const granted = (host: Host): string[] => byKey('grants', host.grants.entries()).map(([peer]) => peer);

  it('are for peers alone, and end with them', () => {
    using host = openHost();
    host.publish(A, B);
    for (const text of ['192.0.2.1', '192.0.2.2', '192.0.2.99']) host.tables.grant(ipv4Of(address(text)), GRANT);
    assert.deepEqual(granted(host), ['192.0.2.1', '192.0.2.2']);
    host.publish(B);
    assert.deepEqual(granted(host), ['192.0.2.2']);
  });

  it('have tags as they are on the wire', () => {
    using host = openHost();
    host.publish(A);
    host.tables.grant(ipv4Of(address('192.0.2.1')), GRANT);
    const [value] = host.grants.entries().values();
    assert.equal(Buffer.from(value!.subarray(24, 32)).toString('hex'), '1122334455667788');
  });

  it('have times of their own for IPv6, and for what is cut on the way', () => {
    using host = openHost();
    host.publish(A);
    host.tables.grant(ipv4Of(address('192.0.2.1')), GRANT);
    const [value] = host.grants.entries().values();
    const times = [32, 40, 48].map((at) => viewOf(value!).getBigUint64(at, true));
    assert.deepEqual(times, [4n, 5n, 6n]);
    assert.deepEqual(host.tables.held(0n).get(ipv4Of(address('192.0.2.1'))), { ...GRANT });
  });
});

describe('FastPathTables: hosts that have IPv6 alone', () => {
  const IPV6 = { network: parsePrefix6('fd00:244::/32')!, own: parsePrefix6('fd00:244:0:1::/64')! };
  const [ofA, ofB] = ['fd00:77::2', 'fd00:77::3'].map((text) => parseIpv6(text)!) as [Ipv6Addr, Ipv6Addr];
  const peer = (slot: number, publicIpv6: Ipv6Addr): Peer => ({
    ...{ slot, port: 8_285 },
    subnets: { ipv4: undefined, ipv6: parsePrefix6(`fd00:244:0:${slot + 1}::/64`)! },
    publicAddresses: { ipv4: undefined, ipv6: publicIpv6 },
  });
  const GRANT: Grant = {
    ...{ sendUntil: 50n, acceptUntil: 200n, wholeUntil: 0n, sendUntil6: 50n, wholeUntil6: 0n, takesCutUntil: 200n },
    ...{ tag: 1, tagWhole: 2, expectTag: 3, expectTagWhole: 4 },
  };
  const open = () => {
    const maps = mapsBy(
      underlayLayout(6),
      (name, shape) => new FakeBpfMap({ ...shape, name, maxEntries: shape.kind === 'array' ? 1 : 64 }),
    );
    const tables = new FastPathTables(maps, underlayLayout(6));
    const publish = (...peers: readonly Peer[]): void =>
      tables.publish({ ipv4: undefined, ipv6: IPV6, peers, mtu: 1_452 });
    return { maps, tables, publish, [Symbol.dispose]: () => tables[Symbol.dispose]() };
  };
  const hex = (map: FakeBpfMap): string[] =>
    [...map.entries()].map(([key, value]) => `${key}: ${Buffer.from(value).toString('hex')}`);

  it('are known by their IPv6 addresses', () => {
    using host = open();
    const publicAddresses = { ipv4: ipv4Of(address('192.0.2.1')), ipv6: undefined };
    host.publish(peer(1, ofA), { ...peer(2, ofB), publicAddresses });
    const key = 'fd000077000000000000000000000002';
    // u32 length, address: address, be16 port, u16 MTU, u32 slot.
    const subnet = '40000000fd000244000000020000000000000000';
    assert.deepEqual(hex(host.maps.subnets6), [`${subnet}: ${key}205dac0501000000`]);
    assert.deepEqual(hex(host.maps.endpoints), [`${key}: ${'00'.repeat(ENDPOINT_BYTES)}`]);
    host.tables.grant(ofA, GRANT);
    assert.deepEqual([...host.maps.grants.entries().keys()], [key]);
    host.maps.awaiting.update(address6('fd00:77::2'), address6('fd00:77::2'));
    assert.deepEqual(host.tables.takeAwaiting(9), [ofA]);
    assert.deepEqual([host.tables.portOf(ofA), host.tables.portOf(ofB)], [8_285, undefined]);
    host.publish();
    for (const map of [host.maps.subnets6, host.maps.endpoints, host.maps.grants]) assert.equal(map.entries().size, 0);
  });

  it('are sent to by what is granted to them, and to no other kind of address', () => {
    using host = open();
    host.publish(peer(1, ofA));
    host.tables.grant(ofA, GRANT);
    const sends = (to: IpAddr, now: bigint): boolean => host.tables.sendsTo(to, now);
    assert.deepEqual([sends(ofA, 49n), sends(ofA, 50n), sends(ofB, 0n)], [true, false, false]);
    // The first four bytes of the key.
    assert.equal(sends(ipv4Of(0xfd00_0077), 0n), false);
  });

  it('outlive an agent, with what was granted', () => {
    using host = open();
    host.publish(peer(1, ofA), peer(2, ofB));
    host.tables.grant(ofA, GRANT);
    host.tables.beat(40n, 1n);
    const next = new FastPathTables(host.maps, underlayLayout(6));
    assert.deepEqual([next.portOf(ofA), next.portOf(ofB)], [8_285, 8_285]);
    assert.deepEqual([...next.held(1_000n)], [[ofA, GRANT]]);
    next.publish({ ipv4: undefined, ipv6: IPV6, peers: [peer(2, ofB)], mtu: 1_452 });
    assert.deepEqual([next.portOf(ofA), next.held(1_000n).size], [undefined, 0]);
  });
});

describe('FastPathTables: what an earlier agent has left', () => {
  const [ofA, ofB] = [A, B].map(({ publicIp }) => ipv4Of(address(publicIp))) as [Ipv4Addr, Ipv4Addr];
  const GRANT: Grant = {
    ...{ sendUntil: 50n, acceptUntil: 200n, wholeUntil: 0n, sendUntil6: 50n, wholeUntil6: 0n, takesCutUntil: 200n },
    ...{ tag: 1, tagWhole: 2, expectTag: 3, expectTagWhole: 4 },
  };

  it('stays until the first table, and then what is not in that goes', () => {
    using host = openHost();
    host.publish(A, B);
    for (const peer of [ofA, ofB]) host.tables.grant(peer, GRANT);
    host.learn('192.0.2.1', 7);
    host.learn('192.0.2.2', 7);
    const next = new FastPathTables(host.tables.maps, underlayLayout(4));
    assert.equal(next.isPublished, false);
    assert.equal(host.routes().length, 2);
    assert.equal(next.portOf(ofB), 8_285);
    next.publish({ ...HOST, peers: [peerOf(A)], mtu: 1_472 });
    assert.equal(next.isPublished, true);
    assert.deepEqual(host.routes(), ['10.1.0.0/16 → 192.0.2.1:8285 slot 1']);
    assert.deepEqual(host.peers(), ['192.0.2.1']);
    assert.deepEqual([...host.grants.entries().keys()], ['c0000201']);
    assert.deepEqual(host.learned('192.0.2.1'), new Uint8Array(ENDPOINT_BYTES).fill(7));
    assert.equal(next.portOf(ofB), undefined);
  });

  it('is made whole where that one was killed between its writes', () => {
    using host = openHost();
    host.publish(A);
    host.endpoints.remove(endpointKey('192.0.2.1'));
    const next = new FastPathTables(host.tables.maps, underlayLayout(4));
    next.publish({ ...HOST, peers: [peerOf(A)], mtu: 1_472 });
    assert.deepEqual(host.peers(), ['192.0.2.1']);
  });

  it('holds by the clock that stood still when it ended, and super-packets as the program has learned', () => {
    using host = openHost();
    host.publish(A);
    host.tables.grant(ofA, GRANT);
    host.tables.beat(100n, 9n);
    assert.deepEqual(host.tables.agent(), { until: 100n, place: 9n });
    assert.deepEqual(host.tables.held(1_000n).get(ofA), { ...GRANT, sendUntil: 0n, sendUntil6: 0n });
    assert.deepEqual(host.tables.held(40n).get(ofA), GRANT);
    host.learn('192.0.2.1', 1);
    assert.equal(host.tables.held(1_000n).get(ofA)?.wholeUntil, 0x0101_0101_0101_0101n);
  });

  it('is forgotten when it was learned elsewhere', () => {
    using host = openHost();
    host.publish(A);
    host.tables.grant(ofA, GRANT);
    host.learn('192.0.2.1', 7);
    host.tables.forget();
    assert.equal(host.tables.held(0n).size, 0);
    assert.deepEqual(host.learned('192.0.2.1'), zeros(ENDPOINT_BYTES));
    assert.deepEqual(host.peers(), ['192.0.2.1']);
  });
});

describe('FastPathTables: hosts whose grants are to be renewed', () => {
  it('names each once, at most as many as are asked for', () => {
    using host = openHost();
    host.publish(A, { ...B, port: 9_000 });
    for (const text of ['192.0.2.1', '192.0.2.2']) host.awaiting.update(endpointKey(text), endpointKey(text));
    const named = [...host.tables.takeAwaiting(1), ...host.tables.takeAwaiting(9)];
    assert.deepEqual(named.map(formatAddr).sort(), ['192.0.2.1', '192.0.2.2']);
    assert.deepEqual(named.map((peer) => host.tables.portOf(peer)).sort(), [8_285, 9_000]);
    assert.deepEqual(host.tables.takeAwaiting(9), []);
    assert.equal(host.awaiting.entries().size, 0);
  });
});

describe('FastPathTables: counters', () => {
  it('reads what the programs have counted, by slot and direction', () => {
    using host = openHost();
    host.publish(A, B);
    host.count(1, 3n, 4_500n, 2n ** 32n + 7n, 2n ** 40n);
    assert.deepEqual(host.tables.read(1).tx, { packets: 3, bytes: 4_500 });
    assert.deepEqual(host.tables.read(1).rx, { packets: 2 ** 32 + 7, bytes: 2 ** 40 });
    for (const direction of ['tx', 'rx'] as const) {
      assert.deepEqual(host.tables.read(2)[direction], { packets: 0, bytes: 0 });
      assert.deepEqual(host.tables.read(9)[direction], { packets: 0, bytes: 0 }, 'a slot nobody has');
    }
  });

  it('clears one slot and nothing else', () => {
    using host = openHost();
    host.publish(A, B);
    host.count(1, 1n, 2n, 3n, 4n);
    host.count(2, 5n, 6n, 7n, 8n);
    host.writes();
    host.tables.clear(1);
    host.tables.clear(9);
    assert.deepEqual(host.writes(), ['counters update 1']);
    assert.deepEqual(host.tables.read(1).rx, { packets: 0, bytes: 0 });
    assert.deepEqual(host.tables.read(2).rx, { packets: 7, bytes: 8 });
  });

  it('begins at zero where an earlier agent has counted for its own slot, and then goes on', () => {
    using host = openHost();
    host.count(1, 1n, 2n, 3n, 4n);
    host.publish(A);
    assert.deepEqual(host.tables.read(1).tx, { packets: 0, bytes: 0 });
    assert.equal(host.tables.refused, 0);
    host.count(1, 1n, 2n, 3n, 4n);
    host.publish(A);
    assert.deepEqual(host.tables.read(1).tx, { packets: 1, bytes: 2 });
    host.writes();
    host.publish({ ...A, port: 9_000 });
    assert.deepEqual(host.writes(), ['subnets update 10.1.0.0/16']);
  });
});

it('FastPathTables: closes all maps', () => {
  const host = openHost();
  host.tables[Symbol.dispose]();
  assert.deepEqual(
    [host.subnets, host.endpoints, host.counters].map((map) => map.isClosed),
    [true, true, true],
  );
});
