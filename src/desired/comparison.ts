import { assertNever } from '../assert-never.ts';
import { formatAddr, formatEndpoint, formatPrefix } from '../ip/address.ts';
import type { Op } from './op.ts';
import type { ReconcilerView } from './reconciler.ts';
import {
  type ActualLink,
  type ActualRoute,
  type Address,
  describeAddress,
  describePolicy,
  describeRoute,
  type FdbEntry,
  fdbKey,
  type Neighbour,
  neighbourKey,
  policyKey,
  type Route,
  routeKey,
  type WantedLink,
  type WireguardPeer,
  wireguardPeerKey,
} from './state.ts';

export type ComparedType =
  | 'link'
  | 'address'
  | 'sysctl'
  | 'neighbour'
  | 'fdb'
  | 'wireguard-peer'
  | 'ipsec-policy'
  | 'route';

/** One entry of the kernel that is wanted, or that is there and has to go. */
export interface ComparedEntry {
  readonly type: ComparedType;
  /** What the kernel tells entries of that type apart by. */
  readonly key: string;
  readonly wanted?: string;
  readonly actual?: string;
  readonly status: 'same' | 'missing' | 'different' | 'unwanted';
}

/**
 * Wanted and actual state beside each other, what differs first. What the kernel has beyond that is others', and left out.
 * Private keys are no part of it.
 */
export function compareState({ wanted, actual, ops }: ReconcilerView): ComparedEntry[] {
  const changed = new Map(ops.map((op) => [opKey(op), op]));
  const seen = new Set<string>();
  const entries: ComparedEntry[] = [];
  const add = (type: ComparedType, key: string, want: string | undefined, have: string | undefined): void => {
    const id = `${type} ${key}`;
    if (seen.has(id)) return;
    seen.add(id);
    entries.push({
      ...{ type, key },
      ...(want === undefined ? {} : { wanted: want }),
      ...(have === undefined ? {} : { actual: have }),
      status: statusOf(want !== undefined, have !== undefined, changed.has(id)),
    });
  };
  const links = new Map(actual.links.map((link) => [link.name, link]));
  for (const link of wanted.host.links) add('link', link.name, linkText(link), linkTextOf(links.get(link.name)));
  const addresses = new Map(actual.addresses.map((address) => [describeAddress(address), address]));
  for (const address of wanted.host.addresses) {
    const key = describeAddress(address);
    add('address', key, addressText(address), addressText(addresses.get(key)));
  }
  const sysctls = new Map(actual.sysctls.map(({ name, value }) => [name, value]));
  for (const { name, value } of wanted.host.sysctls) {
    // A kernel without it has nothing that would be kept off.
    if (sysctls.has(name)) add('sysctl', name, value, sysctls.get(name));
  }
  for (const [key, neighbour] of wanted.neighbours.entries()) {
    add('neighbour', key, neighbourText(neighbour), neighbourText(actual.neighbours.get(key)));
  }
  for (const [key, entry] of wanted.fdb.entries()) add('fdb', key, fdbText([entry]), fdbText(actual.fdb.get(key)));
  for (const [key, peer] of wanted.wireguard.entries()) {
    add('wireguard-peer', key, wireguardText(peer), wireguardText(actual.wireguardPeers.get(key)));
  }
  for (const [key, policy] of wanted.policies.entries()) {
    const found = actual.policies.get(key);
    add('ipsec-policy', key, describePolicy(policy), found && describePolicy(found));
  }
  for (const [key, route] of wanted.routes.entries()) {
    add('route', key, describeRoute(route), routeText(actual.routes.get(key)?.[0]));
  }
  for (const op of ops) {
    const unwanted = unwantedOf(op);
    if (unwanted !== undefined) add(unwanted.type, unwanted.key, undefined, unwanted.text);
  }
  const differing = entries.filter(({ status }) => status !== 'same');
  return [...differing, ...entries.filter(({ status }) => status === 'same')];
}

function statusOf(isWanted: boolean, isThere: boolean, isChanged: boolean): ComparedEntry['status'] {
  if (!isWanted) return 'unwanted';
  if (!isThere) return 'missing';
  return isChanged ? 'different' : 'same';
}

function opKey(op: Op): string {
  switch (op.type) {
    case 'link-add':
      return `link ${op.link.name}`;
    case 'link-rename':
      return `link ${op.to}`;
    case 'link-delete':
    case 'link-set':
    case 'link-sum-before':
      return `link ${op.name}`;
    case 'wireguard-set':
      return `link ${op.link}`;
    case 'sysctl-set':
      return `sysctl ${op.sysctl.name}`;
    case 'address-add':
    case 'address-delete':
      return `address ${describeAddress(op.address)}`;
    case 'neighbour-replace':
    case 'neighbour-delete':
      return `neighbour ${neighbourKey(op.neighbour)}`;
    case 'fdb-replace':
    case 'fdb-delete':
      return `fdb ${fdbKey(op.entry)}`;
    case 'wireguard-peer-set':
      return `wireguard-peer ${wireguardPeerKey(op.peer)}`;
    case 'wireguard-peer-delete':
      return `wireguard-peer ${wireguardPeerKey(op)}`;
    case 'policy-set':
    case 'policy-delete':
      return `ipsec-policy ${policyKey(op.policy)}`;
    case 'route-add':
    case 'route-replace':
    case 'route-delete':
      return `route ${routeKey(op.route)}`;
    default:
      return assertNever(op, 'kernel operation');
  }
}

function unwantedOf(op: Op): { readonly type: ComparedType; readonly key: string; readonly text: string } | undefined {
  switch (op.type) {
    case 'link-delete':
      return { type: 'link', key: op.name, text: op.name };
    case 'address-delete':
      return { type: 'address', key: describeAddress(op.address), text: describeAddress(op.address) };
    case 'neighbour-delete':
      return { type: 'neighbour', key: neighbourKey(op.neighbour), text: neighbourText(op.neighbour) ?? '' };
    case 'fdb-delete':
      return { type: 'fdb', key: fdbKey(op.entry), text: fdbText([op.entry]) ?? '' };
    case 'wireguard-peer-delete':
      return { type: 'wireguard-peer', key: wireguardPeerKey(op), text: op.publicKey };
    case 'policy-delete':
      return { type: 'ipsec-policy', key: policyKey(op.policy), text: describePolicy(op.policy) };
    case 'route-delete':
      return { type: 'route', key: routeKey(op.route), text: describeRoute(op.route) };
    default:
      return undefined;
  }
}

function linkText(link: WantedLink): string {
  if (link.kind === 'external') return link.name;
  const mac = link.kind === 'vxlan' && link.mac !== undefined ? [`address ${link.mac}`] : [];
  const mtu = link.mtuBytes === undefined ? [] : [`mtu ${link.mtuBytes}`];
  const queue = 'queuePackets' in link && link.queuePackets !== undefined ? [`txqueuelen ${link.queuePackets}`] : [];
  return [link.name, link.kind, ...mtu, ...mac, ...queue, 'up'].join(' ');
}

function linkTextOf(link: ActualLink | undefined): string | undefined {
  if (link === undefined) return undefined;
  const { name, kind, mtuBytes, mac, queuePackets, up } = link;
  const address = mac === undefined ? [] : [`address ${mac}`];
  const queue = kind === 'tun' ? [`txqueuelen ${queuePackets}`] : [];
  return [name, kind, `mtu ${mtuBytes}`, ...address, ...queue, up ? 'up' : 'down'].join(' ');
}

function addressText(address: Address | undefined): string | undefined {
  return address && `${describeAddress(address)} scope ${address.scope}`;
}

function neighbourText(neighbour: Neighbour | undefined): string | undefined {
  return neighbour && `${formatAddr(neighbour.addr)} lladdr ${neighbour.mac} dev ${neighbour.link}`;
}

function fdbText(entries: readonly FdbEntry[] | undefined): string | undefined {
  return entries?.map(({ mac, dst, link }) => `${mac} dst ${formatAddr(dst)} dev ${link}`).join('; ');
}

type ComparedPeer = Pick<WireguardPeer, 'publicKey' | 'allowedIps'> & {
  readonly endpoint: WireguardPeer['endpoint'] | undefined;
};

function wireguardText(peer: ComparedPeer | undefined): string | undefined {
  if (peer === undefined) return undefined;
  const { publicKey, endpoint, allowedIps } = peer;
  const at = endpoint === undefined ? '' : ` endpoint ${formatEndpoint(endpoint)}`;
  return `${publicKey}${at} allowed-ips ${allowedIps.map(formatPrefix).join(',')}`;
}

function routeText(route: Route | ActualRoute | undefined): string | undefined {
  return route && describeRoute(route);
}
