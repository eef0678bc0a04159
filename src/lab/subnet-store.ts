/** Where the agents of a lab find the network configuration and agree on subnets: one strategy per subnet manager. */
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { WeftError } from '../errors.ts';
import type { Lease } from '../lease/lease.ts';
import { LocalSubnetManager } from '../subnet/local/local-subnet-manager.ts';
import type { SubnetManager } from '../subnet/subnet-manager.ts';
import type { LabHost, Topology } from './topology.ts';

export type SubnetStoreKind = 'local';

export const SUBNET_STORE_KINDS: readonly SubnetStoreKind[] = ['local'];

/** A store that runs and holds the network configuration. Disposing ends what it started. */
export interface SubnetStore extends AsyncDisposable {
  readonly kind: SubnetStoreKind;
  /** One line for people: what it is and where. */
  readonly description: string;
  /** The flags that lead this host's agent to it. */
  agentFlags(host: LabHost): readonly string[];
  /** Variables for this host's agent. */
  agentEnvironment(host: LabHost): Readonly<Record<string, string>>;
  /** All leases as any node would see them now. */
  leases(signal: AbortSignal): Promise<readonly Lease[]>;
}

/** @throws WeftError when the store cannot be started. */
export async function openSubnetStore(
  kind: SubnetStoreKind,
  topology: Topology,
  netConf: string,
  signal: AbortSignal,
): Promise<SubnetStore> {
  switch (kind) {
    case 'local':
      return openLocalStore(topology, netConf, signal);
  }
}

async function openLocalStore(topology: Topology, netConf: string, signal: AbortSignal): Promise<SubnetStore> {
  const storePath = join(topology.stateDirectory, 'subnets.db');
  const netConfPath = join(topology.stateDirectory, 'net-conf.json');
  await writeFile(netConfPath, netConf, { signal });
  return {
    kind: 'local',
    description: storePath,
    agentFlags: () => ['--subnet-mgr', 'local', '--local-store', storePath, '--net-config-path', netConfPath],
    agentEnvironment: () => ({}),
    leases: async (leasesSignal) => {
      await using manager = new LocalSubnetManager({ storePath, netConfPath });
      return await firstSnapshot(manager, leasesSignal);
    },
    [Symbol.asyncDispose]: async () => {},
  };
}

/** What {@link SubnetManager.watchLeases} tells a node that starts now. */
export async function firstSnapshot(manager: SubnetManager, signal: AbortSignal): Promise<readonly Lease[]> {
  const config = await manager.networkConfig(signal);
  for await (const update of manager.watchLeases(config, signal)) {
    if (update.type === 'snapshot') return update.leases;
  }
  throw new WeftError('WEFT_LAB_FAILED', `could not list the leases: the watch of ${manager.name} ended without any`);
}
