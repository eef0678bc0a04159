import { assertNever } from '../../assert-never.ts';
import { formatPrefix, type IpPrefix, parseAddr, parsePrefix } from '../../ip/address.ts';
import { parseIpv4 } from '../../ip/ipv4.ts';
import { ofText, type PrefixMatch, parseOf, type TrafficRule } from '../rules.ts';

/**
 * Rules as `iptables -S` and `iptables-save` print them and `iptables-restore` reads them. Text is compared by
 * {@link lineKey} and never as it stands: versions and flavours differ in how they print the same rule.
 */

/** One rule line. The order of its parts is the one that iptables prints. */
export function ruleLine(chain: string, comment: string, rule: TrafficRule): string {
  const parts = ['-A', chain];
  pushMatch(parts, '-s', rule.source);
  pushMatch(parts, '-d', rule.destination);
  if (rule.udp !== undefined) {
    const option = rule.udp.end === 'source' ? '--sport' : '--dport';
    parts.push('-p', 'udp', '-m', 'udp', option, String(rule.udp.port));
  }
  if (rule.mark !== undefined) parts.push('-m', 'mark', '--mark', `${hex(rule.mark.value)}/${hex(rule.mark.mask)}`);
  const text = rule.of === undefined ? comment : `${comment} ${ofText(rule.of)}`;
  parts.push('-m', 'comment', '--comment', `"${text}"`);
  const { action } = rule;
  switch (action.type) {
    case 'return':
      parts.push('-j', 'RETURN');
      break;
    case 'accept':
      parts.push('-j', 'ACCEPT');
      break;
    case 'notrack':
      parts.push('-j', 'CT', '--notrack');
      break;
    case 'masquerade':
      parts.push('-j', 'MASQUERADE');
      if (action.fullyRandom) parts.push('--random-fully');
      break;
    default:
      assertNever(action);
  }
  return parts.join(' ');
}

/** The rule of a chain that sends every packet to another one. */
export function jumpLine(from: string, comment: string, to: string): string {
  return `-A ${from} -m comment --comment "${comment}" -j ${to}`;
}

function pushMatch(parts: string[], option: '-s' | '-d', match: PrefixMatch | undefined): void {
  if (match === undefined) return;
  if (match.negated) parts.push('!');
  parts.push(option, formatPrefix(match.prefix));
}

function hex(value: number): string {
  return `0x${value.toString(16)}`;
}

/** Splits as iptables-restore does: white space separates, double quotes hold together, a backslash takes the next character. */
export function words(line: string): string[] {
  const result: string[] = [];
  let current: string | undefined;
  let quoted = false;
  for (let i = 0; i < line.length; i++) {
    const char = line[i]!;
    if (char === '"') {
      quoted = !quoted;
      current ??= '';
    } else if (char === '\\' && quoted && i + 1 < line.length) {
      current = (current ?? '') + line[++i]!;
    } else if (!quoted && /\s/.test(char)) {
      if (current !== undefined) result.push(current);
      current = undefined;
    } else {
      current = (current ?? '') + char;
    }
  }
  if (current !== undefined) result.push(current);
  return result;
}

/** The options of a rule line, each with its values and whether `!` stood before it; `-A CHAIN` is the first one. */
interface Option {
  readonly name: string;
  readonly negated: boolean;
  readonly values: readonly string[];
}

function options(line: string): Option[] {
  const result: { name: string; negated: boolean; values: string[] }[] = [];
  let negated = false;
  for (const word of words(line)) {
    if (word === '!') {
      negated = true;
    } else if (word.startsWith('-')) {
      result.push({ name: word, negated, values: [] });
      negated = false;
    } else {
      result.at(-1)?.values.push(word);
    }
  }
  return result;
}

/** Matches that their own options name already. */
const IMPLIED_MATCHES: ReadonlySet<string> = new Set(['comment', 'mark', 'udp']);

/** Equal for two lines exactly when they say the same, whatever version or flavour printed them. */
export function lineKey(line: string): string {
  return options(line)
    .filter(({ name, values }) => !(name === '-m' && IMPLIED_MATCHES.has(values[0] ?? '')))
    .map(({ name, negated, values }) => `${negated ? '! ' : ''}${name} ${JSON.stringify(normalValues(name, values))}`)
    .filter((text) => text !== '-s ["any"]' && text !== '-d ["any"]')
    .join(' ');
}

function normalValues(name: string, values: readonly string[]): readonly string[] {
  const [value] = values;
  if (value === undefined) return values;
  switch (name) {
    case '-s':
    case '-d':
      return [normalPrefix(value)];
    case '--mark':
      return [normalMark(value)];
    default:
      return values;
  }
}

function normalPrefix(text: string): string {
  const prefix = parsePrefix(withPrefixLength(text));
  if (prefix === undefined) return text;
  return prefix.length === 0 ? 'any' : formatPrefix(prefix);
}

/** `10.0.0.0/255.0.0.0` and `10.0.0.1` as CIDR. */
function withPrefixLength(text: string): string {
  const [address = '', suffix] = text.split('/');
  if (suffix === undefined) {
    const parsed = parseAddr(text);
    return parsed === undefined ? text : `${text}/${typeof parsed === 'number' ? 32 : 128}`;
  }
  const mask = parseIpv4(suffix);
  if (mask === undefined) return text;
  const ones = Math.clz32(~mask);
  const contiguous = mask === (ones === 0 ? 0 : (0xffffffff << (32 - ones)) >>> 0);
  return contiguous ? `${address}/${ones}` : text;
}

function normalMark(text: string): string {
  const [value = '', mask] = text.split('/');
  const numbers = [Number(value), mask === undefined ? 0xffffffff : Number(mask)];
  return numbers.some(Number.isNaN) ? text : numbers.map(hex).join('/');
}

/** The chain to which a rule line goes with `-j` or `-g`, or its target. */
export function targetOf(line: string): string | undefined {
  return options(line).find(({ name }) => name === '-j' || name === '-g')?.values[0];
}

/** The chain that a line of iptables-save adds a rule to; `undefined` for another line. */
export function chainOf(line: string): string | undefined {
  const [first, chain] = words(line);
  return first === '-A' ? chain : undefined;
}

/**
 * The networks that a rule with this comment names, and `undefined` for a rule with another one. Where every rule says in its
 * comment whose it is, nothing else counts.
 */
export function networksInLine(line: string, comment: string, saysWhose: boolean): readonly IpPrefix[] | undefined {
  const parsed = options(line);
  const found = parsed.find(({ name }) => name === '--comment')?.values[0] ?? '';
  if (saysWhose) {
    const of = found.startsWith(comment) ? parseOf(found) : undefined;
    return of && [of];
  }
  if (found !== comment) return undefined;
  return parsed.flatMap(({ name, values: [value = ''] }) =>
    name === '-s' || name === '-d' ? (parsePrefix(withPrefixLength(value)) ?? []) : [],
  );
}

/** The rule's target when it takes every packet that reaches it; `undefined` when it has any condition. */
export function unconditionalTarget(line: string): string | undefined {
  const known = new Set(['-A', '-m', '--comment', '-j', '--reject-with', '--random-fully', '--random', '--to-source']);
  const parsed = options(line);
  const free = parsed.every(({ name, values }) => known.has(name) && (name !== '-m' || values[0] === 'comment'));
  return free ? targetOf(line) : undefined;
}
