import { linkKind } from '../desired/link-kinds/table.ts';
import type { Address, LinkSysctl, Route, UnicastRoute, WantedLink, WantedState } from '../desired/state.ts';
import { WeftError } from '../errors.ts';
import { containsAddr, formatAddr, type IpAddr, type IpPrefix, isIpv4 } from '../ip/address.ts';
import { FAMILIES, type Family, type FamilyKey, familiesIn, perFamily } from '../ip/family.ts';
import type { Ipv4Prefix } from '../ip/prefix.ts';
import { type JsonValue, type Lease, type LeaseAttrs, leaseKey } from '../lease/lease.ts';
import type { BackendKind, ExternalInterface, Network, PeerPart, SkippedPeer } from './backend.ts';

/** What several backends do in the same way, as flannel does it. */

/** The families of the network that a backend carries. */
export function carried(network: Network, kind: Pick<BackendKind<never, never>, 'families'>): readonly Family[] {
  return familiesIn(network).filter(({ key }) => kind.families.includes(key));
}

/** @throws WeftError WEFT_CONFIG_INVALID when none of its families is on. */
export function requireFamilies(
  network: Network,
  kind: Pick<BackendKind<never, never>, 'families' | 'type'>,
): readonly Family[] {
  const families = carried(network, kind);
  if (families.length > 0) return families;
  const names = FAMILIES.filter(({ key }) => kind.families.includes(key)).map(({ name }) => name);
  throw new WeftError(
    'WEFT_CONFIG_INVALID',
    `the ${kind.type} backend carries ${names.join(' and ')}, which the network configuration does not enable`,
    { hint: `Enable ${names[0]} with a network in net-conf.json, or choose another backend.` },
  );
}

/** The same for a backend of IPv4 alone, with that family and its network. */
export function requireIpv4(
  network: Network,
  kind: Pick<BackendKind<never, never>, 'families' | 'type'>,
): { readonly families: readonly Family[]; readonly family: Family; readonly whole: Ipv4Prefix } {
  const families = requireFamilies(network, kind);
  const [family] = families;
  if (family === undefined || network.ipv4 === undefined) throw new TypeError('unreachable: requireFamilies()');
  return { families, family, whole: network.ipv4.network };
}

/** @throws WeftError WEFT_INTERFACE_NOT_FOUND when the external interface has none of that family. */
export function requireAddress<A>(
  address: A | undefined,
  family: Family,
  external: ExternalInterface,
  type: string,
): A {
  if (address !== undefined) return address;
  throw new WeftError(
    'WEFT_INTERFACE_NOT_FOUND',
    `the ${type} backend needs an ${family.name} address on ${external.name}`,
    {
      hint: `Give ${external.name} one, or name another interface with --iface.`,
    },
  );
}

/** The attributes of a lease with that type and data. */
export function attrsOf(
  type: string,
  external: ExternalInterface,
  families: readonly Family[],
  data: (family: FamilyKey) => JsonValue | undefined,
): LeaseAttrs {
  const has = (key: FamilyKey): boolean => families.some((family) => family.key === key);
  const { ipv4, ipv6 } = external.publicAddresses;
  return {
    publicAddresses: { ipv4, ipv6: has('ipv6') ? ipv6 : undefined },
    backendType: type,
    backendData: perFamily((key) => (has(key) ? data(key) : undefined)),
  };
}

/** The own subnet of a family. @throws TypeError for a lease without one: the caller holds another kind of lease. */
export function ownSubnet(own: Lease, family: FamilyKey): IpPrefix {
  const subnet = own.subnets[family];
  if (subnet === undefined) throw new TypeError(`lease ${leaseKey(own)} has no ${family} subnet`);
  return subnet;
}

/**
 * The first address of the subnet, alone, so that no broadcast route and no route to the subnet comes with it; as flannel
 * sets it, so that the address of a flanneld before it can stay.
 */
export function hostAddress(link: string, subnet: IpPrefix): Address {
  const is4 = isIpv4(subnet.addr);
  return { link, addr: subnet.addr, prefixLength: is4 ? 32 : 128, scope: 'global', prefixRoute: !is4 };
}

export function unicast(route: Pick<UnicastRoute, 'dst' | 'dev'> & Partial<UnicastRoute>): Route {
  return { type: 'unicast', via: undefined, onlink: false, scope: 'global', metric: undefined, ...route };
}

/**
 * Nobody at the other end of a tunnel is a router of this host. The kernel believes router advertisements on a new link unless it
 * forwards IPv6: a peer could give the host addresses and routes (CVE-2020-10749 was that).
 */
function noRouterAdvertisements(link: WantedLink): LinkSysctl[] {
  if (link.kind === 'external') return [];
  const { name } = link;
  const risk = linkKind(link.kind).takesFrames
    ? `anyone who can send to ${name} can give this host IPv6 addresses and routes with router advertisements, unless it forwards IPv6`
    : undefined;
  return [{ link: name, name: `net/ipv6/conf/${name}/accept_ra`, value: '0', risk }];
}

/** A wanted state of a node agent. */
export function hostState(state: Partial<Omit<WantedState, 'sysctls'>>, network: Network): WantedState {
  return {
    links: [],
    addresses: [],
    sysctls: (state.links ?? []).flatMap(noRouterAdvertisements),
    routes: [],
    neighbours: [],
    fdb: [],
    networks: FAMILIES.flatMap(({ key }) => network[key]?.network ?? []),
    staleRoutes: 'own-networks',
    ...state,
  };
}

export function isOnLink(external: ExternalInterface, address: IpAddr): boolean {
  return external.onLink.some((prefix) => containsAddr(prefix, address));
}

/** One peer seen by one family. */
export interface PeerFamily {
  readonly family: Family;
  readonly subnet: IpPrefix;
  readonly publicAddress: IpAddr;
}

/**
 * The families in which a peer can be reached: those with a subnet and a public address. When it has none of them, what it
 * lacks.
 */
export function peerFamilies(peer: Lease, families: readonly Family[]): readonly PeerFamily[] | SkippedPeer {
  const found = families.flatMap((family): PeerFamily[] => {
    const subnet = peer.subnets[family.key];
    const publicAddress = peer.attrs.publicAddresses[family.key];
    return subnet === undefined || publicAddress === undefined ? [] : [{ family, subnet, publicAddress }];
  });
  if (found.length > 0) return found;
  return { skipped: `it has no subnet with a public address in ${families.map(({ name }) => name).join(' or ')}` };
}

/** A peer whose lease says that it uses another backend. */
export function otherType(peer: Lease, type: string): SkippedPeer | undefined {
  const { backendType } = peer.attrs;
  if (backendType === type) return undefined;
  return {
    skipped: `its backend is ${backendType === '' ? 'udp or alloc' : JSON.stringify(backendType)}, not ${type}`,
  };
}

/**
 * A route straight to the peer's address on the external interface.
 * @returns the reason why not when that address is not on the link: the kernel would refuse the route.
 */
export function directRoute({ subnet, publicAddress }: PeerFamily, external: ExternalInterface): Route | SkippedPeer {
  if (!isOnLink(external, publicAddress)) {
    return {
      skipped: `its address ${formatAddr(publicAddress)} is not on the link of ${external.name}, so it cannot be reached without a gateway`,
    };
  }
  return unicast({ dst: subnet, dev: external.name, via: publicAddress });
}

/** Puts the parts of a peer's families (at least one) together; a family that cannot be reached does not keep the other from it. */
export function joinParts(parts: readonly (PeerPart | SkippedPeer)[]): PeerPart | SkippedPeer {
  const usable = parts.filter((part): part is PeerPart => !('skipped' in part));
  const lacks = parts.flatMap((part) => ('skipped' in part ? part.skipped : [])).join('; ');
  if (usable.length === 0) return { skipped: lacks };
  const wireguard = usable.flatMap(({ kernel }) => kernel.wireguard ?? []);
  return {
    kernel: {
      routes: usable.flatMap(({ kernel }) => kernel.routes),
      neighbours: usable.flatMap(({ kernel }) => kernel.neighbours),
      fdb: usable.flatMap(({ kernel }) => kernel.fdb),
      ...(wireguard.length > 0 ? { wireguard } : {}),
    },
    ...(lacks === '' ? {} : { lacks }),
  };
}

/** @throws WeftError WEFT_CONFIG_INVALID when another address is published than the interface has: peers route to the latter. */
export function requireNoNat(external: ExternalInterface, families: readonly Family[], type: string): void {
  for (const { key } of families) {
    const own = external.addresses[key];
    const published = external.publicAddresses[key];
    if (own === undefined || published === undefined || own === published) continue;
    throw new WeftError(
      'WEFT_CONFIG_INVALID',
      `your PublicIP differs from interface IP, meaning that probably you're on a NAT, which is not supported by ${type} backend: ${formatAddr(published)} is published, ${external.name} has ${formatAddr(own)}`,
      {
        hint: 'Remove --public-ip (or the annotation that sets it), or choose a backend that encapsulates, such as vxlan.',
      },
    );
  }
}
