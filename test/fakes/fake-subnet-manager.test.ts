import { decodeLeaseValue } from '../../src/lease/lease-codec.ts';
import { rawLeaseValue, subnetManagerContract } from '../contract/subnet-manager.ts';
import { FakeLeaseStore, FakeSubnetManager } from './fake-subnet-manager.ts';

const DAY_MS = 86_400_000;

subnetManagerContract('fake', async () => {
  const store = new FakeLeaseStore();
  const managers: FakeSubnetManager[] = [];
  return {
    manager(options = {}) {
      const manager = new FakeSubnetManager(store, {
        ...(options.report === undefined ? {} : { report: options.report }),
        ...(options.renewAfterMs === undefined ? {} : { renewMarginMs: DAY_MS - options.renewAfterMs }),
      });
      managers.push(manager);
      return manager;
    },
    async configure(netConf) {
      store.netConf = netConf;
    },
    async writeEntry(lease, backendData) {
      if (backendData === undefined) return store.put(lease);
      const value = decodeLeaseValue(rawLeaseValue(lease, backendData));
      store.put({ ...lease, attrs: value.ok ? value.attrs : undefined });
    },
    async deleteEntry(key) {
      store.delete(key);
    },
    async corruptEntry(key) {
      store.corrupt(key);
    },
    async expireNow(key) {
      store.expireNow(key);
    },
    async interrupt() {
      store.setAvailable(false);
      return { [Symbol.asyncDispose]: async () => store.setAvailable(true) };
    },
    async stall() {
      store.setStalled(true);
      return { [Symbol.asyncDispose]: async () => store.setStalled(false) };
    },
    async elapse(ms) {
      store.advance(ms);
    },
    async [Symbol.asyncDispose]() {
      for (const manager of managers) await manager[Symbol.asyncDispose]();
    },
  };
});
