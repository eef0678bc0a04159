import { mkdirSync, mkdtempSync, renameSync, rmdirSync, rmSync } from 'node:fs';
import { rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { rawLeaseValue, subnetManagerContract } from '../../../test/contract/subnet-manager.ts';
import { backendKind } from '../../backend/registry.ts';
import { encodeRow } from './lease-row.ts';
import { LeaseStore } from './lease-store.ts';
import { LocalSubnetManager } from './local-subnet-manager.ts';

const DAY_MS = 86_400_000;

subnetManagerContract('local', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'weft-local-'));
  const storePath = join(folder, 'leases.db');
  const netConfPath = join(folder, 'net-conf.json');
  const managers: LocalSubnetManager[] = [];
  /** Another process, as far as SQLite can tell: a connection of its own for each step. */
  async function write(work: (store: LeaseStore) => void): Promise<void> {
    using store = LeaseStore.open(storePath);
    work(store);
  }
  return {
    manager(options = {}) {
      const manager = new LocalSubnetManager({
        backends: backendKind,
        storePath,
        netConfPath,
        pollMs: 10,
        ...(options.report === undefined ? {} : { report: options.report }),
        ...(options.renewAfterMs === undefined ? {} : { renewMarginMs: DAY_MS - options.renewAfterMs }),
      });
      managers.push(manager);
      return manager;
    },
    async configure(netConf) {
      if (netConf === undefined) await rm(netConfPath);
      else await writeFile(netConfPath, netConf);
    },
    writeEntry: (lease, backendData) => {
      const value = backendData === undefined ? {} : { value: rawLeaseValue(lease, backendData) };
      return write((store) => store.transact((transaction) => transaction.put({ ...encodeRow(lease), ...value })));
    },
    deleteEntry: (key) => write((store) => store.transact((transaction) => transaction.delete(key))),
    corruptEntry: (key) =>
      write((store) =>
        store.transact((transaction) => {
          const expiresAtMs = transaction.rows().find((row) => row.key === key)?.expiresAtMs ?? null;
          transaction.put({ key, value: '{"PublicIP": 7', expiresAtMs });
        }),
      ),
    expireNow: (key) =>
      write((store) =>
        store.transact((transaction) => {
          const row = transaction.rows().find((candidate) => candidate.key === key);
          if (row !== undefined) transaction.put({ ...row, expiresAtMs: Date.now() });
        }),
      ),
    async interrupt() {
      // In one turn, for a manager that finds no store makes one.
      renameSync(storePath, `${storePath}.away`);
      mkdirSync(storePath);
      return {
        async [Symbol.asyncDispose]() {
          rmdirSync(storePath);
          renameSync(`${storePath}.away`, storePath);
        },
      };
    },
    async stall() {
      const { DatabaseSync } = await import('node:sqlite');
      const other = new DatabaseSync(storePath);
      other.exec('BEGIN IMMEDIATE');
      return { [Symbol.asyncDispose]: async () => other.close() };
    },
    async elapse() {},
    async [Symbol.asyncDispose]() {
      for (const manager of managers) await manager[Symbol.asyncDispose]();
      rmSync(folder, { recursive: true });
    },
  };
});
