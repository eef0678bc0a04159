/** Which rule of iptables-legacy drops a packet: that which counts all copies of it. Pure. */
import type { IpFamily } from '../ip/address.ts';
import type { DroppingRule } from './rule-trace.ts';

/** A rule or policy that drops, and how many packets it has met. */
export interface LegacyCount {
  readonly rule: DroppingRule;
  readonly packets: number;
}

/** Of all copies: some may be lost before. */
const ENOUGH = 0.8;
/** Of each copy: TCP repeats a packet that is not answered, and others send as well. */
const AT_MOST = 3;

const TABLE = /^\*(\S+)$/;
const POLICY = /^:(\S+) DROP \[(\d+):\d+\]$/;
const RULE = /^\[(\d+):\d+\] -A (\S+) (.*-j (?:DROP|REJECT)\b.*)$/;

/** From what `iptables-legacy-save -c` prints: of each table its chains, then their rules. */
export function legacyCounts(family: IpFamily, text: string): readonly LegacyCount[] {
  const program = family === 4 ? 'iptables-legacy' : 'ip6tables-legacy';
  let table = '';
  const countOf = (chain: string, what: string, packets: string): LegacyCount => {
    const listedBy = `${program} -t ${table} -S ${chain}`;
    return { rule: { table: `${program} ${table}`, chain, text: what, listedBy }, packets: Number(packets) };
  };
  return text.split('\n').flatMap((line) => {
    table = TABLE.exec(line)?.[1] ?? table;
    const [, policyOf, met] = POLICY.exec(line) ?? [];
    if (policyOf !== undefined) return [countOf(policyOf, 'policy drop', met!)];
    const [, packets, chain, rule] = RULE.exec(line) ?? [];
    return packets === undefined ? [] : [countOf(chain!, rule!, packets)];
  });
}

/** `undefined` when none has met the copies, or several may have. */
export function ruleOfCopies(
  before: readonly LegacyCount[],
  after: readonly LegacyCount[],
  copies: number,
): DroppingRule | undefined {
  // Rules have no number of their own: with another list in between, nothing can be compared.
  if (before.length !== after.length) return undefined;
  const [found, ...others] = after.filter(({ packets }, i) => {
    const rise = packets - before[i]!.packets;
    return rise >= ENOUGH * copies && rise <= AT_MOST * copies;
  });
  return others.length === 0 ? found?.rule : undefined;
}
