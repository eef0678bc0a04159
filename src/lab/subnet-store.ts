import type { Lease } from '../lease/lease.ts';
import type { StoreResult } from './lab-result.ts';
import type { LabHost } from './topology.ts';

export type SubnetStoreKind = 'local' | 'etcd' | 'kube';

export const SUBNET_STORE_KINDS: readonly SubnetStoreKind[] = ['local', 'etcd', 'kube'];

/**
 * Where the agents of a lab find the network configuration and agree on subnets: it runs, and holds the configuration.
 * Disposing ends what it started.
 */
export interface SubnetStore extends AsyncDisposable {
  readonly kind: SubnetStoreKind;
  /** One line for people: what it is and where. */
  readonly description: string;
  readonly result: StoreResult;
  /** The flags that lead this host's agent to it. */
  agentFlags(host: LabHost): readonly string[];
  /** Variables for this host's agent. */
  agentEnvironment(host: LabHost): Readonly<Record<string, string>>;
  /** All leases as the store has them now. */
  leases(signal: AbortSignal): Promise<readonly Lease[]>;
}
