import { readLinkKind } from '../desired/link-kinds/table.ts';
import type {
  ActualAddress,
  ActualLink,
  ActualRoute,
  Address,
  AddressScope,
  FdbEntry,
  Neighbour,
} from '../desired/state.ts';
import { WeftError } from '../errors.ts';
import { type IpAddr, type IpPrefix, parseAddr, parsePrefix } from '../ip/address.ts';
import { parseMac } from '../ip/mac.ts';
import type { RunResult } from './run.ts';

/** rtnetlink.h: RTN_UNICAST, RTN_BLACKHOLE. */
const ROUTE_TYPES: Readonly<Record<string, ActualRoute['type']>> = { '1': 'unicast', '6': 'blackhole' };
/** rtnetlink.h: RT_SCOPE_UNIVERSE, RT_SCOPE_LINK, RT_SCOPE_HOST. */
const SCOPES: Readonly<Record<string, AddressScope>> = { '0': 'global', '253': 'link', '254': 'host' };

/**
 * What each line of a batch run with `-force` failed with: the text before `Command failed -:<line>`. Some failures end
 * the program instead (text at the end, and no such line): then nothing is known about the lines without an error.
 */
export function batchErrors(result: RunResult): { errors: Map<number, string>; aborted: string | undefined } {
  const errors = new Map<number, string>();
  let text: string[] = [];
  for (const line of result.stderr.split('\n')) {
    const failed = /^Command failed -:(\d+)$/.exec(line);
    if (failed === null) {
      if (line.trim() !== '') text.push(line.trim());
      continue;
    }
    errors.set(Number(failed[1]), text.join(' ') || 'failed');
    text = [];
  }
  // Exit code 1 is "at least one line failed"; text without a failure is a warning.
  const aborted = result.exitCode === 0 || (result.exitCode === 1 && errors.size > 0);
  return { errors, aborted: aborted ? undefined : text.join(' ') || `exit code ${result.exitCode}` };
}

/** Of `ip -j`. */
export type JsonObject = { readonly [key: string]: unknown };

/** What `ip -j` has answered to one command: a list. @throws WeftError WEFT_KERNEL_STATE. */
export function parseAnswer(text: string, command: string): JsonObject[] {
  let answer: unknown;
  try {
    answer = JSON.parse(text);
  } catch (error) {
    throw unreadable(command, `no JSON: ${text.slice(0, 200)}`, error);
  }
  if (!Array.isArray(answer)) throw unreadable(command, `no list: ${text.slice(0, 200)}`);
  return answer as JsonObject[];
}

/** What is thrown when the state cannot be read: with which command, and why. */
export function unreadable(command: string, because: string, cause?: unknown): WeftError {
  return new WeftError('WEFT_KERNEL_STATE', `reading the kernel's network state with ${command}: ${because}`, {
    hint: 'The agent retries. If the error persists, run the command by hand; weft needs iproute2 5.0 or newer (ip -V).',
    cause,
  });
}

/** Of `addr show`. */
export function linkOf(item: JsonObject): ActualLink {
  const info = item.linkinfo as { info_kind?: string; info_data?: JsonObject } | undefined;
  return {
    ...readLinkKind(info?.info_kind, info?.info_data ?? {}),
    name: String(item.ifname),
    mtuBytes: Number(item.mtu),
    up: Array.isArray(item.flags) && item.flags.includes('UP'),
    mac: parseMac(String(item.address)),
    alias: typeof item.ifalias === 'string' ? item.ifalias : undefined,
    // Left out where it is 0.
    queuePackets: Number(item.txqlen ?? 0),
  };
}

/** Of the same. */
export function addressesOf(item: JsonObject): ActualAddress[] {
  const found: ActualAddress[] = [];
  for (const info of (item.addr_info ?? []) as JsonObject[]) {
    const addr = parseAddr(String(info.local));
    if (addr === undefined) continue;
    const address: Address = {
      link: String(item.ifname),
      addr,
      prefixLength: Number(info.prefixlen),
      scope: SCOPES[String(info.scope)] ?? 'global',
      prefixRoute: info.noprefixroute !== true,
    };
    found.push({ ...address, peer: info.address === undefined ? undefined : parseAddr(String(info.address)) });
  }
  return found;
}

/** What weft never asks for. A route that has one of these is not one of its wanted routes, whatever else it says. */
const ELABORATE = ['nexthops', 'nhid', 'prefsrc', 'encap', 'metrics', 'mtu', 'advmss', 'realm', 'pref', 'expires'];

/** Of `route show`; nothing for what has a key of another kind than a route of weft's. */
export function routeOf(family: 4 | 6): (item: JsonObject) => ActualRoute[] {
  return (item) => {
    const dst = parseDestination(item.dst, family);
    // Routes by TOS or source have a key of their own; "cloned" ones are the kernel's cache.
    if (dst === undefined || item.tos !== undefined || (item.from !== undefined && item.from !== 'default')) return [];
    const flags = Array.isArray(item.flags) ? item.flags : [];
    const type = ROUTE_TYPES[String(item.type ?? 1)] ?? 'other';
    const via = typeof item.gateway === 'string' ? parseAddr(item.gateway) : undefined;
    const elaborate =
      // An IPv6 route always has a router preference; medium is none.
      ELABORATE.some((key) => item[key] !== undefined && (key !== 'pref' || item.pref !== 'medium')) ||
      item.via !== undefined;
    return [
      {
        type,
        dst,
        metric: Number(item.metric ?? 0),
        dev: type === 'unicast' && typeof item.dev === 'string' ? item.dev : undefined,
        via,
        onlink: flags.includes('onlink'),
        scope: family === 6 ? 'global' : (SCOPES[String(item.scope ?? 0)] ?? 'global'),
        protocol: Number(item.protocol),
        elaborate,
      },
    ];
  };
}

/** `default`, an address, or a prefix. */
function parseDestination(text: unknown, family: 4 | 6): IpPrefix | undefined {
  if (typeof text !== 'string') return undefined;
  if (text === 'default') return parsePrefix(family === 4 ? '0.0.0.0/0' : '::/0');
  return parsePrefix(text.includes('/') ? text : `${text}/${family === 4 ? 32 : 128}`);
}

/** Of `neigh show`. */
export function neighbourOf(link: string): (item: JsonObject) => Neighbour[] {
  return (item) => {
    const addr: IpAddr | undefined = parseAddr(String(item.dst));
    const mac = parseMac(String(item.lladdr));
    return addr === undefined || mac === undefined ? [] : [{ link, addr, mac }];
  };
}

/** Of `fdb show`; permanent entries only. */
export function fdbEntryOf(link: string): (item: JsonObject) => FdbEntry[] {
  return (item) => {
    const mac = parseMac(String(item.mac));
    const dst = parseAddr(String(item.dst));
    if (mac === undefined || dst === undefined || item.state !== 'permanent') return [];
    return [{ link, mac, dst }];
  };
}
