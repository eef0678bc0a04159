/**
 * What labs exist on this machine, one JSON file each, written before the things it names are made: whatever happens to
 * the process that makes a lab, `weft lab down` finds all of it. Synchronous on purpose: a record is on disk before the
 * next step starts.
 */
import { mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import * as v from 'valibot';
import { hasErrno } from '../errno.ts';
import { WeftError } from '../errors.ts';
import { identifyProcess, ownPidNamespace } from './process-identity.ts';

const processSchema = v.object({
  argv: v.array(v.string()),
  /** Absent between the record and the start. */
  pid: v.optional(v.number()),
  startTicks: v.optional(v.number()),
});

const recordSchema = v.object({
  id: v.pipe(v.string(), v.regex(/^[a-z0-9]{1,16}$/)),
  /** For people: `weft lab --hosts 3`. */
  purpose: v.string(),
  createdAt: v.string(),
  owner: v.object({ pid: v.number(), startTicks: v.number(), pidNamespace: v.optional(v.number()) }),
  /** Only `false` lets others remove it when its owner is gone. */
  staysAfterCrash: v.optional(v.boolean()),
  namespaces: v.array(v.pipe(v.string(), v.regex(/^weft-[a-z0-9-]+$/))),
  processes: v.array(processSchema),
});

export type LabProcess = v.InferOutput<typeof processSchema>;
export type LabRecord = v.InferOutput<typeof recordSchema>;

export const REGISTRY_DIRECTORY = '/run/weft-lab';

/** Subnet files, logs and the lease store of a lab; removed with it. */
export function stateDirectoryOf(id: string, registry: string = REGISTRY_DIRECTORY): string {
  return join(registry, id);
}

/** Of a lab that this process makes. @throws WeftError WEFT_LAB_FAILED without /proc. */
export function newRecord({
  id,
  purpose,
  namespaces,
  staysAfterCrash,
}: Pick<LabRecord, 'id' | 'purpose' | 'namespaces' | 'staysAfterCrash'>): LabRecord {
  const self = identifyProcess(process.pid);
  const pidNamespace = ownPidNamespace();
  if (self === undefined || pidNamespace === undefined)
    throw new WeftError('WEFT_LAB_FAILED', `could not read /proc/${process.pid}: is /proc mounted?`);
  const owner = { pid: self.pid, startTicks: self.startTicks, pidNamespace };
  return { id, purpose, createdAt: new Date().toISOString(), owner, staysAfterCrash, namespaces, processes: [] };
}

/** Atomic: a reader sees the old record or the new one. */
export function writeRecord(record: LabRecord, registry: string = REGISTRY_DIRECTORY): void {
  const path = join(registry, `${record.id}.json`);
  try {
    mkdirSync(registry, { recursive: true, mode: 0o755 });
    writeFileSync(`${path}.new`, `${JSON.stringify(record, undefined, 2)}\n`, { mode: 0o600 });
    renameSync(`${path}.new`, path);
  } catch (error) {
    throw new WeftError(
      'WEFT_LAB_FAILED',
      `could not write the record of lab ${record.id} to ${path}: ${String(error)}`,
      {
        cause: error,
      },
    );
  }
}

/** `undefined` when there is no such lab. @throws WeftError WEFT_LAB_FAILED when its record cannot be read. */
export function readRecord(id: string, registry: string = REGISTRY_DIRECTORY): LabRecord | undefined {
  const path = join(registry, `${id}.json`);
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (error) {
    if (hasErrno(error, 'ENOENT')) return undefined;
    throw new WeftError('WEFT_LAB_FAILED', `could not read ${path}: ${String(error)}`, { cause: error });
  }
  try {
    const record = v.parse(recordSchema, JSON.parse(text));
    if (record.id !== id) throw new Error(`it names lab ${record.id}`);
    return record;
  } catch (error) {
    throw new WeftError('WEFT_LAB_FAILED', `${path} is no record of a lab: ${String(error)}`, {
      hint: `Remove the file, and what "ip netns list" shows as weft-${id}-…, by hand.`,
      cause: error,
    });
  }
}

/** Ids of all labs on record, oldest name first; an unreadable record counts too. */
export function listLabIds(registry: string = REGISTRY_DIRECTORY): string[] {
  try {
    return readdirSync(registry)
      .filter((name) => name.endsWith('.json'))
      .map((name) => name.slice(0, -'.json'.length))
      .sort();
  } catch (error) {
    if (hasErrno(error, 'ENOENT')) return [];
    throw new WeftError('WEFT_LAB_FAILED', `could not list ${registry}: ${String(error)}`, { cause: error });
  }
}

/** Removes it with the files of the lab. Nothing there is no error. */
export function removeRecord(id: string, registry: string = REGISTRY_DIRECTORY): void {
  rmSync(stateDirectoryOf(id, registry), { recursive: true, force: true });
  rmSync(join(registry, `${id}.json`), { force: true });
  rmSync(join(registry, `${id}.json.new`), { force: true });
}
