/** Which rule of nftables drops a packet: what the rule that traces it matches, and what `nft monitor trace` says of it. Pure. */
import { type IpAddr, isIpv4 } from '../ip/address.ts';
import type { TraceIdentity, TraceLeg, TraceMatch } from './trace-match.ts';

/** A rule, or the policy of a chain. */
export interface DroppingRule {
  /** With its family: `inet filter`. */
  readonly table: string;
  readonly chain: string;
  readonly text: string;
  /** The command that lists it. */
  readonly listedBy: string;
}

/** Where in a packet that netfilter has seen the traced one begins, and how long the header of that is, in bytes. */
export interface RuleTarget {
  readonly leg: TraceLeg;
  readonly offsetBytes: number;
  readonly headerBytes: number;
}

export function ruleTargetOf({ leg, packet, inner, innerOffsetBytes }: TraceMatch): RuleTarget {
  return { leg, offsetBytes: innerOffsetBytes, headerBytes: (inner ?? packet).ip.headerLength };
}

/** A packet that is sent from a socket. */
export function plainTarget({ destination }: TraceIdentity): RuleTarget {
  return { leg: 'request', offsetBytes: 0, headerBytes: isIpv4(destination) ? 20 : 40 };
}

/** By its place in the bytes, so that it fits a packet inside a tunnel's as well. */
export function ruleMatch({ protocol, destination, mark }: TraceIdentity, target: RuleTarget): string {
  const { leg, offsetBytes, headerBytes } = target;
  const isAnswer = leg === 'answer';
  const addressAt = isIpv4(destination) ? (isAnswer ? 12 : 16) : isAnswer ? 8 : 24;
  const markAt = protocol === 'icmp' ? 4 : isAnswer ? 2 : 0;
  return [
    field(offsetBytes + addressAt, isIpv4(destination) ? 32 : 128, destination),
    field(offsetBytes + headerBytes + markAt, 16, mark),
  ].join(' ');
}

/** `@nh`: from the network header on, in bits. */
function field(atBytes: number, bits: number, value: IpAddr | number): string {
  return `@nh,${8 * atBytes},${bits} 0x${value.toString(16).padStart(bits / 4, '0')}`;
}

const LINE = /^trace id \S+ (\S+ \S+) (\S+) (?:rule (.*) \(verdict drop\)|(policy drop))\s*$/;
/** As iptables-nft names them. */
const IPTABLES_TABLES: Readonly<Record<string, string>> = { ip: 'iptables-nft', ip6: 'ip6tables-nft' };
const IPTABLES = /^(ip6?) (filter|nat|mangle|raw|security)$/;

/** What a line of `nft monitor trace` says; `undefined` when nothing is dropped there. */
export function droppingRule(line: string): DroppingRule | undefined {
  const [, table, chain, rule, policy] = LINE.exec(line) ?? [];
  if (table === undefined || chain === undefined) return undefined;
  const text = (rule ?? policy ?? '').replaceAll(/ packets \d+ bytes \d+/g, '');
  const [, family, name] = IPTABLES.exec(table) ?? [];
  // Chains of iptables are in capital letters; others may have a table of the same name.
  const program = /^[A-Z0-9_-]+$/.test(chain) ? IPTABLES_TABLES[family ?? ''] : undefined;
  const listedBy = program === undefined ? `nft -a list chain ${table} ${chain}` : `${program} -t ${name} -S ${chain}`;
  return { table, chain, text, listedBy };
}
