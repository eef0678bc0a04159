import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { perFamily } from '../ip/family.ts';
import { formatCidr } from './ip-text.ts';
import { parsePluginSubnetEnv } from './plugin-subnet-env.ts';

const parse = (text: string) => {
  const { networks, subnets, ...others } = parsePluginSubnetEnv(text, '/run/flannel/subnet.env');
  return {
    networks: perFamily((key) => networks[key].map(formatCidr)),
    subnets: perFamily((key) => subnets[key] && formatCidr(subnets[key])),
    ...others,
  };
};

const IPV4 = '\nFLANNEL_NETWORK=10.1.0.0/16\nFLANNEL_SUBNET=10.1.17.1/24\nFLANNEL_MTU=1472\nFLANNEL_IPMASQ=true\n';
const IPV6 = 'FLANNEL_IPV6_NETWORK=fc00::/48\nFLANNEL_IPV6_SUBNET=fc00::1/64\nFLANNEL_MTU=1472\nFLANNEL_IPMASQ=true\n';

describe("the CNI plugin's subnet.env", () => {
  it('is read for one family or both', () => {
    const others = { mtuBytes: 1472, ipMasq: true };
    assert.deepEqual(parse(IPV4), {
      networks: { ipv4: ['10.1.0.0/16'], ipv6: [] },
      subnets: { ipv4: '10.1.17.0/24', ipv6: undefined },
      ...others,
    });
    assert.deepEqual(parse(IPV6), {
      networks: { ipv4: [], ipv6: ['fc00::/48'] },
      subnets: { ipv4: undefined, ipv6: 'fc00::/64' },
      ...others,
    });
    assert.deepEqual(parse(IPV4 + IPV6), {
      networks: { ipv4: ['10.1.0.0/16'], ipv6: ['fc00::/48'] },
      subnets: { ipv4: '10.1.17.0/24', ipv6: 'fc00::/64' },
      ...others,
    });
  });

  it('may list several networks, each counted once', () => {
    const env = parse(IPV4.replace('10.1.0.0/16', '10.1.0.0/16,192.168.0.0/16,10.1.0.0/16'));
    assert.deepEqual(env.networks.ipv4, ['10.1.0.0/16', '192.168.0.0/16']);
    const spelled = parse(IPV4.replace('10.1.0.0/16', '10.1.0.0/16,10.1.5.0/16'));
    assert.deepEqual(spelled.networks.ipv4, ['10.1.0.0/16']);
    assert.deepEqual(parse(IPV6.replace('fc00::/48', 'fc00::/48,fc00:0::1/48')).networks.ipv6, ['fc00::/48']);
  });

  it('names what cannot be seen in it', () => {
    assert.throws(() => parse(`\ufeff${IPV4.slice(1)}`), {
      message:
        '/run/flannel/subnet.env is missing FLANNEL_NETWORK, FLANNEL_IPV6_NETWORK (line 1, column 1 has U+FEFF (byte order mark))',
    });
    assert.throws(
      () => parse(IPV4.replace('/24', '/24\u00a0')),
      /invalid CIDR address: 10\.1\.17\.1\/24<U\+00A0 \(no-break/,
    );
  });

  it('is split at the first =, neither trimmed nor unquoted; other keys and blank lines do not matter', () => {
    assert.equal(parse(`# comment\nOTHER=x=y\nnonsense\n${IPV4}`).mtuBytes, 1472);
    assert.equal(parse(IPV4.replace('true', 'TRUE')).ipMasq, false);
    assert.equal(parse(IPV4.replace('true', 'true ')).ipMasq, false);
    assert.equal(parse(IPV4.replace('true', '')).ipMasq, false);
    assert.equal(parse(IPV4.replaceAll('\n', '\r\n')).ipMasq, true);
    assert.throws(() => parse(IPV4.replace('=10.1.17.1/24', '="10.1.17.1/24"')), /invalid CIDR address: "10/);
    assert.throws(() => parse(IPV4.replace('FLANNEL_MTU', ' FLANNEL_MTU')), /is missing FLANNEL_MTU$/);
  });

  it('names every missing key; of the two families, one is enough', () => {
    assert.throws(() => parse(''), {
      message:
        '/run/flannel/subnet.env is missing FLANNEL_NETWORK, FLANNEL_IPV6_NETWORK, FLANNEL_SUBNET, FLANNEL_IPV6_SUBNET, FLANNEL_MTU, FLANNEL_IPMASQ',
    });
    assert.throws(() => parse(IPV4.replace(/FLANNEL_SUBNET.*\n/, '')), {
      message: '/run/flannel/subnet.env is missing FLANNEL_SUBNET, FLANNEL_IPV6_SUBNET',
    });
    assert.throws(() => parse(IPV6.replace(/FLANNEL_IPMASQ.*\n/, '')), {
      message: '/run/flannel/subnet.env is missing FLANNEL_IPMASQ',
    });
  });

  it('says what cannot be used', () => {
    assert.throws(() => parse(IPV4.replace('=1472', '')), /FLANNEL_MTU has no value/);
    for (const mtu of ['', '-1', '1472.0', '0x10', '4294967296', ' 1472', '+1']) {
      assert.throws(() => parse(IPV4.replace('1472', mtu)), /FLANNEL_MTU: want a number below 2\^32/, mtu);
    }
    assert.equal(parse(IPV4.replace('1472', '4294967295')).mtuBytes, 4294967295);
    for (const cidr of ['', '10.1.0.0', '10.1.0.0/33', '10.1.0.0/16,', '10.1.0.0/16, 10.2.0.0/16']) {
      assert.throws(() => parse(IPV4.replace('10.1.0.0/16', cidr)), /FLANNEL_NETWORK: invalid CIDR address/, cidr);
    }
  });
});
