import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { backendKind } from '../backend/registry.ts';
import { WeftError } from '../errors.ts';
import type { Lease } from '../lease/lease.ts';
import { LocalSubnetManager } from '../subnet/local/local-subnet-manager.ts';
import type { SubnetManager } from '../subnet/subnet-manager.ts';
import type { SubnetStore } from './subnet-store.ts';
import type { Topology } from './topology.ts';

/** A file that all agents of this machine share. */
export async function openLocalStore(topology: Topology, netConf: string, signal: AbortSignal): Promise<SubnetStore> {
  const storePath = join(topology.stateDirectory, 'subnets.db');
  const netConfPath = join(topology.stateDirectory, 'net-conf.json');
  await writeFile(netConfPath, netConf, { signal });
  return {
    kind: 'local',
    description: storePath,
    result: { kind: 'local', endpoint: storePath, version: null, commands: [] },
    agentFlags: () => ['--subnet-mgr', 'local', '--local-store', storePath, '--net-config-path', netConfPath],
    agentEnvironment: () => ({}),
    leases: async (leasesSignal) => {
      await using manager = new LocalSubnetManager({ storePath, netConfPath, backends: backendKind });
      return await firstSnapshot(manager, leasesSignal);
    },
    [Symbol.asyncDispose]: async () => {},
  };
}

/** What {@link SubnetManager.watchLeases} tells a node that starts now. */
async function firstSnapshot(manager: SubnetManager, signal: AbortSignal): Promise<readonly Lease[]> {
  const config = await manager.networkConfig(signal);
  for await (const update of manager.watchLeases(config, signal)) {
    if (update.type === 'snapshot') return update.leases;
  }
  throw new WeftError('WEFT_LAB_FAILED', `could not list the leases: the watch of ${manager.name} ended without any`);
}
