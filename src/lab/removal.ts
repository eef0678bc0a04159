/** How labs go: by their maker, by `weft lab down`, or by whoever makes the next one. */
import { existsSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { WeftError } from '../errors.ts';
import { run } from '../linux/run.ts';
import { identifyProcess, isAlive, ownPidNamespace, type ProcessIdentity, sameArgv } from './process-identity.ts';
import { type LabRecord, listLabIds, REGISTRY_DIRECTORY, readRecord, removeRecord } from './registry.ts';

/** @throws WeftError WEFT_NOT_ROOT. */
export function requireRoot(): void {
  if (process.geteuid?.() !== 0) {
    throw new WeftError('WEFT_NOT_ROOT', `could not make network namespaces as user ${process.geteuid?.() ?? '?'}`, {
      hint: 'Run it as root, for instance with sudo.',
    });
  }
}

/**
 * Removes the labs whose makers were killed, and that were not to stay. Those of makers in another PID namespace, whose life cannot be
 * told from here, are left alone, and so is what cannot be read or removed: it stays on record. Several processes may be at it.
 */
export async function removeAbandonedLabs(registry: string = REGISTRY_DIRECTORY): Promise<void> {
  const pidNamespace = ownPidNamespace();
  for (const id of listLabIds(registry)) {
    try {
      const record = readRecord(id, registry);
      if (record === undefined || record.staysAfterCrash !== false || record.owner.pidNamespace !== pidNamespace)
        continue;
      if (!isAlive(record.owner)) await removeLab(record, registry);
    } catch {
      // `weft lab down` says why.
    }
  }
}

const TERMINATE_MS = 3_000;
/** The kernel takes a large process's memory back before the process is gone: hundreds of milliseconds on a busy machine. */
const KILL_MS = 10_000;

/**
 * Ends what is on record of a lab and is still the process that was recorded, deletes its namespaces and its files, and
 * last the record. Idempotent: what is gone already is no error.
 *
 * @throws WeftError WEFT_LAB_FAILED when something could not be removed; the record then stays.
 */
export async function removeLab(record: LabRecord, registry: string = REGISTRY_DIRECTORY): Promise<void> {
  await endProcesses(record);
  const namespaces = existingNamespaces(record);
  if (namespaces.length > 0) {
    const script = namespaces.map((name) => `netns delete ${name}\n`).join('');
    const { stderr } = await run(['ip', '-force', '-batch', '-'], { stdin: script, okExitCodes: 'any' });
    const left = existingNamespaces(record);
    if (left.length > 0) {
      throw new WeftError('WEFT_LAB_FAILED', `could not delete the namespaces ${left.join(', ')}: ${stderr.trim()}`);
    }
  }
  removeRecord(record.id, registry);
}

function existingNamespaces(record: LabRecord): string[] {
  return record.namespaces.filter((name) => existsSync(`/run/netns/${name}`));
}

async function endProcesses(record: LabRecord): Promise<void> {
  let victims = await livingProcesses(record);
  for (const [signal, patienceMs] of [
    ['SIGTERM', TERMINATE_MS],
    ['SIGKILL', KILL_MS],
  ] as const) {
    for (const { pid } of victims) signalProcess(pid, signal);
    // They need not be our children, so there is no exit to wait for.
    for (let waited = 0; victims.length > 0 && waited < patienceMs; waited += 20) {
      await sleep(20);
      victims = victims.filter(isAlive);
    }
  }
  if (victims.length > 0) {
    const left = victims.map(({ pid, argv }) => `${pid} (${argv[0]})`).join(', ');
    throw new WeftError(
      'WEFT_LAB_FAILED',
      `could not end processes of lab ${record.id}: after SIGKILL there are still ${left}`,
    );
  }
}

function signalProcess(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal);
  } catch (error) {
    if (!(error instanceof Error && 'code' in error && error.code === 'ESRCH')) throw error;
  }
}

/**
 * Processes on record that run, and those that were started but whose pid never made it into the record (a crash in
 * between): they are in the lab's namespaces and have exactly a command line that is on record.
 */
async function livingProcesses(record: LabRecord): Promise<ProcessIdentity[]> {
  const found = new Map<number, ProcessIdentity>();
  for (const entry of record.processes) {
    const identity = entry.pid === undefined ? undefined : identifyProcess(entry.pid);
    if (identity !== undefined && identity.startTicks === entry.startTicks && sameArgv(identity.argv, entry.argv)) {
      found.set(identity.pid, identity);
    }
  }
  const nameless = record.processes.filter((entry) => entry.pid === undefined);
  if (nameless.length > 0) {
    for (const name of existingNamespaces(record)) {
      const { stdout } = await run(['ip', 'netns', 'pids', name], { okExitCodes: 'any' });
      for (const pid of stdout.split('\n').filter(Boolean).map(Number)) {
        const identity = identifyProcess(pid);
        if (identity !== undefined && nameless.some((entry) => sameArgv(identity.argv, entry.argv))) {
          found.set(pid, identity);
        }
      }
    }
  }
  return [...found.values()];
}
