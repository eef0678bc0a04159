import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { ipv4Of, parseIpv4 } from '../ip/ipv4.ts';
import { ipv6Of, parseIpv6 } from '../ip/ipv6.ts';
import { parsePrefix4, parsePrefix6, prefix4, prefix6 } from '../ip/prefix.ts';
import { type JsonValue, type LeaseAttrs, subnetsKey } from './lease.ts';
import { decodeLeaseValue, encodeLeaseValue, parseEtcdLeaseKey, parseLeaseKey } from './lease-codec.ts';
import type { Subnets } from './subnets.ts';

function subnets(v4: string | undefined, v6?: string): Subnets {
  return { ipv4: v4 && parsePrefix4(v4), ipv6: v6 && parsePrefix6(v6) } as Subnets;
}

const anyPrefix4 = (max: number) =>
  fc.tuple(fc.nat(0xffffffff), fc.integer({ min: 0, max })).map(([addr, length]) => prefix4(ipv4Of(addr), length));
const anyPrefix6 = (max: number) =>
  fc
    .tuple(fc.bigInt({ min: 0n, max: (1n << 128n) - 1n }), fc.integer({ min: 0, max }))
    .map(([addr, length]) => prefix6(ipv6Of(addr), length));

describe('lease keys', () => {
  it('read back what was written, for one family or both', () => {
    const anySubnets = fc
      .tuple(fc.option(anyPrefix4(32), { nil: undefined }), fc.option(anyPrefix6(128), { nil: undefined }))
      .map(([ipv4, ipv6]) => ({ ipv4, ipv6 }))
      .filter((one) => (one.ipv4 ?? one.ipv6) !== undefined);
    fc.assert(fc.property(anySubnets, (one) => assert.deepEqual(parseLeaseKey(subnetsKey(one)), one)));
  });

  it('refuse every other spelling', () => {
    for (const key of [
      '',
      '10.5.1.0',
      '10.5.1.0/24',
      '10.5.1.7-24',
      '10.5.1.0-024',
      '10.5.1.0-33',
      ' 10.5.1.0-24',
      '10.5.1.0-24&',
      '&fd00::-56',
      '10.5.1.0-24&fd00:0::-56',
      '10.5.1.0-24&FD00::-56',
      'fd00::-56&10.5.1.0-24',
      '10.5.1.0-24&10.5.2.0-24',
      '10.5.1.0-24&fd00::-56&fd01::-56',
    ]) {
      assert.equal(parseLeaseKey(key), undefined, key);
    }
  });

  it('never throw', () => {
    const text = fc.oneof(fc.string(), fc.string({ unit: fc.constantFrom(...'0123456789abcdef.:-&/') }));
    fc.assert(fc.property(text, (key) => void [parseLeaseKey(key), parseEtcdLeaseKey(key)]));
  });
});

describe('etcd lease keys', () => {
  it('read back what was written', () => {
    const one = fc
      .tuple(anyPrefix4(31), fc.option(anyPrefix6(127), { nil: undefined }))
      .map(([ipv4, ipv6]) => ({ ipv4, ipv6 }));
    const prefix = fc.constantFrom('/coreos.com/network', '', '/a-1/b&c');
    fc.assert(
      fc.property(prefix, one, (p, lease) =>
        assert.deepEqual(parseEtcdLeaseKey(`${p}/subnets/${subnetsKey(lease)}`), lease),
      ),
    );
  });

  // flannel's own unit tests refuse these.
  for (const key of [
    '10',
    '10.12.13.0',
    '10.12.13-24',
    '10.12.13.300-24',
    '10.12.13.0-24hi',
    '&2001::-56',
    '10.12.13.0-24&:12:13:-56',
    '10.12.13.0-24&20011::-56',
    '10.12.13.0-24&2001-56',
    '10.12.13.0-24&2001::',
    '10.12.13.0-24&2001::-56hi',
    '10.12.13.0-32',
    '10.12.13.0-24&2001::-128',
    '10.12.13.0-99999999999999999999',
    '010.12.13.0-24',
    '10.12.13.0-24\n',
  ]) {
    it(`refuse ${JSON.stringify(key)}`, () =>
      assert.equal(parseEtcdLeaseKey(`/coreos.com/network/subnets/${key}`), undefined));
  }

  it('are tied to their end only, and lose host bits', () => {
    assert.deepEqual(parseEtcdLeaseKey('anything10.12.13.7-24'), subnets('10.12.13.0/24'));
    assert.deepEqual(parseEtcdLeaseKey('/x/10.12.13.0-24&fd00:0::1-56'), subnets('10.12.13.0/24', 'fd00::/56'));
  });
});

const BARE: LeaseAttrs = {
  publicAddresses: { ipv4: parseIpv4('1.2.3.4')!, ipv6: undefined },
  backendType: '',
  backendData: { ipv4: undefined, ipv6: undefined },
};

describe('lease values', () => {
  const known: [LeaseAttrs, string][] = [
    [BARE, '{"PublicIP":"1.2.3.4","PublicIPv6":null}'],
    [
      {
        ...BARE,
        publicAddresses: { ...BARE.publicAddresses, ipv4: parseIpv4('10.98.0.12')! },
        backendType: 'vxlan',
        backendData: { ...BARE.backendData, ipv4: { VNI: 1, VtepMAC: '62:ed:4b:9d:8c:0b' } },
      },
      '{"PublicIP":"10.98.0.12","PublicIPv6":null,"BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"62:ed:4b:9d:8c:0b"}}',
    ],
    [
      {
        ...BARE,
        publicAddresses: { ...BARE.publicAddresses, ipv6: parseIpv6('2001:db8::1')! },
        backendType: 'vxlan',
        backendData: { ...BARE.backendData, ipv6: { VNI: 1 } },
      },
      '{"PublicIP":"1.2.3.4","PublicIPv6":"2001:db8::1","BackendType":"vxlan","BackendV6Data":{"VNI":1}}',
    ],
    [
      { ...BARE, publicAddresses: { ipv4: undefined, ipv6: parseIpv6('2001:db8::1')! } },
      '{"PublicIP":"0.0.0.0","PublicIPv6":"2001:db8::1"}',
    ],
    [
      { ...BARE, backendType: 'extension', backendData: { ...BARE.backendData, ipv4: '<a&b>' } },
      '{"PublicIP":"1.2.3.4","PublicIPv6":null,"BackendType":"extension","BackendData":"\\u003ca\\u0026b\\u003e"}',
    ],
  ];
  for (const [attrs, text] of known) {
    it(`are ${text}, to the byte`, () => {
      assert.equal(encodeLeaseValue(attrs), text);
      assert.deepEqual(decodeLeaseValue(text), { ok: true, attrs });
    });
  }

  it('are read as Go reads them', () => {
    const text = '{"publicip":"9.9.9.9","PUBLICIP":"1.2.3.4","Other":{},"backendtype":null,"BackendData":null}';
    assert.deepEqual(decodeLeaseValue(text), {
      ok: true,
      attrs: { ...BARE, backendData: { ipv4: null, ipv6: undefined } },
    });
  });

  const junk: [string, RegExp][] = [
    ['', /^not JSON: unexpected end/],
    ['garbage', /^not JSON: invalid character 'g'/],
    ['null', /^not an object but null$/],
    ['[]', /^not an object but array$/],
    ['{}', /^no public address$/],
    ['{"PublicIP":"0.0.0.0","PublicIPv6":null}', /^no public address$/],
    ['{"PublicIP":"1.2.3.400"}', /^PublicIP is not an IPv4 address$/],
    ['{"PublicIP":7}', /^PublicIP is not an IPv4 address$/],
    ['{"PublicIP":"1.2.3.4","PublicIPv6":"1.2.3.4"}', /^PublicIPv6 is not an IPv6 address$/],
    ['{"PublicIP":"1.2.3.4","BackendType":3}', /^BackendType is not a string$/],
  ];
  for (const [text, reason] of junk) {
    it(`refuse ${JSON.stringify(text)} with a reason`, () => {
      const result = decodeLeaseValue(text);
      assert.ok(!result.ok);
      assert.match(result.reason, reason);
    });
  }

  it('never throw', () => {
    fc.assert(fc.property(fc.oneof(fc.string(), fc.json()), (text) => void decodeLeaseValue(text)));
  });

  it('read back what was written', () => {
    // JSON has no -0.
    const data = fc.option(
      fc.jsonValue().map((value) => JSON.parse(JSON.stringify(value)) as JsonValue),
      { nil: undefined },
    );
    const plain = <T>(members: { [K in keyof T]: fc.Arbitrary<T[K]> }) => fc.record(members, { noNullPrototype: true });
    const attrs = plain({
      publicAddresses: plain({
        ipv4: fc.integer({ min: 1, max: 0xffffffff }).map(ipv4Of),
        ipv6: fc.option(fc.bigInt({ min: 1n, max: (1n << 128n) - 1n }).map(ipv6Of), { nil: undefined }),
      }),
      backendType: fc.constantFrom('', 'vxlan', 'host-gw'),
      backendData: plain({ ipv4: data, ipv6: data }),
    });
    fc.assert(
      fc.property(attrs, (one) => {
        const text = encodeLeaseValue(one);
        assert.doesNotMatch(text, /[<>&\u2028\u2029]/);
        const result = decodeLeaseValue(text);
        assert.ok(result.ok);
        assert.deepEqual(result.attrs, one);
      }),
    );
  });
});
