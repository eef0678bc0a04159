import { formatAddr, formatPrefix, type IpAddr, type IpPrefix, isIpv4, isPrefix4 } from '../ip/address.ts';
import type { FamilyKey } from '../ip/family.ts';
import type { MacAddr } from '../ip/mac.ts';
import type { Secret } from '../secret.ts';

/**
 * Kernel state as plain data: what a backend wants (`Wanted…`) and what the kernel has (`Actual…`). Nothing here does
 * I/O; diff.ts compares the two.
 */

/**
 * Every route that weft makes carries this routing protocol number (rtnetlink's rtm_protocol), so that a later run, or
 * `weft cleanup`, knows its own routes from everybody else's. The kernel leaves numbers from 5 on to user space; 241 is
 * assigned neither in linux/rtnetlink.h nor in iproute2's rt_protos.
 */
export const WEFT_ROUTE_PROTOCOL = 241;
/** Connected routes, which the kernel makes by itself from an address and its prefix length. */
export const KERNEL_ROUTE_PROTOCOL = 2;
/** What `ip route add` and flanneld leave behind: a route whose maker gave no number. */
export const BOOT_ROUTE_PROTOCOL = 3;

/** What an IPv6 route without a metric gets (IP6_RT_PRIO_USER). */
const IPV6_DEFAULT_METRIC = 1024;

export interface VxlanSettings {
  readonly vni: number;
  /** Name of the interface that carries the encapsulated packets. */
  readonly underlay: string;
  readonly local: IpAddr;
  /** `undefined`: whatever the kernel's default is (8472 unless it was told otherwise). */
  readonly port: number | undefined;
  readonly learning: boolean;
  readonly gbp: boolean;
}

export interface IpipSettings {
  /** Outer source. The remote end is any: the route of each peer names it. */
  readonly local: IpAddr;
}

/** A public key as people write it: 32 bytes in base64. */
export type WireguardKey = string & { readonly __wireguardKey: true };

export interface WireguardSettings {
  readonly privateKey: Secret;
  /** That of `privateKey`: what the kernel is compared by. */
  readonly publicKey: WireguardKey;
  readonly listenPort: number;
}

interface LinkProperties {
  readonly name: string;
  /** `undefined`: as it is. */
  readonly mtuBytes: number | undefined;
}

/** A link of ours; it is wanted up. What its kind means is in link-kinds/. */
export type OwnWantedLink =
  /**
   * Made by the data plane, which holds its descriptor; here only its MTU is kept, that it is up, its alias (a text without
   * white space), by which an agent knows its own device again, and that its queue holds at least so many packets.
   */
  | ({ readonly kind: 'tun'; readonly alias?: string; readonly queuePackets?: number } & LinkProperties)
  | ({ readonly kind: 'bridge' } & LinkProperties)
  | ({
      readonly kind: 'vxlan';
      readonly mac: MacAddr | undefined;
      /** Checksums of what enters it are this kernel's work, not the device's (`tx-checksum-ip-generic off`); else as it is. */
      readonly sumsBefore?: true;
      readonly settings: VxlanSettings;
    } & LinkProperties)
  | ({ readonly kind: 'ipip'; readonly settings: IpipSettings } & LinkProperties)
  | ({ readonly kind: 'wireguard'; readonly settings: WireguardSettings } & LinkProperties);

export type OwnLinkKind = OwnWantedLink['kind'];

/** A link that weft makes. */
export interface OwnLink {
  readonly name: string;
  readonly kind: OwnLinkKind;
  /** Of the packets that it carries, where it is there for one family alone. */
  readonly family?: FamilyKey;
}

export type WantedLink =
  | OwnWantedLink
  /** Somebody else's (the external interface): never changed, watched because routes on it depend on it. */
  | { readonly kind: 'external'; readonly name: string };

export type AddressScope = 'global' | 'link' | 'host';

export interface Address {
  readonly link: string;
  readonly addr: IpAddr;
  readonly prefixLength: number;
  /** IPv4 only: an IPv6 address has the scope that its bits say, and this field is ignored. */
  readonly scope: AddressScope;
  /** Whether the kernel makes its connected route for this prefix (it never does for /32). */
  readonly prefixRoute: boolean;
}

export type Route = UnicastRoute | BlackholeRoute;

interface RouteKey {
  readonly dst: IpPrefix;
  /** Lower wins. `undefined` is the kernel's default: 0 for IPv4, 1024 for IPv6. */
  readonly metric: number | undefined;
}

/** A route of table main. */
export interface UnicastRoute extends RouteKey {
  readonly type: 'unicast';
  readonly dev: string;
  readonly via: IpAddr | undefined;
  /** `via` is taken to be reachable on `dev` although no connected route says so. */
  readonly onlink: boolean;
  /** IPv4 only; ignored for IPv6, whose routes are always global. */
  readonly scope: AddressScope;
}

export interface BlackholeRoute extends RouteKey {
  readonly type: 'blackhole';
}

/** A permanent neighbour (ARP or NDP) entry. */
export interface Neighbour {
  readonly link: string;
  readonly addr: IpAddr;
  readonly mac: MacAddr;
}

/** A permanent `self` entry of a VXLAN device's forwarding database: frames to `mac` are sent to the host `dst`. */
export interface FdbEntry {
  readonly link: string;
  readonly mac: MacAddr;
  readonly dst: IpAddr;
}

/** A peer of a WireGuard device of ours. */
export interface WireguardPeer {
  readonly link: string;
  readonly publicKey: WireguardKey;
  /** Where packets for it go until it is heard from elsewhere. */
  readonly endpoint: { readonly addr: IpAddr; readonly port: number };
  /** Packets to these go to that peer, and from it packets from these alone are taken. */
  readonly allowedIps: readonly IpPrefix[];
  /** 0: none are sent. */
  readonly keepaliveSeconds: number;
  readonly presharedKey: Secret | undefined;
}

export type PolicyDirection = 'in' | 'out' | 'fwd';

/** What the kernel does with packets that an IPsec policy is about. */
export type PolicyVerdict =
  /** They travel between these two hosts in an ESP tunnel, with the keys that an IKE daemon has agreed on; in no other way. */
  | { readonly kind: 'tunnel'; readonly from: IpAddr; readonly to: IpAddr }
  /** As if there were no policy. */
  | { readonly kind: 'allow' }
  | { readonly kind: 'block' };

/** An IPsec policy (xfrm) about all packets from one prefix to another. */
export interface IpsecPolicy {
  readonly direction: PolicyDirection;
  readonly src: IpPrefix;
  readonly dst: IpPrefix;
  readonly verdict: PolicyVerdict;
}

/** By which the kernel finds the keys of a tunnel policy; flannel's number. */
export const IPSEC_REQID = 11;

/**
 * Of several policies about a packet, that of the lowest priority counts. Nobody else has these numbers, so that a later run, or
 * `weft cleanup`, knows its own policies.
 */
export const POLICY_PRIORITIES: Readonly<Record<PolicyVerdict['kind'], number>> = {
  tunnel: 2_410,
  allow: 2_411,
  block: 2_412,
};

/** A setting of a link of ours, such as `net/ipv6/conf/flannel.1/accept_ra`. */
export interface LinkSysctl {
  readonly link: string;
  /** Below /proc/sys, with slashes. */
  readonly name: string;
  readonly value: string;
  /** What can happen while it has another value, for people; `undefined`: nothing, and then nobody is told. */
  readonly risk: string | undefined;
}

/** What one peer needs in the kernel. */
export interface PeerState {
  readonly routes: readonly Route[];
  readonly neighbours: readonly Neighbour[];
  readonly fdb: readonly FdbEntry[];
  readonly wireguard?: readonly WireguardPeer[];
  readonly policies?: readonly IpsecPolicy[];
}

/** What the host itself needs in the kernel, whoever the peers are. */
export interface WantedState extends PeerState {
  /** Not all peers are known yet: what nobody wants may be for one of them, and stays until they are. */
  readonly isPartial?: boolean;
  readonly links: readonly WantedLink[];
  /** Links of ours that must not be there: those of a backend that was used before. One of another kind is somebody else's. */
  readonly absentLinks?: readonly OwnLink[];
  readonly addresses: readonly Address[];
  readonly sysctls: readonly LinkSysctl[];
  /**
   * The flannel networks, and those that this host had before. A stray IPv4 address inside one of them is removed from a link of
   * ours.
   */
  readonly networks: readonly IpPrefix[];
  /**
   * Which routes with our protocol number are stale when they are not wanted: those on own links; for a node agent, which may have
   * another beside it, also those to a part of its `networks`; `everywhere` for who cleans a host.
   */
  readonly staleRoutes: 'own-links' | 'own-networks' | 'everywhere';
  /** Routes that a flanneld before has left, beside those that are known by their form: they go unless they are wanted. */
  readonly formerRoutes?: readonly UnicastRoute[];
}

export const EMPTY_WANTED_STATE: WantedState = {
  links: [],
  addresses: [],
  sysctls: [],
  routes: [],
  neighbours: [],
  fdb: [],
  networks: [],
  staleRoutes: 'own-links',
};

/** `underlay` is empty and `local` undefined when the device has none. */
export type ActualVxlanSettings = Omit<VxlanSettings, 'local'> & { readonly local: IpAddr | undefined };

export interface ActualIpipSettings {
  readonly local: IpAddr | undefined;
  /** `undefined` is any. */
  readonly remote: IpAddr | undefined;
}

interface ActualLinkProperties {
  readonly name: string;
  /** Of a link that somebody has renamed: its name at an earlier look, when it was the own one of that name. */
  readonly wasOwn?: string;
  readonly mtuBytes: number;
  /** Administratively up. */
  readonly up: boolean;
  readonly mac: MacAddr | undefined;
  /** IFLA_IFALIAS: a text that anybody may give a link. */
  readonly alias: string | undefined;
  /** IFLA_TXQLEN: what a queue of it holds, where it has one. */
  readonly queuePackets: number;
  /** See the wanted VXLAN link; read only where that is wanted. */
  readonly sumsBefore?: boolean;
}

/** What the kernel says of a link of each kind, beside the properties that all have. */
export interface ActualLinkSettings {
  readonly tun: undefined;
  readonly bridge: undefined;
  readonly vxlan: ActualVxlanSettings;
  readonly ipip: ActualIpipSettings;
  readonly wireguard: undefined;
  /** Any kind that weft never makes. */
  readonly other: undefined;
}

/** Kind and settings of a link. */
export type ActualLinkKind = {
  [K in keyof ActualLinkSettings]: { readonly kind: K; readonly settings: ActualLinkSettings[K] };
}[keyof ActualLinkSettings];

export type ActualLink = ActualLinkKind & ActualLinkProperties;

export interface ActualAddress extends Address {
  /** The other end, when it is a point-to-point address; needed to delete it. */
  readonly peer: IpAddr | undefined;
}

/**
 * A route of table main as the kernel has it. Routes that match on more than the destination (TOS, source) are left
 * out: they have another key than any route of ours.
 */
export interface ActualRoute {
  readonly type: 'unicast' | 'blackhole' | 'other';
  readonly dst: IpPrefix;
  readonly metric: number;
  readonly dev: string | undefined;
  readonly via: IpAddr | undefined;
  readonly onlink: boolean;
  readonly scope: AddressScope;
  readonly protocol: number;
  /** It has what weft never asks for (several next hops, a preferred source, an encapsulation, …). */
  readonly elaborate: boolean;
}

/** A WireGuard device as the kernel has it, and what has passed it. */
export interface ActualWireguard {
  readonly link: string;
  /** `undefined`: it has no key yet. */
  readonly publicKey: WireguardKey | undefined;
  readonly listenPort: number;
  readonly peers: readonly ActualWireguardPeer[];
}

export interface ActualWireguardPeer extends Omit<WireguardPeer, 'endpoint'> {
  readonly endpoint: WireguardPeer['endpoint'] | undefined;
  /** In milliseconds since the epoch; `undefined`: never. */
  readonly lastHandshakeAtMs: number | undefined;
  readonly receivedBytes: number;
  readonly sentBytes: number;
}

/** As the kernel has it. Policies that look at more than two prefixes are left out: they have another key than any of ours. */
export interface ActualIpsecPolicy extends Omit<IpsecPolicy, 'verdict'> {
  readonly priority: number;
  readonly verdict: PolicyVerdict | { readonly kind: 'other' };
}

export interface ActualSysctl {
  readonly name: string;
  readonly value: string;
  /** Whether it can be set from here: in a container, /proc/sys may be read-only. */
  readonly writable: boolean;
}

/** All routes, and what concerns the links of the wanted state it was read for. */
export interface ActualState {
  readonly links: readonly ActualLink[];
  readonly addresses: readonly ActualAddress[];
  /** In the kernel's order: of equal keys, the first is the one in use. */
  readonly routes: readonly ActualRoute[];
  /** Permanent ones, of those links of the wanted state whose kind holds neighbours. */
  readonly neighbours: readonly Neighbour[];
  readonly fdb: readonly FdbEntry[];
  /** Those of the wanted state that this kernel has: none for a link without IPv6. */
  readonly sysctls: readonly ActualSysctl[];
  /** The WireGuard devices among those links. */
  readonly wireguard?: readonly ActualWireguard[];
  /** All of the host. */
  readonly policies?: readonly ActualIpsecPolicy[];
}

/** The metric that the kernel stores. */
export function effectiveMetric(route: RouteKey): number {
  // The kernel reads an explicit 0 of IPv6 as "not given".
  return isPrefix4(route.dst) ? (route.metric ?? 0) : route.metric || IPV6_DEFAULT_METRIC;
}

/** What the kernel tells routes of one table apart by. */
export function routeKey(route: RouteKey): string {
  return `${formatPrefix(route.dst)} metric ${effectiveMetric(route)}`;
}

/** The kernel knows one neighbour entry for an address on a link. */
export function neighbourKey({ link, addr }: Neighbour): string {
  return `${link} ${formatAddr(addr)}`;
}

/** Several destinations for one MAC address are possible in the kernel, but never wanted. */
export function fdbKey({ link, mac }: FdbEntry): string {
  return `${link} ${mac}`;
}

/** A device knows one peer of a key. */
export function wireguardPeerKey({ link, publicKey }: Pick<WireguardPeer, 'link' | 'publicKey'>): string {
  return `${link} ${publicKey}`;
}

/** What the kernel tells policies apart by. */
export function policyKey({ direction, src, dst }: Pick<IpsecPolicy, 'direction' | 'src' | 'dst'>): string {
  return `${direction} ${formatPrefix(src)} ${formatPrefix(dst)}`;
}

/** For logs and messages. */
export function describePolicy({ direction, src, dst, verdict }: IpsecPolicy | ActualIpsecPolicy): string {
  const { kind } = verdict;
  const how = kind === 'tunnel' ? `tunnel ${formatAddr(verdict.from)} to ${formatAddr(verdict.to)}` : kind;
  return `${direction} ${formatPrefix(src)} to ${formatPrefix(dst)} ${how}`;
}

/** All that tells a unicast route apart from others, but for its maker. */
export function wayKey({ dst, metric, dev, via, onlink }: UnicastRoute | ActualRoute): string {
  return `${routeKey({ dst, metric })} ${dev} ${via} ${onlink}`;
}

/** As `ip` prints it, for logs and messages. */
export function describeRoute(route: Route | ActualRoute): string {
  const words = [...(route.type === 'blackhole' ? ['blackhole'] : []), formatPrefix(route.dst)];
  if ('via' in route && route.via !== undefined) words.push('via', formatAddr(route.via));
  if ('dev' in route && route.dev !== undefined) words.push('dev', route.dev);
  if ('onlink' in route && route.onlink) words.push('onlink');
  if (route.metric !== undefined && route.metric !== 0) words.push('metric', String(route.metric));
  return words.join(' ');
}

export function describeAddress(address: Address): string {
  return `${formatAddr(address.addr)}/${address.prefixLength} dev ${address.link}`;
}

/** IPv6 addresses of fe80::/10, which the kernel gives to a link by itself. */
export function isLinkLocal6(addr: IpAddr): boolean {
  return !isIpv4(addr) && addr >> 118n === 0x3fan;
}
