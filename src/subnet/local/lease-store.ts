import { mkdirSync, statSync } from 'node:fs';
import { dirname } from 'node:path';
import { DatabaseSync, type StatementSync } from 'node:sqlite';
import { WeftError } from '../../errors.ts';
import { ENTRY_BOUNDS } from '../../lease/go-json.ts';

/** One row, as it lies in the file: whether key and value can be read is the reader's business. */
export interface LeaseRow {
  /** flannel's key form, `10.5.1.0-24` or `10.5.1.0-24&fd00::-56`. */
  readonly key: string;
  /** The JSON that flannel would write to etcd under that key. */
  readonly value: string;
  /** Milliseconds since the epoch; null for a reservation, which never expires. */
  readonly expiresAtMs: number | null;
}

/** What may be done between the first read and the commit; nobody else writes meanwhile. */
export interface LeaseTransaction {
  rows(): LeaseRow[];
  put(row: LeaseRow): void;
  delete(key: string): void;
}

/** `weft` in ASCII: SQLite's header field for the program a file belongs to. */
const APPLICATION_ID = 0x77656674;
const SCHEMA_VERSION = 1;

/** SQLite's primary result codes (sqlite3.h); the driver reports extended ones, whose low byte these are. */
const SQLITE_BUSY = 5;
const SQLITE_LOCKED = 6;
const SQLITE_READONLY = 8;
const SQLITE_CORRUPT = 11;
const SQLITE_FULL = 13;
const SQLITE_CANTOPEN = 14;
const SQLITE_NOTADB = 26;

/** Longer than any of a lease; what is longer is none, whatever comes after. Of values, as much is read as shows that they are too long. */
const KEPT_OF_KEY = 1_024;

/** How long one call may block the event loop waiting for another process's commit; longer waits are the caller's retries. */
const BUSY_TIMEOUT_MS = 100;

/** Another process is writing: try again. Never leaves src/subnet/local. */
export class StoreBusyError extends WeftError {
  constructor(path: string, cause: unknown) {
    super('WEFT_STORE_UNAVAILABLE', `using the lease store ${path}: it stayed locked by another process`, {
      hint: 'A stopped or hung agent on this machine may hold the lock. Find it with fuser on the file.',
      cause,
    });
  }
}

function resultCode(error: unknown): number | undefined {
  const code = error instanceof Error && 'errcode' in error ? error.errcode : undefined;
  return typeof code === 'number' ? code & 0xff : undefined;
}

function corrupt(path: string, what: string, cause?: unknown): WeftError {
  return new WeftError('WEFT_STORE_CORRUPT', `reading the lease store ${path}: ${what}`, {
    hint:
      `It was not changed. Stop the agents that use it, move ${path}, ${path}-wal and ${path}-shm away together, and start them again: ` +
      'each agent takes back the subnet in its subnet.env.',
    cause,
  });
}

function translate(path: string, error: unknown): unknown {
  const text = error instanceof Error ? error.message : String(error);
  switch (resultCode(error)) {
    case undefined:
      return error;
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
      return new StoreBusyError(path, error);
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
      return corrupt(path, text, error);
    case SQLITE_FULL:
      return unavailable(path, text, 'Free some space on that file system.', error);
    case SQLITE_READONLY:
    case SQLITE_CANTOPEN:
      return unavailable(path, text, 'Check that the directory exists and that this user can write to it.', error);
    default:
      return unavailable(path, text, 'The file system under it may be failing: see the kernel log.', error);
  }
}

function unavailable(path: string, text: string, hint: string, cause: unknown): WeftError {
  return new WeftError('WEFT_STORE_UNAVAILABLE', `using the lease store ${path}: ${text}`, { hint, cause });
}

/** Device and inode: what tells a store apart from another one that was put in its place. */
function identityOf(path: string): string | undefined {
  const stat = statSync(path, { throwIfNoEntry: false });
  return stat === undefined ? undefined : `${stat.dev}:${stat.ino}`;
}

/**
 * The lease table of one machine: an SQLite file that many agents open at once (WAL, so readers never wait for a
 * writer). A transaction is atomic whenever the process or the machine dies: committed means on disk
 * (`synchronous=FULL`), and the kernel drops a dead process's locks.
 *
 * Calls are synchronous and block for at most 100 ms; then they throw StoreBusyError. Other errors are WeftErrors:
 * WEFT_STORE_CORRUPT when the file is damaged or not a weft store (it is never recreated), WEFT_STORE_UNAVAILABLE when
 * it cannot be opened or written.
 */
export class LeaseStore implements Disposable {
  readonly path: string;
  readonly #database: DatabaseSync;
  readonly #identity: string | undefined;
  readonly #dataVersion: StatementSync;
  readonly #select: StatementSync;
  readonly #put: StatementSync;
  readonly #delete: StatementSync;
  /** SQLite's data_version counts only the commits of others. */
  #ownCommits = 0;

  private constructor(path: string, database: DatabaseSync) {
    this.path = path;
    this.#database = database;
    this.#identity = identityOf(path);
    this.#dataVersion = database.prepare('PRAGMA data_version');
    this.#select = database.prepare(
      `SELECT substr(key, 1, ${KEPT_OF_KEY}) AS key, substr(value, 1, ${ENTRY_BOUNDS.length + 1}) AS value, ` +
        'expires_at_ms AS expiresAtMs FROM lease ORDER BY lease.key',
    );
    this.#put = database.prepare(
      'INSERT INTO lease (key, value, expires_at_ms) VALUES (?, ?, ?) ' +
        'ON CONFLICT (key) DO UPDATE SET value = excluded.value, expires_at_ms = excluded.expires_at_ms',
    );
    this.#delete = database.prepare('DELETE FROM lease WHERE key = ?');
  }

  /** Opens the store at `path`, and makes it, folder included, when there is none. */
  static open(path: string): LeaseStore {
    let database: DatabaseSync | undefined;
    try {
      mkdirSync(dirname(path), { recursive: true });
      database = new DatabaseSync(path, { timeout: BUSY_TIMEOUT_MS });
      prepareSchema(path, database);
      return new LeaseStore(path, database);
    } catch (error) {
      database?.close();
      const cause = error instanceof Error && 'syscall' in error ? error : undefined;
      throw cause === undefined
        ? translate(path, error)
        : unavailable(
            path,
            cause.message,
            'Check that the directory exists and that this user can write to it.',
            cause,
          );
    }
  }

  /**
   * A value that differs from an earlier one when anybody has committed in between. Costs a few microseconds: made to be
   * polled. Take it before `rows`, so that a commit between the two is noticed again rather than missed.
   */
  version(): string {
    return this.#guard(() => `${String(this.#dataVersion.get()?.data_version)}.${this.#ownCommits}`);
  }

  /** The file at the path is another one than the one that is open, or none: open the store again. */
  replaced(): boolean {
    return identityOf(this.path) !== this.#identity;
  }

  rows(): LeaseRow[] {
    return this.#guard(() => this.#rows());
  }

  /** Runs `work` with the only write lock; commits what it did, or nothing when it throws. */
  transact<T>(work: (transaction: LeaseTransaction) => T): T {
    return this.#guard(() => {
      const result = inTransaction(this.#database, 'BEGIN IMMEDIATE', () =>
        work({
          rows: () => this.#rows(),
          put: (row) => {
            this.#put.run(row.key, row.value, row.expiresAtMs);
          },
          delete: (key) => {
            this.#delete.run(key);
          },
        }),
      );
      this.#ownCommits++;
      return result;
    });
  }

  [Symbol.dispose](): void {
    if (this.#database.isOpen) this.#database.close();
  }

  #rows(): LeaseRow[] {
    return this.#select.all() as unknown as LeaseRow[];
  }

  #guard<T>(work: () => T): T {
    try {
      return work();
    } catch (error) {
      throw translate(this.path, error);
    }
  }
}

function pragma(database: DatabaseSync, name: string): unknown {
  return Object.values(database.prepare(`PRAGMA ${name}`).get() ?? {})[0];
}

function prepareSchema(path: string, database: DatabaseSync): void {
  const verdict = pragma(database, 'quick_check');
  if (verdict !== 'ok') throw corrupt(path, `SQLite finds it damaged (${String(verdict)})`);
  // Asked before the journal mode is touched: that is written into the file, which may be another program's.
  const ready = inTransaction(database, 'BEGIN', () => hasSchema(path, database));
  database.exec('PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL');
  if (ready) return;
  inTransaction(database, 'BEGIN IMMEDIATE', () => {
    if (hasSchema(path, database)) return;
    database.exec(
      'CREATE TABLE lease (key TEXT PRIMARY KEY, value TEXT NOT NULL, expires_at_ms INTEGER) STRICT, WITHOUT ROWID; ' +
        `PRAGMA application_id = ${APPLICATION_ID}; PRAGMA user_version = ${SCHEMA_VERSION}`,
    );
  });
}

function inTransaction<T>(database: DatabaseSync, begin: 'BEGIN' | 'BEGIN IMMEDIATE', work: () => T): T {
  database.exec(begin);
  try {
    const result = work();
    database.exec('COMMIT');
    return result;
  } catch (error) {
    // Some errors, such as a full disk, have ended the transaction already.
    if (database.isTransaction) database.exec('ROLLBACK');
    throw error;
  }
}

/** Within a transaction. False for a file without any table, such as one that was created a moment ago. */
function hasSchema(path: string, database: DatabaseSync): boolean {
  const application = pragma(database, 'application_id');
  const version = pragma(database, 'user_version');
  if (application === APPLICATION_ID && version === SCHEMA_VERSION) return true;
  if (application === APPLICATION_ID) throw corrupt(path, `it has format ${String(version)}, of another weft version`);
  if (pragma(database, 'schema_version') === 0) return false;
  throw corrupt(path, 'it is a database of another program');
}
