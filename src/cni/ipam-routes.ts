import { formatAddr } from '../ip/address.ts';
import { foldKey } from '../lease/go-json.ts';
import type { JsonValue } from '../lease/lease.ts';
import type { GoValue } from './go-marshal.ts';
import { formatCidr, parseCidr, parseIp } from './ip-text.ts';

/** In the order in which flannel's plugin writes a route's members, the only ones in its output that are not sorted. */
export type Route = ReadonlyMap<string, GoValue>;

/** `omitZero`: left out also when it is 0. */
const INTEGERS: readonly { readonly key: string; readonly omitZero: boolean }[] = [
  { key: 'mtu', omitZero: true },
  { key: 'advmss', omitZero: true },
  { key: 'priority', omitZero: true },
  { key: 'table', omitZero: false },
  { key: 'scope', omitZero: false },
];

/** A route of nothing but its destination. */
export function routeTo(dst: string): Route {
  return new Map([['dst', dst]]);
}

/**
 * A user's `ipam.routes`: dst and gw in canonical form, host bits kept, unknown members dropped, as flannel's plugin does.
 *
 * @throws Error naming the route, counted from 0, and what is wrong with it.
 */
export function parseRoutes(routes: JsonValue | undefined): Route[] {
  if (routes === undefined || routes === null) return [];
  if (!Array.isArray(routes)) throw new Error('want a list of routes');
  return routes.map((route: JsonValue, index) => {
    try {
      return parseRoute(route);
    } catch (error) {
      throw new Error(`route ${index}: ${(error as Error).message}`);
    }
  });
}

function parseRoute(value: JsonValue): Route {
  if (value === null || typeof value !== 'object' || Array.isArray(value)) throw new Error('want an object with dst');
  const given = new Map<string, JsonValue>();
  for (const [key, member] of Object.entries(value)) if (member !== null) given.set(foldKey(key), member);
  const route = new Map<string, GoValue>([['dst', destination(given.get('dst'))]]);
  const gateway = given.get('gw') ?? '';
  if (gateway !== '') {
    const ip = typeof gateway === 'string' ? parseIp(gateway) : undefined;
    if (ip === undefined) throw new Error(`gw: invalid IP address: ${JSON.stringify(gateway)}`);
    route.set('gw', formatAddr(ip));
  }
  for (const { key, omitZero } of INTEGERS) {
    const number = given.get(key);
    if (number === undefined || (number === 0 && omitZero)) continue;
    if (!Number.isSafeInteger(number)) throw new Error(`${key}: want a whole number, got ${JSON.stringify(number)}`);
    route.set(key, number);
  }
  return route;
}

function destination(dst: JsonValue | undefined): string {
  if (dst === undefined) throw new Error('it has no dst');
  const cidr = typeof dst === 'string' ? parseCidr(dst) : undefined;
  if (cidr === undefined) throw new Error(`dst: invalid CIDR address: ${JSON.stringify(dst)}`);
  return formatCidr(cidr);
}
