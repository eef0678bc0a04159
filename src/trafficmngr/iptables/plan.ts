import type { IpFamily, IpPrefix } from '../../ip/address.ts';
import { compareRules, type FoundRule, type Keyed, partRules } from '../compare-rules.ts';
import type { FamilyRules } from '../rules.ts';
import type { Repair, RepairProblem } from '../traffic-manager.ts';
import { chainOf, jumpLine, lineKey, networksInLine, ruleLine, targetOf, unconditionalTarget } from './lines.ts';

/** One of our chains, and the built-in chain that jumps to it. */
export interface ChainSpec {
  readonly table: 'nat' | 'filter' | 'raw';
  readonly chain: string;
  readonly hook: string;
  readonly comment: string;
  /** Whether the comment of each rule ends with the network whose rule it is. */
  readonly saysWhose: boolean;
  readonly rules: (rules: FamilyRules) => FamilyRules['masquerade'];
  /**
   * Targets that, in a rule without conditions in the hook, leave nothing for a jump after it. ACCEPT in FORWARD is not
   * among them: it does what our chain would.
   */
  readonly shadowedBy: ReadonlySet<string>;
}

/**
 * Names and comments of the first two are flannel's, so that either program finds the other's rules. It has none like the
 * others.
 */
export const CHAINS: readonly ChainSpec[] = [
  {
    table: 'nat',
    chain: 'FLANNEL-POSTRTG',
    hook: 'POSTROUTING',
    comment: 'flanneld masq',
    saysWhose: false,
    rules: (rules) => rules.masquerade,
    shadowedBy: new Set(['ACCEPT', 'RETURN', 'MASQUERADE', 'SNAT']),
  },
  {
    table: 'filter',
    chain: 'FLANNEL-FWD',
    hook: 'FORWARD',
    comment: 'flanneld forward',
    saysWhose: false,
    rules: (rules) => rules.forward,
    shadowedBy: new Set(['DROP', 'REJECT', 'RETURN']),
  },
  {
    table: 'raw',
    chain: 'FLANNEL-UNTRACK-IN',
    hook: 'PREROUTING',
    comment: 'flanneld untracked tunnel',
    saysWhose: true,
    rules: (rules) => rules.untrackedIn,
    shadowedBy: new Set(['ACCEPT', 'DROP', 'RETURN']),
  },
  {
    table: 'raw',
    chain: 'FLANNEL-UNTRACK-OUT',
    hook: 'OUTPUT',
    comment: 'flanneld untracked tunnel',
    saysWhose: true,
    rules: (rules) => rules.untrackedOut,
    shadowedBy: new Set(['ACCEPT', 'DROP', 'RETURN']),
  },
];

/** What there is of one {@link ChainSpec}: rule lines as iptables prints them. */
export interface ActualChain {
  /** `undefined`: there is no such chain. */
  readonly rules: readonly string[] | undefined;
  /** All rules of the built-in chain, whoever made them. */
  readonly hookRules: readonly string[];
}

export interface ChainPlan {
  /** Lines for one `*table … COMMIT` block of iptables-restore; empty when nothing is to be done. */
  readonly lines: readonly string[];
  readonly repairs: readonly Repair[];
}

/**
 * How to make our part of one chain and its jump as wanted. It is taken out and put in again within one commit: at the top where
 * there are rules of other agents, so that the rule that all of them have, of packets that kube-proxy masquerades, comes first
 * for all. Nothing is done that would undo what another agent has done since the chain was read: then the commit fails.
 *
 * The jump is appended, as flannel does, so it comes after kube-proxy's. Only when a rule before it takes every packet
 * (such as the `REJECT` that some distributions put at the end of FORWARD) is it put before that rule.
 *
 * `rules` must not be empty; see {@link planRemoval} for a chain that is not wanted.
 */
export function planChain(
  spec: ChainSpec,
  rules: FamilyRules['masquerade'],
  networks: readonly IpPrefix[],
  family: IpFamily,
  actual: ActualChain,
): ChainPlan {
  const chainPlace = `${spec.table}/${spec.chain}`;
  const wanted = rules.map((rule) => keyed(ruleLine(spec.chain, spec.comment, rule)));
  const lines: string[] = [];
  const repairs: Repair[] = [];

  if (actual.rules === undefined) {
    repairs.push({ problem: 'missing', family, where: chainPlace, rule: undefined });
    lines.push(`-N ${spec.chain}`, ...wanted.map(({ text }) => text));
  } else {
    const { ours, theirs } = partRules(wanted, actual.rules.map(foundIn(spec)), networks);
    for (const { problem, text } of compareRules(wanted, ours)) {
      repairs.push({ problem, family, where: chainPlace, rule: text });
    }
    if (repairs.length > 0 && theirs.length > 0) {
      lines.push(...ours.map(({ text }) => deletion(text)), ...wanted.map(({ text }, i) => insertAt(text, i)));
    }
    // With --noflush, a declaration makes a user chain or empties it (iptables-restore.c).
    else if (repairs.length > 0) lines.push(`:${spec.chain} - [0:0]`, ...wanted.map(({ text }) => text));
  }

  const jump = planJump(spec, actual.hookRules);
  lines.push(...jump.lines);
  const jumpText = jumpLine(spec.hook, spec.comment, spec.chain);
  for (const problem of jump.problems) {
    repairs.push({ problem, family, where: `${spec.table}/${spec.hook}`, rule: jumpText });
  }
  return { lines, repairs };
}

function planJump(spec: ChainSpec, hookRules: readonly string[]): { lines: string[]; problems: RepairProblem[] } {
  const jump = jumpLine(spec.hook, spec.comment, spec.chain);
  const key = lineKey(jump);
  const found = hookRules.flatMap((line, i) => (lineKey(line) === key ? [i] : []));
  const shadow = hookRules.findIndex((line) => spec.shadowedBy.has(unconditionalTarget(line) ?? ''));
  const problems: RepairProblem[] = found.slice(1).map(() => 'duplicate');
  const first = found[0];
  if (first === undefined) problems.push('missing');
  else if (shadow >= 0 && first > shadow) problems.push('shadowed');
  if (problems.length === 0) return { lines: [], problems };
  // All go and one comes, since `-D` takes the first of several and the one left over could be the shadowed one. Deleted
  // by text, not by number: another program may have renumbered them meanwhile, and then the commit fails as a whole.
  const place = shadow - found.filter((i) => i < shadow).length;
  return {
    lines: [...found.map(() => deletion(jump)), shadow < 0 ? jump : insertAt(jump, place)],
    problems,
  };
}

/** As `-I CHAIN n`: before the rule that has index `index` now. */
function insertAt(line: string, index: number): string {
  const [, chain = '', ...rest] = line.split(' ');
  return ['-I', chain, String(index + 1), ...rest].join(' ');
}

function deletion(line: string): string {
  return `-D${line.slice(2)}`;
}

function foundIn({ comment, saysWhose }: ChainSpec): (line: string) => FoundRule {
  return (line) => ({ ...keyed(line), named: networksInLine(line, comment, saysWhose) });
}

function keyed(line: string): Keyed {
  return { key: lineKey(line), text: line };
}

/** What `iptables-save` or `iptables -S` printed, by table. `-S` has no table line: its lines are filed under `table`. */
export interface SavedTable {
  readonly name: string;
  /** User and built-in chains, in the order printed. */
  readonly chains: readonly string[];
  /** `-A …` lines. */
  readonly rules: readonly string[];
}

/** The output of iptables-save. @param table of lines before any `*table`. */
export function parseSave(text: string, table = ''): readonly SavedTable[] {
  const tables: { name: string; chains: string[]; rules: string[] }[] = [];
  let current = { name: table, chains: [] as string[], rules: [] as string[] };
  if (table !== '') tables.push(current);
  for (const line of text.split('\n')) {
    if (line.startsWith('*')) {
      current = { name: line.slice(1).trim(), chains: [], rules: [] };
      tables.push(current);
    } else if (line.startsWith(':')) {
      current.chains.push(line.slice(1).split(' ', 1)[0]!);
    } else if (line.startsWith('-N ') || line.startsWith('-P ')) {
      current.chains.push(line.split(' ')[1]!);
    } else if (/^(\[\d+:\d+\] )?-A /.test(line)) {
      current.rules.push(line.replace(/^\[\d+:\d+\] /, '').trimEnd());
    }
  }
  return tables;
}

/** `undefined` when the save has no such chain. */
export function actualChain(spec: ChainSpec, saved: SavedTable | undefined): ActualChain {
  const of = (chain: string) => (saved?.rules ?? []).filter((line) => chainOf(line) === chain);
  return {
    rules: saved?.chains.includes(spec.chain) ? of(spec.chain) : undefined,
    hookRules: of(spec.hook),
  };
}

export interface RemovalPlan {
  readonly lines: readonly string[];
  /** What goes, as rule lines and `-N CHAIN`. */
  readonly removed: readonly string[];
}

/** Removes a chain, its rules and every jump to it in its table, whoever made the jump: else it could not be removed. */
export function planRemoval(spec: ChainSpec, saved: SavedTable | undefined): RemovalPlan {
  if (!saved?.chains.includes(spec.chain)) return { lines: [], removed: [] };
  const jumps = saved.rules.filter((line) => chainOf(line) !== spec.chain && targetOf(line) === spec.chain);
  const own = saved.rules.filter((line) => chainOf(line) === spec.chain);
  return {
    lines: [...jumps.map(deletion), `-F ${spec.chain}`, `-X ${spec.chain}`],
    removed: [...jumps, ...own, `-N ${spec.chain}`],
  };
}

/** Removes what is ours, and with the last agent's rules the chain. */
export function planWithdrawal(
  spec: ChainSpec,
  saved: SavedTable | undefined,
  networks: readonly IpPrefix[],
): RemovalPlan {
  const { rules = [] } = actualChain(spec, saved);
  const { ours, theirs } = partRules([], rules.map(foundIn(spec)), networks);
  if (theirs.length === 0) return planRemoval(spec, saved);
  const removed = ours.map(({ text }) => text);
  return { lines: removed.map(deletion), removed };
}

/** Input of `iptables-restore --noflush`: each block is committed as a whole. Empty when there is nothing to do. */
export function restorePayload(blocks: readonly { table: string; lines: readonly string[] }[]): string {
  return blocks
    .filter(({ lines }) => lines.length > 0)
    .map(({ table, lines }) => `*${table}\n${lines.join('\n')}\nCOMMIT\n`)
    .join('');
}
