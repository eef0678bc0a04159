import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { describe, test } from 'node:test';
import { openedBackend, requiredKeys } from '../../../test/fakes/backends.ts';
import { addresses } from '../../../test/fakes/host-networks.ts';
import { backendKinds } from '../../backend/registry.ts';
import { parseIpv4 } from '../../ip/ipv4.ts';
import { parseIpv6 } from '../../ip/ipv6.ts';
import type { JsonValue, LeaseAttrs } from '../../lease/lease.ts';
import { annotationKeys, DEFAULT_ANNOTATION_PREFIX } from './annotations.ts';
import { annotationChanges, annotationPatch, networkAvailablePatch } from './node-patch.ts';
import { type NodeRecord, nodeRecord } from './node-record.ts';

const keys = annotationKeys(DEFAULT_ANNOTATION_PREFIX);

function node(annotations: Record<string, string> = {}): NodeRecord {
  const full = Object.entries(annotations).map(([key, value]) => [`${DEFAULT_ANNOTATION_PREFIX}/${key}`, value]);
  return nodeRecord({ metadata: { name: 'node1', annotations: Object.fromEntries(full) } }, keys, 'node1');
}

function attrs(backendType: string, data?: JsonValue, v6Data?: JsonValue, v6 = true): LeaseAttrs {
  return {
    publicAddresses: { ipv4: parseIpv4('10.98.0.11'), ipv6: v6 ? parseIpv6('fd98::11') : undefined },
    backendType,
    backendData: { ipv4: data, ipv6: v6Data },
  };
}

/** Without the prefix. */
function changes(record: NodeRecord, wanted: LeaseAttrs): Record<string, string> {
  const all = Object.entries(annotationChanges(record, wanted, keys));
  return Object.fromEntries(all.map(([key, value]) => [key.replace(`${DEFAULT_ANNOTATION_PREFIX}/`, ''), value]));
}

/** flannel's rules, by the backend's name (pkg/subnet/kube/kube.go of flannel, AcquireLease). */
function flannelWrites(attrs: LeaseAttrs): { v4: boolean; v6: boolean } {
  const {
    backendType,
    backendData: { ipv4: backendData, ipv6: backendV6Data },
    publicAddresses: { ipv6: publicIpv6 },
  } = attrs;
  const [hasData, hasAddress] = [backendV6Data !== undefined, publicIpv6 !== undefined];
  // flannel's udp has no data; with IPv6, weft's has.
  const v6 = {
    '': hasData,
    vxlan: hasData,
    wireguard: hasData && hasAddress,
    'host-gw': hasAddress,
    extension: hasAddress,
  };
  return {
    v4: backendType !== 'vxlan' || backendData !== undefined,
    v6: new Map(Object.entries(v6)).get(backendType) ?? false,
  };
}

interface Audited {
  readonly verb: string;
  readonly objectRef: { readonly name?: string };
  readonly requestObject?: {
    readonly metadata?: unknown;
    readonly status?: { readonly conditions: { lastHeartbeatTime: string }[] };
  };
}

describe('requests equal those that were recorded of flannel', () => {
  const recorded = readFileSync(new URL('../../../test/golden/udp/40-audit.jsonl.txt', import.meta.url), 'utf8')
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line) as Audited)
    .filter(({ verb, objectRef }) => verb === 'patch' && objectRef.name === 'node1');

  test('annotations of the udp backend', () => {
    const [annotations] = recorded;
    const patch = annotationPatch(annotationChanges(node(), attrs('', undefined, undefined, false), keys));
    assert.equal(patch, JSON.stringify(annotations?.requestObject));
  });

  test('the condition NetworkUnavailable', () => {
    const condition = recorded[1]?.requestObject;
    const time = condition?.status?.conditions[0]?.lastHeartbeatTime;
    assert.ok(time !== undefined);
    assert.equal(networkAvailablePatch(new Date(time)), JSON.stringify(condition));
    assert.equal(recorded.length, 2);
  });
});

describe('which annotations which backend writes', () => {
  const vtep = (mac: string) => ({ VNI: 1, VtepMAC: mac });
  const base = { 'kube-subnet-manager': 'true', 'public-ip': '10.98.0.11' };

  test('data for both families, or for IPv6 alone: each family', () => {
    assert.deepEqual(changes(node(), attrs('vxlan', vtep('ce:a5:03:3d:6e:8f'), vtep('3a:32:ac:23:36:35'))), {
      ...base,
      'backend-data': '{"VNI":1,"VtepMAC":"ce:a5:03:3d:6e:8f"}',
      'backend-type': 'vxlan',
      'backend-v6-data': '{"VNI":1,"VtepMAC":"3a:32:ac:23:36:35"}',
      'public-ipv6': 'fd98::11',
    });
    assert.deepEqual(changes(node(), attrs('vxlan', undefined, vtep('3a:32:ac:23:36:35'))), {
      'kube-subnet-manager': 'true',
      'backend-type': 'vxlan',
      'backend-v6-data': '{"VNI":1,"VtepMAC":"3a:32:ac:23:36:35"}',
      'public-ipv6': 'fd98::11',
    });
  });

  test('no data: IPv6 when there is an address', () => {
    for (const type of ['host-gw', 'extension']) {
      assert.deepEqual(changes(node(), attrs(type)), {
        ...base,
        'backend-data': 'null',
        'backend-type': type,
        'backend-v6-data': 'null',
        'public-ipv6': 'fd98::11',
      });
      assert.equal('public-ipv6' in changes(node(), attrs(type, undefined, undefined, false)), false);
    }
  });

  test('every backend with every stack: those that flannel writes', async () => {
    for (const { type, families } of backendKinds()) {
      for (const stack of ['ipv4', 'ipv6', 'dual'] as const) {
        if (stack === 'ipv6' && !families.includes('ipv6')) continue;
        const netConf = JSON.stringify({
          ...(stack === 'ipv6' ? { EnableIPv4: false } : { Network: '10.244.0.0/16' }),
          ...(stack === 'ipv4' ? {} : { EnableIPv6: true, IPv6Network: 'fd10:244::/56' }),
          Backend: { Type: type, ...requiredKeys(type) },
        });
        const own = addresses(...(stack === 'ipv6' ? [] : ['10.98.0.11']), ...(stack === 'ipv4' ? [] : ['fd98::11']));
        const { attrs } = await openedBackend(netConf, {
          ...{ name: 'eth0', mtuBytes: 1500, onLink: [] },
          ...{ addresses: own, publicAddresses: own },
        });
        const written = Object.keys(changes(node(), attrs)).filter((key) => /-data|public-ip/.test(key));
        const { v4: flannelV4, v6 } = flannelWrites(attrs);
        // flannel writes `null` for the family of a tunnel that is not there, which nobody reads.
        const v4 = flannelV4 && !(['wireguard', 'udp'].includes(type) && stack === 'ipv6');
        const expected = [
          ...(v4 ? ['backend-data'] : []),
          ...(v6 ? ['backend-v6-data'] : []),
          ...(v4 && own.ipv4 !== undefined ? ['public-ip'] : []),
          ...(v6 ? ['public-ipv6'] : []),
        ];
        assert.deepEqual(written, expected, `${type}, ${stack}`);
      }
    }
  });

  test('JSON as Go writes it', () => {
    const data = 'a <b> & \u2028 "c"';
    assert.equal(
      changes(node(), attrs('extension', data))['backend-data'],
      '"a \\u003cb\\u003e \\u0026 \\u2028 \\"c\\""',
    );
  });
});

describe('changes', () => {
  test('are only those that are needed', () => {
    const there = {
      'kube-subnet-manager': 'true',
      'backend-type': '',
      'backend-data': 'null',
      'public-ip': '10.98.0.11',
    };
    const udp = attrs('', undefined, undefined, false);
    assert.deepEqual(changes(node(there), udp), {});
    assert.deepEqual(changes(node({ ...there, 'public-ip': '10.98.0.12' }), udp), { 'public-ip': '10.98.0.11' });
    assert.deepEqual(changes(node({ ...there, 'kube-subnet-manager': 'false' }), udp), {
      'kube-subnet-manager': 'true',
    });
  });

  test('take an address that the user overwrites', () => {
    const user = { 'public-ip-overwrite': '172.18.0.2', 'public-ipv6-overwrite': '2001:db8::2' };
    const wanted = changes(node(user), attrs('host-gw'));
    assert.equal(wanted['public-ip'], '172.18.0.2');
    assert.equal(wanted['public-ipv6'], '2001:db8::2');
    const written = changes(node({ ...user, ...wanted }), attrs('host-gw'));
    assert.deepEqual(written, {});
  });
});
