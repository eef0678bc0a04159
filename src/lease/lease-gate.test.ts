import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { containsAddr, overlaps } from '../ip/address.ts';
import { parseIpv4 } from '../ip/ipv4.ts';
import { parseIpv6 } from '../ip/ipv6.ts';
import { containsPrefix4, parsePrefix4, parsePrefix6 } from '../ip/prefix.ts';
import type { GateRules } from './gate-rules.ts';
import { entryId, type Lease, leaseKey } from './lease.ts';
import { compareAge, LeaseGate } from './lease-gate.ts';
import { describeRefusal, type RefusalReason } from './refusal.ts';

const PLAN = {
  network: parsePrefix4('10.5.0.0/16')!,
  subnetLength: 24,
  subnetMin: parseIpv4('10.5.16.0')!,
  subnetMax: parseIpv4('10.5.255.0')!,
};
const RULES: GateRules = {
  ipv4: PLAN,
  ipv6: undefined,
  planned: true,
  routesWholeNetwork: true,
  networksBeside: [],
  ownAddresses: [parseIpv4('192.168.77.1')!],
  onLink: [],
  requireNodeAddress: false,
  capacity: 1_000,
};

interface Claim {
  readonly holder?: string;
  readonly since?: number;
  readonly addresses?: readonly string[];
  readonly v6?: string;
}

function lease(subnet: string | undefined, publicIp: string, { holder, since, addresses, v6 }: Claim = {}): Lease {
  const origin = { holder, since, ...(addresses && { addresses: addresses.map((text) => parseIpv4(text)!) }) };
  return {
    subnets: {
      ipv4: subnet === undefined ? undefined : parsePrefix4(subnet)!,
      ipv6: v6 === undefined ? undefined : parsePrefix6(v6)!,
    },
    attrs: {
      publicAddresses: { ipv4: parseIpv4(publicIp), ipv6: undefined },
      backendType: '',
      backendData: { ipv4: undefined, ipv6: undefined },
    },
    expiresAtMs: undefined,
    origin,
  };
}

const OWN = lease('10.5.20.0/24', '192.168.77.1', { holder: 'own', since: 50 });

function gateWith(leases: readonly Lease[], rules: Partial<GateRules> = {}, own = OWN): LeaseGate {
  const gate = new LeaseGate({ ...RULES, ...rules }, own);
  gate.apply({ type: 'snapshot', leases });
  return gate;
}
type Change = Parameters<LeaseGate['apply']>[0];

/** What a store may tell of these leases. @param most of one snapshot. */
function changeOf(some: fc.Arbitrary<Lease>, most: number): fc.Arbitrary<Change> {
  return fc.oneof(
    { weight: 5, arbitrary: some.map((entry) => ({ type: 'set', lease: entry }) as const) },
    {
      weight: 3,
      arbitrary: some.map(
        (entry) => ({ type: 'removed', key: leaseKey(entry), holder: entry.origin?.holder }) as const,
      ),
    },
    {
      weight: 1,
      arbitrary: fc.array(some, { maxLength: most }).map((leases) => ({ type: 'snapshot', leases }) as const),
    },
  );
}

/** What the store has after that. */
function keepIn(store: Map<string, Lease>, change: Change): void {
  if (change.type === 'set') store.set(entryId(change.lease), change.lease);
  else if (change.type === 'removed') store.delete(entryId(change.key, change.holder));
  else {
    store.clear();
    for (const entry of change.leases) store.set(entryId(entry), entry);
  }
}

const keysOf = (gate: LeaseGate): string[] => gate.leases().map(leaseKey).sort();
const reasonOf = (refused: Lease, rules: Partial<GateRules> = {}): RefusalReason | undefined =>
  gateWith([refused], rules).takeNews()[0]?.reason;

describe('the gate of leases', () => {
  const kubernetes = { planned: false };
  const linked = (network: string): Partial<GateRules> => ({ onLink: [parsePrefix4(network)!] });
  const cases: readonly (readonly [string, Lease, RefusalReason | undefined, Partial<GateRules>?])[] = [
    ['a subnet of the plan', lease('10.5.21.0/24', '192.168.77.2'), undefined],
    ['a reservation below SubnetMin', lease('10.5.2.0/24', '192.168.77.2'), undefined],
    ['all of the Internet', lease('0.0.0.0/0', '192.168.77.2'), 'outside-network'],
    ['all of the Internet, with Kubernetes', lease('0.0.0.0/0', '192.168.77.2'), 'outside-network', kubernetes],
    ['a subnet of another network', lease('10.6.1.0/24', '192.168.77.2'), 'outside-network'],
    [
      'no subnet of a family that the network has',
      lease(undefined, '192.168.77.2', { v6: 'fd00::/64' }),
      'outside-network',
    ],
    ['a second family, where the network has one', lease('10.5.21.0/24', '192.168.77.2', { v6: '::/0' }), undefined],
    ['a longer subnet', lease('10.5.21.0/25', '192.168.77.2'), 'wrong-length'],
    ['a shorter subnet', lease('10.5.0.0/17', '192.168.77.2'), 'wrong-length'],
    ['a longer subnet, with Kubernetes', lease('10.5.21.0/26', '192.168.77.2'), undefined, kubernetes],
    ['a part of the own subnet, with Kubernetes', lease('10.5.20.0/25', '192.168.77.2'), 'overlaps-own', kubernetes],
    ['the whole network, with Kubernetes', lease('10.5.0.0/16', '192.168.77.2'), 'overlaps-own', kubernetes],
    ['loopback', lease('10.5.21.0/24', '127.0.0.1'), 'address-not-unicast'],
    ['multicast', lease('10.5.21.0/24', '224.0.0.1'), 'address-not-unicast'],
    ['all hosts of a link', lease('10.5.21.0/24', '192.168.77.255'), 'address-not-unicast', linked('192.168.77.0/24')],
    [
      'all hosts of a longer one',
      lease('10.5.21.0/24', '192.168.77.7'),
      'address-not-unicast',
      linked('192.168.77.0/29'),
    ],
    ['that of no link here', lease('10.5.21.0/24', '192.168.78.255'), undefined, linked('192.168.77.0/24')],
    ['the other end of a link of two', lease('10.5.21.0/24', '192.168.77.3'), undefined, linked('192.168.77.2/31')],
    ['broadcast', lease('10.5.21.0/24', '255.255.255.255'), 'address-not-unicast'],
    ['this network', lease('10.5.21.0/24', '0.0.0.1'), 'address-not-unicast'],
    ['link-local, carrier-grade NAT and class E', lease('10.5.21.0/24', '169.254.7.7'), undefined],
    ['class E', lease('10.5.21.0/24', '240.0.0.1'), undefined],
    ['the own address', lease('10.5.21.0/24', '192.168.77.1'), 'address-own'],
    [
      'an address in another overlay of this host',
      lease('10.5.21.0/24', '10.9.1.7'),
      'address-in-network',
      { networksBeside: [parsePrefix4('10.9.0.0/16')!] },
    ],
    [
      'one that is on this host’s link',
      lease('10.5.21.0/24', '10.9.1.7'),
      undefined,
      { networksBeside: [parsePrefix4('10.9.0.0/16')!], ...linked('10.9.1.0/24') },
    ],
    ['an address in its own subnet', lease('10.5.21.0/24', '10.5.21.7'), 'address-in-network'],
    ['an address below SubnetMin, behind a router', lease('10.5.21.0/24', '10.5.1.7'), 'address-in-network'],
    [
      'an address below SubnetMin, on the link',
      lease('10.5.21.0/24', '10.5.1.7'),
      undefined,
      { onLink: [parsePrefix4('10.5.1.0/24')!] },
    ],
    [
      'an address below SubnetMin, on the link, in its own subnet',
      lease('10.5.1.0/24', '10.5.1.7'),
      'address-in-network',
      linked('10.5.1.0/24'),
    ],
    [
      'an address on the link, where a host may get that subnet',
      lease('10.5.21.0/24', '10.5.200.7'),
      'address-in-network',
      { ...linked('10.5.200.0/24'), routesWholeNetwork: false },
    ],
    ...[true, false].flatMap((routesWholeNetwork): (typeof cases)[number][] => {
      const rules = { ...kubernetes, routesWholeNetwork };
      const way = routesWholeNetwork ? 'one route for all' : 'a route for each subnet';
      const on = (network: string): Partial<GateRules> => ({ ...rules, ...linked(network) });
      const wider = routesWholeNetwork ? 'address-in-network' : undefined;
      return [
        [
          `an address in the network, on the link, with Kubernetes and ${way}`,
          lease('10.5.21.0/24', '10.5.200.7'),
          undefined,
          on('10.5.200.0/24'),
        ],
        [`that behind a router, with ${way}`, lease('10.5.21.0/24', '10.5.200.7'), 'address-in-network', rules],
        [
          `that in its own subnet, with ${way}`,
          lease('10.5.200.0/24', '10.5.200.7'),
          'address-in-network',
          on('10.5.200.0/24'),
        ],
        [
          `that in this host’s subnet, with ${way}`,
          lease('10.5.21.0/24', '10.5.20.7'),
          'address-in-network',
          on('10.5.20.0/24'),
        ],
        [
          `that on a link as wide as the network, with ${way}`,
          lease('10.5.21.0/24', '10.5.200.7'),
          wider,
          on('10.5.0.0/16'),
        ],
        [`that on a wider link, with ${way}`, lease('10.5.21.0/24', '10.5.200.7'), wider, on('10.0.0.0/8')],
      ];
    }),
    [
      'an address that the Node does not have',
      lease('10.5.21.0/24', '192.168.77.2', { addresses: ['192.168.77.3'] }),
      'address-not-of-node',
      { requireNodeAddress: true },
    ],
    [
      'an address that the Node has',
      lease('10.5.21.0/24', '192.168.77.2', { addresses: ['10.0.0.1', '192.168.77.2'] }),
      undefined,
      { requireNodeAddress: true },
    ],
  ];
  for (const [what, entry, reason, rules] of cases) {
    it(`${reason === undefined ? 'admits' : 'refuses'} ${what}`, () => {
      assert.equal(reasonOf(entry, rules), reason);
      assert.equal(gateWith([entry], rules).size, reason === undefined ? 1 : 0);
    });
  }

  it('judges IPv6 by the same rules', () => {
    const ipv6 = {
      network: parsePrefix6('fd00:5::/48')!,
      subnetLength: 64,
      subnetMin: parseIpv6('fd00:5:0:1::')!,
      subnetMax: parseIpv6('fd00:5:0:ffff::')!,
    };
    const of = (v6: string, publicIpv6: string): Lease => {
      const base = lease(undefined, '', { v6 });
      return { ...base, attrs: { ...base.attrs, publicAddresses: { ipv4: undefined, ipv6: parseIpv6(publicIpv6)! } } };
    };
    const rules = { ipv6, ownAddresses: [parseIpv6('2001:db8::1')!] };
    for (const [v6, address, reason] of [
      ['fd00:5:0:7::/64', '2001:db8::2', undefined],
      ['fd00:6:0:7::/64', '2001:db8::2', 'outside-network'],
      ['::/0', '2001:db8::2', 'outside-network'],
      ['fd00:5:0:7::/65', '2001:db8::2', 'wrong-length'],
      ['fd00:5:0:7::/64', '::1', 'address-not-unicast'],
      ['fd00:5:0:7::/64', 'ff02::1', 'address-not-unicast'],
      ['fd00:5:0:7::/64', '::ffff:10.0.0.1', 'address-not-unicast'],
      ['fd00:5:0:7::/64', '2001:db8::1', 'address-own'],
      ['fd00:5:0:7::/64', 'fd00:5:0:7::9', 'address-in-network'],
    ] as const) {
      assert.equal(reasonOf(of(v6, address), rules), reason, `${v6} ${address}`);
    }
  });

  it('the first to come keeps a subnet, seen one after the other or together, and the next gets it when it goes', () => {
    const first = lease('10.5.21.0/24', '192.168.77.2', { holder: 'zeta', since: 10 });
    const second = lease('10.5.21.0/24', '192.168.77.3', { holder: 'alpha', since: 20 });
    const third = lease('10.5.21.0/24', '192.168.77.4', { holder: 'beta', since: 30 });
    const gate = gateWith([first]);
    gate.apply({ type: 'set', lease: third });
    gate.apply({ type: 'set', lease: second });
    assert.deepEqual(gate.leases(), [first]);
    assert.deepEqual(gate.refusals, { 'overlaps-earlier': 2 });
    for (const order of [
      [first, second, third],
      [third, second, first],
      [second, third, first],
    ]) {
      assert.deepEqual(gateWith(order).leases(), [first]);
    }
    gate.apply({ type: 'removed', key: leaseKey(first), holder: 'zeta' });
    assert.deepEqual(gate.leases(), [second]);
    // The earlier one comes back, and is the later one now.
    gate.apply({ type: 'set', lease: first });
    assert.deepEqual(gate.leases(), [second]);
  });

  it('what an earlier run has admitted goes before what the store calls earlier', () => {
    const remembered = { ...lease('10.5.21.0/24', '192.168.77.3'), origin: undefined };
    const older = lease('10.5.21.0/24', '192.168.77.2', { holder: 'a', since: 1 });
    const same = lease('10.5.21.0/24', '192.168.77.3', { holder: 'b', since: 2 });
    const gate = gateWith([remembered]);
    gate.apply({ type: 'snapshot', leases: [older, same] });
    assert.deepEqual(gate.leases(), [same]);
  });

  it('tells the own entry from that of a host with two families that claims its subnet, also where entries have no names', () => {
    const own = lease('10.5.20.0/24', '192.168.77.1');
    const gate = gateWith([own, lease('10.5.20.0/24', '192.168.77.2', { v6: 'fd00:5::/64' })], {}, own);
    assert.deepEqual(gate.refusals, { 'overlaps-own': 1 });
    // The own entry of another configuration, and the own entry with another address, are nobody else's.
    const earlier = lease('10.5.20.0/24', '192.168.77.1', { v6: 'fd00:5::/64' });
    assert.deepEqual(gateWith([earlier, lease('10.5.20.0/24', '192.168.77.9')], {}, own).refusals, {});
  });

  it('never admits the own lease, present, changed or gone', () => {
    const other = lease('10.5.21.0/24', '192.168.77.2');
    const gate = gateWith([OWN, other]);
    gate.takeChanges();
    gate.apply({ type: 'snapshot', leases: [{ ...OWN, expiresAtMs: 7 }, other] });
    gate.apply({ type: 'snapshot', leases: [other] });
    assert.deepEqual(new Set(gate.takeChanges().map(({ key }) => key)), new Set([leaseKey(other)]));
    assert.deepEqual(gate.leases(), [other]);
  });

  it('says on both hosts that two claim one subnet: the newcomer knows that it is one', () => {
    const other = (since: number): Lease => lease('10.5.20.0/24', '192.168.77.2', { holder: 'other', since });
    const incumbent = gateWith([OWN, other(60)]);
    assert.deepEqual(
      incumbent.takeNews().map(({ reason }) => reason),
      ['overlaps-own'],
    );
    assert.equal(incumbent.ownConflict, undefined);
    const newcomer = gateWith([other(40), OWN]);
    assert.equal(newcomer.takeNews()[0]?.reason, 'overlaps-own');
    assert.equal(newcomer.ownConflict?.origin?.holder, 'other');
    newcomer.apply({ type: 'removed', key: leaseKey(OWN), holder: 'other' });
    assert.equal(newcomer.ownConflict, undefined);
    // An entry that is refused for itself makes nobody a newcomer.
    assert.equal(
      gateWith([OWN, lease('0.0.0.0/0', '192.168.77.2', { holder: 'other', since: 1 })]).ownConflict,
      undefined,
    );
  });

  it('tells each refusal once, and again when something about it changes', () => {
    const bad = lease('10.6.0.0/24', '192.168.77.2');
    const gate = gateWith([bad]);
    assert.equal(gate.takeNews().length, 1);
    gate.apply({ type: 'set', lease: { ...bad, expiresAtMs: 7 } });
    gate.apply({ type: 'snapshot', leases: [bad] });
    assert.equal(gate.takeNews().length, 0);
    gate.apply({ type: 'set', lease: lease('10.6.0.0/24', '192.168.77.9') });
    const [news] = gate.takeNews();
    assert.match(
      describeRefusal(news!),
      /^Refusing the lease 10\.6\.0\.0\/24 of 192\.168\.77\.9: .* \[outside-network\]$/,
    );
    const long = lease('10.6.0.0/24', '192.168.77.9', { holder: '\n'.repeat(10_000) });
    assert.ok(describeRefusal({ lease: long, reason: 'too-many', by: long }).length < 2_000);
    assert.doesNotMatch(describeRefusal({ lease: long, reason: 'too-many', by: long }), /\n/);
  });

  it('admits the first to come of more than there is room for', () => {
    const all = Array.from({ length: 8 }, (_, n) =>
      lease(`10.5.${30 + n}.0/24`, `192.168.77.${10 + n}`, { since: 9 - n }),
    );
    const gate = gateWith(all, { capacity: 5 });
    assert.deepEqual(keysOf(gate), all.slice(3).map(leaseKey).sort());
    assert.deepEqual(gate.refusals, { 'too-many': 3 });
    gate.apply({ type: 'removed', key: leaseKey(all[7]!) });
    assert.deepEqual(keysOf(gate), [...all.slice(2, 7)].map(leaseKey).sort());
  });

  it('of an address and a subnet around it the first to come stays, and the other gets its chance when that has gone or moved', () => {
    const rules = { planned: false, routesWholeNetwork: false, onLink: [parsePrefix4('10.5.200.0/24')!] };
    const addressed = lease('10.5.21.0/24', '10.5.200.7', { holder: 'addressed', since: 10 });
    const around = lease('10.5.200.0/26', '192.168.77.3', { holder: 'around', since: 20 });
    const gate = gateWith([around, addressed], rules);
    assert.deepEqual(gate.leases(), [addressed]);
    const [refusal] = gate.takeNews();
    assert.equal(refusal?.reason, 'overlaps-earlier');
    assert.match(describeRefusal(refusal!), /contains the public address of 10\.5\.21\.0\/24 of 10\.5\.200\.7 /);
    // It moves out of the way, and wants to go back.
    gate.apply({ type: 'set', lease: lease('10.5.21.0/24', '10.5.200.70', { holder: 'addressed', since: 10 }) });
    assert.deepEqual(keysOf(gate), [leaseKey(around), leaseKey(addressed)].sort());
    gate.apply({ type: 'set', lease: addressed });
    assert.deepEqual(gate.leases(), [around]);
    const [later] = gate.takeNews();
    assert.equal(later?.reason, 'address-in-network');
    assert.match(describeRefusal(later!), /in the subnet of 10\.5\.200\.0\/26 of 192\.168\.77\.3 \(node "around"\)/);
    gate.apply({ type: 'removed', key: leaseKey(around), holder: 'around' });
    assert.deepEqual(gate.leases(), [addressed]);
    assert.deepEqual(gate.refusals, {});
  });

  // Nodes with addresses of the network, any part of which may be somebody's pod CIDR.
  const within = fc
    .record({
      place: fc.nat(7),
      length: fc.constantFrom(23, 24, 25, 26),
      holder: fc.constantFrom('a', 'b', 'c', 'd', 'e'),
      since: fc.nat(3),
      address: fc.constantFrom('10.5.17.1', '10.5.17.130', '10.5.18.1', '10.5.20.1', '192.168.77.2'),
    })
    .map(({ place, length, holder, since, address }) =>
      lease(`10.5.${16 + Math.floor(place / 2)}.${(place % 2) * 128}/${length}`, address, { holder, since }),
    );
  const WITHIN: GateRules = {
    ...RULES,
    planned: false,
    routesWholeNetwork: false,
    onLink: [parsePrefix4('10.5.16.0/21')!],
  };
  const takesIn = (a: Lease, b: Lease): boolean => containsAddr(a.subnets.ipv4!, b.attrs.publicAddresses.ipv4!);
  const clash = (a: Lease, b: Lease): boolean =>
    overlaps(a.subnets.ipv4!, b.subnets.ipv4!) || takesIn(a, b) || takesIn(b, a);

  it('whatever happens: no address that is admitted lies in a subnet that is, and what is refused has a reason that is true', () => {
    const changes = fc.array(changeOf(within, 10), { maxLength: 40 });
    fc.assert(
      fc.property(changes, (steps) => {
        const gate = new LeaseGate(WITHIN, OWN);
        const store = new Map<string, Lease>();
        for (const each of steps) {
          keepIn(store, each);
          gate.apply(each);
          const admitted = gate.leases();
          assert.equal(admitted.length + gate.refused().length, store.size);
          for (const [i, entry] of admitted.entries()) {
            assert.equal(store.get(entryId(entry)), entry);
            assert.ok(!takesIn(entry, entry) && !takesIn(OWN, entry));
            for (const other of admitted.slice(i + 1)) assert.ok(!clash(entry, other));
          }
          for (const { lease: entry, reason } of gate.refused()) {
            assert.equal(store.get(entryId(entry)), entry);
            const isTrue =
              reason === 'overlaps-own'
                ? overlaps(entry.subnets.ipv4!, OWN.subnets.ipv4!)
                : reason === 'address-in-network'
                  ? [OWN, entry, ...admitted].some((other) => takesIn(other, entry))
                  : admitted.some((other) => clash(other, entry));
            assert.ok(isTrue, reason);
          }
        }
      }),
      { numRuns: 1_000 },
    );
  });

  it('of addresses and subnets that are seen together, the order of the list does not matter', () => {
    const list = fc.uniqueArray(within, { selector: (entry) => entryId(entry), maxLength: 14 });
    fc.assert(
      fc.property(list, (leases) => {
        const model: Lease[] = [];
        for (const entry of [...leases].sort(compareAge)) {
          const alone = reasonOf(entry, WITHIN) === undefined;
          if (alone && !model.some((other) => clash(other, entry))) model.push(entry);
        }
        for (const order of [leases, [...leases].reverse()]) {
          assert.deepEqual(keysOf(gateWith(order, WITHIN)), model.map(leaseKey).sort());
        }
      }),
      { numRuns: 500 },
    );
  });

  // Subnets of several lengths that overlap each other, few holders: what Kubernetes can show.
  const claim = fc
    .record({
      place: fc.nat(15),
      length: fc.constantFrom(22, 24, 24, 24, 25, 26),
      holder: fc.constantFrom('a', 'b', 'c', 'd', 'e'),
      since: fc.nat(3),
      address: fc.constantFrom('192.168.77.2', '192.168.77.3', '192.168.77.4', '127.0.0.1', '10.5.21.1'),
    })
    .map(({ place, length, holder, since, address }) =>
      lease(`10.5.${16 + Math.floor(place / 2)}.${(place % 2) * 128}/${length}`, address, { holder, since }),
    );
  const step = changeOf(claim, 12);

  it('whatever happens: what is admitted fits and stays, and what is not has a reason that is true', () => {
    fc.assert(
      fc.property(
        fc.array(step, { maxLength: 40 }),
        fc.boolean(),
        fc.integer({ min: 1, max: 6 }),
        (steps, planned, capacity) => {
          const rules = { ...RULES, planned, capacity };
          const gate = new LeaseGate(rules, OWN);
          const store = new Map<string, Lease>();
          let before: Lease[] = [];
          const followed = new Map<string, Lease>();
          const refused = new Map<string, { reason: RefusalReason; by: Lease | undefined }>();
          for (const each of steps) {
            keepIn(store, each);
            gate.apply(each);
            for (const { lease: entry, reason, by } of gate.takeNews()) refused.set(entryId(entry), { reason, by });
            const admitted = gate.leases();
            for (const { key, lease } of gate.takeChanges()) {
              if (lease === undefined) followed.delete(key);
              else followed.set(key, lease);
            }
            assert.deepEqual(new Set(followed.values()), new Set(admitted), 'the changes lead to what is admitted');
            const ids = new Set<string>(admitted.map((entry) => entryId(entry)));
            for (const [i, entry] of admitted.entries()) {
              assert.equal(store.get(entryId(entry)), entry);
              assert.ok(
                containsPrefix4(PLAN.network, entry.subnets.ipv4!) && !overlaps(entry.subnets.ipv4!, OWN.subnets.ipv4!),
              );
              assert.ok(!planned || entry.subnets.ipv4!.length === 24);
              assert.ok(entry.attrs.publicAddresses.ipv4! >>> 16 === 0xc0a8);
              for (const other of admitted.slice(i + 1)) assert.ok(!overlaps(entry.subnets.ipv4!, other.subnets.ipv4!));
            }
            assert.ok(admitted.length <= capacity);
            // First come wins: only what is gone, or does not fit any more, loses its place.
            for (const entry of before) {
              const now = store.get(entryId(entry));
              if (now !== undefined && now.attrs.publicAddresses.ipv4! >>> 16 === 0xc0a8)
                assert.ok(ids.has(entryId(entry)));
            }
            for (const [id, entry] of store) {
              if (ids.has(id)) continue;
              const why = refused.get(id);
              assert.ok(why !== undefined, `${id} is neither admitted nor refused`);
              const clashes = admitted.some((other) => overlaps(other.subnets.ipv4!, entry.subnets.ipv4!));
              if (why.reason === 'overlaps-earlier') assert.ok(clashes);
              if (why.reason === 'overlaps-own') assert.ok(overlaps(entry.subnets.ipv4!, OWN.subnets.ipv4!));
              if (why.reason === 'too-many') assert.equal(admitted.length, capacity);
            }
            const counted = Object.values(gate.refusals).reduce((sum, count) => sum + count, 0);
            assert.equal(counted + admitted.length, store.size);
            before = admitted;
          }
        },
      ),
      { numRuns: 500 },
    );
  });

  it('of what is seen together, the order of the list does not matter, and the earliest are admitted', () => {
    fc.assert(
      fc.property(
        fc.uniqueArray(claim, { selector: (entry) => entryId(entry), maxLength: 14 }),
        fc.boolean(),
        (leases, planned) => {
          const gate = gateWith(leases, { planned });
          const shuffled = gateWith([...leases].reverse(), { planned });
          assert.deepEqual(keysOf(shuffled), keysOf(gate));
          const model: Lease[] = [];
          for (const entry of [...leases].sort(compareAge)) {
            const alone = reasonOf(entry, { planned }) === undefined;
            if (alone && !model.some((other) => overlaps(other.subnets.ipv4!, entry.subnets.ipv4!))) model.push(entry);
          }
          assert.deepEqual(keysOf(gate), model.map(leaseKey).sort());
        },
      ),
      { numRuns: 500 },
    );
  });
});
