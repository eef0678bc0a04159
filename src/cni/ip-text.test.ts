import assert from 'node:assert/strict';
import { isIPv4, isIPv6 } from 'node:net';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { formatAddr, formatPrefix, parsePrefix } from '../ip/address.ts';
import { formatCidr, networkOf, parseCidr, parseIp } from './ip-text.ts';

const canonical = (text: string): string | undefined => {
  const ip = parseIp(text);
  return ip === undefined ? undefined : formatAddr(ip);
};
const network = (text: string): string | undefined => {
  const cidr = parseCidr(text);
  return cidr && formatCidr(networkOf(cidr));
};

describe("addresses in Go's form", () => {
  it('are printed in canonical form', () => {
    for (const [text, expected] of [
      ['10.1.17.20', '10.1.17.20'],
      ['FC00:0:0:0::1', 'fc00::1'],
      ['::', '::'],
      ['1::', '1::'],
      ['2001:db8:0:1:1:1:1:1', '2001:db8:0:1:1:1:1:1'],
      ['1:0:0:2:0:0:0:3', '1:0:0:2::3'],
      ['1:0:0:2:3:0:0:4', '1::2:3:0:0:4'],
      ['64:ff9b::10.0.0.1', '64:ff9b::a00:1'],
      ['::ffff:10.0.0.1', '10.0.0.1'],
      ['0:0:0:0:0:ffff:a00:1', '10.0.0.1'],
    ] as const) {
      assert.equal(canonical(text), expected, text);
    }
  });

  it('are refused when Go refuses them', () => {
    for (const text of [
      '',
      '10',
      '10.1.1',
      '10.1.1.256',
      '010.1.1.1',
      '1.2.3.4.5',
      '1.2.3.+4',
      ':',
      ':::',
      '1:2:3:4:5:6:7',
      '1:2:3:4:5:6:7:8:9',
      '1:2:3:4:5:6:7:8::',
      '::1::',
      'g::',
      '12345::',
      '1.2.3.4::',
      '::1.2.3',
      'fe80::1%eth0',
      ' ::1',
      '1:::2',
    ]) {
      assert.equal(parseIp(text), undefined, text);
    }
    for (const text of [
      '10.1.1.1',
      '10.1.1.1/33',
      '10.1.1.1/',
      '10.1.1.1/-1',
      '10.1.1.1/+8',
      '::/129',
      '/8',
      '10.1.1.1/8/8',
      '::ffff:10.0.0.0/95',
    ]) {
      assert.equal(parseCidr(text), undefined, text);
    }
  });

  it('lose their host bits in a network only', () => {
    assert.equal(network('10.1.17.1/24'), '10.1.17.0/24');
    assert.equal(network('10.1.17.1/0'), '0.0.0.0/0');
    assert.equal(network('255.255.255.255/32'), '255.255.255.255/32');
    assert.equal(network('fc00::1/64'), 'fc00::/64');
    assert.equal(network('2001:cafe:42:ffff::1/56'), '2001:cafe:42:ff00::/56');
    assert.equal(network('::ffff:10.1.2.3/120'), '10.1.2.0/24');
    assert.equal(formatCidr(parseCidr('10.1.17.1/24')!), '10.1.17.1/24');
  });

  it("agree with Node's and with weft's own parsers (property)", () => {
    const near = fc.oneof(
      fc.ipV4(),
      fc.ipV6(),
      fc.string({ unit: fc.constantFrom(...'0123456789abcf:.'), maxLength: 24 }),
    );
    fc.assert(
      fc.property(near, fc.nat(130), (text, length) => {
        assert.equal(parseIp(text) !== undefined, isIPv4(text) || isIPv6(text), text);
        if (text.toLowerCase().includes('ffff')) return;
        const prefix = parsePrefix(`${text}/${length}`);
        assert.equal(network(`${text}/${length}`), prefix && formatPrefix(prefix));
      }),
    );
  });
});
