import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { equalPrefix, overlaps } from './address.ts';
import { ipv4Of, parseIpv4 } from './ipv4.ts';
import { IPV6_MAX, ipv6Of, parseIpv6 } from './ipv6.ts';
import {
  containsAddr4,
  containsAddr6,
  containsPrefix4,
  containsPrefix6,
  formatPrefix4,
  formatPrefix6,
  type Ipv4Prefix,
  mask4,
  mask6,
  parsePrefix4,
  parsePrefix6,
  prefix4,
  prefix6,
} from './prefix.ts';

const anyPrefix4 = fc
  .tuple(fc.nat(0xffffffff), fc.integer({ min: 0, max: 32 }))
  .map(([addr, length]) => prefix4(ipv4Of(addr), length));
const anyPrefix6 = fc
  .tuple(fc.bigInt({ min: 0n, max: IPV6_MAX }), fc.integer({ min: 0, max: 128 }))
  .map(([addr, length]) => prefix6(ipv6Of(addr), length));
/** Two that are likely to have something to do with each other. */
const pair4 = fc
  .tuple(fc.nat(0xff), fc.integer({ min: 20, max: 32 }), fc.nat(0xff), fc.integer({ min: 20, max: 32 }))
  .map(([a, lengthA, b, lengthB]) => [prefix4(ipv4Of(a), lengthA), prefix4(ipv4Of(b), lengthB)] as const);

describe('prefixes', () => {
  it('lose their host bits', () => {
    assert.equal(formatPrefix4(parsePrefix4('10.3.7.9/16')!), '10.3.0.0/16');
    assert.equal(formatPrefix4(parsePrefix4('255.255.255.255/0')!), '0.0.0.0/0');
    assert.equal(formatPrefix6(parsePrefix6('fc00::1/48')!), 'fc00::/48');
    assert.equal(formatPrefix6(parsePrefix6('1::/0')!), '::/0');
  });

  // Go's net.ParseCIDR agrees, except that it takes an IPv4 address in IPv6 form for an IPv4 network.
  it('are only what is one', () => {
    for (const text of [
      '10.0.0.0',
      '10.0.0.0/',
      '10.0.0.0/33',
      '10.0.0.0/+8',
      '10.0.0.0/8/8',
      '/8',
      'fc00::/48',
      '10.0.0.0/-1',
    ]) {
      assert.equal(parsePrefix4(text), undefined, text);
    }
    for (const text of [
      'fc00::',
      'fc00::/129',
      'fe80::1%e/64',
      '10.0.0.0/8',
      '::/ 1',
      '::/1 ',
      '::ffff:10.0.0.0/1000',
    ]) {
      assert.equal(parsePrefix6(text), undefined, text);
    }
    assert.equal(formatPrefix4(parsePrefix4('10.0.0.0/016')!), '10.0.0.0/16');
  });

  it('read back what was written', () => {
    fc.assert(fc.property(anyPrefix4, (prefix) => assert.deepEqual(parsePrefix4(formatPrefix4(prefix)), prefix)));
    fc.assert(fc.property(anyPrefix6, (prefix) => assert.deepEqual(parsePrefix6(formatPrefix6(prefix)), prefix)));
  });

  it('keep to their lengths', () => {
    for (const length of [-1, 33, 1.5]) assert.throws(() => prefix4(ipv4Of(0), length), RangeError);
    for (const length of [-1, 129, 1.5]) assert.throws(() => prefix6(ipv6Of(0n), length), RangeError);
  });

  it('have masks with as many ones as their length', () => {
    for (let length = 0; length <= 32; length++) {
      assert.equal(mask4(length).toString(2).padStart(32, '0'), '1'.repeat(length).padEnd(32, '0'));
    }
    for (let length = 0; length <= 128; length++) {
      assert.equal(mask6(length).toString(2).padStart(128, '0'), '1'.repeat(length).padEnd(128, '0'));
    }
  });

  it('contain the addresses from their first to their last', () => {
    fc.assert(
      fc.property(anyPrefix4, fc.nat(0xffffffff), (prefix, addr) => {
        const inside = addr >= prefix.addr && addr < prefix.addr + 2 ** (32 - prefix.length);
        assert.equal(containsAddr4(prefix, ipv4Of(addr)), inside);
      }),
    );
    fc.assert(
      fc.property(anyPrefix6, fc.bigInt({ min: 0n, max: IPV6_MAX }), (prefix, addr) => {
        const inside = addr >= prefix.addr && addr < prefix.addr + (1n << BigInt(128 - prefix.length));
        assert.equal(containsAddr6(prefix, ipv6Of(addr)), inside);
      }),
    );
    const network = parsePrefix4('10.3.0.0/16')!;
    assert.ok(containsAddr4(network, parseIpv4('10.3.0.0')!) && containsAddr4(network, parseIpv4('10.3.255.255')!));
    assert.ok(!containsAddr4(network, parseIpv4('10.2.255.255')!) && !containsAddr4(network, parseIpv4('10.4.0.0')!));
    assert.ok(containsAddr6(parsePrefix6('fc00::/48')!, parseIpv6('fc00:0:0:ffff::1')!));
  });

  // flannel's table for its test of a pod CIDR against the network.
  const containment: [string, string, boolean][] = [
    ['10.244.0.0/16', '10.244.0.0/16', true],
    ['10.244.0.0/16', '10.244.7.0/24', true],
    ['10.244.7.0/24', '10.244.0.0/16', false],
    ['10.244.0.0/16', '10.245.0.0/24', false],
    ['fc00::/48', 'fc00::/48', true],
    ['fc00::/48', 'fc00:0:0:1::/64', true],
    ['fc00:0:0:1::/64', 'fc00::/48', false],
    ['fc00::/48', 'fd00::/64', false],
  ];
  for (const [outer, inner, expected] of containment) {
    it(`${outer} ${expected ? 'contains' : 'does not contain'} ${inner}`, () => {
      const actual = outer.includes(':')
        ? containsPrefix6(parsePrefix6(outer)!, parsePrefix6(inner)!)
        : containsPrefix4(parsePrefix4(outer)!, parsePrefix4(inner)!);
      assert.equal(actual, expected);
    });
  }

  it('overlap when they have an address in common, which means that one contains the other', () => {
    fc.assert(
      fc.property(pair4, ([a, b]) => {
        const lastA = a.addr + 2 ** (32 - a.length) - 1;
        const lastB = b.addr + 2 ** (32 - b.length) - 1;
        const common = a.addr <= lastB && b.addr <= lastA;
        assert.equal(overlaps(a, b), common);
        assert.equal(overlaps(b, a), common);
        assert.equal(equalPrefix(a, b), containsPrefix4(a, b) && containsPrefix4(b, a));
        const toV6 = ({ addr, length }: Ipv4Prefix) => prefix6(ipv6Of(BigInt(addr)), length + 96);
        const a6 = toV6(a);
        const b6 = toV6(b);
        assert.equal(overlaps(a6, b6), common);
        assert.equal(equalPrefix(a6, b6), equalPrefix(a, b));
      }),
    );
  });
});
