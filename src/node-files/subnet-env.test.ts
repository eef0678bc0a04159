import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { backendKind } from '../backend/registry.ts';
import { parseNetConf } from '../config/net-conf.ts';
import { ipv4Of } from '../ip/ipv4.ts';
import { ipv6Of } from '../ip/ipv6.ts';
import { formatPrefix4, formatPrefix6, parsePrefix4, parsePrefix6, prefix4, prefix6 } from '../ip/prefix.ts';
import { formatSubnetEnv, parseSubnetEnv } from './subnet-env.ts';

const both = parseNetConf(
  '{"Network":"10.42.0.0/16","EnableIPv6":true,"IPv6Network":"2001:cafe:42::/56","Backend":{"Type":"vxlan"}}',
  { source: 'test', validation: 'kube', backends: backendKind },
);
const subnet = parsePrefix4('10.42.0.0/24')!;
const ipv6Subnet = parsePrefix6('2001:cafe:42::/64')!;
const options = { mtuBytes: 1450, ipMasq: true };

describe('subnet.env: text', () => {
  it('is that of flannel in dual stack', () => {
    assert.equal(
      formatSubnetEnv({ config: both, subnets: { ipv4: subnet, ipv6: ipv6Subnet }, ...options }),
      'FLANNEL_NETWORK=10.42.0.0/16\nFLANNEL_SUBNET=10.42.0.1/24\n' +
        'FLANNEL_IPV6_NETWORK=2001:cafe:42::/56\nFLANNEL_IPV6_SUBNET=2001:cafe:42::1/64\n' +
        'FLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n',
    );
  });

  it('is that of flannel for one family', () => {
    const config = { ipv4: both.ipv4, ipv6: undefined };
    assert.equal(
      formatSubnetEnv({ config, subnets: { ipv4: subnet, ipv6: undefined }, mtuBytes: 1472, ipMasq: false }),
      'FLANNEL_NETWORK=10.42.0.0/16\nFLANNEL_SUBNET=10.42.0.1/24\nFLANNEL_MTU=1472\nFLANNEL_IPMASQ=false\n',
    );
    const v6 = {
      config: { ipv4: undefined, ipv6: both.ipv6 },
      subnets: { ipv4: undefined, ipv6: ipv6Subnet },
      ...options,
    };
    assert.doesNotMatch(formatSubnetEnv(v6), /FLANNEL_NETWORK|FLANNEL_SUBNET/);
  });

  it('leaves out a family that is enabled but not leased, as with a backend for IPv4 only', () => {
    const text = formatSubnetEnv({ config: both, subnets: { ipv4: subnet, ipv6: undefined }, ...options });
    assert.doesNotMatch(text, /IPV6/);
  });
});

describe('subnet.env: reading', () => {
  it('gives back what was written', () => {
    const v4 = fc
      .tuple(fc.nat(0xffffffff), fc.integer({ min: 1, max: 31 }))
      .map(([addr, length]) => prefix4(ipv4Of(addr), length));
    const v6 = fc
      .tuple(fc.bigInt({ min: 0n, max: (1n << 128n) - 1n }), fc.integer({ min: 1, max: 127 }))
      .map(([addr, length]) => prefix6(ipv6Of(addr), length));
    fc.assert(
      fc.property(v4, v6, fc.integer({ min: 68, max: 65_535 }), fc.boolean(), (one, other, mtuBytes, ipMasq) => {
        const text = formatSubnetEnv({ config: both, subnets: { ipv4: one, ipv6: other }, mtuBytes, ipMasq });
        const reading = parseSubnetEnv(text, 'f');
        assert.deepEqual(reading, {
          networks: { ipv4: both.ipv4!.network, ipv6: both.ipv6!.network },
          subnets: { ipv4: one, ipv6: other },
          problems: [],
        });
      }),
    );
  });

  it('takes dotenv syntax', () => {
    const reading = parseSubnetEnv(
      '# written by hand\n\nexport FLANNEL_NETWORK="10.42.0.0/16"\n FLANNEL_SUBNET = 10.42.7.1/24 # mine\r\n',
      'f',
    );
    assert.equal(formatPrefix4(reading.networks.ipv4!), '10.42.0.0/16');
    assert.equal(formatPrefix4(reading.subnets.ipv4!), '10.42.7.0/24');
    assert.deepEqual(reading.problems, []);
  });

  it('skips entries that are no CIDR, of either family', () => {
    const reading = parseSubnetEnv(
      'FLANNEL_SUBNET=10.42.7.1,10.42.7.1/24,fd00::/64\nFLANNEL_IPV6_SUBNET=fd00::1/64,10.42.7.1/24\n',
      'f',
    );
    assert.equal(formatPrefix4(reading.subnets.ipv4!), '10.42.7.0/24');
    assert.equal(formatPrefix6(reading.subnets.ipv6!), 'fd00::/64');
    assert.equal(reading.problems.length, 3);
    assert.match(reading.problems[0]!, /^FLANNEL_SUBNET in f: "10\.42\.7\.1" is not a subnet/);
  });

  it('has nothing when all entries are invalid, or more than one is valid', () => {
    const invalid = parseSubnetEnv('FLANNEL_SUBNET=x,y/24\nFLANNEL_IPV6_SUBNET=fd00::/129\n', 'f');
    assert.deepEqual([invalid.subnets.ipv4, invalid.subnets.ipv6], [undefined, undefined]);
    const two = parseSubnetEnv('FLANNEL_SUBNET=10.1.0.0/24,10.2.0.0/24\n', 'f');
    assert.equal(two.subnets.ipv4, undefined);
    assert.deepEqual(two.problems, ['FLANNEL_SUBNET in f: more than one entry']);
  });

  it('counts spellings of one network once', () => {
    const reading = parseSubnetEnv(
      'FLANNEL_NETWORK=10.42.0.0/16,10.42.5.0/16\nFLANNEL_SUBNET=10.42.7.1/24,10.42.7.0/24\nFLANNEL_IPV6_SUBNET=fd00::1/64,fd00:0::/64\n',
      'f',
    );
    assert.equal(formatPrefix4(reading.networks.ipv4!), '10.42.0.0/16');
    assert.equal(formatPrefix4(reading.subnets.ipv4!), '10.42.7.0/24');
    assert.equal(formatPrefix6(reading.subnets.ipv6!), 'fd00::/64');
    assert.deepEqual(reading.problems, []);
  });

  it('names what cannot be seen', () => {
    const marked = parseSubnetEnv('\ufeffFLANNEL_NETWORK=10.42.0.0/16\nFLANNEL_SUBNET=10.42.7.1/24\u200b\n', 'f');
    assert.deepEqual([marked.networks.ipv4, marked.subnets.ipv4], [undefined, undefined]);
    assert.deepEqual(marked.problems, [
      'f: line 1, column 1 has U+FEFF (byte order mark), which is part of a key or value for programs that read it',
      'FLANNEL_SUBNET in f: "10.42.7.1/24<U+200B (zero width space)>" is not a subnet of that family',
    ]);
  });

  it('never throws', () => {
    const lines = fc.array(
      fc.constantFrom('FLANNEL_SUBNET=', '"', "'", '\n', '10.1.0.0/24', ',', '=', '#', '`', 'export '),
    );
    fc.assert(
      fc.property(
        fc.oneof(
          fc.string(),
          lines.map((parts) => parts.join('')),
        ),
        (text) => void parseSubnetEnv(text, 'f'),
      ),
    );
  });
});
