import { once } from 'node:events';
import { assertNever } from '../../src/assert-never.ts';
import type { Kernel, OpResult } from '../../src/desired/kernel.ts';
import type { LinkKind } from '../../src/desired/link-kinds/link-kind.ts';
import { linkKind } from '../../src/desired/link-kinds/table.ts';
import type { Op } from '../../src/desired/op.ts';
import {
  type ActualAddress,
  type ActualIpsecPolicy,
  type ActualLink,
  type ActualLinkKind,
  type ActualRoute,
  type ActualState,
  type ActualSysctl,
  type ActualWireguardPeer,
  effectiveMetric,
  type FdbEntry,
  KERNEL_ROUTE_PROTOCOL,
  type Neighbour,
  type OwnLinkKind,
  type OwnWantedLink,
  POLICY_PRIORITIES,
  policyKey,
  type Route,
  routeKey,
  type WantedState,
  WEFT_ROUTE_PROTOCOL,
  type WireguardPeer,
  type WireguardSettings,
} from '../../src/desired/state.ts';
import { formatPrefix, isIpv4, isPrefix4 } from '../../src/ip/address.ts';
import type { Ipv4Addr } from '../../src/ip/ipv4.ts';
import type { MacAddr } from '../../src/ip/mac.ts';
import { mask4, prefix4, prefix6 } from '../../src/ip/prefix.ts';

/**
 * The kernel's rules, as far as weft meets them: connected routes, secondary addresses, the routes that vanish with a
 * link or with the last IPv4 address, unique keys. What it says in errors is what the kernel says.
 */
export class FakeKernel implements Kernel {
  readonly links = new Map<string, ActualLink>();
  addresses: ActualAddress[] = [];
  routes: ActualRoute[] = [];
  neighbours: Neighbour[] = [];
  fdb: FdbEntry[] = [];
  /** What WireGuard devices are set to, by name. */
  readonly wireguardSettings = new Map<string, WireguardSettings>();
  wireguardPeers: ActualWireguardPeer[] = [];
  /** By key. */
  readonly policies = new Map<string, ActualIpsecPolicy>();
  /** By name; a setting that is not here is one that the kernel does not have. Those of a link that is made are at 1. */
  readonly sysctls = new Map<string, ActualSysctl>();
  /** Settings of links that come are read-only, as in a container. */
  readOnlySysctls = false;

  /** Everything applied through the port, in order. */
  readonly applied: Op[] = [];
  reads = 0;
  /** Set to make operations fail: returns the kernel's words, or `undefined` to let the operation happen. */
  refuse: (op: Op) => string | undefined = () => undefined;
  /** Set to make the next reads fail. */
  readError: Error | undefined;

  /** Names of the own links of earlier looks, by those they have now. */
  readonly #ownNames = new Map<string, string>();
  readonly #listeners = new Set<EventTarget>();

  get listeners(): number {
    return this.#listeners.size;
  }

  async read(wanted: WantedState, signal: AbortSignal): Promise<ActualState> {
    signal.throwIfAborted();
    this.reads++;
    await Promise.resolve();
    if (this.readError !== undefined) throw this.readError;
    for (const { kind, name } of wanted.links) if (this.links.get(name)?.kind === kind) this.#ownNames.set(name, name);
    return {
      links: [...this.links.values()].map((link) => {
        const wasOwn = this.#ownNames.get(link.name);
        return { ...link, ...(wasOwn === undefined || wasOwn === link.name ? {} : { wasOwn }) };
      }),
      addresses: [...this.addresses],
      routes: [...this.routes],
      neighbours: [...this.neighbours],
      fdb: [...this.fdb],
      wireguard: [...this.links.values()].flatMap(({ kind, name }) => {
        if (kind !== 'wireguard') return [];
        const { publicKey, listenPort = 0 } = this.wireguardSettings.get(name) ?? {};
        return [{ link: name, publicKey, listenPort, peers: this.wireguardPeers.filter(({ link }) => link === name) }];
      }),
      policies: [...this.policies.values()],
      sysctls: wanted.sysctls.flatMap(({ name }) => this.sysctls.get(name) ?? []),
    };
  }

  async apply(ops: readonly Op[], signal: AbortSignal): Promise<OpResult[]> {
    signal.throwIfAborted();
    await Promise.resolve();
    const results = ops.map((op): OpResult => {
      this.applied.push(op);
      const error = this.refuse(op) ?? this.change(op);
      return error === undefined ? { op, ok: true } : { op, ok: false, error };
    });
    if (results.some((result) => result.ok && !/^(route|neighbour|fdb)-/.test(result.op.type))) this.notify();
    return results;
  }

  async *changes(_wanted: () => WantedState, signal: AbortSignal): AsyncIterable<void> {
    const target = new EventTarget();
    let pending = true;
    target.addEventListener('change', () => {
      pending = true;
    });
    this.#listeners.add(target);
    try {
      for (;;) {
        signal.throwIfAborted();
        if (!pending) await once(target, 'change', { signal });
        pending = false;
        yield;
      }
    } finally {
      this.#listeners.delete(target);
    }
  }

  notify(): void {
    for (const target of this.#listeners) target.dispatchEvent(new Event('change'));
  }

  /** What somebody else does by hand: an operation with its notice, past the port's log. @returns the kernel's error. */
  byHand(op: Op): string | undefined {
    const error = this.change(op);
    this.notify();
    return error;
  }

  addLink(link: {
    name: string;
    kind: 'tun' | 'bridge' | 'wireguard' | 'other';
    up?: boolean;
    mtuBytes?: number;
  }): void {
    const queuePackets = link.kind === 'tun' ? 500 : 1000;
    const bare = { mtuBytes: 1500, up: true, mac: undefined, alias: undefined, queuePackets, settings: undefined };
    this.links.set(link.name, { ...bare, ...link });
    this.notify();
  }

  removeLink(name: string): void {
    this.change({ type: 'link-delete', name });
    this.notify();
  }

  setLink(name: string, change: { up?: boolean; mtuBytes?: number; queuePackets?: number }): void {
    this.linkSet({ name, ...change });
    this.notify();
  }

  /** A route by somebody else, put in front of those with the same key (`ip route prepend`) or behind them. */
  addForeignRoute(route: ActualRoute, where: 'front' | 'back' = 'back'): void {
    if (where === 'front') this.routes.unshift(route);
    else this.routes.push(route);
    this.notify();
  }

  deleteRoutes(match: (route: ActualRoute) => boolean): void {
    this.routes = this.routes.filter((route) => !match(route));
    this.notify();
  }

  flushAddresses(link: string): void {
    for (const address of this.addresses.filter((candidate) => candidate.link === link)) {
      this.change({ type: 'address-delete', address });
    }
    this.notify();
  }

  private change(op: Op): string | undefined {
    switch (op.type) {
      case 'link-add':
        return this.linkAdd(op.link);
      case 'link-delete':
        this.links.delete(op.name);
        this.#ownNames.delete(op.name);
        this.addresses = this.addresses.filter((address) => address.link !== op.name);
        this.routes = this.routes.filter((route) => route.dev !== op.name);
        this.neighbours = this.neighbours.filter((entry) => entry.link !== op.name);
        this.fdb = this.fdb.filter((entry) => entry.link !== op.name);
        this.wireguardSettings.delete(op.name);
        this.wireguardPeers = this.wireguardPeers.filter((peer) => peer.link !== op.name);
        return undefined;
      case 'link-set':
        return this.linkSet(op);
      case 'link-rename':
        return this.linkRename(op.name, op.to);
      case 'link-sum-before': {
        const link = this.links.get(op.name);
        if (link === undefined) return 'ENODEV';
        this.links.set(op.name, { ...link, sumsBefore: true });
        return undefined;
      }
      case 'sysctl-set': {
        const { name, value } = op.sysctl;
        const found = this.sysctls.get(name);
        if (found?.writable) this.sysctls.set(name, { ...found, value });
        return undefined;
      }
      case 'address-add':
        return this.addressAdd({ ...op.address, peer: undefined });
      case 'address-delete':
        return this.addressDelete(op.address);
      case 'neighbour-replace': {
        const { link, addr } = op.neighbour;
        if (!this.links.has(link)) return `Cannot find device "${link}"`;
        this.neighbours = this.neighbours.filter((entry) => entry.link !== link || entry.addr !== addr);
        this.neighbours.push(op.neighbour);
        return undefined;
      }
      case 'neighbour-delete': {
        const { link, addr } = op.neighbour;
        this.neighbours = this.neighbours.filter((entry) => entry.link !== link || entry.addr !== addr);
        return undefined;
      }
      case 'fdb-replace': {
        const { link, mac } = op.entry;
        if (!this.links.has(link)) return `Cannot find device "${link}"`;
        const others = this.fdb.filter((entry) => entry.link === link && entry.mac === mac);
        if (others.length > 1) return 'RTNETLINK answers: Operation not supported';
        this.fdb = this.fdb.filter((entry) => !others.includes(entry));
        this.fdb.push(op.entry);
        return undefined;
      }
      case 'fdb-delete': {
        const { link, mac, dst } = op.entry;
        this.fdb = this.fdb.filter((entry) => entry.link !== link || entry.mac !== mac || entry.dst !== dst);
        return undefined;
      }
      case 'wireguard-set':
        if (!this.links.has(op.link)) return 'Unable to modify interface: No such device';
        this.wireguardSettings.set(op.link, op.settings);
        return undefined;
      case 'wireguard-peer-set':
        return this.wireguardPeerSet(op.peer);
      case 'wireguard-peer-delete':
        this.wireguardPeers = this.wireguardPeers.filter(
          ({ link, publicKey }) => link !== op.link || publicKey !== op.publicKey,
        );
        return undefined;
      case 'policy-set': {
        const { policy } = op;
        this.policies.set(policyKey(policy), { ...policy, priority: POLICY_PRIORITIES[policy.verdict.kind] });
        return undefined;
      }
      case 'policy-delete':
        this.policies.delete(policyKey(op.policy));
        return undefined;
      case 'route-add':
        return this.routeAdd(op.route, false);
      case 'route-replace':
        return this.routeAdd(op.route, true);
      case 'route-delete': {
        const { dev, via, type, protocol, scope } = op.route;
        const index = this.routes.findIndex(
          (route) =>
            sameKey(route, op.route) &&
            route.protocol === protocol &&
            route.type === type &&
            (dev === undefined || route.dev === dev) &&
            (via === undefined || route.via === via) &&
            (type !== 'unicast' || scope === route.scope),
        );
        if (index >= 0) this.routes.splice(index, 1);
        return undefined;
      }
      default:
        return assertNever(op, 'kernel operation');
    }
  }

  private linkAdd(link: OwnWantedLink): string | undefined {
    if (this.links.has(link.name)) return 'RTNETLINK answers: File exists';
    const kind: LinkKind<OwnLinkKind> = linkKind(link.kind);
    const underlay = kind.underlay(link);
    if (underlay !== undefined && !this.links.has(underlay)) return `Cannot find device "${underlay}"`;
    const made = settled(link);
    for (const { kind, settings } of this.links.values()) {
      if (kind !== 'vxlan' || made.kind !== 'vxlan') continue;
      // vxlan_config_validate() in drivers/net/vxlan/vxlan_core.c.
      if (settings.vni === made.settings.vni && settings.port === made.settings.port)
        return 'Error: A VXLAN device with the specified VNI already exists.';
    }
    const common = {
      name: link.name,
      up: true,
      sumsBefore: false,
      mac: 'mac' in link ? link.mac : undefined,
      alias: undefined,
      queuePackets: 1000,
    };
    const mtuBytes = link.mtuBytes ?? (underlay === undefined ? 1500 : 1450);
    this.links.set(link.name, { ...common, mtuBytes, ...made });
    const name = `net/ipv6/conf/${link.name}/accept_ra`;
    this.sysctls.set(name, { name, value: '1', writable: !this.readOnlySysctls });
    return undefined;
  }

  private linkRename(name: string, to: string): string | undefined {
    const link = this.links.get(name);
    if (link === undefined) return `Cannot find device "${name}"`;
    if (this.links.has(to)) return 'RTNETLINK answers: File exists';
    this.links.delete(name);
    this.links.set(to, { ...link, name: to });
    const own = this.#ownNames.get(name);
    this.#ownNames.delete(name);
    if (own !== undefined) this.#ownNames.set(to, own);
    const settings = this.wireguardSettings.get(name);
    this.wireguardSettings.delete(name);
    if (settings !== undefined) this.wireguardSettings.set(to, settings);
    const moved = <T extends { readonly link: string }>(entries: readonly T[]): T[] =>
      entries.map((entry) => (entry.link === name ? { ...entry, link: to } : entry));
    this.addresses = moved(this.addresses);
    this.neighbours = moved(this.neighbours);
    this.fdb = moved(this.fdb);
    this.wireguardPeers = moved(this.wireguardPeers);
    this.routes = this.routes.map((route) => (route.dev === name ? { ...route, dev: to } : route));
    return undefined;
  }

  /** The kernel takes what is allowed to one peer from all others of the device. */
  private wireguardPeerSet(peer: WireguardPeer): string | undefined {
    if (!this.links.has(peer.link)) return 'Unable to modify interface: No such device';
    const taken = new Set(peer.allowedIps.map(formatPrefix));
    this.wireguardPeers = this.wireguardPeers
      .filter(({ link, publicKey }) => link !== peer.link || publicKey !== peer.publicKey)
      .map((other) =>
        other.link === peer.link
          ? { ...other, allowedIps: other.allowedIps.filter((prefix) => !taken.has(formatPrefix(prefix))) }
          : other,
      );
    this.wireguardPeers.push({ ...peer, lastHandshakeAtMs: undefined, receivedBytes: 0, sentBytes: 0 });
    return undefined;
  }

  private linkSet(op: {
    name: string;
    up?: boolean;
    mtuBytes?: number;
    mac?: MacAddr;
    alias?: string;
    queuePackets?: number;
  }): string | undefined {
    const link = this.links.get(op.name);
    if (link === undefined) return `Cannot find device "${op.name}"`;
    this.links.set(op.name, {
      ...link,
      mtuBytes: op.mtuBytes ?? link.mtuBytes,
      mac: op.mac ?? link.mac,
      alias: op.alias ?? link.alias,
      queuePackets: op.queuePackets ?? link.queuePackets,
      up: op.up ?? link.up,
    });
    if (op.mac !== undefined && op.mac !== link.mac) {
      this.neighbours = this.neighbours.filter((entry) => entry.link !== op.name);
    }
    if (op.up === false && link.up) {
      this.routes = this.routes.filter((route) => route.dev !== op.name);
      this.addresses = this.addresses.filter((address) => address.link !== op.name || isIpv4(address.addr));
      this.neighbours = this.neighbours.filter((entry) => entry.link !== op.name);
    }
    if (op.up === true && !link.up) {
      for (const address of this.addresses) if (address.link === op.name) this.connect(address);
    }
    return undefined;
  }

  private addressAdd(address: ActualAddress): string | undefined {
    if (!this.links.has(address.link)) return `Cannot find device "${address.link}"`;
    const same = this.addresses.some(
      (other) =>
        other.link === address.link &&
        other.addr === address.addr &&
        (!isIpv4(address.addr) || other.prefixLength === address.prefixLength),
    );
    if (same) return undefined;
    this.addresses.push(address);
    if (this.links.get(address.link)!.up && this.primaryOf(address) === undefined) this.connect(address);
    return undefined;
  }

  private addressDelete(address: ActualAddress): string | undefined {
    const index = this.addresses.findIndex(
      (other) =>
        other.link === address.link &&
        other.addr === address.addr &&
        other.prefixLength === address.prefixLength &&
        other.peer === address.peer,
    );
    const found = this.addresses[index];
    if (found === undefined) return undefined;
    const primary = this.primaryOf(found) === undefined;
    this.addresses.splice(index, 1);
    if (!isIpv4(found.addr)) {
      const prefix = prefix6(found.addr, found.prefixLength);
      this.disconnect(found.link, routeKey({ dst: prefix, metric: 256 }));
      return undefined;
    }
    if (primary) {
      const secondaries = this.addresses.filter((other) => inSameSubnet(other, found));
      this.addresses = this.addresses.filter((other) => !secondaries.includes(other));
      this.disconnect(found.link, routeKey({ dst: prefix4(found.addr, found.prefixLength), metric: 0 }));
    }
    if (!this.addresses.some((other) => other.link === found.link && isIpv4(other.addr))) {
      this.routes = this.routes.filter((route) => route.dev !== found.link || !isPrefix4(route.dst));
    }
    return undefined;
  }

  /** The earlier address of the same subnet, of which this one is a secondary. */
  private primaryOf(address: ActualAddress): ActualAddress | undefined {
    return this.addresses.find((other) => other !== address && inSameSubnet(other, address));
  }

  private connect(address: ActualAddress): void {
    if (!address.prefixRoute || (isIpv4(address.addr) && address.prefixLength === 32)) return;
    this.routes.push({
      type: 'unicast',
      dst: isIpv4(address.addr)
        ? prefix4(address.addr, address.prefixLength)
        : prefix6(address.addr, address.prefixLength),
      metric: isIpv4(address.addr) ? 0 : 256,
      dev: address.link,
      via: undefined,
      onlink: false,
      scope: isIpv4(address.addr) ? 'link' : 'global',
      protocol: KERNEL_ROUTE_PROTOCOL,
      elaborate: isIpv4(address.addr),
    });
  }

  private disconnect(link: string, key: string): void {
    this.routes = this.routes.filter(
      (route) => route.dev !== link || route.protocol !== KERNEL_ROUTE_PROTOCOL || routeKey(route) !== key,
    );
  }

  private routeAdd(route: Route, replace: boolean): string | undefined {
    if (route.type === 'unicast') {
      const link = this.links.get(route.dev);
      if (link === undefined) return `Cannot find device "${route.dev}"`;
      if (!link.up) return 'Error: Device for nexthop is not up.';
    }
    const made: ActualRoute = {
      type: route.type,
      dst: route.dst,
      metric: effectiveMetric(route),
      dev: route.type === 'unicast' ? route.dev : undefined,
      via: route.type === 'unicast' ? route.via : undefined,
      onlink: route.type === 'unicast' && route.onlink,
      scope: route.type === 'unicast' && isPrefix4(route.dst) ? route.scope : 'global',
      protocol: WEFT_ROUTE_PROTOCOL,
      elaborate: false,
    };
    const index = this.routes.findIndex((other) => sameKey(other, route));
    if (index < 0) this.routes.push(made);
    else if (replace) this.routes[index] = made;
    else return 'RTNETLINK answers: File exists';
    return undefined;
  }
}

/** routeKey without its text: it is asked for each of thousands of routes. */
function sameKey(a: Route | ActualRoute, b: Route | ActualRoute): boolean {
  return a.dst.addr === b.dst.addr && a.dst.length === b.dst.length && effectiveMetric(a) === effectiveMetric(b);
}

function inSameSubnet(a: ActualAddress, b: ActualAddress): boolean {
  if (!isIpv4(a.addr) || !isIpv4(b.addr) || a.link !== b.link || a.prefixLength !== b.prefixLength) return false;
  return network(a.addr, a.prefixLength) === network(b.addr, b.prefixLength);
}

function network(addr: Ipv4Addr, length: number): number {
  return (addr & mask4(length)) >>> 0;
}

/** Kind and settings as the kernel has them once the link is made. */
function settled(link: OwnWantedLink): ActualLinkKind {
  switch (link.kind) {
    case 'vxlan':
      return { kind: 'vxlan', settings: { ...link.settings, port: link.settings.port ?? 8472 } };
    case 'ipip':
      return { kind: 'ipip', settings: { ...link.settings, remote: undefined } };
    default:
      return { kind: link.kind, settings: undefined };
  }
}
