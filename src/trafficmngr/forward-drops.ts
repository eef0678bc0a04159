import {
  containsPrefix,
  formatPrefix,
  type IpPrefix,
  isPrefix4,
  overlaps,
  parseAddr,
  parsePrefix,
  singlePrefix,
} from '../ip/address.ts';
import type { FamilyKey, PerFamily } from '../ip/family.ts';

/** What a firewall of this host does to packets of containers, and what to do about it. */
export interface ForwardDrop {
  /** `chain FORWARD of table ip filter`. */
  readonly where: string;
  readonly what: string;
  readonly hint: string;
}

/** The firewall as programs print it. */
export interface FirewallText {
  /**
   * `nft -j list chains`, and `nft -j list table …` of those that {@link suspectTables} names of it; iptables-nft's rules are among
   * them. Empty when nft cannot be asked.
   */
  readonly nft: readonly string[];
  /**
   * Of `iptables-legacy` and `ip6tables-legacy`: what `-S FORWARD` and `-t raw -S PREROUTING` print, one after the other. `undefined`
   * when there is neither.
   */
  readonly legacy: PerFamily<string | undefined>;
}

interface Chain {
  readonly family: string;
  readonly table: string;
  readonly name: string;
  readonly hook?: string;
  readonly policy?: string;
  readonly prio?: number;
}

interface Rule {
  readonly family: string;
  readonly table: string;
  readonly chain: string;
  readonly expr: readonly unknown[];
}

/** Devices between which packets of containers are forwarded. */
const DEVICES = ['cni0', 'docker0'];
/** Of iptables' table raw, to which nothing but it comes that early. */
const RAW_PRIORITY = -300;
const OURS = /^flannel-ipv[46]$/;
const rawHint = (family: FamilyKey): string =>
  'Docker 28 and later drops packets from other hosts to the address of a container. Start dockerd with --allow-direct-routing, or give its network ' +
  `the option com.docker.network.bridge.gateway_mode_${family}=nat-unprotected.`;
/** How nft and iptables call a family. */
const TOOLS: PerFamily<{ readonly nft: string; readonly iptables: string }> = {
  ipv4: { nft: 'ip', iptables: 'iptables' },
  ipv6: { nft: 'ip6', iptables: 'ip6tables' },
};

/**
 * What drops packets between containers of different hosts. An accepting rule in one chain does not help against another
 * chain of the same hook: a packet must pass all of them. So with nftables the agent's own rules cannot undo a policy `drop` of
 * iptables' FORWARD (Docker sets it), nor one of firewalld or of the host's own ruleset. Rules are not followed packet by packet: a chain counts as open
 * when a rule that accepts names the network, a subnet of it, or a device of containers. Pure.
 */
export function findForwardDrops(text: FirewallText, network: IpPrefix, overlay: readonly string[]): ForwardDrop[] {
  const devices = [...DEVICES, ...overlay];
  const key = familyOf(network);
  const { nft, iptables } = TOOLS[key];
  const { chains, rules } = parseRuleset(text.nft);
  const drops: ForwardDrop[] = [];
  for (const { family, table, name, hook, policy } of chains) {
    if (hook !== 'forward' || policy !== 'drop' || OURS.test(table) || (family !== nft && family !== 'inet')) continue;
    const inTable = rules.filter((rule) => rule.family === family && rule.table === table);
    const reached = reachedFrom(name, inTable);
    if (inTable.some((rule) => reached.has(rule.chain) && accepts(rule, network, devices))) continue;
    const isIptables = family === nft && table === 'filter' && name === 'FORWARD';
    drops.push({
      where: `chain ${name} of table ${family} ${table}`,
      what: 'its policy drops forwarded packets, and it accepts no packets of the network',
      hint: isIptables ? iptablesHint(iptables, network) : nftHint(family, table, name, network),
    });
  }
  for (const rule of rules) {
    const chain = chains.find(
      ({ family, table, name }) => family === rule.family && table === rule.table && name === rule.chain,
    );
    if (chain?.hook !== 'prerouting' || !has(rule, 'drop')) continue;
    const target = destinationOf(rule);
    if (target === undefined || !containsPrefix(network, target)) continue;
    drops.push(rawDrop(`chain ${rule.chain} of table ${rule.family} ${rule.table}`, target, key));
  }
  const lines = text.legacy[key]?.split('\n') ?? [];
  if (lines.includes('-P FORWARD DROP') && !lines.some((line) => acceptsLine(line, network, devices))) {
    drops.push({
      where: `chain FORWARD of ${iptables}-legacy`,
      what: 'its policy drops forwarded packets, and it accepts no packets of the network',
      hint: iptablesHint(`${iptables}-legacy`, network),
    });
  }
  for (const line of lines) {
    const target = destinationDroppedBy(line);
    if (target === undefined || !containsPrefix(network, target)) continue;
    drops.push(rawDrop(`chain PREROUTING of table raw of ${iptables}-legacy`, target, key));
  }
  return drops;
}

function rawDrop(where: string, target: IpPrefix, family: FamilyKey): ForwardDrop {
  return {
    where,
    what: `it drops packets to ${formatPrefix(target)} that come from other devices`,
    hint: rawHint(family),
  };
}

/**
 * `ip filter` and the like: tables whose rules must be seen to judge their chains. Not those of NAT, which are large on a node with
 * many services. Pure.
 */
export function suspectTables(chains: string): string[] {
  const found = parseRuleset([chains]).chains.filter(
    ({ family, table, hook, policy, prio }) =>
      ['ip', 'ip6', 'inet'].includes(family) &&
      !OURS.test(table) &&
      ((hook === 'forward' && policy === 'drop') || (hook === 'prerouting' && Number(prio) <= RAW_PRIORITY)),
  );
  return [...new Set(found.map(({ family, table }) => `${family} ${table}`))];
}

export function describeForwardDrop({ where, what }: ForwardDrop): string {
  return `another firewall on this host drops packets of containers, ${where}: ${what}`;
}

function familyOf(network: IpPrefix): FamilyKey {
  return isPrefix4(network) ? 'ipv4' : 'ipv6';
}

function iptablesHint(program: string, network: IpPrefix): string {
  const text = formatPrefix(network);
  return (
    `Accept the packets there: ${program} -I FORWARD -s ${text} -j ACCEPT; ${program} -I FORWARD -d ${text} -j ACCEPT. ` +
    'Or remove EnableNFTables. The agent then sets these rules itself.'
  );
}

function nftHint(family: string, table: string, chain: string, network: IpPrefix): string {
  const insert = `nft insert rule ${family} ${table} ${chain} ${TOOLS[familyOf(network)].nft}`;
  const text = formatPrefix(network);
  return `Accept the packets there, and in the file of that ruleset: ${insert} saddr ${text} accept; ${insert} daddr ${text} accept.`;
}

/** What cannot be read counts as nothing. */
function parseRuleset(texts: readonly string[]): {
  readonly chains: readonly Chain[];
  readonly rules: readonly Rule[];
} {
  const chains = new Map<string, Chain>();
  const rules: Rule[] = [];
  for (const text of texts) {
    for (const item of itemsOf(text)) {
      const { chain, rule } = item ?? {};
      if (chain !== undefined) chains.set(`${chain.family} ${chain.table} ${chain.name}`, chain);
      if (Array.isArray(rule?.expr)) rules.push(rule);
    }
  }
  return { chains: [...chains.values()], rules };
}

function itemsOf(text: string): readonly ({ readonly chain?: Chain; readonly rule?: Rule } | null)[] {
  try {
    const items = (JSON.parse(text) as { readonly nftables?: unknown } | null)?.nftables;
    return Array.isArray(items) ? items : [];
  } catch {
    return [];
  }
}

/** A chain and those that rules jump to from it, through any number of others. */
function reachedFrom(start: string, rules: readonly Rule[]): ReadonlySet<string> {
  const reached = new Set([start]);
  for (const chain of reached) {
    for (const rule of rules) {
      if (rule.chain !== chain) continue;
      for (const verdict of ['jump', 'goto']) {
        const target = partOf(rule, verdict);
        if (typeof target === 'object' && target !== null && 'target' in target) reached.add(String(target.target));
      }
    }
  }
  return reached;
}

function has(rule: Rule, name: string): boolean {
  return rule.expr.some((part) => typeof part === 'object' && part !== null && name in part);
}

function partOf(rule: Rule, name: string): unknown {
  for (const part of rule.expr) {
    if (typeof part === 'object' && part !== null && name in part) return (part as Record<string, unknown>)[name];
  }
  return undefined;
}

function accepts(rule: Rule, network: IpPrefix, devices: readonly string[]): boolean {
  if (!has(rule, 'accept')) return false;
  const matches = rule.expr.flatMap((part) =>
    typeof part === 'object' && part !== null && 'match' in part ? [part.match] : [],
  );
  // Without any condition, but for counters and comments, it accepts everything.
  if (matches.length === 0 && !has(rule, 'xt')) return true;
  return matches.some((match) => {
    const { op, right } = match as { readonly op?: unknown; readonly right?: unknown };
    if (op === '!=') return false;
    if (typeof right === 'string' && devices.includes(right)) return true;
    const prefix = prefixIn(right);
    return prefix !== undefined && overlaps(prefix, network);
  });
}

function destinationOf(rule: Rule): IpPrefix | undefined {
  for (const part of rule.expr) {
    if (typeof part !== 'object' || part === null || !('match' in part)) continue;
    const { op, left, right } = part.match as {
      readonly op?: unknown;
      readonly left?: { readonly payload?: { readonly field?: unknown } };
      readonly right?: unknown;
    };
    if (op === '==' && left?.payload?.field === 'daddr') return prefixIn(right);
  }
  return undefined;
}

function prefixIn(value: unknown): IpPrefix | undefined {
  if (typeof value === 'string') {
    const addr = parseAddr(value);
    return addr === undefined ? undefined : singlePrefix(addr);
  }
  if (typeof value !== 'object' || value === null || !('prefix' in value)) return undefined;
  const { addr, len } = value.prefix as { readonly addr?: unknown; readonly len?: unknown };
  return parsePrefix(`${String(addr)}/${String(len)}`);
}

function destinationDroppedBy(line: string): IpPrefix | undefined {
  if (!line.startsWith('-A PREROUTING ') || !/ -j DROP$/.test(line)) return undefined;
  return parsePrefix(/(?<! !) -d (\S+)/.exec(line)?.[1] ?? '');
}

function acceptsLine(line: string, network: IpPrefix, devices: readonly string[]): boolean {
  if (!line.startsWith('-A FORWARD ') || !line.includes(' -j ')) return false;
  const target = / -j (\S+)/.exec(line)?.[1];
  // FLANNEL-FWD is the agent's own chain, and flannel's.
  if (target === 'FLANNEL-FWD') return true;
  if (target !== 'ACCEPT') return false;
  if (line === '-A FORWARD -j ACCEPT') return true;
  const prefixes = Array.from(line.matchAll(/(?<!! )-[sd] (\S+)/g), (match) => parsePrefix(match[1]!));
  const names = Array.from(line.matchAll(/(?<!! )-[io] (\S+)/g), (match) => match[1]!);
  return (
    prefixes.some((prefix) => prefix !== undefined && overlaps(prefix, network)) ||
    names.some((name) => devices.includes(name))
  );
}
