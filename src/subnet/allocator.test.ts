import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { backendKind } from '../backend/registry.ts';
import { parseNetConf } from '../config/net-conf.ts';
import type { AddressPlan, NetworkConfig } from '../config/network-config.ts';
import { overlaps } from '../ip/address.ts';
import { type Ipv4Addr, ipv4Of, parseIpv4 } from '../ip/ipv4.ts';
import { type Ipv6Addr, ipv6Of } from '../ip/ipv6.ts';
import {
  formatPrefix4,
  formatPrefix6,
  type Ipv4Prefix,
  type Ipv6Prefix,
  parsePrefix4,
  parsePrefix6,
  prefix4,
  prefix6,
} from '../ip/prefix.ts';
import { isCompatible, pickSubnet4, pickSubnet6 } from './allocator.ts';

type Plan4 = AddressPlan<Ipv4Prefix, Ipv4Addr>;
type Plan6 = AddressPlan<Ipv6Prefix, Ipv6Addr>;

function config(fields: object): NetworkConfig {
  const text = JSON.stringify({ Network: '10.3.0.0/16', Backend: { Type: 'vxlan' }, ...fields });
  return parseNetConf(text, { source: 'test', validation: 'full', backends: backendKind });
}

function plan4(fields: object = {}): Plan4 {
  return config(fields).ipv4!;
}

/** flannel's walk, written down as it is described: every subnet from the first to the last, until a hundred are free. */
function naive4(plan: Plan4, taken: readonly Ipv4Prefix[]): Ipv4Prefix[] {
  const free: Ipv4Prefix[] = [];
  for (
    let addr: number = plan.subnetMin;
    addr <= plan.subnetMax && free.length < 100;
    addr += 2 ** (32 - plan.subnetLength)
  ) {
    const candidate = prefix4(ipv4Of(addr), plan.subnetLength);
    if (!taken.some((other) => overlaps(other, candidate))) free.push(candidate);
  }
  return free;
}

function naive6(plan: Plan6, taken: readonly Ipv6Prefix[]): Ipv6Prefix[] {
  const free: Ipv6Prefix[] = [];
  const size = 1n << BigInt(128 - plan.subnetLength);
  for (let addr: bigint = plan.subnetMin; addr <= plan.subnetMax && free.length < 100; addr += size) {
    const candidate = prefix6(ipv6Of(addr), plan.subnetLength);
    if (!taken.some((other) => overlaps(other, candidate))) free.push(candidate);
  }
  return free;
}

/** Small networks in which collisions are frequent; prefixes around them of any length. */
const addr4 = fc.nat(0xfff).map((low) => ipv4Of(0x0a030000 + low));
const taken4 = fc.array(
  fc.tuple(addr4, fc.integer({ min: 18, max: 32 })).map(([addr, length]) => prefix4(addr, length)),
);
const small4 = fc
  .record({
    length: fc.integer({ min: 20, max: 26 }),
    more: fc.integer({ min: 2, max: 6 }),
    ends: fc.tuple(fc.nat(), fc.nat()),
  })
  .map(({ length, more, ends }): Plan4 => {
    const subnetLength = Math.min(length + more, 30);
    const count = 2 ** (subnetLength - length);
    const [low, high] = ends.map((end) => end % count).toSorted((a, b) => a - b) as [number, number];
    const at = (index: number) => ipv4Of(0x0a030000 + index * 2 ** (32 - subnetLength));
    return { network: prefix4(at(0), length), subnetLength, subnetMin: at(low), subnetMax: at(high) };
  });

describe('allocator: IPv4', () => {
  it('chooses exactly as the naive walk would, for every random number', () => {
    fc.assert(
      fc.property(
        small4,
        taken4,
        fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true }),
        (plan, taken, random) => {
          const free = naive4(plan, taken);
          const picked = pickSubnet4(plan, taken, () => random);
          assert.deepEqual(picked, free[Math.floor(random * free.length)]);
        },
      ),
      { numRuns: 500 },
    );
  });

  it('reaches the first hundred free subnets and no other', () => {
    const plan = plan4();
    const taken = [parsePrefix4('10.3.2.0/23')!, parsePrefix4('10.3.5.128/25')!];
    const picked = new Set<string>();
    for (let step = 0; step < 100; step++)
      picked.add(formatPrefix4(pickSubnet4(plan, taken, () => (step + 0.5) / 100)!));
    assert.equal(picked.size, 100);
    assert.ok(picked.has('10.3.1.0/24') && picked.has('10.3.103.0/24'));
    for (const subnet of ['10.3.0.0/24', '10.3.2.0/24', '10.3.3.0/24', '10.3.5.0/24', '10.3.104.0/24']) {
      assert.ok(!picked.has(subnet), subnet);
    }
  });

  it('is exhausted when the whole range is taken, by one big lease or by many', () => {
    const plan = plan4({ SubnetMin: '10.3.5.0', SubnetMax: '10.3.8.0' });
    assert.equal(pickSubnet4(plan, [parsePrefix4('10.0.0.0/8')!], Math.random), undefined);
    const four = ['10.3.5.0/24', '10.3.6.0/24', '10.3.7.7/32', '10.3.8.0/26'].map((text) => parsePrefix4(text)!);
    assert.equal(pickSubnet4(plan, four, Math.random), undefined);
    assert.equal(formatPrefix4(pickSubnet4(plan, four.slice(1), Math.random)!), '10.3.5.0/24');
  });

  it('works at the top of the address space', () => {
    const plan = plan4({ Network: '255.255.255.0/24' });
    const taken = [parsePrefix4('255.255.255.128/25')!];
    assert.equal(formatPrefix4(pickSubnet4(plan, taken, () => 0)!), '255.255.255.64/26');
    assert.equal(
      pickSubnet4(plan, [...taken, parsePrefix4('255.255.255.64/26')!], () => 0),
      undefined,
    );
  });

  it('finds the one gap that 5,000 leases leave', () => {
    const plan = plan4({ Network: '10.0.0.0/8', SubnetMax: '10.19.136.0' });
    const taken = Array.from({ length: 5000 }, (_, i) => prefix4(ipv4Of(0x0a000100 + (4999 - i) * 256), 24));
    assert.equal(pickSubnet4(plan, taken, Math.random), undefined);
    const [missing] = taken.splice(1234, 1);
    assert.deepEqual(pickSubnet4(plan, taken, Math.random), missing);
  });
});

describe('allocator: IPv6', () => {
  it('chooses exactly as the naive walk would', () => {
    const base = 0xfd00n << 112n;
    const addr = fc.bigInt({ min: 0n, max: 0xfffn }).map((low) => ipv6Of(base + low));
    const taken6 = fc.array(
      fc.tuple(addr, fc.integer({ min: 114, max: 128 })).map(([a, length]) => prefix6(a, length)),
    );
    const random = fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true });
    fc.assert(
      fc.property(fc.integer({ min: 117, max: 122 }), taken6, random, (length, taken, number) => {
        const text = { EnableIPv6: true, IPv6Network: formatPrefix6(prefix6(ipv6Of(base), length)) };
        const plan = config(text).ipv6!;
        const free = naive6(plan, taken);
        assert.deepEqual(
          pickSubnet6(plan, taken, () => number),
          free[Math.floor(number * free.length)],
        );
      }),
      { numRuns: 300 },
    );
  });

  it('steps over a lease as big as almost the whole network', () => {
    const plan = config({ EnableIPv6: true, IPv6Network: 'fd00::/8', IPv6SubnetLen: 126 }).ipv6!;
    const taken = [parsePrefix6('fd00::/9')!, parsePrefix6('fd80::/10')!, parsePrefix6('fdc0::/126')!];
    assert.equal(formatPrefix6(pickSubnet6(plan, taken, () => 0)!), 'fdc0::4/126');
  });
});

describe('compatibility with the configuration', () => {
  const both = config({
    SubnetMin: '10.3.5.0',
    SubnetMax: '10.3.8.0',
    EnableIPv6: true,
    IPv6Network: 'fc00::/48',
  });
  const ipv4Only = config({ SubnetMin: '10.3.5.0', SubnetMax: '10.3.8.0' });
  const v6 = 'fc00:0:0:1::/64';
  const cases: [NetworkConfig, string, string | undefined, boolean][] = [
    [ipv4Only, '10.3.5.0/24', undefined, true],
    [ipv4Only, '10.3.8.0/24', undefined, true],
    [ipv4Only, '10.3.4.0/24', undefined, false],
    [ipv4Only, '10.3.9.0/24', undefined, false],
    [ipv4Only, '10.3.6.0/25', undefined, false],
    [ipv4Only, '10.3.6.0/24', v6, false],
    [both, '10.3.6.0/24', undefined, false],
    [both, '10.3.6.0/24', v6, true],
    [both, '10.3.6.0/24', 'fc00::/64', false],
    [both, '10.3.6.0/24', 'fc00:0:0:1::/65', false],
    [both, '10.3.4.0/24', v6, false],
  ];
  for (const [network, subnet, ipv6Subnet, expected] of cases) {
    it(`${subnet} ${ipv6Subnet ?? ''} is ${expected ? '' : 'not '}compatible with ${network === both ? 'both families' : 'IPv4'}`, () => {
      const subnets = {
        ipv4: parsePrefix4(subnet),
        ipv6: ipv6Subnet === undefined ? undefined : parsePrefix6(ipv6Subnet),
      };
      assert.equal(isCompatible(subnets, network), expected);
    });
  }

  it('holds for everything the allocator gives', () => {
    fc.assert(
      fc.property(small4, taken4, (plan, taken) => {
        const subnet = pickSubnet4(plan, taken, Math.random);
        const network: NetworkConfig = { ...ipv4Only, ipv4: plan };
        assert.ok(subnet === undefined || isCompatible({ ipv4: subnet, ipv6: undefined }, network));
      }),
    );
  });

  it('needs a subnet of every enabled family', () => {
    assert.equal(isCompatible({ ipv4: undefined, ipv6: undefined }, ipv4Only), false);
    const outside = prefix4(parseIpv4('10.4.0.0')!, 24);
    assert.equal(isCompatible({ ipv4: outside, ipv6: undefined }, ipv4Only), false);
  });
});
