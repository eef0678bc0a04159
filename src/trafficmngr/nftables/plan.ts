import type { IpFamily, IpPrefix } from '../../ip/address.ts';
import { compareRules, type FoundRule, type Keyed, partRules } from '../compare-rules.ts';
import { type FamilyRules, networksNamed, ruleKey, type TrafficRule } from '../rules.ts';
import type { Repair } from '../traffic-manager.ts';
import { field, type Json, nftFamily, nftRule, parseNftRule } from './script.ts';

/** flannel's table names. */
export function tableName(family: IpFamily): string {
  return `flannel-ipv${family}`;
}

interface BaseChain {
  readonly name: string;
  readonly comment: string;
  readonly type: string;
  readonly hook: string;
  /** As nft text has it, and the number that its JSON shows for it. */
  readonly priority: readonly [name: string, value: number];
  /** Whether each rule says in a comment whose it is. */
  readonly saysWhose: boolean;
  readonly rules: (rules: FamilyRules) => readonly TrafficRule[];
}

const BASE_CHAINS: readonly BaseChain[] = [
  {
    name: 'postrtg',
    comment: 'chain to manage traffic masquerading by flannel',
    type: 'nat',
    hook: 'postrouting',
    priority: ['srcnat', 100],
    saysWhose: false,
    rules: (rules) => rules.masquerade,
  },
  {
    name: 'forward',
    comment: 'chain to accept flannel traffic',
    type: 'filter',
    hook: 'forward',
    priority: ['filter', 0],
    saysWhose: false,
    rules: (rules) => rules.forward,
  },
  {
    name: 'untrack-in',
    comment: 'chain to keep received tunnel datagrams out of connection tracking',
    type: 'filter',
    hook: 'prerouting',
    priority: ['raw', -300],
    saysWhose: true,
    rules: (rules) => rules.untrackedIn,
  },
  {
    name: 'untrack-out',
    comment: 'chain to keep sent tunnel datagrams out of connection tracking',
    type: 'filter',
    hook: 'output',
    priority: ['raw', -300],
    saysWhose: true,
    rules: (rules) => rules.untrackedOut,
  },
];

interface ActualNftRule extends FoundRule {
  /** What the kernel knows it by, for good. */
  readonly handle: number;
}

export interface ActualNftChain {
  readonly type: string;
  readonly hook: string;
  readonly priority: number;
  readonly policy: string;
  readonly rules: readonly ActualNftRule[];
}

export interface ActualNftTable {
  /** Such as `dormant`, which switches a table off. */
  readonly flags: readonly string[];
  readonly chains: ReadonlyMap<string, ActualNftChain>;
}

/**
 * The output of `nft -j list table`; `undefined` when the JSON is not such output.
 * A rule that says anything ours never do keeps its JSON as its key, so it equals no wanted rule.
 */
export function parseNftTable(json: Json): ActualNftTable | undefined {
  const items = field(json, 'nftables');
  if (!Array.isArray(items)) return undefined;
  let flags: readonly string[] | undefined;
  const chains = new Map<string, ActualNftChain & { rules: ActualNftRule[] }>();
  for (const item of items as Json[]) {
    const table = field(item, 'table');
    if (table !== undefined) flags = [field(table, 'flags') ?? []].flat().map(String);
    const chain = field(item, 'chain');
    if (chain !== undefined) {
      chains.set(String(field(chain, 'name')), {
        type: String(field(chain, 'type') ?? ''),
        hook: String(field(chain, 'hook') ?? ''),
        priority: Number(field(chain, 'prio')),
        policy: String(field(chain, 'policy') ?? 'accept'),
        rules: [],
      });
    }
    const rule = field(item, 'rule');
    if (rule !== undefined) chains.get(String(field(rule, 'chain')))?.rules.push(foundRule(rule));
  }
  return flags && { flags, chains };
}

function foundRule(json: Json): ActualNftRule {
  const expr = field(json, 'expr');
  const handle = Number(field(json, 'handle'));
  const rule = parseNftRule(expr, field(json, 'comment'));
  if (rule === undefined) {
    const text = JSON.stringify(expr);
    return { key: text, text, handle, named: undefined };
  }
  const saysWhose = BASE_CHAINS.find(({ name }) => name === field(json, 'chain'))?.saysWhose === true;
  return { ...keyed(rule), handle, named: saysWhose && rule.of === undefined ? undefined : networksNamed(rule) };
}

function keyed(rule: TrafficRule): Keyed {
  return { key: ruleKey(rule), text: nftRule(rule) };
}

export interface NftPlan {
  /** For `nft -f -`, one transaction; empty when nothing is to be done. */
  readonly script: string;
  readonly repairs: readonly Repair[];
}

/**
 * How to make our part of flannel's table of one family as wanted. The table exists even without rules, as flannel has it. Chains
 * in it that flannel does not know are left alone. Our rules come first where there are some of other agents; nothing is done that
 * would undo what another agent has done since the table was read: then the transaction fails.
 */
export function planNftTable(
  family: IpFamily,
  rules: FamilyRules,
  networks: readonly IpPrefix[],
  actual: ActualNftTable | undefined,
): NftPlan {
  const table = `${nftFamily(family)} ${tableName(family)}`;
  const lines: string[] = [];
  const repairs: Repair[] = [];
  const report = (problem: Repair['problem'], where: string, rule?: string) =>
    repairs.push({ problem, family, where, rule });

  // Adding a table that exists changes nothing, except that it wakes a dormant one.
  const addTable = `add table ${table} { comment "rules for ${tableName(family)}"; }`;
  if (actual === undefined) {
    report('missing', table);
    lines.push(addTable);
  } else if (actual.flags.length > 0) {
    report('altered', table, `flags ${actual.flags.join(', ')}`);
    lines.push(addTable);
  }

  for (const chain of BASE_CHAINS) {
    const where = `${table} ${chain.name}`;
    const wanted = chain.rules(rules).map(keyed);
    const found = actual?.chains.get(chain.name);
    const { ours, theirs } = partRules(wanted, found?.rules ?? [], networks);
    const deletions = ours.map(({ handle }) => `delete rule ${where} handle ${handle}`);
    if (wanted.length === 0) {
      if (found === undefined) continue;
      for (const { text } of ours) report('unexpected', where, text);
      if (theirs.length > 0) {
        lines.push(...deletions);
        continue;
      }
      report('unexpected', where);
      lines.push(`flush chain ${where}`, `delete chain ${where}`);
      continue;
    }
    const hook = `type ${chain.type} hook ${chain.hook} priority ${chain.priority[0]}`;
    const properties = `chain ${where} { ${hook}; policy accept; comment "${chain.comment}"; }`;
    const adding = ({ text }: Keyed): string => `add rule ${where} ${text}`;
    const addRules = wanted.map(adding);
    if (found === undefined) {
      report('missing', where);
      lines.push(`create ${properties}`, ...addRules);
      continue;
    }
    if (!hasProperties(chain, found)) {
      report('altered', where, describeProperties(found));
      lines.push(`flush chain ${where}`, `delete chain ${where}`, `add ${properties}`, ...addRules);
      lines.push(...theirs.map(adding));
      continue;
    }
    const differences = compareRules(wanted, ours);
    for (const { problem, text } of differences) report(problem, where, text);
    if (differences.length === 0) continue;
    if (theirs.length === 0) lines.push(`flush chain ${where}`, ...addRules);
    else lines.push(...deletions, ...wanted.map(({ text }) => `insert rule ${where} ${text}`).reverse());
  }
  return { script: lines.map((line) => `${line}\n`).join(''), repairs };
}

/** Whether the table has rules of other agents. */
export function hasOthers(actual: ActualNftTable, networks: readonly IpPrefix[]): boolean {
  return [...actual.chains.values()].some(({ rules }) => partRules([], rules, networks).theirs.length > 0);
}

function hasProperties(chain: BaseChain, found: ActualNftChain): boolean {
  return (
    found.type === chain.type &&
    found.hook === chain.hook &&
    found.priority === chain.priority[1] &&
    found.policy === 'accept'
  );
}

function describeProperties({ type, hook, priority, policy }: ActualNftChain): string {
  return type === '' ? 'not a base chain' : `type ${type} hook ${hook} priority ${priority}; policy ${policy}`;
}

/**
 * A script for `nft --check -f -` that passes when this nft and this kernel know fully-random source ports. Nothing
 * comes of it; the chain has the name that flannel's own probe uses.
 */
export const FULLY_RANDOM_PROBE: string = [
  'add table ip flannel-ipv4',
  'add chain ip flannel-ipv4 masqueradeTest { type nat hook postrouting priority srcnat; }',
  'add rule ip flannel-ipv4 masqueradeTest masquerade fully-random',
  '',
].join('\n');
