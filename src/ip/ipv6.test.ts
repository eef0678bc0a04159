import assert from 'node:assert/strict';
import { isIPv6 } from 'node:net';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { formatIpv6, IPV6_MAX, ipv6At, ipv6Of, parseIpv6, putIpv6 } from './ipv6.ts';

const anyAddr = fc.oneof(
  fc.bigInt({ min: 0n, max: IPV6_MAX }),
  // Zero groups in all places, for the compression.
  fc
    .array(fc.constantFrom<bigint>(0n, 0n, 1n, 0xffffn), { minLength: 8, maxLength: 8 })
    .map((groups) => groups.reduce((value: bigint, group) => (value << 16n) | group, 0n)),
);

describe('IPv6 addresses', () => {
  it('are 16 bytes in network order, wherever they begin', () => {
    fc.assert(
      fc.property(anyAddr, fc.nat(3), (value, offset) => {
        const view = new DataView(new ArrayBuffer(offset + 16));
        putIpv6(view, offset, value);
        assert.equal(Buffer.from(view.buffer).toString('hex', offset), value.toString(16).padStart(32, '0'));
        assert.equal(ipv6At(view, offset), value);
      }),
    );
  });

  const canonical: [string, string][] = [
    ['::', '::'],
    ['::1', '::1'],
    ['1::', '1::'],
    ['0:0:0:0:0:0:0:0', '::'],
    ['FD00:10:244::', 'fd00:10:244::'],
    ['fc00:0:0:ffff::', 'fc00:0:0:ffff::'],
    ['2001:0db8:0000:0000:0001:0000:0000:0001', '2001:db8::1:0:0:1'],
    ['2001:db8:0:1:1:1:1:1', '2001:db8:0:1:1:1:1:1'],
    ['1:0:0:2:0:0:0:3', '1:0:0:2::3'],
    ['1:2:3:4:5:6:7::', '1:2:3:4:5:6:7:0'],
    ['::ffff:1.2.3.4', '::ffff:102:304'],
    ['64:ff9b::192.0.2.33', '64:ff9b::c000:221'],
    ['1:2:3:4:5:6:1.2.3.4', '1:2:3:4:5:6:102:304'],
  ];
  for (const [text, expected] of canonical) {
    it(`${text} is ${expected}`, () => assert.equal(formatIpv6(parseIpv6(text)!), expected));
  }

  // Refused by Go's net.ParseIP as well.
  const wrong =
    '|:|:::|1::2::3|1:2:3:4:5:6:7|1:2:3:4:5:6:7:8:9|1:2:3:4:5:6:7::8:9|12345::|g::|fe80::1%eth0|::1/128| ::1|::1 |1.2.3.4|::1.2.3|' +
    '::01.2.3.4|::1.2.3.256|1.2.3.4::|::1.2.3.4:5|1:2:3:4:5:6:7:1.2.3.4|[::1]|::1\n|0x1::';
  for (const text of wrong.split('|')) {
    it(`are not ${JSON.stringify(text)}`, () => assert.equal(parseIpv6(text), undefined));
  }

  it('read back what was written', () => {
    fc.assert(fc.property(anyAddr, (value) => assert.equal(parseIpv6(formatIpv6(ipv6Of(value))), value)));
  });

  it('read every way of writing one', () => {
    const dotted = (value: bigint) => [24n, 16n, 8n, 0n].map((shift) => (value >> shift) & 255n).join('.');
    const spelling = fc.record({ upper: fc.boolean(), pad: fc.boolean(), tail: fc.boolean() });
    fc.assert(
      fc.property(anyAddr, spelling, (value, { upper, pad, tail }) => {
        const groups = Array.from({ length: 8 }, (_, i) => {
          const hex = ((value >> BigInt(112 - 16 * i)) & 0xffffn).toString(16);
          return pad ? hex.padStart(4, '0') : hex;
        });
        const text = tail ? [...groups.slice(0, 6), dotted(value)].join(':') : groups.join(':');
        assert.equal(parseIpv6(upper ? text.toUpperCase() : text), value);
      }),
    );
  });

  it('are written as the URL parser writes them, which follows RFC 5952 too', () => {
    fc.assert(
      fc.property(anyAddr, (value) => {
        assert.equal(`[${formatIpv6(ipv6Of(value))}]`, new URL(`http://[${formatIpv6(ipv6Of(value))}]`).hostname);
      }),
    );
  });

  it('are what the platform takes for one', () => {
    const part = fc.constantFrom(':', '::', '0', 'f', 'ffff', '12345', '1.2.3.4', '01.2.3.4', '.', 'g', 'db8', ':1');
    const text = fc.array(part, { maxLength: 16 }).map((parts) => parts.join(''));
    fc.assert(
      fc.property(text, (one) => assert.equal(parseIpv6(one) !== undefined, isIPv6(one), one)),
      { numRuns: 2000 },
    );
  });

  it('keep to their range', () => {
    for (const value of [-1n, IPV6_MAX + 1n]) assert.throws(() => ipv6Of(value), RangeError);
  });
});
