import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { backendKind } from '../backend/registry.ts';
import { inspectNetConf, parseNetConf } from './net-conf.ts';
import { describeUnusualNetworks } from './unusual-network.ts';

function warnings(conf: object, validation: 'full' | 'kube' = 'full'): string[] {
  const text = JSON.stringify({ Backend: { Type: 'host-gw' }, ...conf });
  const inspected = inspectNetConf(text, { validation, backends: backendKind }).warnings.map(
    ({ path, message }) => `${path}: ${message}`,
  );
  // The agent, which has the configuration alone, says the same.
  const config = parseNetConf(text, { source: 'f', validation, backends: backendKind });
  assert.deepEqual(
    describeUnusualNetworks(config, validation === 'full'),
    inspected.map((line) => line.replace(': ', ' in the network configuration: ')),
  );
  return inspected;
}

describe('an unusual Network', () => {
  for (const Network of [
    '10.0.0.0/8',
    '10.244.0.0/16',
    '172.16.0.0/12',
    '100.64.0.0/10',
    '192.168.0.0/16',
    '10.1.0.0/21',
  ]) {
    it(`${Network} is not`, () => assert.deepEqual(warnings({ Network }), []));
  }

  it('has special addresses', () => {
    for (const [Network, range, what] of [
      ['127.0.0.0/8', '127.0.0.0/8', 'loopback'],
      ['127.16.0.0/16', '127.0.0.0/8', 'loopback'],
      ['239.0.0.0/16', '224.0.0.0/4', 'multicast'],
      ['250.0.0.0/16', '240.0.0.0/4', 'reserved'],
      ['169.254.0.0/16', '169.254.0.0/16', 'link-local'],
      ['0.4.0.0/16', '0.0.0.0/8', '"this network"'],
    ] as const) {
      const [warning, ...more] = warnings({ Network });
      assert.ok(warning!.startsWith(`$.Network: ${Network} has addresses of ${range}, ${what}`), warning ?? Network);
      assert.deepEqual(more, []);
    }
    const dual = { Network: '10.244.0.0/16', EnableIPv6: true };
    for (const [IPv6Network, what] of [
      ['fe80::/48', 'link-local'],
      ['ff05::/48', 'multicast'],
    ] as const) {
      assert.match(
        warnings({ ...dual, IPv6Network }).join(),
        new RegExp(`^\\$\\.IPv6Network: ${IPv6Network} has .*${what}`),
      );
    }
    assert.deepEqual(warnings({ ...dual, IPv6Network: 'fd00:10:244::/56' }), []);
  });

  it('is huge', () => {
    assert.deepEqual(warnings({ Network: '12.0.0.0/7' }), [
      '$.Network: 12.0.0.0/7 is huge: containers cannot reach hosts outside the network that have one of its addresses',
    ]);
    const half = warnings({ Network: '128.0.0.0/1' });
    assert.equal(half.length, 4, half.join('\n'));
  });

  it('is tiny: by what a host gets and how many hosts get it, or by its addresses with Kubernetes', () => {
    assert.deepEqual(warnings({ Network: '10.1.2.0/28' }), [
      '$.Network: 10.1.2.0/28 is tiny: it has room for 3 hosts with up to 1 containers each (/30)',
    ]);
    assert.deepEqual(warnings({ Network: '10.1.0.0/16', SubnetMin: '10.1.9.0', SubnetMax: '10.1.9.0' }), [
      '$.Network: 10.1.0.0/16 is tiny: it has room for 1 host with up to 253 containers each (/24)',
    ]);
    assert.deepEqual(warnings({ Network: '10.1.2.0/28' }, 'kube'), [
      '$.Network: 10.1.2.0/28 is tiny: all hosts together have 16 addresses for containers',
    ]);
    assert.deepEqual(warnings({ Network: '10.1.2.0/24' }, 'kube'), []);
  });
});
