import type { IpFamily, IpPrefix } from '../ip/address.ts';
import type { TrafficRules } from './rules.ts';

/**
 * One thing that was not as wanted and has been put right. At the first start of a node that is everything; later, each
 * one means that somebody else has changed our rules.
 */
export interface Repair {
  readonly problem: RepairProblem;
  readonly family: IpFamily;
  /** Where, as the tool's users write it: `nat/FLANNEL-POSTRTG`, `nat/POSTROUTING`, `ip flannel-ipv4 postrtg`. */
  readonly where: string;
  /** The rule in the tool's own notation; `undefined` when it is about the chain or table itself. */
  readonly rule: string | undefined;
}

export type RepairProblem =
  /** Not there. */
  | 'missing'
  /** There more often than wanted. */
  | 'duplicate'
  /** In our chain, but not one of ours: of a previous network or subnet, or somebody else's. */
  | 'unexpected'
  /** All rules are there, in another order. */
  | 'order'
  /** Our jump comes after a rule that leaves nothing for it. */
  | 'shadowed'
  /** A chain or table with other properties (hook, priority, policy) than wanted. */
  | 'altered';

export const REPAIR_PROBLEMS: readonly RepairProblem[] = [
  'missing',
  'duplicate',
  'unexpected',
  'order',
  'shadowed',
  'altered',
];

export interface Removal {
  /** What was removed, in the tool's own notation. */
  readonly removed: readonly string[];
  /** Programs that are not installed, so that rules made through them could not be looked for. */
  readonly unavailable: readonly string[];
}

/**
 * Keeps flannel's masquerade and forward rules in the kernel. Two of them exist, iptables and nftables; one is selected
 * by `EnableNFTables` and the other one's rules are removed at start.
 *
 * One instance is used by one caller at a time. It owns flannel's chains and their content, but for the rules of other agents on
 * this host (see {@link TrafficRules.networks}), the jumps into them, and nothing else: no other chain, table or policy is touched.
 */
export interface TrafficManager {
  readonly kind: TrafficManagerKind;
  /**
   * Whether rules of these families could be set, as far as reading tells: for a start that is to fail before it changes
   * anything.
   *
   * @throws WeftError WEFT_COMMAND_MISSING, WEFT_TRAFFIC_RULES
   */
  probe(families: readonly IpFamily[], signal?: AbortSignal): Promise<void>;
  /**
   * Makes our rules in the kernel equal `wanted`, including order and number, and says what differed; empty when nothing did.
   * A chain without rules is removed. Atomic per table: no packet meets half of it.
   *
   * @throws WeftError WEFT_COMMAND_MISSING, WEFT_TRAFFIC_RULES
   */
  ensure(wanted: TrafficRules, signal?: AbortSignal): Promise<readonly Repair[]>;
  /** Removes what is there of these networks, and all when nothing is left of others. Idempotent. */
  withdraw(networks: readonly IpPrefix[], signal?: AbortSignal): Promise<Removal>;
  /** Removes everything of this manager, in both families, also what an earlier agent or flanneld left. Idempotent. */
  remove(signal?: AbortSignal): Promise<Removal>;
  /** What is there of it now, one line each, as its tool prints it. */
  read(signal?: AbortSignal): Promise<readonly string[]>;
}

export type TrafficManagerKind = 'iptables' | 'nftables';

/** For logs: `nat/POSTROUTING (IPv4): missing: -A POSTROUTING …`. */
export function describeRepair(repair: Repair): string {
  const subject = repair.rule === undefined ? '' : `: ${repair.rule}`;
  return `${repair.where} (IPv${repair.family}): ${repair.problem}${subject}`;
}
