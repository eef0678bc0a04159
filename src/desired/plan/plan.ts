import { Actual } from '../actual.ts';
import type { Op } from '../op.ts';
import type { Problem } from '../problem.ts';
import type { ActualState, WantedState } from '../state.ts';
import { type ChangedKeys, Wanted } from '../wanted.ts';
import { planAddresses } from './addresses.ts';
import { planFdb } from './fdb.ts';
import { planLinks } from './links.ts';
import { planNeighbours } from './neighbours.ts';
import { planPolicies } from './policies.ts';
import { planRoutes } from './routes.ts';
import { planSysctls } from './sysctls.ts';
import { planWireguardPeers, planWireguardSettings } from './wireguard.ts';

export interface Plan {
  /** In the order in which they must be applied. */
  readonly ops: readonly Op[];
  /** What stands in the way of links and their settings. */
  readonly linkProblems: readonly Problem[];
  /** What stands in the way of routes, by key. */
  readonly routeProblems: ReadonlyMap<string, Problem>;
  /** The keys of the routes that were looked at; `undefined` is all of them. */
  readonly routeKeys: Iterable<string> | undefined;
}

/**
 * The changes that turn `actual` into `wanted`; empty when there is nothing to do. Pure. See {@link planAll}. One pass is
 * enough unless somebody has made several routes with one key and our protocol number: then reading again and a second
 * pass are.
 */
export function reconcile(wanted: WantedState, actual: ActualState): readonly Op[] {
  return planAll(Wanted.of(wanted), new Actual(actual)).ops;
}

/**
 * The changes that turn `actual` into `wanted`, and what stands in the way. Pure.
 *
 * What it leaves alone: links that are not wanted, every property of an external link, addresses and neighbours on
 * links that are not ours, and all routes without our protocol number. The exceptions are routes without a protocol number
 * of their own (`boot`, as flanneld makes them). Those that say the same as a wanted one are taken over, so that a node changes
 * from flanneld to weft without a gap. Those that only flanneld can have made count as ours: by their form on a link of ours
 * (see LinkKind.isFlannelRoute), or because they are among the `formerRoutes`.
 *
 * What it expects of the kernel (net/ipv4/fib_frontend.c, devinet.c; none of this is announced by a route message): an
 * IPv4 route goes when its link goes down and when the last IPv4 address of its link goes.
 */
export function planAll(wanted: Wanted, actual: Actual): Plan {
  return planKeys(wanted, actual, undefined);
}

/**
 * The same for what has changed in `wanted` since `actual` was in accordance with it: the work is that of the changed keys.
 * When links or addresses have to change as well, everything is looked at.
 */
export function planChanged(wanted: Wanted, actual: Actual): Plan {
  return planKeys(wanted, actual, wanted.isAllDue ? undefined : wanted.changed);
}

function planKeys(wanted: Wanted, actual: Actual, keys: ChangedKeys | undefined): Plan {
  const linkProblems: Problem[] = [];
  const links = planLinks(wanted.host, actual, linkProblems);
  const tunnels = planWireguardSettings(wanted.host, actual, links);
  const sysctls = planSysctls(wanted.host, actual, links, linkProblems);
  const addresses = planAddresses(wanted.host, actual, links);
  const only = links.ops.length + tunnels.length + sysctls.length + addresses.ops.length === 0 ? keys : undefined;
  const tunnelPeers = planWireguardPeers(wanted, actual, links, only?.wireguard);
  const policies = planPolicies(wanted, actual, only?.policies);
  const neighbours = planNeighbours(wanted, actual, links, only?.neighbours);
  const fdb = planFdb(wanted, actual, links, only?.fdb);
  const routes = planRoutes(wanted, actual, links, addresses, only?.routes);
  return {
    // No route leads into a tunnel before it has its key, and none to a peer before there is a policy.
    ops: [
      ...[...links.ops, ...tunnels, ...tunnelPeers, ...policies, ...sysctls, ...addresses.ops],
      ...[...neighbours, ...fdb, ...routes.ops],
    ],
    linkProblems,
    routeProblems: routes.problems,
    routeKeys: only?.routes,
  };
}
