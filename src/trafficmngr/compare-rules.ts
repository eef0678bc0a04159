import { type IpPrefix, overlaps } from '../ip/address.ts';
import type { RepairProblem } from './traffic-manager.ts';

export interface Keyed {
  /** Equal exactly when two rules do the same. */
  readonly key: string;
  /** As a person reads it. */
  readonly text: string;
}

/** A rule found in a chain that all agents of a host share. */
export interface FoundRule extends Keyed {
  /** The networks that it names; `undefined` when no agent's rule looks like it. */
  readonly named: readonly IpPrefix[] | undefined;
}

export interface Difference {
  readonly problem: Extract<RepairProblem, 'missing' | 'duplicate' | 'unexpected' | 'order'>;
  readonly text: string;
}

/**
 * Parts what is in a chain: `theirs` are rules of other agents' networks, to be left as they are. A rule that names no network is
 * needed by each of them: where none is wanted by this one, it is theirs as well.
 */
export function partRules<R extends FoundRule>(
  wanted: readonly Keyed[],
  actual: readonly R[],
  networks: readonly IpPrefix[],
): { readonly ours: readonly R[]; readonly theirs: readonly R[] } {
  const isOther = ({ named = [] }: R): boolean =>
    named.length > 0 && !named.some((prefix) => networks.some((network) => overlaps(network, prefix)));
  const shared = wanted.length === 0 && actual.some(isOther);
  const { ours = [], theirs = [] } = Object.groupBy(actual, (rule) =>
    isOther(rule) || (shared && rule.named?.length === 0) ? 'theirs' : 'ours',
  );
  return { ours, theirs };
}

/**
 * How our part of a chain differs from what it should be; empty exactly when the two are the same sequence. `order` is
 * reported once, with the first rule that is not in its place, and only when nothing else is wrong.
 */
export function compareRules(wanted: readonly Keyed[], actual: readonly Keyed[]): readonly Difference[] {
  const wantedCount = countByKey(wanted);
  const actualCount = countByKey(actual);
  const differences: Difference[] = [];
  for (const [key, { count, text }] of wantedCount) {
    const found = actualCount.get(key)?.count ?? 0;
    for (let i = found; i < count; i++) differences.push({ problem: 'missing', text });
    for (let i = count; i < found; i++) differences.push({ problem: 'duplicate', text });
  }
  for (const [key, { count, text }] of actualCount) {
    if (wantedCount.has(key)) continue;
    for (let i = 0; i < count; i++) differences.push({ problem: 'unexpected', text });
  }
  if (differences.length > 0) return differences;
  const misplaced = actual.find((rule, i) => rule.key !== wanted[i]?.key);
  return misplaced === undefined ? [] : [{ problem: 'order', text: misplaced.text }];
}

function countByKey(rules: readonly Keyed[]): Map<string, { count: number; text: string }> {
  const counts = new Map<string, { count: number; text: string }>();
  for (const { key, text } of rules) {
    const entry = counts.get(key);
    if (entry === undefined) counts.set(key, { count: 1, text });
    else entry.count++;
  }
  return counts;
}
