import { formatAddr } from '../ip/address.ts';
import type { Op } from './op.ts';
import {
  type ActualAddress,
  type ActualIpsecPolicy,
  type ActualLink,
  type ActualRoute,
  type ActualState,
  type ActualSysctl,
  type ActualWireguard,
  type ActualWireguardPeer,
  effectiveMetric,
  type FdbEntry,
  fdbKey,
  type Neighbour,
  neighbourKey,
  POLICY_PRIORITIES,
  policyKey,
  type Route,
  routeKey,
  WEFT_ROUTE_PROTOCOL,
  wireguardPeerKey,
} from './state.ts';

/**
 * What the kernel has, by key. It can be taken forward by the operations that were applied, so that the next change need
 * not read the kernel again.
 */
export class Actual {
  readonly links: readonly ActualLink[];
  readonly addresses: readonly ActualAddress[];
  readonly sysctls: readonly ActualSysctl[];
  /** In the kernel's order: of equal keys, the first is the one in use. */
  readonly routes: ReadonlyMap<string, readonly ActualRoute[]>;
  readonly neighbours: ReadonlyMap<string, Neighbour>;
  readonly fdb: ReadonlyMap<string, readonly FdbEntry[]>;
  /** By link. */
  readonly wireguard: ReadonlyMap<string, ActualWireguard>;
  readonly wireguardPeers: ReadonlyMap<string, ActualWireguardPeer>;
  readonly policies: ReadonlyMap<string, ActualIpsecPolicy>;
  readonly #routes: Map<string, ActualRoute[]>;
  readonly #neighbours: Map<string, Neighbour>;
  readonly #fdb: Map<string, FdbEntry[]>;
  readonly #wireguardPeers: Map<string, ActualWireguardPeer>;
  readonly #policies: Map<string, ActualIpsecPolicy>;

  constructor({ links, addresses, sysctls, routes, neighbours, fdb, wireguard = [], policies = [] }: ActualState) {
    this.links = links;
    this.sysctls = sysctls;
    this.addresses = addresses;
    this.#routes = Map.groupBy(routes, routeKey);
    this.#neighbours = new Map(neighbours.map((entry) => [neighbourKey(entry), entry]));
    this.#fdb = Map.groupBy(fdb, fdbKey);
    this.wireguard = new Map(wireguard.map((device) => [device.link, device]));
    const peers = wireguard.flatMap((device) => device.peers);
    this.#wireguardPeers = new Map(peers.map((peer) => [wireguardPeerKey(peer), peer]));
    this.wireguardPeers = this.#wireguardPeers;
    this.#policies = new Map(policies.map((policy) => [policyKey(policy), policy]));
    this.policies = this.#policies;
    this.routes = this.#routes;
    this.neighbours = this.#neighbours;
    this.fdb = this.#fdb;
  }

  /**
   * Makes this what the kernel has after the operations of a plan for it have all succeeded.
   * @returns false when links or addresses are among them: what follows from those is the kernel's business, and this
   * must not be used any more.
   */
  follow(ops: readonly Op[]): boolean {
    return ops.every((op) => this.#followOne(op));
  }

  #followOne(op: Op): boolean {
    switch (op.type) {
      case 'route-add': {
        const key = routeKey(op.route);
        this.#routes.set(key, [...(this.#routes.get(key) ?? []), actualOf(op.route)]);
        return true;
      }
      case 'route-replace': {
        // Of several with one key, the first is the one that is replaced.
        const key = routeKey(op.route);
        this.#routes.set(key, [actualOf(op.route), ...(this.#routes.get(key) ?? []).slice(1)]);
        return true;
      }
      case 'route-delete': {
        // A plan hands on the very objects that it was given.
        const key = routeKey(op.route);
        const left = (this.#routes.get(key) ?? []).filter((route) => route !== op.route);
        if (left.length === 0) this.#routes.delete(key);
        else this.#routes.set(key, left);
        return true;
      }
      case 'neighbour-replace':
        this.#neighbours.set(neighbourKey(op.neighbour), op.neighbour);
        return true;
      case 'neighbour-delete':
        this.#neighbours.delete(neighbourKey(op.neighbour));
        return true;
      case 'fdb-replace': {
        // The kernel replaces an entry that has a single destination, which a plan makes sure of.
        this.#fdb.set(fdbKey(op.entry), [op.entry]);
        return true;
      }
      case 'fdb-delete': {
        const key = fdbKey(op.entry);
        const left = (this.#fdb.get(key) ?? []).filter(({ dst }) => formatAddr(dst) !== formatAddr(op.entry.dst));
        if (left.length === 0) this.#fdb.delete(key);
        else this.#fdb.set(key, left);
        return true;
      }
      case 'wireguard-peer-set': {
        const key = wireguardPeerKey(op.peer);
        const { lastHandshakeAtMs, receivedBytes = 0, sentBytes = 0 } = this.#wireguardPeers.get(key) ?? {};
        this.#wireguardPeers.set(key, { ...op.peer, lastHandshakeAtMs, receivedBytes, sentBytes });
        return true;
      }
      case 'wireguard-peer-delete':
        this.#wireguardPeers.delete(wireguardPeerKey(op));
        return true;
      case 'policy-set': {
        const { policy } = op;
        this.#policies.set(policyKey(policy), { ...policy, priority: POLICY_PRIORITIES[policy.verdict.kind] });
        return true;
      }
      case 'policy-delete':
        this.#policies.delete(policyKey(op.policy));
        return true;
      default:
        return false;
    }
  }
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
