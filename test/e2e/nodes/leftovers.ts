import { globSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { identifyProcess, isAlive } from '../../../src/lab/process-identity.ts';
import { REGISTRY_DIRECTORY, readRecord } from '../../../src/lab/registry.ts';
import { removeLab } from '../../../src/lab/removal.ts';
import { NodeCgroups } from './cgroups.ts';

const DIR_PREFIX = 'weft-bed-';

/**
 * Where the machines of a lab and their control plane keep everything. It is made before anything else of them and removed last, so it
 * is what tells of them; its name says whose they are.
 */
export function bedDir(labId: string): string {
  const self = identifyProcess(process.pid)!;
  return join(tmpdir(), `${DIR_PREFIX}${labId}-${self.pid}-${self.startTicks}`);
}

/** Removes the machines whose maker is gone, with all that they consist of. Others may be at it, too. */
export async function removeLeftovers(): Promise<void> {
  for (const dir of globSync(join(tmpdir(), `${DIR_PREFIX}*`))) {
    const [id, pid, startTicks] = basename(dir).slice(DIR_PREFIX.length).split('-');
    if (isAlive({ pid: Number(pid), startTicks: Number(startTicks) })) continue;
    for (const name of cgroupNames(id!)) await NodeCgroups.existing(name).remove();
    const record = readRecord(id!);
    if (record !== undefined) await removeLab(record);
    await rm(dir, { recursive: true, force: true });
  }
}

/** What there is of a lab's machines: cgroups, namespaces, records and files. */
export function tracesOf(labId: string): string[] {
  return globSync([
    ...[`/sys/fs/cgroup/*/weft-${labId}-*`, `/run/netns/weft-${labId}-*`, join(REGISTRY_DIRECTORY, `${labId}*`)],
    join(tmpdir(), `${DIR_PREFIX}${labId}-*`),
  ]);
}

function cgroupNames(labId: string): string[] {
  return [...new Set(globSync(`/sys/fs/cgroup/*/weft-${labId}-*`).map((path) => basename(path)))];
}
