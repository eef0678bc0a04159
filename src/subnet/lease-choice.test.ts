import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { backendKind } from '../backend/registry.ts';
import { parseNetConf } from '../config/net-conf.ts';
import { parseIpv4 } from '../ip/ipv4.ts';
import { parseIpv6 } from '../ip/ipv6.ts';
import { containsPrefix4, formatPrefix4, parsePrefix4, parsePrefix6 } from '../ip/prefix.ts';
import { type Lease, type LeaseAttrs, leaseKey } from '../lease/lease.ts';
import { overlap, type Subnets } from '../lease/subnets.ts';
import { isCompatible } from './allocator.ts';
import { chooseLease, judgeOwn, type StoredEntry, sameHost } from './lease-choice.ts';
import type { SubnetReport } from './report.ts';

const CONFIG = parseNetConf('{"Network": "10.5.0.0/20", "SubnetLen": 24}', {
  source: 'test',
  validation: 'full',
  backends: backendKind,
});

function host(n: number): LeaseAttrs {
  return {
    publicAddresses: { ipv4: parseIpv4(`192.168.77.${n}`), ipv6: undefined },
    backendType: '',
    backendData: { ipv4: undefined, ipv6: undefined },
  };
}

function subnets(cidr: string): Subnets {
  const subnet = parsePrefix4(cidr);
  assert.ok(subnet !== undefined, cidr);
  return { ipv4: subnet, ipv6: undefined };
}

function entry(cidr: string, owner: number | undefined, expiresAtMs: number | undefined = 1_000): StoredEntry {
  return { subnets: subnets(cidr), attrs: owner === undefined ? undefined : host(owner), expiresAtMs };
}

function choose(
  entries: readonly StoredEntry[],
  previous?: Subnets,
  hostAddresses?: readonly number[],
): ReturnType<typeof chooseLease<StoredEntry>> & { readonly reports: readonly string[] } {
  const reports: SubnetReport[] = [];
  const choice = chooseLease({
    config: CONFIG,
    attrs: host(1),
    entries,
    previous,
    hostAddresses: hostAddresses?.map((n) => host(n).publicAddresses.ipv4!),
    random: () => 0,
    report: (report) => reports.push(report),
  });
  return { ...choice, reports: reports.map((report) => report.type) };
}

describe('sameHost', () => {
  it('goes by the IPv4 address, and by the IPv6 one only where there is no other', () => {
    const at = (ipv4: string | undefined, ipv6?: string): LeaseAttrs => ({
      ...host(1),
      publicAddresses: {
        ipv4: ipv4 && parseIpv4(ipv4),
        ipv6: ipv6 && parseIpv6(ipv6),
      } as LeaseAttrs['publicAddresses'],
    });
    const v6 = at(undefined, 'fd77::1');
    assert.ok(sameHost(host(1), { ...at('192.168.77.1', 'fd77::9'), backendType: 'vxlan' }));
    assert.ok(!sameHost(host(1), host(2)));
    assert.ok(sameHost(v6, { ...v6 }));
    assert.ok(!sameHost(v6, at(undefined, 'fd77::2')));
    assert.ok(!sameHost(at('192.168.77.1', 'fd77::1'), v6));
    assert.ok(!sameHost(at(undefined), at(undefined)));
  });
});

describe('chooseLease', () => {
  it('of several own leases takes a reservation first, then the previous subnet', () => {
    const [a, b] = [entry('10.5.1.0/24', 1), entry('10.5.2.0/24', 1)];
    const reserved: StoredEntry = { ...entry('10.5.3.0/24', 1), expiresAtMs: undefined };
    assert.equal((choose([a, b, reserved]) as { entry: StoredEntry }).entry, reserved);
    assert.equal((choose([a, b], subnets('10.5.2.0/24')) as { entry: StoredEntry }).entry, b);
    assert.equal((choose([a, b], subnets('10.5.9.0/24')) as { entry: StoredEntry }).entry, a);
  });

  it('gives up an own lease that does not fit, but leaves a reservation to the operator', () => {
    const misfit = entry('10.5.4.0/25', 1);
    const reserved: StoredEntry = { ...entry('10.5.99.0/24', 1), expiresAtMs: undefined };
    const choice = choose([misfit, reserved]);
    assert.equal(choice.type, 'create');
    assert.deepEqual(choice.remove, [misfit]);
    assert.deepEqual(choice.reports, ['lease-incompatible', 'lease-incompatible', 'picking']);
  });

  it('gives up an own lease that overlaps another host’s', () => {
    const own = entry('10.5.4.0/24', 1);
    const choice = choose([own, entry('10.5.4.128/25', 2)]);
    assert.ok(choice.type === 'create');
    assert.deepEqual(choice.remove, [own]);
    assert.ok(!overlap(choice.subnets, own.subnets));
  });

  it('knows a lease under another address of this host for its own, after those under the published one', () => {
    const [mine, floating, others] = [entry('10.5.1.0/24', 1), entry('10.5.2.0/24', 7), entry('10.5.3.0/24', 3)];
    const taken = (entries: StoredEntry[], previous?: Subnets) => {
      const choice = choose(entries, previous, [7, 8]);
      return choice.type === 'reuse' ? choice.entry : undefined;
    };
    assert.equal(taken([others, floating]), floating);
    assert.equal(taken([others, floating, mine]), mine);
    assert.equal(taken([others, floating, mine], subnets('10.5.2.0/24')), floating);
    assert.equal(taken([others]), undefined);
    assert.equal(taken([entry('10.5.3.0/24', undefined)]), undefined);
  });

  it('leaves such a lease alone when it does not fit, or is not needed', () => {
    const [mine, misfit, overlapped] = [entry('10.5.1.0/24', 1), entry('10.5.99.0/24', 7), entry('10.5.4.0/24', 8)];
    const choice = choose([misfit, overlapped, entry('10.5.4.128/25', 2)], undefined, [7, 8]);
    assert.equal(choice.type, 'create');
    assert.deepEqual(choice.remove, []);
    assert.deepEqual(choose([mine, misfit], undefined, [7]).remove, []);
  });

  it('judges such a lease by the rule for those under the published address: what holds nothing, or came later, is not in its way', () => {
    const mine = { ...entry('10.5.4.0/24', 7), since: 10 };
    const reused = (...others: StoredEntry[]): unknown => {
      const choice = choose([...others, mine], undefined, [7]);
      return choice.type === 'reuse' ? choice.entry : undefined;
    };
    for (const cidr of ['0.0.0.0/0', '10.0.0.0/8', '10.5.0.0/20', '10.5.0.0/21', '10.5.4.0/23', '10.6.0.0/16']) {
      assert.equal(reused({ ...entry(cidr, 66), since: 5 }), mine, cidr);
    }
    assert.equal(reused({ ...entry('10.5.4.128/25', 66), since: 20 }), mine, 'a part of it, later');
    assert.equal(reused({ ...entry('10.5.4.128/25', 66), since: 5 }), undefined, 'a part of it, earlier');
  });

  it('is not kept from a subnet by an entry that covers several, but takes none of those while another is free', () => {
    const cover = ['10.5.0.0/20', '10.5.0.0/21', '10.5.8.0/21'].map((cidr) => entry(cidr, 66));
    const all = choose(cover);
    assert.ok(all.type === 'create' && isCompatible(all.subnets, CONFIG));
    assert.deepEqual(all.reports, ['picking', 'picked-under']);
    const half = choose(cover.slice(1, 2));
    assert.ok(half.type === 'create' && !overlap(half.subnets, cover[1]!.subnets));
    assert.deepEqual(half.reports, ['picking']);
    // What the host has, or had, it keeps.
    const own = entry('10.5.4.0/24', 1);
    assert.deepEqual(choose([...cover, own]), { type: 'reuse', entry: own, remove: [], reports: [] });
    assert.deepEqual(choose(cover, own.subnets).reports, ['previous-reused']);
    // A part of a subnet is one subnet, of a host from before SubnetLen was made shorter.
    assert.deepEqual(choose([entry('10.5.4.128/25', 66)], own.subnets).reports, ['previous-taken', 'picking']);
  });

  it('tells who has the previous subnet', () => {
    assert.deepEqual(choose([entry('10.5.4.0/24', 2)], subnets('10.5.4.0/24')).reports, ['previous-taken', 'picking']);
    assert.deepEqual(choose([entry('10.5.4.0/24', undefined)], subnets('10.5.4.0/24')).reports, [
      'previous-taken',
      'picking',
    ]);
    assert.deepEqual(choose([], { ipv4: undefined, ipv6: undefined }).reports, ['picking']);
  });

  it('checks both families for overlap', () => {
    const dual = parseNetConf('{"Network": "10.5.0.0/16", "EnableIPv6": true, "IPv6Network": "fd00:5::/48"}', {
      source: 'test',
      validation: 'full',
      backends: backendKind,
    });
    const previous = { ipv4: parsePrefix4('10.5.9.0/24'), ipv6: parsePrefix6('fd00:5:0:9::/64') };
    const other = { ...entry('10.5.1.0/24', 2), subnets: { ...subnets('10.5.1.0/24'), ipv6: previous.ipv6 } };
    const options = { config: dual, attrs: host(1), previous, random: () => 0, report: () => {} };
    const choice = chooseLease({ ...options, entries: [other] });
    assert.ok(choice.type === 'create' && choice.from === 'free');
    assert.ok(!overlap(choice.subnets, other.subnets));
    const again = chooseLease({ ...options, entries: [] });
    assert.ok(again.type === 'create' && again.from === 'previous');
  });

  it('whatever the store holds, gives a fitting subnet that overlaps nothing that holds one, nothing at all if it can, or none', () => {
    const prefix = fc
      .record({ block: fc.nat(511), length: fc.oneof(fc.integer({ min: 21, max: 27 }), fc.constantFrom(0, 8, 19, 20)) })
      .map(({ block, length }) => {
        const text = `10.5.${(block >> 3) & 31}.${(block & 7) * 32}/${length}`;
        return formatPrefix4(parsePrefix4(text)!);
      });
    const stored = fc
      .record({ cidr: prefix, owner: fc.option(fc.integer({ min: 1, max: 3 })), permanent: fc.boolean() })
      .map(({ cidr, owner, permanent }): StoredEntry => {
        return { ...entry(cidr, owner ?? undefined), expiresAtMs: permanent ? undefined : 1_000 };
      });
    const previous = fc.option(prefix.map(subnets), { nil: undefined });
    const plan = Array.from({ length: 15 }, (_, n) => subnets(`10.5.${n + 1}.0/24`));
    const isOneSubnet = ({ subnets: { ipv4 } }: StoredEntry): boolean =>
      ipv4 !== undefined && ipv4.length >= 24 && containsPrefix4(CONFIG.ipv4!.network, ipv4);
    fc.assert(
      fc.property(
        fc.array(stored, { maxLength: 12 }),
        previous,
        fc.double({ min: 0, max: 0.999, noNaN: true }),
        (entries, before, r) => {
          const options = { config: CONFIG, attrs: host(1), entries, previous: before, report: () => {} };
          let choice: ReturnType<typeof chooseLease<StoredEntry>>;
          try {
            choice = chooseLease({ ...options, random: () => r });
          } catch (error) {
            assert.ok(error instanceof Error && 'code' in error && error.code === 'WEFT_SUBNET_EXHAUSTED');
            const held = entries.filter((each) => isOneSubnet(each));
            assert.ok(plan.every((subnet) => held.some((each) => overlap(each.subnets, subnet))));
            return;
          }
          const given = (choice.type === 'reuse' ? choice.entry : choice).subnets;
          assert.ok(isCompatible(given, CONFIG));
          const stay = entries.filter((each) => !choice.remove.includes(each));
          for (const each of stay) {
            const mine = each.attrs !== undefined && sameHost(each.attrs, host(1));
            if (!isOneSubnet(each) || (choice.type === 'reuse' && mine)) continue;
            assert.ok(!overlap(each.subnets, given), leaseKey(each));
          }
          const claims = stay.filter((each) => containsPrefix4(CONFIG.ipv4!.network, each.subnets.ipv4!));
          const isClaimed = (subnet: Subnets): boolean => claims.some((each) => overlap(each.subnets, subnet));
          if (choice.type === 'create' && choice.from === 'free' && isClaimed(given)) {
            assert.ok(plan.every(isClaimed), 'another subnet is free of all claims');
          }
          for (const each of choice.remove) {
            assert.ok(each.attrs !== undefined && sameHost(each.attrs, host(1)) && each.expiresAtMs !== undefined);
          }
        },
      ),
    );
  });
});

describe('judgeOwn', () => {
  const own: Lease = { subnets: subnets('10.5.4.0/24'), attrs: host(1), expiresAtMs: 1_000 };
  const judge = (entries: readonly StoredEntry[], nowMs = 500): string => judgeOwn(own, entries, nowMs, CONFIG).type;

  it('tells a lease that is held from one that is gone, damaged or lost', () => {
    assert.equal(judge([entry('10.5.4.0/24', 1)]), 'held');
    assert.equal(judge([{ ...entry('10.5.4.0/24', 1), expiresAtMs: undefined }], 9_999), 'held');
    assert.equal(judge([]), 'absent');
    assert.equal(judge([entry('10.5.4.0/24', 1)], 1_000), 'absent', 'expired');
    assert.equal(judge([entry('10.5.4.0/24', 2)], 1_000), 'absent', 'somebody else’s, expired');
    assert.equal(judge([entry('10.5.4.0/24', undefined)]), 'damaged');
    assert.equal(judge([entry('10.5.4.0/24', 2)]), 'lost');
    assert.equal(judge([entry('10.5.4.128/25', 2)]), 'lost');
    for (const cidr of ['0.0.0.0/0', '10.5.0.0/20', '10.5.0.0/21', '10.5.4.0/23']) {
      assert.equal(judge([entry(cidr, 2)]), 'absent', `${cidr} is more than one subnet`);
    }
    assert.equal(judge([entry('10.5.4.0/24', 1), entry('10.5.4.0/25', 2)], 500), 'held', 'ours is older');
    assert.equal(
      judge([entry('10.5.4.0/24', 1), entry('10.5.4.0/25', 2, 2_000)], 1_000),
      'lost',
      'expired, then taken',
    );
    assert.equal(judge([entry('10.5.5.0/24', 2)]), 'absent', 'a neighbour');
  });
});
