import assert from 'node:assert/strict';
import { isIPv4 } from 'node:net';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { formatIpv4, ipv4Of, parseIpv4 } from './ipv4.ts';

describe('IPv4 addresses', () => {
  it('are unsigned numbers in host order', () => {
    assert.equal(parseIpv4('0.0.0.0'), 0);
    assert.equal(parseIpv4('10.0.0.1'), 0x0a000001);
    assert.equal(parseIpv4('255.255.255.255'), 0xffffffff);
    assert.equal(formatIpv4(ipv4Of(0xc0000207)), '192.0.2.7');
  });

  // Refused by Go's net.ParseIP as well.
  const wrong =
    '1.2.3|1.2.3.4.5|1.2.3.256|1.2.3.1000|01.2.3.4|1.2.3.04|010.1.1.1|1.2.3.-4|+1.2.3.4|1.2.3.4/24| 1.2.3.4|1.2.3.4 |1..3.4|.1.2.3|0x1.2.3.4|' +
    '16909060|::ffff:1.2.3.4|::1|１.2.3.4|1.2.3.4\n|';
  for (const text of wrong.split('|')) {
    it(`are not ${JSON.stringify(text)}`, () => assert.equal(parseIpv4(text), undefined));
  }

  it('read back what was written', () => {
    fc.assert(fc.property(fc.nat(0xffffffff), (value) => assert.equal(parseIpv4(formatIpv4(ipv4Of(value))), value)));
  });

  it('are what the platform takes for one', () => {
    const octet = fc.oneof(fc.nat(300).map(String), fc.constantFrom('', '00', '01', '256', 'a', ' 1'));
    const text = fc.array(octet, { minLength: 3, maxLength: 5 }).map((octets) => octets.join('.'));
    fc.assert(fc.property(text, (one) => assert.equal(parseIpv4(one) !== undefined, isIPv4(one))));
  });

  it('keep to their range', () => {
    for (const value of [-1, 0x1_0000_0000, 1.5, Number.NaN]) assert.throws(() => ipv4Of(value), RangeError);
  });
});
