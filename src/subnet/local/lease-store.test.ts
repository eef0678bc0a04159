import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { WeftError } from '../../errors.ts';
import { ENTRY_BOUNDS } from '../../lease/go-json.ts';
import { decodeRow } from './lease-row.ts';
import { type LeaseRow, LeaseStore, StoreBusyError } from './lease-store.ts';

let folder: string;
let path: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'weft-store-'));
  path = join(folder, 'deeper', 'leases.db');
});
afterEach(() => rmSync(folder, { recursive: true }));

const ROW: LeaseRow = { key: '10.5.1.0-24', value: '{"PublicIP":"192.168.77.1","PublicIPv6":null}', expiresAtMs: 1 };

function write(row: LeaseRow): void {
  using store = LeaseStore.open(path);
  store.transact((transaction) => transaction.put(row));
}

describe('lease store', () => {
  it('is made on first use, folder included, and keeps what was committed', () => {
    write(ROW);
    using store = LeaseStore.open(path);
    assert.deepEqual(
      store.rows().map((row) => ({ ...row })),
      [ROW],
    );
  });

  it('reads of rows that are far too long no more than shows that, beside the others', () => {
    using store = LeaseStore.open(path);
    const megabytes = 'x'.repeat(5 << 20);
    store.transact((transaction) => {
      for (const row of [ROW, { ...ROW, key: '10.5.2.0-24', value: megabytes }, { ...ROW, key: megabytes }])
        transaction.put(row);
    });
    assert.deepEqual(
      store.rows().map(({ key, value }) => [key.length, value.length]),
      [
        [11, ROW.value.length],
        [11, ENTRY_BOUNDS.length + 1],
        [1_024, ROW.value.length],
      ],
    );
    assert.equal(decodeRow(store.rows()[1]!).entry?.attrs, undefined);
    assert.equal(decodeRow(store.rows()[2]!).entry, undefined);
  });

  it('drops what a failed transaction did', () => {
    using store = LeaseStore.open(path);
    const failure = new Error('half way');
    assert.throws(
      () =>
        store.transact((transaction) => {
          transaction.put(ROW);
          throw failure;
        }),
      failure,
    );
    assert.deepEqual(store.rows(), []);
    store.transact((transaction) => transaction.put(ROW));
    assert.equal(store.rows().length, 1);
  });

  it('has another version after any commit, own or foreign, and only then', () => {
    using store = LeaseStore.open(path);
    const first = store.version();
    assert.equal(store.version(), first);
    store.transact((transaction) => transaction.put(ROW));
    const second = store.version();
    assert.notEqual(second, first);
    write({ ...ROW, expiresAtMs: 2 });
    assert.notEqual(store.version(), second);
  });

  it('says that it is busy while another process writes, and can be read meanwhile', () => {
    using store = LeaseStore.open(path);
    const other = new DatabaseSync(path);
    other.exec('BEGIN IMMEDIATE');
    assert.throws(() => store.transact(() => {}), StoreBusyError);
    assert.deepEqual(store.rows(), []);
    other.close();
    store.transact(() => {});
  });

  it('notices that the file at its path is another one', () => {
    using store = LeaseStore.open(path);
    assert.equal(store.replaced(), false);
    rmSync(path);
    assert.equal(store.replaced(), true);
    writeFileSync(path, '');
    assert.equal(store.replaced(), true);
  });

  it('opens an empty file, such as mktemp makes', () => {
    path = join(folder, 'empty');
    writeFileSync(path, '');
    write(ROW);
  });

  function refusesToOpen(what: RegExp, code = 'WEFT_STORE_CORRUPT'): void {
    const before = statSync(path).isFile() ? readFileSync(path) : undefined;
    assert.throws(
      () => LeaseStore.open(path),
      (error) => {
        assert.ok(error instanceof WeftError, String(error));
        assert.equal(error.code, code);
        assert.match(error.message, what);
        assert.ok(error.message.includes(path));
        assert.ok(error.hint !== undefined && error.hint.length > 20);
        return true;
      },
    );
    if (before !== undefined) assert.deepEqual(readFileSync(path), before, 'the file was changed');
  }

  it('refuses a file that is no database, and leaves it alone', () => {
    path = join(folder, 'text');
    writeFileSync(path, 'subnets of this machine: see the wiki\n'.repeat(50));
    refusesToOpen(/not a database/);
  });

  it('refuses a damaged database, and leaves it alone', () => {
    using store = LeaseStore.open(path);
    for (let n = 0; n < 200; n++) {
      store.transact((transaction) => transaction.put({ ...ROW, key: `10.5.${n}.0-24`, value: ROW.value.repeat(20) }));
    }
    store[Symbol.dispose]();
    const bytes = readFileSync(path);
    bytes.fill(0xa5, 4096);
    writeFileSync(path, bytes);
    refusesToOpen(/damaged|malformed/);
    truncateSync(path, 5000);
    refusesToOpen(/damaged|malformed/);
  });

  it("refuses another program's database, and leaves it alone", () => {
    path = join(folder, 'other.db');
    const other = new DatabaseSync(path);
    other.exec('CREATE TABLE bookmark (url TEXT)');
    other.close();
    refusesToOpen(/another program/);
  });

  it('refuses the format of a later version', () => {
    write(ROW);
    const later = new DatabaseSync(path);
    later.exec('PRAGMA user_version = 2');
    later.close();
    refusesToOpen(/format 2/);
  });

  it('says why it cannot be opened at all', () => {
    path = folder;
    refusesToOpen(/unable to open/, 'WEFT_STORE_UNAVAILABLE');
    path = join(folder, 'file');
    writeFileSync(path, '');
    path = join(path, 'leases.db');
    assert.throws(() => LeaseStore.open(path), { code: 'WEFT_STORE_UNAVAILABLE' });
  });
});
