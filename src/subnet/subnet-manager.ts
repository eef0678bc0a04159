import type { NetworkConfig } from '../config/network-config.ts';
import type { IpAddr } from '../ip/address.ts';
import type { Lease, LeaseAttrs, LeaseKey } from '../lease/lease.ts';
import type { Subnets } from '../lease/subnets.ts';

/** What happened to this node's own lease while it was held. */
export type OwnLeaseEvent =
  /** Still ours, with a new expiration or changed attributes; after `store-unavailable` it also says that the store is back. */
  | { readonly type: 'renewed'; readonly lease: Lease }
  /** The store could not be reached; packets go on, the manager keeps trying. Emitted once per outage, however long. */
  | { readonly type: 'store-unavailable'; readonly error: Error }
  /** The subnet was lost (taken by another host, or its expired lease could not be had again): a new one must be acquired. */
  | { readonly type: 'lost'; readonly reason: string };

/**
 * The full truth about all leases, or a change to it; the consumer diffs snapshots (lease/lease-table.ts). Where the store
 * knows holders by name, several may have one subnet: which of them is believed is decided by lease/lease-gate.ts.
 */
export type LeaseUpdate =
  | { readonly type: 'snapshot'; readonly leases: readonly Lease[] }
  | { readonly type: 'set'; readonly lease: Lease }
  | { readonly type: 'removed'; readonly key: LeaseKey; readonly holder?: string | undefined };

export interface AcquireOptions {
  /** The subnet of an earlier run (subnet.env): taken again when nobody else holds it and it fits the configuration. */
  readonly previous?: Subnets;
  /**
   * The lease that this very process holds, with the attributes it published: its entry is this host's although the public
   * address has changed since.
   */
  readonly held?: Lease | undefined;
  /**
   * All addresses of this host. A lease under any of them is its own: an agent that was not running while its public address
   * changed knows it by that. Of no use where the store knows nodes by name.
   */
  readonly hostAddresses?: readonly IpAddr[] | undefined;
}

export interface WatchOptions {
  /** False for a backend that does not look at what others publish for it: their data is then neither read nor kept. */
  readonly backendData?: boolean;
}

/**
 * Where nodes agree on who owns which subnet (flannel's subnet.Manager). Implementations: local/ (one machine),
 * etcd/ and kube/. All of them, and the fake, pass test/contract/subnet-manager.ts.
 *
 * Every method takes an AbortSignal: promises reject with its reason when it fires, iterables end quietly. Temporary
 * failures of the store are retried inside with back-off; what is rejected needs a human. What people want to read in
 * the log meanwhile (lease reused, entry unreadable, …) goes to the `report` function given at construction: report.ts.
 */
export interface SubnetManager extends AsyncDisposable {
  /** For the log, e.g. `Etcd Local Manager with Previous Subnet: None`. */
  readonly name: string;

  /** The network configuration, validated. @throws WeftError WEFT_CONFIG_MISSING (ask again later) or WEFT_CONFIG_INVALID. */
  networkConfig(signal: AbortSignal): Promise<NetworkConfig>;

  /**
   * Own subnet: the lease whose public address is ours, else one under another address of this host, else the previous
   * subnet, else a free one; compare-and-set, so
   * two hosts never hold overlapping subnets. @throws WeftError WEFT_SUBNET_EXHAUSTED.
   */
  acquireLease(config: NetworkConfig, attrs: LeaseAttrs, signal: AbortSignal, options?: AcquireOptions): Promise<Lease>;

  /** Keeps the lease alive until aborted or lost; ends after `lost`. */
  holdLease(lease: Lease, signal: AbortSignal): AsyncIterable<OwnLeaseEvent>;

  /**
   * All leases, own included, from now on: first a snapshot, then changes; a snapshot again whenever continuity was
   * lost. Unreadable entries are skipped and reported, never turned into "all peers gone"; an entry that becomes
   * unreadable keeps its last readable meaning. An expired lease is a removed one: consumers never
   * compare `expiresAtMs` with a clock, least of all while the store is away. Updates that a slow consumer has not
   * taken yet are merged by key. Nothing that one entry says can end the watch or keep other entries from the consumer.
   * Ends only when aborted.
   */
  watchLeases(config: NetworkConfig, signal: AbortSignal, options?: WatchOptions): AsyncIterable<LeaseUpdate>;

  /** Called once the node can carry packets (flannel's CompleteLease); kube sets NetworkUnavailable=False. */
  completeLease(lease: Lease, signal: AbortSignal): Promise<void>;
}
