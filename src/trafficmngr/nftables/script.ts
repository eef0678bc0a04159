import { assertNever } from '../../assert-never.ts';
import { formatPrefix, type IpFamily, isPrefix4, parsePrefix } from '../../ip/address.ts';
import { type Action, ofText, type PrefixMatch, parseOf, type TrafficRule, type UdpMatch } from '../rules.ts';

/**
 * Rules in the two notations of nft: written as text, because its JSON has no comments for tables and chains (nft
 * 1.0.6) and flannel's tables have some; read as JSON, because text would have to be parsed.
 */

export function nftFamily(family: IpFamily): 'ip' | 'ip6' {
  return family === 4 ? 'ip' : 'ip6';
}

/** One rule as nft prints it. */
export function nftRule({ mark, source, destination, udp, action, of }: TrafficRule): string {
  const parts: string[] = [];
  if (mark !== undefined) parts.push(`meta mark & ${hex(mark.mask)} == ${hex(mark.value)}`);
  if (source !== undefined) parts.push(nftMatch('saddr', source));
  if (destination !== undefined) parts.push(nftMatch('daddr', destination));
  if (udp !== undefined) parts.push(`udp ${udp.end === 'source' ? 'sport' : 'dport'} ${udp.port}`);
  parts.push(nftVerdict(action));
  if (of !== undefined) parts.push(`comment "${ofText(of)}"`);
  return parts.join(' ');
}

function nftMatch(field: 'saddr' | 'daddr', { prefix, negated }: PrefixMatch): string {
  const family = isPrefix4(prefix) ? 'ip' : 'ip6';
  const whole = prefix.length === (isPrefix4(prefix) ? 32 : 128);
  const text = formatPrefix(prefix);
  return `${family} ${field} ${negated ? '!= ' : ''}${whole ? text.slice(0, text.indexOf('/')) : text}`;
}

function nftVerdict(action: Action): string {
  switch (action.type) {
    case 'return':
    case 'accept':
    case 'notrack':
      return action.type;
    case 'masquerade':
      return action.fullyRandom ? 'masquerade fully-random' : 'masquerade';
    default:
      return assertNever(action);
  }
}

function hex(value: number): string {
  return `0x${value.toString(16).padStart(8, '0')}`;
}

/** JSON as parsed; every look into it is checked. */
export type Json = unknown;

/** The rule that a list of nft expressions and a comment say, or `undefined` when they say anything that ours never do. */
export function parseNftRule(expr: Json, comment?: Json): TrafficRule | undefined {
  if (!Array.isArray(expr)) return undefined;
  let mark: TrafficRule['mark'];
  let source: PrefixMatch | undefined;
  let destination: PrefixMatch | undefined;
  let udp: UdpMatch | undefined;
  let action: Action | undefined;
  for (const item of expr as Json[]) {
    const [name, body] = only(item);
    if (action !== undefined) return undefined;
    if (name !== 'match') {
      action = parseVerdict(name, body);
      if (action === undefined) return undefined;
      continue;
    }
    const match = parseMatch(body);
    if (match === undefined) return undefined;
    if ('mark' in match && mark === undefined) mark = match.mark;
    else if ('source' in match && source === undefined) source = match.source;
    else if ('destination' in match && destination === undefined) destination = match.destination;
    else if ('udp' in match && udp === undefined) udp = match.udp;
    else return undefined;
  }
  const of = typeof comment === 'string' ? parseOf(comment) : undefined;
  return action && { mark, source, destination, udp, action, ...(of === undefined ? {} : { of }) };
}

function parseVerdict(name: string, body: Json): Action | undefined {
  switch (name) {
    case 'return':
    case 'accept':
    case 'notrack':
      return { type: name };
    case 'masquerade': {
      if (typeof body === 'object' && Object.keys(body ?? {}).some((key) => key !== 'flags')) return undefined;
      // One flag is printed as a string or as a list of one, depending on the version.
      const flags = [field(body, 'flags') ?? []].flat();
      if (flags.length === 0) return { type: 'masquerade', fullyRandom: false };
      return flags.length === 1 && flags[0] === 'fully-random' ? { type: 'masquerade', fullyRandom: true } : undefined;
    }
    default:
      return undefined;
  }
}

type ParsedMatch =
  | { readonly mark: NonNullable<TrafficRule['mark']> }
  | { readonly source: PrefixMatch }
  | { readonly destination: PrefixMatch }
  | { readonly udp: UdpMatch };

function parseMatch(body: Json): ParsedMatch | undefined {
  const op = field(body, 'op');
  const left = field(body, 'left');
  const right = field(body, 'right');
  const masked = field(left, '&');
  if (Array.isArray(masked)) {
    const [what, mask] = masked as Json[];
    if (op !== '==' || field(field(what, 'meta'), 'key') !== 'mark') return undefined;
    if (typeof mask !== 'number' || typeof right !== 'number') return undefined;
    return { mark: { value: right, mask } };
  }
  if (field(field(left, 'meta'), 'key') === 'mark') {
    // flannel's own form: the whole mark is compared.
    return op === '==' && typeof right === 'number' ? { mark: { value: right, mask: 0xffffffff } } : undefined;
  }
  const payload = field(left, 'payload');
  if (field(payload, 'protocol') === 'udp') return op === '==' ? parseUdp(field(payload, 'field'), right) : undefined;
  const prefix = parseNftPrefix(field(payload, 'protocol'), right);
  if (prefix === undefined || (op !== '==' && op !== '!=')) return undefined;
  const match = { prefix, negated: op === '!=' };
  switch (field(payload, 'field')) {
    case 'saddr':
      return { source: match };
    case 'daddr':
      return { destination: match };
    default:
      return undefined;
  }
}

function parseUdp(name: Json, port: Json): ParsedMatch | undefined {
  if (typeof port !== 'number') return undefined;
  switch (name) {
    case 'sport':
      return { udp: { end: 'source', port } };
    case 'dport':
      return { udp: { end: 'destination', port } };
    default:
      return undefined;
  }
}

function parseNftPrefix(protocol: Json, right: Json): PrefixMatch['prefix'] | undefined {
  if (protocol !== 'ip' && protocol !== 'ip6') return undefined;
  const full = protocol === 'ip' ? 32 : 128;
  const nested = field(right, 'prefix');
  const address = typeof right === 'string' ? right : field(nested, 'addr');
  const length = typeof right === 'string' ? full : field(nested, 'len');
  if (typeof address !== 'string' || typeof length !== 'number') return undefined;
  const prefix = parsePrefix(`${address}/${length}`);
  return prefix !== undefined && isPrefix4(prefix) === (protocol === 'ip') ? prefix : undefined;
}

function only(item: Json): [string, Json] {
  const entries = typeof item === 'object' && item !== null ? Object.entries(item) : [];
  return entries.length === 1 ? entries[0]! : ['', undefined];
}

/** A member of an object of `nft -j`; `undefined` for anything else. */
export function field(value: Json, name: string): Json {
  return typeof value === 'object' && value !== null ? (value as Record<string, Json>)[name] : undefined;
}
