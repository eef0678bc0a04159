import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { backendKind } from '../../backend/registry.ts';
import { parseNetConf } from '../../config/net-conf.ts';
import type { NetworkConfig } from '../../config/network-config.ts';
import { formatIpv4 } from '../../ip/ipv4.ts';
import { leaseKey, subnetsKey } from '../../lease/lease.ts';
import { annotationKeys, DEFAULT_ANNOTATION_PREFIX } from './annotations.ts';
import { leaseFamilies, nodeLease, ownSubnets } from './node-lease.ts';
import { type NodeRecord, nodeRecord } from './node-record.ts';

const keys = annotationKeys(DEFAULT_ANNOTATION_PREFIX);
const V4 = { ipv4: true, ipv6: false };
const V6 = { ipv4: false, ipv6: true };
const DUAL = { ipv4: true, ipv6: true };

function node(podCidrs: readonly string[], annotations: Record<string, string> = {}, podCidr?: string): NodeRecord {
  const short = Object.entries(annotations).map(([key, value]) => [`${DEFAULT_ANNOTATION_PREFIX}/${key}`, value]);
  const object = {
    metadata: { name: 'node1', uid: 'u', annotations: Object.fromEntries(short) },
    spec: { podCIDRs: podCidrs, ...(podCidr === undefined ? {} : { podCIDR: podCidr }) },
  };
  return nodeRecord(object, keys, 'node1');
}

function config(netConf: object): NetworkConfig {
  return parseNetConf(JSON.stringify(netConf), { source: 'test', validation: 'kube', backends: backendKind });
}

const MANAGED = {
  'kube-subnet-manager': 'true',
  'public-ip': '10.98.0.11',
  'backend-type': 'vxlan',
  'backend-data': '{"VNI":1}',
};
const DUAL_NODE = {
  ...MANAGED,
  'public-ipv6': 'fd98::11',
  'backend-v6-data': '{"VNI":1,"VtepMAC":"3a:32:ac:23:36:35"}',
};

describe('the lease that a node publishes', () => {
  test('IPv4', () => {
    const lease = nodeLease(node(['10.244.1.0/24'], MANAGED), V4, keys);
    assert.equal(lease && leaseKey(lease), '10.244.1.0-24');
    assert.ok(lease?.attrs.publicAddresses.ipv4 !== undefined);
    assert.equal(formatIpv4(lease.attrs.publicAddresses.ipv4), '10.98.0.11');
    assert.equal(lease.attrs.backendType, 'vxlan');
    assert.deepEqual(lease.attrs.backendData.ipv4, { VNI: 1 });
    assert.equal(lease.attrs.backendData.ipv6, undefined);
    assert.equal(lease.expiresAtMs, undefined);
  });

  test('spec.podCIDR counts when there is no list', () => {
    const lease = nodeLease(node([], MANAGED, '10.244.7.0/24'), V4, keys);
    assert.equal(lease && leaseKey(lease), '10.244.7.0-24');
  });

  test('both families, in either order', () => {
    for (const cidrs of [
      ['10.244.1.0/24', 'fd10:244::/64'],
      ['fd10:244::/64', '10.244.1.0/24'],
    ]) {
      const lease = nodeLease(node(cidrs, DUAL_NODE), DUAL, keys);
      assert.equal(lease && leaseKey(lease), '10.244.1.0-24&fd10:244::-64');
      assert.deepEqual(lease?.attrs.backendData.ipv6, { VNI: 1, VtepMAC: '3a:32:ac:23:36:35' });
    }
    const v6 = nodeLease(node(['10.244.1.0/24', 'fd10:244::/64'], DUAL_NODE), V6, keys);
    assert.equal(v6 && leaseKey(v6), 'fd10:244::-64');
  });

  test('with both families on, a peer that has one of them complete is reached by that one', () => {
    const onlyV4 = nodeLease(node(['10.244.1.0/24', 'fd10:244::/64'], MANAGED), DUAL, keys);
    assert.equal(onlyV4 && leaseKey(onlyV4), '10.244.1.0-24');
    const onlyV6 = nodeLease(node(['fd10:244::/64'], DUAL_NODE), DUAL, keys);
    assert.equal(onlyV6 && leaseKey(onlyV6), 'fd10:244::-64');
  });

  test('none without flannel on the node, or without a pod CIDR', () => {
    assert.equal(nodeLease(node(['10.244.1.0/24']), V4, keys), undefined);
    assert.equal(
      nodeLease(node(['10.244.1.0/24'], { ...MANAGED, 'kube-subnet-manager': 'false' }), V4, keys),
      undefined,
    );
    assert.equal(nodeLease(node([], MANAGED), V4, keys), undefined);
  });

  test('what cannot be read is named', () => {
    const broken: [readonly string[], Record<string, string>, RegExp][] = [
      [['10.244.1.0/24'], { ...MANAGED, 'public-ip': '10.98.0' }, /public-ip is not an address: "10\.98\.0"/],
      [['10.244.1.0/24'], { 'kube-subnet-manager': 'true' }, /public-ip is missing/],
      [['fd10:244::/64'], MANAGED, /missing IPv4 address on n\.Spec\.PodCIDRs: \[fd10:244::\/64\]/],
      [['10.244.1.0/24'], { ...MANAGED, 'backend-data': '{"VNI"' }, /backend-data is not JSON/],
      [['10.244.1.0/33'], MANAGED, /pod cidr "10\.244\.1\.0\/33" is not a CIDR/],
      [['10.1.0.0/24', 'fd::/64', '10.2.0.0/24'], MANAGED, /pod cidrs should be IPv4\/IPv6 only or dualstack/],
    ];
    for (const [cidrs, annotations, message] of broken) {
      assert.throws(() => nodeLease(node(cidrs, annotations), V4, keys), { message });
    }
  });

  test('whatever a Node object holds, it is a lease, none, or an error', () => {
    const text = fc.oneof(
      fc.string(),
      fc.ipV4(),
      fc.ipV6(),
      fc.json(),
      fc.constant('true'),
      fc.constant('10.1.2.0/24'),
    );
    const annotations = fc.dictionary(fc.constantFrom(...Object.values(keys)), fc.oneof(text, fc.jsonValue()));
    const object = fc.oneof(
      fc.jsonValue(),
      fc.record({
        metadata: fc.record({
          name: fc.oneof(text, fc.jsonValue()),
          annotations: fc.oneof(annotations, fc.jsonValue()),
        }),
        spec: fc.oneof(fc.jsonValue(), fc.record({ podCIDR: text, podCIDRs: fc.array(text) })),
        status: fc.jsonValue(),
      }),
    );
    fc.assert(
      fc.property(object, fc.constantFrom(V4, V6, DUAL), (value, families) => {
        let record: NodeRecord;
        try {
          record = nodeRecord(value, keys, 'own');
          assert.ok(record.name.length > 0);
          const lease = nodeLease(record, families, keys);
          if (lease !== undefined) assert.ok((lease.subnets.ipv4 ?? lease.subnets.ipv6) !== undefined);
        } catch (error) {
          assert.equal((error as Error).name, 'Error', String(error));
        }
      }),
    );
  });
});

describe('the families of a network', () => {
  test('IPv6 only for backends that have it', () => {
    const dual = (Type: string) => ({
      Network: '10.244.0.0/16',
      EnableIPv6: true,
      IPv6Network: 'fd10:244::/56',
      Backend: { Type },
    });
    for (const type of ['vxlan', 'host-gw', 'extension', 'udp'])
      assert.deepEqual(leaseFamilies(config(dual(type))), DUAL);
    for (const type of ['ipip', 'alloc']) assert.deepEqual(leaseFamilies(config(dual(type))), V4);
  });
});

describe('the subnets of the own node', () => {
  const v4 = config({ Network: '10.244.0.0/16' });
  const dual = config({
    Network: '10.244.0.0/16',
    EnableIPv6: true,
    IPv6Network: 'fd10:244::/56',
    Backend: { Type: 'vxlan' },
  });

  test('are its pod CIDRs', () => {
    assert.equal(subnetsKey(ownSubnets(node(['10.244.1.0/24']), v4)!), '10.244.1.0-24');
    assert.equal(subnetsKey(ownSubnets(node([], {}, '10.244.1.0/24'), v4)!), '10.244.1.0-24');
    assert.equal(subnetsKey(ownSubnets(node(['10.244.0.0/16']), v4)!), '10.244.0.0-16');
    assert.equal(
      subnetsKey(ownSubnets(node(['10.244.1.0/24', 'fd10:244::/64']), dual)!),
      '10.244.1.0-24&fd10:244::-64',
    );
    assert.equal(subnetsKey(ownSubnets(node(['10.244.1.0/24', 'fd10:244::/64']), v4)!), '10.244.1.0-24');
  });

  test('are waited for when there are none yet', () => {
    assert.equal(ownSubnets(node([]), v4), undefined);
  });

  test('must fit the configuration; the messages are those of flannel', () => {
    const cases: [readonly string[], NetworkConfig, string][] = [
      [
        ['10.245.1.0/24'],
        v4,
        'subnet "10.244.0.0/16" specified in the flannel net config doesn\'t contain "10.245.1.0/24" PodCIDR of the "node1" node',
      ],
      [
        ['10.0.0.0/8'],
        v4,
        'subnet "10.244.0.0/16" specified in the flannel net config doesn\'t contain "10.0.0.0/8" PodCIDR of the "node1" node',
      ],
      [
        ['10.244.1.0/24', 'fd99::/64'],
        dual,
        'subnet "fd10:244::/56" specified in the flannel net config doesn\'t contain "fd99::/64" IPv6 PodCIDR of the "node1" node',
      ],
      [
        ['10.244.1.0/24', 'fd::/64', '10.244.2.0/24'],
        v4,
        'node "node1" pod cidrs should be IPv4/IPv6 only or dualstack',
      ],
    ];
    for (const [cidrs, network, message] of cases) {
      assert.throws(() => ownSubnets(node(cidrs), network), { code: 'WEFT_KUBE_NODE', message });
    }
    assert.throws(() => ownSubnets(node(['fd10:244::/64']), dual), {
      code: 'WEFT_KUBE_NODE',
      message: /no IPv4 pod cidr/,
    });
    assert.throws(() => ownSubnets(node(['10.244.1.0/24']), dual), {
      code: 'WEFT_KUBE_NODE',
      message: /no IPv6 pod cidr/,
    });
    const v6Ipip = {
      ...dual,
      ipv4: undefined,
      backend: config({ Network: '10.244.0.0/16', Backend: { Type: 'ipip' } }).backend,
    };
    assert.throws(() => ownSubnets(node(['fd10:244::/64']), v6Ipip), {
      code: 'WEFT_KUBE_NODE',
      message: /has no IPv6/,
    });
  });
});
