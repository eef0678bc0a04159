import { assertNever } from '../../assert-never.ts';
import { containsPrefix, formatPrefix, isPrefix4 } from '../../ip/address.ts';
import type { Actual } from '../actual.ts';
import { linkKind } from '../link-kinds/table.ts';
import type { Op } from '../op.ts';
import type { Problem } from '../problem.ts';
import {
  type ActualRoute,
  BOOT_ROUTE_PROTOCOL,
  effectiveMetric,
  KERNEL_ROUTE_PROTOCOL,
  type Route,
  routeKey,
  type WantedLink,
  type WantedState,
  WEFT_ROUTE_PROTOCOL,
  wayKey,
} from '../state.ts';
import type { Wanted } from '../wanted.ts';
import { type AddressPlan, connectedMetric } from './addresses.ts';
import type { LinkPlan } from './links.ts';

interface RoutePlan {
  readonly changes: Op[];
  readonly deletions: Op[];
  readonly problems: Map<string, Problem>;
}

/**
 * What to do about the routes with these keys; `undefined` is all of them. Additions and replacements come before
 * deletions, so that a subnet that is cut differently never is without a route.
 */
export function planRoutes(
  wanted: Wanted,
  actual: Actual,
  links: LinkPlan,
  addresses: AddressPlan,
  keys: Iterable<string> | undefined,
): { readonly ops: readonly Op[]; readonly problems: ReadonlyMap<string, Problem> } {
  const plan: RoutePlan = { changes: [], deletions: [], problems: new Map() };
  const declared = new Map(wanted.host.links.map((link) => [link.name, link.kind]));
  const context: Context = { wanted, actual, links, addresses, declared, plan };
  if (keys === undefined) {
    for (const [key, route] of wanted.routes.entries()) planWanted(context, key, route);
    for (const key of actual.routes.keys()) if (wanted.routes.get(key) === undefined) planUnwanted(context, key);
  } else {
    for (const key of keys) {
      const route = wanted.routes.get(key);
      if (route === undefined) planUnwanted(context, key);
      else planWanted(context, key, route);
    }
  }
  return { ops: [...plan.changes, ...plan.deletions], problems: plan.problems };
}

interface Context {
  readonly wanted: Wanted;
  readonly actual: Actual;
  readonly links: LinkPlan;
  readonly addresses: AddressPlan;
  /** Links that somebody says something about. */
  readonly declared: ReadonlyMap<string, WantedLink['kind']>;
  readonly plan: RoutePlan;
}

/** What the kernel has under a key, without what goes when links are made anew and addresses are deleted. */
function routesThere({ actual, links, addresses }: Context, key: string): readonly ActualRoute[] {
  const there = actual.routes.get(key) ?? [];
  if (links.fresh.size === 0 && addresses.disconnected.size === 0) return there;
  return there.filter(
    (route) =>
      route.dev === undefined ||
      !(
        links.fresh.has(route.dev) ||
        (route.protocol === KERNEL_ROUTE_PROTOCOL &&
          route.metric === connectedMetric(route.dst) &&
          addresses.disconnected.has(`${formatPrefix(route.dst)} ${route.dev}`))
      ),
  );
}

function planWanted(context: Context, key: string, route: Route): void {
  const { links, addresses, declared, plan } = context;
  const there = routesThere(context, key);
  const ours = there.filter((other) => other.protocol === WEFT_ROUTE_PROTOCOL);
  const exact = ours.find((other) => sameRoute(route, other));
  const left = there.filter((other) => isLeft(context, other));
  const lost = isPrefix4(route.dst) && route.type === 'unicast' && addresses.flushed.has(route.dev);
  const remove = (routes: readonly ActualRoute[]) => {
    plan.deletions.push(...routes.map((other): Op => ({ type: 'route-delete', route: other })));
  };
  if (route.type === 'unicast' && !links.up.has(route.dev)) {
    // Reported by planLinks, unless nobody declared the link.
    if (!declared.has(route.dev)) plan.problems.set(key, { type: 'link-missing', link: route.dev });
    remove(ours);
    return;
  }
  if (exact !== undefined && !lost && !isHidden(route, exact, there)) {
    const first = preferred(context, route);
    if (first !== undefined) plan.problems.set(key, { type: 'route-taken', route, by: first });
    remove([...ours, ...left].filter((other) => other !== exact));
    return;
  }
  if (isConnected(route, there, addresses.connected)) {
    remove(ours);
    return;
  }
  const taken = there.find(
    (other) => other.protocol !== WEFT_ROUTE_PROTOCOL && !left.includes(other) && !adoptable(route, other),
  );
  if (taken !== undefined) {
    plan.problems.set(key, { type: 'route-taken', route, by: taken });
    remove(ours);
    return;
  }
  const first = preferred(context, route);
  if (first !== undefined) plan.problems.set(key, { type: 'route-taken', route, by: first });
  // Duplicates go first: the kernel may take a deletion without a gateway for the new route.
  for (const other of there.slice(1)) {
    if (ours.includes(other) || left.includes(other)) plan.changes.push({ type: 'route-delete', route: other });
  }
  // What replace takes the place of is the first of them; when the kernel has flushed them, it adds.
  plan.changes.push({ type: there.length === 0 ? 'route-add' : 'route-replace', route });
}

/** Somebody else's route to the same place that the kernel takes before ours, because its metric, 0, is lower. */
function preferred(context: Context, route: Route): ActualRoute | undefined {
  if (route.type !== 'unicast' || !isPrefix4(route.dst) || effectiveMetric(route) === 0) return undefined;
  const there = routesThere(context, routeKey({ ...route, metric: 0 }));
  return there.find(
    (other) =>
      other.protocol !== WEFT_ROUTE_PROTOCOL &&
      other.type === 'unicast' &&
      other.dev !== route.dev &&
      !isLeft(context, other),
  );
}

/** Whether flanneld has left it behind: it never removes the route to a host that has gone while it did not run. */
function isLeft({ wanted, links, declared }: Context, route: ActualRoute): boolean {
  if (route.protocol !== BOOT_ROUTE_PROTOCOL || route.type !== 'unicast' || route.elaborate) return false;
  if (wanted.formerRoutes.has(wayKey(route))) return true;
  const kind = route.dev !== undefined && links.own.has(route.dev) ? declared.get(route.dev) : undefined;
  if (kind === undefined || kind === 'external' || !linkKind(kind).isFlannelRoute(route)) return false;
  return wanted.host.networks.some(
    (network) => containsPrefix(network, route.dst) && network.length < route.dst.length,
  );
}

/** Of routes with weft's protocol number: not those of another agent on this host, or of a tunnel. */
function isOurs({ staleRoutes, networks }: WantedState, links: LinkPlan, { dev, dst }: ActualRoute): boolean {
  switch (staleRoutes) {
    case 'everywhere':
      return true;
    case 'own-networks':
      if (networks.some((network) => containsPrefix(network, dst))) return true;
      return dev !== undefined && links.own.has(dev);
    case 'own-links':
      return dev !== undefined && links.own.has(dev);
    default:
      return assertNever(staleRoutes, 'stale routes');
  }
}

/** Nobody wants these: ours, and what flanneld has left, are stale. */
function planUnwanted(context: Context, key: string): void {
  const { wanted, links, plan } = context;
  if (wanted.host.isPartial === true) return;
  for (const route of routesThere(context, key)) {
    const isStale = route.protocol === WEFT_ROUTE_PROTOCOL ? isOurs(wanted.host, links, route) : isLeft(context, route);
    if (isStale) plan.deletions.push({ type: 'route-delete', route });
  }
}

/** Whether the kernel has, or will have, this very route by itself, because of an address with a shorter prefix. */
function isConnected(wanted: Route, there: readonly ActualRoute[], connected: ReadonlySet<string>): boolean {
  if (wanted.type !== 'unicast' || wanted.via !== undefined || !isPrefix4(wanted.dst)) return false;
  if (effectiveMetric(wanted) !== 0) return false;
  const found = there.find((route) => route.protocol === KERNEL_ROUTE_PROTOCOL && route.dev === wanted.dev);
  if (found !== undefined) return !isHidden(wanted, found, there);
  return connected.has(`${formatPrefix(wanted.dst)} ${wanted.dev}`);
}

/** Of routes with one key the kernel takes the first: whether one of others that leads elsewhere comes before `found`. */
function isHidden(wanted: Route, found: ActualRoute, there: readonly ActualRoute[]): boolean {
  const before = there.slice(0, there.indexOf(found));
  return before.some((other) => other.protocol !== WEFT_ROUTE_PROTOCOL && !saysTheSame(wanted, other));
}

function sameRoute(wanted: Route, actual: ActualRoute): boolean {
  return (
    saysTheSame(wanted, actual) &&
    (wanted.type !== 'unicast' || !isPrefix4(wanted.dst) || wanted.scope === actual.scope)
  );
}

/** The same way to the same destination. */
function saysTheSame(wanted: Route, actual: ActualRoute): boolean {
  if (wanted.type !== actual.type || actual.elaborate || effectiveMetric(wanted) !== actual.metric) return false;
  if (wanted.type === 'blackhole') return true;
  return wanted.dev === actual.dev && wanted.via === actual.via && wanted.onlink === actual.onlink;
}

function adoptable(wanted: Route, actual: ActualRoute): boolean {
  return actual.protocol === BOOT_ROUTE_PROTOCOL && saysTheSame(wanted, actual);
}
