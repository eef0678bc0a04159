import { after, before } from 'node:test';
import { backendKind } from '../../src/backend/registry.ts';
import { EtcdServer } from '../../src/lab/servers/etcd-server.ts';
import { leaseKey } from '../../src/lease/lease.ts';
import { encodeLeaseValue } from '../../src/lease/lease-codec.ts';
import { EtcdClient } from '../../src/subnet/etcd/etcd-client.ts';
import { EtcdSubnetManager } from '../../src/subnet/etcd/etcd-subnet-manager.ts';
import { rawLeaseValue, subnetManagerContract } from '../contract/subnet-manager.ts';

const DAY_MS = 86_400_000;
const forever = new AbortController().signal;

let server: EtcdServer;
before(async () => {
  server = await EtcdServer.start();
});
after(() => server[Symbol.asyncDispose]());

let harnesses = 0;

subnetManagerContract('etcd', async () => {
  const prefix = `/weft/${++harnesses}`;
  const managers: EtcdSubnetManager[] = [];
  const client = new EtcdClient({ endpoints: server.endpoints });
  const subnetKey = (key: string): Buffer => Buffer.from(`${prefix}/subnets/${key}`);

  async function put(key: Buffer, value: string, lease: string): Promise<void> {
    const success = [{ request_put: { key, value: Buffer.from(value), lease } }];
    await client.call('Txn', { compare: [], success, failure: [] }, 'writing as somebody else', forever);
  }
  async function remove(key: Buffer): Promise<void> {
    const success = [{ request_delete_range: { key } }];
    await client.call('Txn', { compare: [], success, failure: [] }, 'deleting as somebody else', forever);
  }
  return {
    manager(options = {}) {
      const manager = new EtcdSubnetManager({
        backends: backendKind,
        endpoints: server.endpoints,
        prefix,
        ...(options.report === undefined ? {} : { report: options.report }),
        ...(options.renewAfterMs === undefined ? {} : { renewMarginMs: DAY_MS - options.renewAfterMs }),
      });
      managers.push(manager);
      return manager;
    },
    async configure(netConf) {
      const key = Buffer.from(`${prefix}/config`);
      if (netConf === undefined) await remove(key);
      else await put(key, netConf, '0');
    },
    async writeEntry(lease, backendData) {
      let binding = '0';
      if (lease.expiresAtMs !== undefined) {
        const ttlSeconds = Math.ceil((lease.expiresAtMs - Date.now()) / 1000);
        binding = (await client.call('LeaseGrant', { TTL: ttlSeconds }, 'leasing as somebody else', forever)).ID;
      }
      const value = backendData === undefined ? encodeLeaseValue(lease.attrs) : rawLeaseValue(lease, backendData);
      await put(subnetKey(leaseKey(lease)), value, binding);
    },
    deleteEntry: (key) => remove(subnetKey(key)),
    corruptEntry: (key) => put(subnetKey(key), '{"PublicIP": 7', '0'),
    async expireNow(key) {
      // What etcd does itself when a lease's time has come.
      const { kvs } = await client.call('Range', { key: subnetKey(key) }, 'looking as somebody else', forever);
      await client.call('LeaseRevoke', { ID: kvs[0]!.lease }, 'expiring as somebody else', forever);
    },
    async interrupt() {
      await server.kill();
      return { [Symbol.asyncDispose]: () => server.restart() };
    },
    stall: () => server.freeze(),
    async elapse() {},
    async [Symbol.asyncDispose]() {
      for (const manager of managers) await manager[Symbol.asyncDispose]();
      client[Symbol.dispose]();
    },
  };
});
