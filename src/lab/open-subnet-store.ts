import { assertNever } from '../assert-never.ts';
import type { SubnetStore, SubnetStoreKind } from './subnet-store.ts';
import type { Topology } from './topology.ts';

/**
 * Starts the store of a lab. For `etcd` and `kube` the topology must have been made with a `store`. Only the code of that
 * kind is loaded.
 *
 * @throws WeftError or Error when it cannot be started, with the end of a server's log.
 */
export async function openSubnetStore(
  kind: SubnetStoreKind,
  topology: Topology,
  netConf: string,
  signal: AbortSignal,
): Promise<SubnetStore> {
  switch (kind) {
    case 'local': {
      const { openLocalStore } = await import('./local-store.ts');
      return await openLocalStore(topology, netConf, signal);
    }
    case 'etcd': {
      const { openEtcdStore } = await import('./etcd-store.ts');
      return await openEtcdStore(topology, netConf, signal);
    }
    case 'kube': {
      const { openKubeStore } = await import('./kube-store.ts');
      return await openKubeStore(topology, netConf, signal);
    }
    default:
      return assertNever(kind, 'subnet store');
  }
}
