import assert from 'node:assert/strict';
import { mkdtemp, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { addresses } from '../../test/fakes/host-networks.ts';
import { backendKind } from '../backend/registry.ts';
import { parseNetConf } from '../config/net-conf.ts';
import { parseIpv4 } from '../ip/ipv4.ts';
import { parseIpv6 } from '../ip/ipv6.ts';
import { parsePrefix4, parsePrefix6 } from '../ip/prefix.ts';
import type { Lease } from '../lease/lease.ts';
import {
  describeNetworkConfig,
  formatLastKnown,
  type LastKnown,
  lastKnownPath,
  parseLastKnown,
  readLastKnown,
  writeLastKnown,
} from './last-known.ts';

const NET_CONF = {
  Network: '10.244.0.0/16',
  EnableIPv6: true,
  IPv6Network: 'fd00:244::/48',
  SubnetLen: 25,
  SubnetMin: '10.244.9.0',
  Backend: { Type: 'vxlan', VNI: 7, Nested: { list: [1, null, 'x'] } },
};

function known(): LastKnown {
  const lease = (subnet: string, ipv6Subnet: string | undefined, host: number, expiresAtMs?: number): Lease => ({
    subnets: { ipv4: parsePrefix4(subnet), ipv6: ipv6Subnet === undefined ? undefined : parsePrefix6(ipv6Subnet) },
    attrs: {
      publicAddresses: { ipv4: parseIpv4(`192.168.77.${host}`), ipv6: parseIpv6(`fd77::${host}`) },
      backendType: 'vxlan',
      backendData: { ipv4: { VNI: 1, VtepMAC: '82:4b:<&>' }, ipv6: undefined },
    },
    expiresAtMs,
  });
  return {
    source: 'etcd /coreos.com/network',
    config: parseNetConf(JSON.stringify(NET_CONF), { source: 'test', validation: 'full', backends: backendKind }),
    node: { publicAddresses: { ipv4: '203.0.113.7', ipv6: undefined }, internalIps: ['192.168.77.1', 'fd77::1'] },
    external: { name: 'eth0', addresses: addresses('192.168.77.1', 'fd77::1') },
    own: lease('10.244.9.0/25', 'fd00:244:0:1::/64', 1, 1_800_000_000_000),
    peers: [lease('10.244.9.128/25', 'fd00:244:0:2::/64', 2), lease('10.244.10.0/25', undefined, 3, 5)],
  };
}

describe('what the agent knew', () => {
  let folder: string;
  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'weft-last-known-'));
  });
  afterEach(() => rm(folder, { recursive: true }));

  it('is read back as it was written', async () => {
    const subnetFile = join(folder, 'made', 'subnet.env');
    const before = known();
    await writeLastKnown(subnetFile, before);
    const result = await readLastKnown(subnetFile, before.source, backendKind);
    assert.ok(result.kind === 'read');
    assert.equal(describeNetworkConfig(result.known.config), describeNetworkConfig(before.config));
    assert.deepEqual({ ...result.known, config: undefined }, { ...before, config: undefined });
    assert.ok(Math.abs(result.writtenAt.getTime() - Date.now()) < 60_000);
    assert.equal((await stat(lastKnownPath(subnetFile))).mode & 0o777, 0o600);
  });

  it('is of no use when it is absent, damaged, or about another store', async () => {
    const subnetFile = join(folder, 'subnet.env');
    assert.deepEqual(await readLastKnown(subnetFile, 'x', backendKind), { kind: 'absent' });
    await writeFile(lastKnownPath(subnetFile), '');
    assert.equal((await readLastKnown(subnetFile, 'x', backendKind)).kind, 'unusable');
    const text = formatLastKnown(known(), new Date());
    const other = parseLastKnown(text, 'etcd /other', backendKind);
    assert.ok(other.kind === 'unusable' && other.reason.includes('/coreos.com/network'));
    for (let end = 0; end < text.length - 1; end += 7) {
      assert.equal(parseLastKnown(text.slice(0, end), known().source, backendKind).kind, 'unusable');
    }
    for (const [from, to] of [
      ['"version":1', '"version":2'],
      ['"own":{', '"own":0,"x":{'],
      ['"subnetLength":25', '"subnetLength":"25"'],
      ['"internalIps":[', '"internalIps":[7,'],
      ['"external":{"name":"eth0"', '"external":{"name":0'],
    ] as const) {
      assert.ok(text.includes(from));
      assert.equal(parseLastKnown(text.replace(from, to), known().source, backendKind).kind, 'unusable', to);
    }
  });

  it('names node and interface in the file as earlier versions do, which may come back', () => {
    const { node, external } = JSON.parse(formatLastKnown(known(), new Date()));
    assert.deepEqual(node, { publicIp: '203.0.113.7', internalIps: ['192.168.77.1', 'fd77::1'] });
    assert.deepEqual(external, { name: 'eth0', address: '192.168.77.1', addressV6: 'fd77::1' });
  });

  it('has the published addresses for those of the interface in a file of an earlier version', () => {
    const text = formatLastKnown(known(), new Date()).replace(/"external":\{.*?\},/, '');
    const result = parseLastKnown(text, known().source, backendKind);
    assert.ok(result.kind === 'read');
    assert.deepEqual(result.known.external, { name: '', addresses: known().own.attrs.publicAddresses });
  });

  it('does without a peer that cannot be read, and says so', () => {
    const before = known();
    const text = formatLastKnown(before, new Date()).replace('10.244.9.128-25', '10.244.9.129-25');
    const result = parseLastKnown(text, before.source, backendKind);
    assert.ok(result.kind === 'read');
    assert.deepEqual(result.known.peers, before.peers.slice(1));
    assert.equal(result.unreadable.length, 1);
    assert.match(result.unreadable[0]!, /10\.244\.9\.129-25/);
  });

  it('tells configurations apart, and only those', () => {
    const parse = (change: object) =>
      describeNetworkConfig(
        parseNetConf(JSON.stringify({ ...NET_CONF, ...change }), {
          source: 'test',
          validation: 'full',
          backends: backendKind,
        }),
      );
    assert.equal(parse({}), parse({ Unknown: 1 }));
    for (const change of [
      { Network: '10.245.0.0/16', SubnetMin: '10.245.9.0' },
      { EnableNFTables: true },
      { EnableIPv6: false },
      { SubnetMin: '10.244.10.0' },
      { Backend: { Type: 'vxlan', VNI: 8 } },
    ]) {
      assert.notEqual(parse(change), parse({}));
    }
  });
});
