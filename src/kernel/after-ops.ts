import { formatAddr } from '../ip/address.ts';
import type { Op } from './diff.ts';
import {
  type ActualRoute,
  type ActualState,
  effectiveMetric,
  type FdbEntry,
  type Neighbour,
  type Route,
  routeKey,
  WEFT_ROUTE_PROTOCOL,
} from './state.ts';

/**
 * What the kernel has after the operations of a plan for `actual` have all succeeded, so that the next change need not
 * read it again. `undefined` when links or addresses are among them: what follows from those is the kernel's business.
 */
export function afterOps(actual: ActualState, ops: readonly Op[]): ActualState | undefined {
  const added: ActualRoute[] = [];
  const replaced = new Map<string, ActualRoute>();
  // A plan hands on the very objects that it was given.
  const deleted = new Set<ActualRoute>();
  /** By key; `undefined` is gone. */
  const neighbours = new Map<string, Neighbour | undefined>();
  const fdb = new Map<string, FdbEntry | undefined>();
  for (const op of ops) {
    switch (op.type) {
      case 'route-add':
        added.push(actualOf(op.route));
        break;
      case 'route-replace':
        replaced.set(routeKey(op.route), actualOf(op.route));
        break;
      case 'route-delete':
        deleted.add(op.route);
        break;
      case 'neighbour-replace':
        neighbours.set(neighbourKey(op.neighbour), op.neighbour);
        break;
      case 'neighbour-delete':
        neighbours.set(neighbourKey(op.neighbour), undefined);
        break;
      case 'fdb-replace':
        fdb.set(fdbKey(op.entry), op.entry);
        break;
      case 'fdb-delete':
        // One of several with its key may be deleted to make room for another.
        return undefined;
      default:
        return undefined;
    }
  }
  const routes: ActualRoute[] = [];
  for (const route of actual.routes) {
    if (deleted.has(route)) continue;
    const key = replaced.size === 0 ? '' : routeKey(route);
    const next = replaced.get(key);
    // Of several with one key, the first is the one that is replaced.
    replaced.delete(key);
    routes.push(next ?? route);
  }
  return {
    ...actual,
    routes: [...routes, ...replaced.values(), ...added],
    neighbours: merged(actual.neighbours, neighbours, neighbourKey),
    fdb: merged(actual.fdb, fdb, fdbKey),
  };
}

function merged<T>(
  before: readonly T[],
  changes: ReadonlyMap<string, T | undefined>,
  keyOf: (entry: T) => string,
): T[] {
  const kept = changes.size === 0 ? before : before.filter((entry) => !changes.has(keyOf(entry)));
  return [...kept, ...[...changes.values()].filter((entry) => entry !== undefined)];
}

function neighbourKey({ link, addr }: Neighbour): string {
  return `${link} ${formatAddr(addr)}`;
}

function fdbKey({ link, mac }: FdbEntry): string {
  return `${link} ${mac}`;
}

function actualOf(route: Route): ActualRoute {
  const unicast = route.type === 'unicast';
  return {
    type: route.type,
    dst: route.dst,
    metric: effectiveMetric(route),
    dev: unicast ? route.dev : undefined,
    via: unicast ? route.via : undefined,
    onlink: unicast && route.onlink,
    scope: unicast && typeof route.dst.addr === 'number' ? route.scope : 'global',
    protocol: WEFT_ROUTE_PROTOCOL,
    elaborate: false,
  };
}
