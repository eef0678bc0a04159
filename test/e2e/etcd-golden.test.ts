import assert from 'node:assert/strict';
import { it } from 'node:test';
import { backendKind } from '../../src/backend/registry.ts';
import { parseIpv4 } from '../../src/ip/ipv4.ts';
import { parsePrefix4 } from '../../src/ip/prefix.ts';
import { EtcdServer } from '../../src/lab/servers/etcd-server.ts';
import type { LeaseAttrs } from '../../src/lease/lease.ts';
import { EtcdSubnetManager } from '../../src/subnet/etcd/etcd-subnet-manager.ts';
import { golden } from '../fakes/golden.ts';
import { etcdDump, goldenDump } from './etcd-dump.ts';

function host(address: string): LeaseAttrs {
  return {
    publicAddresses: { ipv4: parseIpv4(address), ipv6: undefined },
    backendType: '',
    backendData: { ipv4: undefined, ipv6: undefined },
  };
}

it('leaves the same keys, values, versions and lease lives in etcd as flanneld, step by step', async () => {
  const signal = AbortSignal.timeout(60_000);
  await using server = await EtcdServer.start();
  await using manager = new EtcdSubnetManager({ backends: backendKind, endpoints: server.endpoints });
  await assert.rejects(manager.networkConfig(signal), {
    code: 'WEFT_CONFIG_MISSING',
    message: 'flannel config not found in etcd store. Did you create your config using etcdv3 API?',
  });
  const netConf = golden('etcd-udp', '01-net-conf.json').trim();
  await server.etcdctl('put', '/coreos.com/network/config', netConf);
  const config = await manager.networkConfig(signal);
  assert.equal(config.backend.type, 'udp');

  // flanneld drew these two by lot.
  const [h1, h2] = ['10.244.5.0/24', '10.244.38.0/24'].map((subnet) => ({
    previous: { ipv4: parsePrefix4(subnet), ipv6: undefined },
  }));
  await manager.acquireLease(config, host('10.98.0.12'), signal, h2);
  await manager.acquireLease(config, host('10.98.0.11'), signal, h1);
  assert.deepEqual(await etcdDump(server), goldenDump('etcd-udp', '50-etcd'));

  await using restarted = new EtcdSubnetManager({ backends: backendKind, endpoints: server.endpoints });
  await restarted.acquireLease(config, host('10.98.0.11'), signal);
  assert.deepEqual(await etcdDump(server), goldenDump('etcd-udp', '50-etcd-after-h1-restart'));

  await server.etcdctl('del', '/coreos.com/network/subnets/10.244.38.0-24');
  assert.deepEqual(await etcdDump(server), goldenDump('etcd-udp', '50-etcd-after-h2-key-deleted'));
});
