import { globSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { identifyProcess } from '../../../src/lab/process-identity.ts';
import { readRecord } from '../../../src/lab/registry.ts';
import { removeLab } from '../../../src/lab/topology.ts';
import { NodeCgroups } from './cgroups.ts';

const DIR_PREFIX = 'weft-nodes-';

/** Where the nodes of a lab and their control plane keep everything. */
export function nodesDir(labId: string): string {
  return join(tmpdir(), `${DIR_PREFIX}${labId}`);
}

/**
 * Removes the nodes whose maker is gone, with all that they consist of. The folder is made after the lab's record and
 * removed last, so it is what tells of them.
 */
export async function removeLeftovers(): Promise<void> {
  for (const dir of globSync(join(tmpdir(), `${DIR_PREFIX}*`))) {
    const id = basename(dir).slice(DIR_PREFIX.length);
    const record = readRecord(id);
    if (record !== undefined && identifyProcess(record.owner.pid)?.startTicks === record.owner.startTicks) continue;
    for (const name of cgroupNames(id)) await NodeCgroups.existing(name).remove();
    if (record !== undefined) await removeLab(record);
    await rm(dir, { recursive: true, force: true });
  }
}

function cgroupNames(labId: string): string[] {
  return [...new Set(globSync(`/sys/fs/cgroup/*/weft-${labId}-*`).map((path) => basename(path)))];
}
