import assert from 'node:assert/strict';
import { once } from 'node:events';
import { describe, it } from 'node:test';
import { Worker } from 'node:worker_threads';
import fc from 'fast-check';
import { peerOf } from '../../test/fakes/memory-dataplane.ts';
import { address } from '../../test/fakes/packets.ts';
import { ipv4Of } from '../ip/ipv4.ts';
import { ipv6Of, parseIpv6 } from '../ip/ipv6.ts';
import { containsAddr4, containsAddr6, type Ipv4Prefix, parsePrefix6, prefix4, prefix6 } from '../ip/prefix.ts';
import { type Ipv4Peer, type Peer, PeerTable } from './peer-table.ts';

const NETWORK = prefix4(ipv4Of(address('10.0.0.0')), 8);
const OWN = prefix4(ipv4Of(address('10.255.128.0')), 17);
const HOST = { ipv4: { network: NETWORK, own: OWN }, ipv6: undefined };

/** The obvious way: the longest prefix that contains the address, the first of equal ones. */
function naiveLookup(peers: readonly Ipv4Peer[], addr: number): number {
  let best: Ipv4Peer | undefined;
  for (const peer of peers) {
    const { ipv4 } = peer.subnets;
    if (containsAddr4(ipv4, ipv4Of(addr)) && (best === undefined || ipv4.length > best.subnets.ipv4.length))
      best = peer;
  }
  return best?.slot ?? 0;
}

function naiveEndpoint(peers: readonly Ipv4Peer[], addr: number): number {
  return peers.find((peer) => peer.publicAddresses.ipv4 === addr)?.slot ?? 0;
}

/** Addresses close together, so that prefixes nest and lookups hit. */
const addresses = fc.oneof(
  fc.tuple(fc.constantFrom(10, 11), fc.constantFrom(0, 1, 128, 255), fc.nat(7), fc.nat(255)).map(([a, b, c, d]) => ((a << 24) | (b << 16) | (c << 8) | d) >>> 0),
  fc.constantFrom(0, 0xffff_ffff, 0x8000_0000, 0x0a00_0000),
); // biome-ignore format: one line a kind

const subnets: fc.Arbitrary<Ipv4Prefix> = fc
  .tuple(addresses, fc.oneof(fc.constantFrom(8, 16, 24, 24, 24, 25, 28), fc.integer({ min: 0, max: 32 })))
  .map(([addr, length]) => prefix4(ipv4Of(addr), length));

type Change =
  | { readonly kind: 'add'; readonly subnet: Ipv4Prefix; readonly publicIp: number; readonly port: number }
  | { readonly kind: 'remove'; readonly index: number }
  | { readonly kind: 'publish' };

const changes: fc.Arbitrary<Change> = fc.oneof(
  {
    weight: 5,
    arbitrary: fc.record({
      kind: fc.constant('add' as const),
      subnet: subnets,
      publicIp: addresses,
      port: fc.integer({ min: 1, max: 65_535 }),
    }),
  },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('remove' as const), index: fc.nat() }) },
  { weight: 2, arbitrary: fc.constant({ kind: 'publish' as const }) },
);

describe('PeerTable', () => {
  it('agrees with a plain list, whatever is added, removed and published', () => {
    fc.assert(
      fc.property(
        fc.array(changes, { maxLength: 80 }),
        fc.array(addresses, { minLength: 10, maxLength: 40 }),
        (list, probes) => {
          const capacity = 40;
          const table = PeerTable.allocate(capacity);
          const reader = table.reader(0);
          let wanted: Ipv4Peer[] = [];
          const compare = (published: readonly Ipv4Peer[]): void => {
            reader.enter();
            const more = published.flatMap(({ subnets, publicAddresses }) => [subnets.ipv4.addr, publicAddresses.ipv4]);
            more.push(OWN.addr, ipv4Of(OWN.addr - 1), ipv4Of(OWN.addr + 32_767), ipv4Of(OWN.addr + 32_768));
            for (const probe of [...probes, ...more]) {
              const slot = naiveLookup(published, probe);
              assert.equal(reader.lookup(probe | 0), slot);
              assert.equal(reader.lookup(probe), slot);
              assert.equal(reader.lookupEndpoint(probe), naiveEndpoint(published, probe));
              assert.equal(reader.inNetwork(probe | 0), containsAddr4(NETWORK, ipv4Of(probe)));
              assert.equal(reader.isOwn(probe | 0), containsAddr4(OWN, ipv4Of(probe)));
            }
            for (const peer of published) {
              assert.equal(reader.endpoint(peer.slot), peer.publicAddresses.ipv4);
              assert.equal(reader.endpointPort(peer.slot), peer.port);
              assert.equal(reader.mtu(peer.slot), 1_472);
            }
            reader.leave();
          };
          for (const change of [...list, { kind: 'publish' as const }]) {
            if (change.kind === 'add' && wanted.length < capacity - 1) {
              const used = new Set(wanted.map(({ slot }) => slot));
              const slot = Array.from({ length: capacity - 1 }, (_, index) => index + 1).find(
                (free) => !used.has(free),
              )!;
              wanted.push({
                ...{ slot, port: change.port },
                subnets: { ipv4: change.subnet, ipv6: undefined },
                publicAddresses: { ipv4: ipv4Of(change.publicIp), ipv6: undefined },
              });
            } else if (change.kind === 'remove' && wanted.length > 0) {
              wanted = wanted.filter((_, index) => index !== change.index % wanted.length);
            } else if (change.kind === 'publish') {
              table.publish({ ...HOST, peers: wanted, mtu: 1_472 });
              compare(wanted);
            }
          }
        },
      ),
      { numRuns: 150 },
    );
  });

  it('is empty before anything is published', () => {
    const reader = PeerTable.allocate(8).reader(0);
    reader.enter();
    assert.equal(reader.lookup(address('10.244.1.1')), 0);
    assert.equal(reader.lookup(0), 0);
    assert.equal(reader.lookupEndpoint(0), 0);
    reader.leave();
  });

  it('takes as many peers as it has slots, and says when there are more; the old version stays', () => {
    const table = PeerTable.allocate(300);
    const peers = Array.from({ length: 300 }, (_, index) =>
      peerOf({
        slot: index + 1,
        subnet: `10.${index >> 8}.${index & 255}.0/24`,
        publicIp: `192.168.${index >> 8}.${index & 255}`,
      }),
    );
    const full = peers.slice(0, 299);
    table.publish({ ...HOST, peers: full, mtu: 1_472 });
    assert.throws(() => table.publish({ ...HOST, peers, mtu: 1_472 }), /300 peers.* made for 299/);
    const outOfRange = [{ ...peers[0]!, slot: 300 }];
    assert.throws(() => table.publish({ ...HOST, peers: outOfRange, mtu: 1_472 }), RangeError);
    assert.throws(() => table.publish({ ...HOST, peers: [{ ...peers[0]!, slot: 0 }], mtu: 1_472 }), RangeError);
    const reader = table.reader(0);
    reader.enter();
    for (const peer of full) assert.equal(reader.lookup(peer.subnets.ipv4.addr + 9), peer.slot);
    reader.leave();
  });

  it('a batch sees one version; the next batch sees the next', () => {
    const table = PeerTable.allocate(8);
    const content = (publicIp: string) => ({
      ...HOST,
      mtu: 1_472,
      peers: [peerOf({ slot: 1, subnet: '10.1.0.0/16', publicIp })],
    });
    table.publish(content('1.1.1.1'));
    const reader = table.reader(1);
    reader.enter();
    table.publish(content('2.2.2.2'));
    assert.equal(reader.endpoint(reader.lookup(address('10.1.2.3'))), address('1.1.1.1'));
    reader.leave();
    reader.enter();
    assert.equal(reader.endpoint(reader.lookup(address('10.1.2.3'))), address('2.2.2.2'));
    reader.leave();
  });

  it('a version that is published while a batch begins is the one it sees', (t) => {
    const table = PeerTable.allocate(8);
    const content = (publicIp: string) => ({
      ...HOST,
      mtu: 1_472,
      peers: [peerOf({ slot: 1, subnet: '10.1.0.0/16', publicIp })],
    });
    table.publish(content('1.1.1.1'));
    const reader = table.reader(0);
    const load = Atomics.load;
    let isFirst = true;
    t.mock.method(Atomics, 'load', (words: Int32Array, index: number) => {
      const value = load(words, index);
      if (isFirst) {
        isFirst = false; // between reading which copy is in use and saying that it is being read
        table.publish(content('2.2.2.2'));
      }
      return value;
    });
    reader.enter();
    assert.equal(reader.endpoint(reader.lookup(address('10.1.2.3'))), address('2.2.2.2'));
    reader.leave();
  });

  it('waits for a batch that reads the spare copy, but not for ever: a worker may have died', (t) => {
    const wait = t.mock.method(Atomics, 'wait', () => 'timed-out');
    const table = PeerTable.allocate(4_096);
    const peers = Array.from({ length: 4_000 }, (_, index) =>
      peerOf({ slot: index + 1, subnet: `10.${index >> 8}.${index & 255}.0/24`, publicIp: '1.1.1.1' }),
    );
    table.publish({ ...HOST, mtu: 1, peers: peers.slice(0, 3) });
    const dead = table.reader(0);
    dead.enter();
    table.publish({ ...HOST, mtu: 1, peers });
    assert.equal(wait.mock.callCount(), 0);
    table.publish({ ...HOST, mtu: 1, peers });
    assert.equal(wait.mock.callCount(), 1);
    // It was not dead after all: what it finds may be anything, but it finds an end.
    const words = new Int32Array(table.buffer);
    const whole = words.slice();
    words.fill(0x4141);
    assert.equal(dead.lookup((10 << 24) | (1 << 8)), 0);
    assert.equal(dead.lookupEndpoint(7), 0);
    words.set(whole);
    // A worker that is started again takes over its place.
    table.reader(0);
    table.publish({ ...HOST, mtu: 1, peers });
    assert.equal(wait.mock.callCount(), 1);
  });

  it('path MTUs are kept across versions, are never above the overlay’s, and can be forgotten', () => {
    const table = PeerTable.allocate(8);
    const peers = [peerOf({ slot: 3, subnet: '10.1.0.0/16', publicIp: '1.1.1.1' })];
    table.publish({ ...HOST, peers, mtu: 1_472 });
    const reader = table.reader(0);
    reader.enter();
    assert.equal(reader.mtu(3), 1_472);
    reader.learnPathMtu(3, 1_372);
    assert.equal(reader.mtu(3), 1_372);
    assert.equal(reader.mtu(2), 1_472);
    reader.leave();
    table.publish({ ...HOST, peers, mtu: 1_300 });
    reader.enter();
    assert.equal(reader.mtu(3), 1_300);
    reader.leave();
    assert.equal(table.pathMtu(3), 1_372);
    table.forgetPathMtus();
    assert.equal(table.pathMtu(3), 0);
    reader.learnPathMtu(3, 1_372);
    table.publish({
      ...HOST,
      peers: [peerOf({ slot: 3, subnet: '10.1.0.0/16', publicIp: '1.1.1.2' })],
      mtu: 1_472,
    });
    assert.equal(table.pathMtu(3), 0, 'the peer has moved: what is known is about another path');
  });

  it('path MTUs are forgotten when the overlay’s rises: what has limited them may be this host’s interface', () => {
    const table = PeerTable.allocate(8);
    const peers = [peerOf({ slot: 3, subnet: '10.1.0.0/16', publicIp: '1.1.1.1' })];
    table.publish({ ...HOST, peers, mtu: 1_472 });
    table.reader(0).learnPathMtu(3, 1_372);
    table.publish({ ...HOST, peers, mtu: 1_372 });
    assert.equal(table.pathMtu(3), 1_372);
    table.publish({ ...HOST, peers, mtu: 1_472 });
    assert.equal(table.pathMtu(3), 0);
  });

  it('the default route and a host route are prefixes like others', () => {
    const table = PeerTable.allocate(8);
    const peers = [
      peerOf({ slot: 1, subnet: '0.0.0.0/0', publicIp: '1.1.1.1' }),
      peerOf({ slot: 2, subnet: '255.255.255.255/32', publicIp: '2.2.2.2' }),
    ];
    const ipv4 = { network: prefix4(ipv4Of(0), 0), own: OWN };
    table.publish({ ipv4, ipv6: undefined, peers, mtu: 1_472 });
    const reader = table.reader(0);
    reader.enter();
    assert.equal(reader.lookup(0), 1);
    assert.equal(reader.lookup(-1), 2);
    assert.equal(reader.lookup(0xffff_fffe), 1);
    assert.equal(reader.inNetwork(-1), true);
    reader.leave();
  });

  it('a worker that reads while the table is replaced again and again sees no mixture', async () => {
    const peers = 64;
    const capacity = 200;
    const table = PeerTable.allocate(capacity);
    const publish = (version: number): void => {
      const present = peers - (version % 7);
      table.publish({
        ...HOST,
        mtu: 1_472,
        // The slot of a peer moves with the version, so that a mixture of two cannot look right.
        peers: Array.from({ length: present }, (_, number) => ({
          slot: 1 + ((number + version) % (capacity - 1)),
          subnets: { ipv4: prefix4(ipv4Of(((10 << 24) | (number << 16)) >>> 0), 16), ipv6: undefined },
          publicAddresses: { ipv4: ipv4Of(0x0b000000 + version), ipv6: undefined },
          port: number + 1,
        })),
      });
    };
    publish(0);
    const stop = new SharedArrayBuffer(8); // stop, versions seen
    const words = new Int32Array(stop);
    const worker = new Worker(new URL('../../test/fakes/peer-table-reader.ts', import.meta.url), {
      workerData: { buffer: table.buffer, capacity, stop, peers },
    });
    await once(worker, 'message');
    const result = once(worker, 'message');
    const deadline = performance.now() + 2_000;
    let version = 0;
    while (Atomics.load(words, 1) < 500 && performance.now() < deadline) publish(++version);
    Atomics.store(words, 0, 1);
    const [outcome] = (await result) as [{ faults: string[]; batches: number; versions: number }];
    await worker.terminate();
    assert.deepEqual(outcome.faults, []);
    assert.ok(outcome.versions >= 20, `${outcome.versions} of ${version} versions seen in ${outcome.batches} batches`);
  });
});

describe('PeerTable, IPv6', () => {
  const NETWORK6 = parsePrefix6('fd00:244::/48')!;
  const OWN6 = parsePrefix6('fd00:244:0:80::/57')!;
  /** Close together, in every word. */
  const addresses6 = fc
    .tuple(
      fc.constantFrom(0xfd00_0244n, 0xfd00_0245n),
      ...[0, 1, 2].map(() => fc.constantFrom(0n, 1n, 0x80n, 0xffn, 0x8000_0000n, 0xffff_ffffn)),
    )
    .map((words) => ipv6Of(words.reduce((sum: bigint, word) => (sum << 32n) | word, 0n)));
  const peers6 = fc.uniqueArray(
    fc.record({
      slot: fc.integer({ min: 1, max: 39 }),
      addr: addresses6,
      length: fc.oneof(fc.constantFrom(48, 64, 64, 80, 128), fc.integer({ min: 0, max: 128 })),
      host: addresses6,
      port: fc.integer({ min: 1, max: 65_535 }),
    }),
    { maxLength: 30, selector: ({ slot }) => slot },
  );

  it('agrees with a plain list, over either underlay, one table after the other', () => {
    const table = PeerTable.allocate(40);
    const reader = table.reader(0);
    const view = new DataView(new ArrayBuffer(24));
    const at = (address: bigint): [DataView, number] => {
      view.setBigUint64(8, address >> 64n);
      view.setBigUint64(16, address & 0xffff_ffff_ffff_ffffn);
      return [view, 8];
    };
    fc.assert(
      fc.property(peers6, fc.array(addresses6, { maxLength: 20 }), fc.boolean(), (list, probes, isOver6) => {
        const peers = list.map(({ slot, addr, length, host, port }): Peer => {
          const ipv4 = isOver6 ? undefined : ipv4Of(Number(host & 0xffff_ffffn));
          const subnets = { ipv4: undefined, ipv6: prefix6(addr, length) };
          return { slot, subnets, publicAddresses: { ipv4, ipv6: host }, port };
        });
        table.publish({
          ipv4: undefined,
          ipv6: { network: NETWORK6, own: OWN6 },
          peers,
          mtu: 1_452,
        });
        reader.enter();
        assert.ok(reader.carriesIpv6);
        for (const probe of [...probes, ...list.flatMap(({ addr, host }) => [addr, host])]) {
          const longest = peers
            .filter(({ subnets }) => containsAddr6(subnets.ipv6!, probe))
            .toSorted((a, b) => b.subnets.ipv6!.length - a.subnets.ipv6!.length)[0];
          assert.equal(reader.lookup6(...at(probe)), longest?.slot ?? 0);
          const sender = isOver6 ? peers.find(({ publicAddresses }) => publicAddresses.ipv6 === probe) : undefined;
          assert.equal(reader.lookupEndpoint6(...at(probe)), sender?.slot ?? 0);
          assert.equal(reader.inNetwork6(...at(probe)), containsAddr6(NETWORK6, probe));
          assert.equal(reader.isOwn6(...at(probe)), containsAddr6(OWN6, probe));
          for (const { slot, publicAddresses } of peers) {
            assert.equal(reader.isHostAddress6(slot, ...at(probe)), publicAddresses.ipv6 === probe);
          }
        }
        for (const { slot, publicAddresses, port } of peers) {
          reader.putHostAddress6(slot, view, 0);
          const written = (view.getBigUint64(0) << 64n) | view.getBigUint64(8);
          assert.deepEqual([written, reader.endpointPort(slot)], [publicAddresses.ipv6, port]);
          const first = peers.find((peer) => peer.publicAddresses.ipv6 === publicAddresses.ipv6)!;
          if (isOver6) assert.equal(reader.endpoint(slot), first.slot);
        }
        assert.equal(reader.lookup(0), 0);
        assert.equal(reader.inNetwork(1), false);
        assert.equal(reader.isOwn(1), false);
        reader.leave();
      }),
      { numRuns: 150 },
    );
  });

  it('forgets the path to a host that has another address of IPv6 now', () => {
    const table = PeerTable.allocate(8);
    const reader = table.reader(0);
    const publish = (text: string): void => {
      const peer = {
        slot: 3,
        subnets: { ipv4: undefined, ipv6: OWN6 },
        publicAddresses: { ipv4: undefined, ipv6: parseIpv6(text) },
        port: 1,
      };
      const ipv6 = { network: NETWORK6, own: OWN6 };
      table.publish({ ipv4: undefined, ipv6, peers: [peer], mtu: 1_452 });
    };
    publish('fd00:77::2');
    reader.learnPathMtu(3, 1_300);
    publish('fd00:77::2');
    assert.equal(table.pathMtu(3), 1_300);
    publish('fd00:77::3');
    assert.equal(table.pathMtu(3), 0);
  });

  it('carries none in a network without it', () => {
    const table = PeerTable.allocate(8);
    const reader = table.reader(0);
    table.publish({ ...HOST, peers: [], mtu: 1_472 });
    reader.enter();
    assert.equal(reader.carriesIpv6, false);
    reader.leave();
  });
});
