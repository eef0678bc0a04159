import { assertNever } from '../assert-never.ts';
import { containsAddr, formatAddr, formatPrefix, type IpPrefix, isIpv4, isPrefix4 } from '../ip/address.ts';
import type { MacAddr } from '../ip/mac.ts';
import { mask4, prefix4, prefix6 } from '../ip/prefix.ts';
import {
  type ActualAddress,
  type ActualLink,
  type ActualRoute,
  type ActualState,
  type Address,
  BOOT_ROUTE_PROTOCOL,
  describeAddress,
  describeRoute,
  effectiveMetric,
  type FdbEntry,
  isLinkLocal6,
  KERNEL_ROUTE_PROTOCOL,
  type Neighbour,
  type Route,
  routeKey,
  type WantedLink,
  type WantedState,
  WEFT_ROUTE_PROTOCOL,
} from './state.ts';

/** One change to the kernel. Every one of them is idempotent: deleting what is gone is a success. */
export type Op =
  /** Made with all its properties, and up. */
  | { readonly type: 'link-add'; readonly link: Extract<WantedLink, { kind: 'vxlan' | 'bridge' }> }
  | { readonly type: 'link-delete'; readonly name: string }
  | {
      readonly type: 'link-set';
      readonly name: string;
      readonly mtuBytes?: number;
      readonly mac?: MacAddr;
      readonly up?: true;
    }
  | { readonly type: 'address-add'; readonly address: Address }
  | { readonly type: 'address-delete'; readonly address: ActualAddress }
  | { readonly type: 'neighbour-replace'; readonly neighbour: Neighbour }
  | { readonly type: 'neighbour-delete'; readonly neighbour: Neighbour }
  | { readonly type: 'fdb-replace'; readonly entry: FdbEntry }
  | { readonly type: 'fdb-delete'; readonly entry: FdbEntry }
  /** Fails when there is a route with this key. */
  | { readonly type: 'route-add'; readonly route: Route }
  /** Takes the place of the route in use with this key, without a gap. */
  | { readonly type: 'route-replace'; readonly route: Route }
  | { readonly type: 'route-delete'; readonly route: ActualRoute };

/** Why a part of the wanted state cannot be had for now. Looked at again on every run. */
export type Problem =
  | { readonly type: 'link-missing'; readonly link: string }
  | { readonly type: 'link-down'; readonly link: string }
  | { readonly type: 'link-kind'; readonly link: string; readonly wanted: string; readonly actual: string }
  | { readonly type: 'underlay-missing'; readonly link: string; readonly underlay: string }
  | { readonly type: 'route-taken'; readonly route: Route; readonly by: ActualRoute }
  | { readonly type: 'route-twice'; readonly route: Route };

export interface Plan {
  /** In the order in which they must be applied. */
  readonly ops: readonly Op[];
  readonly problems: readonly Problem[];
}

/**
 * The changes that turn `actual` into `wanted`; empty when there is nothing to do. Pure. See {@link plan}. One pass is
 * enough unless somebody has made several routes with one key and our protocol number: then reading again and a second
 * pass are.
 */
export function reconcile(wanted: WantedState, actual: ActualState): readonly Op[] {
  return plan(wanted, actual).ops;
}

/**
 * The changes that turn `actual` into `wanted`, and what stands in the way. Pure.
 *
 * What it leaves alone: links that are not wanted, every property of an external link, addresses and neighbours on
 * links that are not ours, and all routes without our protocol number. The one exception are routes without a
 * protocol number of their own (`boot`, as flanneld makes them) that say the same as a wanted one: these are taken
 * over, so that a node changes from flanneld to weft without a gap.
 *
 * What it expects of the kernel (net/ipv4/fib_frontend.c, devinet.c; none of this is announced by a route message): an
 * IPv4 route goes when its link goes down and when the last IPv4 address of its link goes.
 */
export function plan(wanted: WantedState, actual: ActualState): Plan {
  const problems: Problem[] = [];
  const links = planLinks(wanted, actual, problems);
  const addresses = planAddresses(wanted, actual, links);
  const neighbours = planNeighbours(wanted, actual, links);
  const fdb = planFdb(wanted, actual, links);
  const routes = planRoutes(wanted, actual, links, addresses, problems);
  return { ops: [...links.ops, ...addresses.ops, ...neighbours, ...fdb, ...routes], problems };
}

interface LinkPlan {
  readonly ops: Op[];
  /** Links that exist after the operations. */
  readonly present: ReadonlySet<string>;
  /** Those of them that are up then. */
  readonly up: ReadonlySet<string>;
  /** Links that are made anew: nothing that `actual` says about them holds. */
  readonly fresh: ReadonlySet<string>;
  readonly own: ReadonlySet<string>;
}

function planLinks(wanted: WantedState, actual: ActualState, problems: Problem[]): LinkPlan {
  const byName = new Map(actual.links.map((link) => [link.name, link]));
  const ops: Op[] = [];
  const present = new Set<string>();
  const up = new Set<string>();
  const fresh = new Set<string>();
  const own = new Set<string>();
  for (const link of wanted.links) {
    const found = byName.get(link.name);
    if (link.kind === 'external') {
      if (found === undefined) problems.push({ type: 'link-missing', link: link.name });
      else {
        present.add(link.name);
        if (found.up) up.add(link.name);
        else problems.push({ type: 'link-down', link: link.name });
      }
      continue;
    }
    if (found !== undefined && suits(link, found)) {
      ops.push(...linkSet(link, found));
    } else if (link.kind === 'vxlan') {
      // flannel also makes a device of this name anew, whatever it was.
      if (!present.has(link.vxlan.underlay) && !byName.has(link.vxlan.underlay)) {
        problems.push({ type: 'underlay-missing', link: link.name, underlay: link.vxlan.underlay });
        continue;
      }
      if (found !== undefined) ops.push({ type: 'link-delete', name: link.name });
      ops.push({ type: 'link-add', link });
      fresh.add(link.name);
    } else if (found !== undefined) {
      problems.push({ type: 'link-kind', link: link.name, wanted: link.kind, actual: found.kind });
      continue;
    } else if (link.kind === 'tun') {
      problems.push({ type: 'link-missing', link: link.name });
      continue;
    } else {
      ops.push({ type: 'link-add', link });
      fresh.add(link.name);
    }
    own.add(link.name);
    present.add(link.name);
    up.add(link.name);
  }
  return { ops, present, up, fresh, own };
}

/** Whether the link can be used as it is, apart from what can be changed on it (MTU, MAC, state). */
function suits(wanted: Exclude<WantedLink, { kind: 'external' }>, found: ActualLink): boolean {
  if (found.kind !== wanted.kind) return false;
  if (wanted.kind !== 'vxlan') return true;
  const a = wanted.vxlan;
  const b = found.vxlan;
  return (
    b !== undefined &&
    a.vni === b.vni &&
    a.underlay === b.underlay &&
    a.local === b.local &&
    a.learning === b.learning &&
    a.gbp === b.gbp &&
    (a.port === undefined || a.port === b.port)
  );
}

function linkSet(wanted: Exclude<WantedLink, { kind: 'external' }>, found: ActualLink): Op[] {
  const mtuBytes = wanted.mtuBytes !== undefined && wanted.mtuBytes !== found.mtuBytes ? wanted.mtuBytes : undefined;
  const mac = wanted.kind === 'vxlan' && wanted.mac !== undefined && wanted.mac !== found.mac ? wanted.mac : undefined;
  if (mtuBytes === undefined && mac === undefined && found.up) return [];
  return [
    {
      type: 'link-set',
      name: wanted.name,
      ...(mtuBytes === undefined ? {} : { mtuBytes }),
      ...(mac === undefined ? {} : { mac }),
      ...(found.up ? {} : { up: true as const }),
    },
  ];
}

interface AddressPlan {
  readonly ops: Op[];
  /** Links that may be without any IPv4 address for a moment, and so without IPv4 routes. */
  readonly flushed: ReadonlySet<string>;
  /** `<prefix> <link>` of the IPv4 connected routes that the kernel will make for new addresses. */
  readonly connected: ReadonlySet<string>;
  /** The same of those that go with their addresses. */
  readonly disconnected: ReadonlySet<string>;
}

/**
 * Stray addresses are those that flannel removes: of the families for which an address is wanted on that link, an IPv4
 * address inside the flannel networks, and any IPv6 address that is not link-local.
 */
function planAddresses(wanted: WantedState, actual: ActualState, links: LinkPlan): AddressPlan {
  const ops: Op[] = [];
  const flushed = new Set<string>();
  const connected = new Set<string>();
  const disconnected = new Set<string>();
  const wantedOf = groupBy(wanted.addresses, (address) => address.link);
  const actualOf = groupBy(actual.addresses, (address) => address.link);
  for (const [link, mine] of wantedOf) {
    if (!links.present.has(link)) continue;
    const found = links.fresh.has(link) ? [] : (actualOf.get(link) ?? []);
    const strays = found.filter(
      (address) =>
        !mine.some((other) => sameAddress(other, address)) &&
        // A wanted address in another form (prefix length, scope) is in the way on any link.
        (mine.some((other) => other.addr === address.addr) ||
          (links.own.has(link) &&
            mine.some((other) => isIpv4(other.addr) === isIpv4(address.addr)) &&
            isStray(address, wanted))),
    );
    // New addresses come first where they can: an IPv4 link that is without any address for a moment loses its routes.
    const early: Address[] = [];
    const late: Address[] = [];
    for (const address of mine) {
      // One that is there counts as missing when it may be a secondary address of a stray, and go with it.
      if (strays.some((stray) => collide(address, stray))) late.push(address);
      else if (!found.some((other) => sameAddress(address, other))) early.push(address);
    }
    ops.push(...early.map((address): Op => ({ type: 'address-add', address })));
    ops.push(...strays.map((address): Op => ({ type: 'address-delete', address })));
    ops.push(...late.map((address): Op => ({ type: 'address-add', address })));

    const stays = found.filter(
      (address) => !strays.includes(address) && !strays.some((stray) => collide(address, stray)),
    );
    if (strays.some((stray) => isIpv4(stray.addr)) && ![...early, ...stays].some((kept) => isIpv4(kept.addr))) {
      flushed.add(link);
    }
    for (const address of strays) disconnected.add(connectedRoute(address));
    for (const address of [...early, ...late]) if (address.prefixRoute) connected.add(connectedRoute(address));
  }
  return { ops, flushed, connected, disconnected };
}

function connectedRoute({ link, addr, prefixLength }: Address): string {
  return `${formatPrefix(isIpv4(addr) ? prefix4(addr, prefixLength) : prefix6(addr, prefixLength))} ${link}`;
}

/** The metric of the routes that the kernel makes from addresses (IP6_RT_PRIO_ADDRCONF for IPv6). */
function connectedMetric(dst: IpPrefix): number {
  return isPrefix4(dst) ? 0 : 256;
}

function isStray(address: ActualAddress, wanted: WantedState): boolean {
  return isIpv4(address.addr)
    ? wanted.networks.some((network) => containsAddr(network, address.addr))
    : !isLinkLocal6(address.addr);
}

function sameAddress(wanted: Address, actual: ActualAddress): boolean {
  return (
    wanted.addr === actual.addr &&
    wanted.prefixLength === actual.prefixLength &&
    actual.peer === undefined &&
    (!isIpv4(wanted.addr) || wanted.scope === actual.scope) &&
    (wanted.prefixRoute === actual.prefixRoute || prefixIsWhole(wanted))
  );
}

function prefixIsWhole(address: Address): boolean {
  return isIpv4(address.addr) && address.prefixLength === 32;
}

/**
 * Whether `stray` must go before `added` comes: IPv6 knows an address once per link, and an IPv4 address in the same
 * subnet as another becomes its secondary, which goes with the primary.
 */
function collide(added: Address, stray: ActualAddress): boolean {
  if (!isIpv4(added.addr) || !isIpv4(stray.addr)) return added.addr === stray.addr;
  const mask = mask4(added.prefixLength);
  const strayNet = stray.peer !== undefined && isIpv4(stray.peer) ? stray.peer : stray.addr;
  return added.prefixLength === stray.prefixLength && (added.addr & mask) === (strayNet & mask);
}

function planNeighbours(wanted: WantedState, actual: ActualState, links: LinkPlan): Op[] {
  const keyOf = (entry: Neighbour) => `${entry.link} ${formatAddr(entry.addr)}`;
  // A new MAC address of the link takes its neighbours away (NETDEV_CHANGEADDR in net/ipv4/arp.c).
  const flushed = new Set(links.ops.flatMap((op) => (op.type === 'link-set' && op.mac !== undefined ? [op.name] : [])));
  const found = new Map(
    actual.neighbours
      .filter((entry) => !links.fresh.has(entry.link) && !flushed.has(entry.link))
      .map((entry) => [keyOf(entry), entry]),
  );
  const ops: Op[] = [];
  const keep = new Set<string>();
  for (const neighbour of wanted.neighbours) {
    if (!links.up.has(neighbour.link)) continue;
    const key = keyOf(neighbour);
    keep.add(key);
    if (found.get(key)?.mac !== neighbour.mac) ops.push({ type: 'neighbour-replace', neighbour });
  }
  const vxlan = vxlanLinks(wanted);
  for (const [key, neighbour] of found) {
    if (vxlan.has(neighbour.link) && !keep.has(key)) ops.push({ type: 'neighbour-delete', neighbour });
  }
  return ops;
}

function planFdb(wanted: WantedState, actual: ActualState, links: LinkPlan): Op[] {
  const keyOf = (entry: FdbEntry) => `${entry.link} ${entry.mac}`;
  const found = groupBy(
    actual.fdb.filter((entry) => !links.fresh.has(entry.link)),
    keyOf,
  );
  const ops: Op[] = [];
  const keep = new Set<string>();
  for (const entry of wanted.fdb) {
    if (!links.present.has(entry.link)) continue;
    const key = keyOf(entry);
    keep.add(key);
    const others = (found.get(key) ?? []).filter((other) => other.dst !== entry.dst);
    const there = (found.get(key) ?? []).length > others.length;
    // The kernel replaces an entry that has a single destination; several are reduced to none first.
    if (there || others.length > 1) ops.push(...others.map((other): Op => ({ type: 'fdb-delete', entry: other })));
    if (!there) ops.push({ type: 'fdb-replace', entry });
  }
  const vxlan = vxlanLinks(wanted);
  for (const [key, entries] of found) {
    if (keep.has(key)) continue;
    for (const entry of entries) if (vxlan.has(entry.link)) ops.push({ type: 'fdb-delete', entry });
  }
  return ops;
}

function vxlanLinks(wanted: WantedState): ReadonlySet<string> {
  return new Set(wanted.links.filter((link) => link.kind === 'vxlan').map((link) => link.name));
}

function planRoutes(
  wanted: WantedState,
  actual: ActualState,
  links: LinkPlan,
  addresses: AddressPlan,
  problems: Problem[],
): Op[] {
  const vanishes = (route: ActualRoute): boolean =>
    route.dev !== undefined &&
    (links.fresh.has(route.dev) ||
      (route.protocol === KERNEL_ROUTE_PROTOCOL &&
        route.metric === connectedMetric(route.dst) &&
        addresses.disconnected.has(`${formatPrefix(route.dst)} ${route.dev}`)));
  const found = groupBy(
    actual.routes.filter((route) => !vanishes(route)),
    routeKey,
  );
  const changes: Op[] = [];
  const deletions: Op[] = [];
  const remove = (routes: readonly ActualRoute[]) => {
    deletions.push(...routes.map((route): Op => ({ type: 'route-delete', route })));
  };
  const seen = new Set<string>();
  const missingLinks = new Set<string>();
  for (const route of wanted.routes) {
    const key = routeKey(route);
    if (seen.has(key)) {
      problems.push({ type: 'route-twice', route });
      continue;
    }
    seen.add(key);
    const there = found.get(key) ?? [];
    const ours = there.filter((other) => other.protocol === WEFT_ROUTE_PROTOCOL);
    const exact = ours.find((other) => sameRoute(route, other));
    const lost = isPrefix4(route.dst) && route.type === 'unicast' && addresses.flushed.has(route.dev);
    if (route.type === 'unicast' && !links.up.has(route.dev)) {
      // Reported once per link, by planLinks, unless nobody declared the link.
      if (!wanted.links.some((link) => link.name === route.dev) && !missingLinks.has(route.dev)) {
        missingLinks.add(route.dev);
        problems.push({ type: 'link-missing', link: route.dev });
      }
      remove(ours);
      continue;
    }
    if (exact !== undefined && !lost && !isHidden(route, exact, there)) {
      remove(ours.filter((other) => other !== exact));
      continue;
    }
    if (isConnected(route, there, addresses.connected)) {
      remove(ours);
      continue;
    }
    const taken = there.find((other) => other.protocol !== WEFT_ROUTE_PROTOCOL && !adoptable(route, other));
    if (taken !== undefined) {
      problems.push({ type: 'route-taken', route, by: taken });
      remove(ours);
      continue;
    }
    // Duplicates go first: the kernel may take a deletion without a gateway for the new route.
    for (const other of there.slice(1)) {
      if (other.protocol === WEFT_ROUTE_PROTOCOL) changes.push({ type: 'route-delete', route: other });
    }
    // What replace takes the place of is the first of them; when the kernel has flushed them, it adds.
    changes.push({ type: there.length === 0 ? 'route-add' : 'route-replace', route });
  }
  for (const [key, routes] of found) {
    if (seen.has(key)) continue;
    remove(
      routes.filter(
        (route) =>
          route.protocol === WEFT_ROUTE_PROTOCOL &&
          (wanted.staleRoutes === 'everywhere' || (route.dev !== undefined && links.own.has(route.dev))),
      ),
    );
  }
  return [...changes, ...deletions];
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

function groupBy<T>(items: readonly T[], keyOf: (item: T) => string): Map<string, T[]> {
  const groups = new Map<string, T[]>();
  for (const item of items) {
    const key = keyOf(item);
    const group = groups.get(key);
    if (group === undefined) groups.set(key, [item]);
    else group.push(item);
  }
  return groups;
}

/** One line for logs and error messages. */
export function describeOp(op: Op): string {
  switch (op.type) {
    case 'link-add':
      return `add link ${op.link.name} (${op.link.kind})`;
    case 'link-delete':
      return `delete link ${op.name}`;
    case 'link-set': {
      const parts = [
        ...(op.mtuBytes === undefined ? [] : [`mtu ${op.mtuBytes}`]),
        ...(op.mac === undefined ? [] : [`address ${op.mac}`]),
        ...(op.up === undefined ? [] : ['up']),
      ];
      return `set link ${op.name} ${parts.join(' ')}`;
    }
    case 'address-add':
      return `add address ${describeAddress(op.address)}`;
    case 'address-delete':
      return `delete address ${describeAddress(op.address)}`;
    case 'neighbour-replace':
      return `set neighbour ${formatAddr(op.neighbour.addr)} lladdr ${op.neighbour.mac} dev ${op.neighbour.link}`;
    case 'neighbour-delete':
      return `delete neighbour ${formatAddr(op.neighbour.addr)} dev ${op.neighbour.link}`;
    case 'fdb-replace':
      return `set fdb ${op.entry.mac} dst ${formatAddr(op.entry.dst)} dev ${op.entry.link}`;
    case 'fdb-delete':
      return `delete fdb ${op.entry.mac} dst ${formatAddr(op.entry.dst)} dev ${op.entry.link}`;
    case 'route-add':
      return `add route ${describeRoute(op.route)}`;
    case 'route-replace':
      return `replace route ${describeRoute(op.route)}`;
    case 'route-delete':
      return `delete route ${describeRoute(op.route)}`;
    default:
      return assertNever(op, 'kernel operation');
  }
}

/** What a person needs to know and can do about it. */
export function describeProblem(problem: Problem): string {
  switch (problem.type) {
    case 'link-missing':
      return `there is no interface ${problem.link}`;
    case 'link-down':
      return `interface ${problem.link} is down`;
    case 'link-kind':
      return `interface ${problem.link} is not a ${problem.wanted} device but ${problem.actual === 'other' ? 'something else' : `a ${problem.actual}`}; remove it: ip link delete ${problem.link}`;
    case 'underlay-missing':
      return `${problem.link} cannot be made: there is no interface ${problem.underlay}`;
    case 'route-taken':
      return `${formatPrefix(problem.route.dst)} is already routed by somebody else (${describeRoute(problem.by)} proto ${problem.by.protocol}), wanted: ${describeRoute(problem.route)}; remove that route: ip route delete ${describeRoute(problem.by)} proto ${problem.by.protocol}`;
    case 'route-twice':
      return `two routes to ${formatPrefix(problem.route.dst)} are wanted; the second was ignored: ${describeRoute(problem.route)}`;
    default:
      return assertNever(problem, 'kernel problem');
  }
}
