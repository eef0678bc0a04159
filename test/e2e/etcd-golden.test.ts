import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { it } from 'node:test';
import { parseIpv4 } from '../../src/ip/ipv4.ts';
import { parsePrefix4 } from '../../src/ip/prefix.ts';
import { EtcdServer } from '../../src/lab/servers/etcd-server.ts';
import type { LeaseAttrs } from '../../src/lease/lease.ts';
import { EtcdSubnetManager } from '../../src/subnet/etcd/etcd-subnet-manager.ts';

const GOLDEN = new URL('../golden/etcd-udp/', import.meta.url);

interface DumpedKey {
  readonly key: string;
  readonly value: string;
  readonly create_revision: number;
  readonly mod_revision: number;
  readonly version: number;
  readonly lease?: number;
}

/** The store as the golden files have it; lease ids are random, so a lease is named after the keys it holds. */
async function dump(server: EtcdServer): Promise<string[]> {
  const text = await server.etcdctl('get', '--prefix', '', '--write-out=json');
  // Lease ids do not fit into a JavaScript number; which one it is does not matter here.
  const { header, kvs } = JSON.parse(text) as { header: { revision: number }; kvs: DumpedKey[] };
  const ids = (await server.etcdctl('lease', 'list')).split('\n').filter((line) => /^[0-9a-f]+$/.test(line));
  const leases = await Promise.all(ids.map((id) => server.etcdctl('lease', 'timetolive', id, '--keys')));
  const decode = (base64: string): string => Buffer.from(base64, 'base64').toString('utf8');
  return normalise([
    `revision ${header.revision}`,
    ...kvs.map(
      (kv) =>
        `${decode(kv.key)} | ${decode(kv.value)} | create_rev ${kv.create_revision} mod_rev ${kv.mod_revision} version ${kv.version} lease ${kv.lease ?? 0}`,
    ),
    '# leases',
    ...leases.map((line) => line.trim()),
  ]);
}

function normalise(lines: readonly string[]): string[] {
  return (
    lines
      .map((line) =>
        line.replace(/lease (?!0$)[0-9a-f]+/, 'lease ID').replace(/remaining\(86[34]\d\ds\)/, 'remaining(~1 day)'),
      )
      // flannel leaves the etcd leases of earlier runs to lapse; weft gives them back.
      .filter((line) => !line.endsWith('attached keys([])'))
  );
}

function golden(name: string): string[] {
  const lines = readFileSync(new URL(name, GOLDEN), 'utf8').split('\n');
  return normalise(lines.filter((line) => line !== '' && !line.startsWith('# keys')));
}

function host(address: string): LeaseAttrs {
  const none = { publicIpv6: undefined, backendData: undefined, backendV6Data: undefined };
  return { publicIp: parseIpv4(address), backendType: '', ...none };
}

it('leaves the same keys, values, versions and lease lives in etcd as flanneld, step by step', async () => {
  const signal = AbortSignal.timeout(60_000);
  await using server = await EtcdServer.start();
  await using manager = new EtcdSubnetManager({ endpoints: server.endpoints });
  await assert.rejects(manager.networkConfig(signal), {
    code: 'WEFT_CONFIG_MISSING',
    message: 'flannel config not found in etcd store. Did you create your config using etcdv3 API?',
  });
  const netConf = readFileSync(new URL('01-net-conf.json.txt', GOLDEN), 'utf8').trim();
  await server.etcdctl('put', '/coreos.com/network/config', netConf);
  const config = await manager.networkConfig(signal);
  assert.equal(config.backendType, 'udp');

  // flanneld drew these two by lot.
  const [h1, h2] = [{ subnet: parsePrefix4('10.244.5.0/24') }, { subnet: parsePrefix4('10.244.38.0/24') }].map(
    ({ subnet }) => ({ previous: { subnet, ipv6Subnet: undefined } }),
  );
  await manager.acquireLease(config, host('10.98.0.12'), signal, h2);
  await manager.acquireLease(config, host('10.98.0.11'), signal, h1);
  assert.deepEqual(await dump(server), golden('50-etcd.txt'));

  await using restarted = new EtcdSubnetManager({ endpoints: server.endpoints });
  await restarted.acquireLease(config, host('10.98.0.11'), signal);
  assert.deepEqual(await dump(server), golden('50-etcd-after-h1-restart.txt'));

  await server.etcdctl('del', '/coreos.com/network/subnets/10.244.38.0-24');
  assert.deepEqual(await dump(server), golden('50-etcd-after-h2-key-deleted.txt'));
});
