import {
  formatPrefix,
  type IpAddr,
  type IpFamily,
  type IpPrefix,
  isIpv4,
  parsePrefix,
  singlePrefix,
} from '../ip/address.ts';
import { ipv4Of } from '../ip/ipv4.ts';
import { ipv6Of } from '../ip/ipv6.ts';
import { type Ipv4Prefix, type Ipv6Prefix, prefix4, prefix6 } from '../ip/prefix.ts';

export interface PrefixMatch {
  readonly prefix: IpPrefix;
  /** Matches every address outside the prefix. */
  readonly negated: boolean;
}

/** UDP datagrams with that port at one of their ends. */
export interface UdpMatch {
  readonly end: 'source' | 'destination';
  readonly port: number;
}

export type Action =
  | { readonly type: 'return' }
  | { readonly type: 'accept' }
  /** The packet stays out of connection tracking: no entry is looked up or made for it. */
  | { readonly type: 'notrack' }
  | { readonly type: 'masquerade'; readonly fullyRandom: boolean };

/** One rule: all its conditions must hold. Neither notation (iptables, nft) is in it; the two renderers are beside. */
export interface TrafficRule {
  /** `(packet mark & mask) == value`. */
  readonly mark: { readonly value: number; readonly mask: number } | undefined;
  readonly source: PrefixMatch | undefined;
  readonly destination: PrefixMatch | undefined;
  readonly udp: UdpMatch | undefined;
  readonly action: Action;
  /** The network whose rule it is, where no condition says so; part of the rule, as a comment. */
  readonly of?: IpPrefix | undefined;
}

/** The rules of one family, in order. An empty list means that nothing of this agent's may be in the chain. */
export interface FamilyRules {
  /** For packets that leave the host: flannel's FLANNEL-POSTRTG. */
  readonly masquerade: readonly TrafficRule[];
  /** For packets that cross the host: flannel's FLANNEL-FWD. */
  readonly forward: readonly TrafficRule[];
  /** For packets that come in, before connection tracking sees them. */
  readonly untrackedIn: readonly TrafficRule[];
  /** For packets that this host sends, before connection tracking sees them. */
  readonly untrackedOut: readonly TrafficRule[];
}

export interface TrafficRules {
  readonly ipv4: FamilyRules;
  readonly ipv6: FamilyRules;
  /**
   * The networks of this agent. A rule that names one of them, or a part of it, and is not wanted, goes; one that names only
   * others is another agent's on this host, and stays. Whatever else is in flannel's chains goes.
   */
  readonly networks: readonly IpPrefix[];
}

export interface FamilyNetwork<P extends IpPrefix> {
  /** The flannel network, all nodes together. */
  readonly network: P;
  /** The pod subnet of this node. */
  readonly subnet: P;
}

export interface TrafficOptions {
  /** `undefined`: the family is not in use and gets no rules. */
  readonly ipv4: FamilyNetwork<Ipv4Prefix> | undefined;
  readonly ipv6: FamilyNetwork<Ipv6Prefix> | undefined;
  /** flannel's `--ip-masq`. */
  readonly ipMasq: boolean;
  /** The opposite of flannel's `--ip-masq-fully-random-disable`. A manager whose tool is too old for it leaves it out. */
  readonly randomFully: boolean;
  /** flannel's `--iptables-forward-rules`. */
  readonly forwardRules: boolean;
  /** Networks that this agent had before. */
  readonly formerNetworks?: readonly IpPrefix[];
  /** `--notrack-tunnel`: the socket whose datagrams connection tracking is to leave alone. Absent: it tracks them. */
  readonly untracked?: TunnelSocket | undefined;
}

/** The own end of the tunnel, as the backend has it. */
export interface TunnelSocket {
  readonly listenAddress: IpAddr;
  readonly listenPort: number;
}

export const NO_RULES: FamilyRules = { masquerade: [], forward: [], untrackedIn: [], untrackedOut: [] };

/** kube-proxy marks what it masquerades itself; bit 14 is its default (`--iptables-masquerade-bit`). */
const KUBE_PROXY_MASQUERADE_MARK = 0x4000;

const MULTICAST_4 = prefix4(ipv4Of(0xe0000000), 4);
const MULTICAST_6 = prefix6(ipv6Of(0xffn << 120n), 8);

/**
 * flannel's traffic rules as data, in its order (its iptables flavour; see docs/COMPATIBILITY.md for where its nftables
 * flavour differs and why ours does not). Pure; equal options give equal rules.
 */
export function trafficRules(options: TrafficOptions): TrafficRules {
  const { untracked } = options;
  const ipv4 = options.ipv4 === undefined ? NO_RULES : familyRules(options.ipv4, MULTICAST_4, options);
  const ipv6 = options.ipv6 === undefined ? NO_RULES : familyRules(options.ipv6, MULTICAST_6, options);
  const network = options.ipv4?.network ?? options.ipv6?.network;
  const tunnel = untracked && untrackedRules(untracked, network);
  const isOver4 = untracked !== undefined && isIpv4(untracked.listenAddress);
  return {
    ipv4: isOver4 ? { ...ipv4, ...tunnel } : ipv4,
    ipv6: isOver4 ? ipv6 : { ...ipv6, ...tunnel },
    networks: [
      ...[options.ipv4, options.ipv6].flatMap((family) => family?.network ?? []),
      ...(options.formerNetworks ?? []),
    ],
  };
}

function familyRules(
  { network, subnet }: FamilyNetwork<IpPrefix>,
  multicast: IpPrefix,
  { ipMasq, randomFully, forwardRules }: TrafficOptions,
): FamilyRules {
  const masquerade: Action = { type: 'masquerade', fullyRandom: randomFully };
  const leave: Action = { type: 'return' };
  return {
    ...NO_RULES,
    masquerade: ipMasq
      ? [
          // What kube-proxy has marked is masqueraded by its own rules.
          rule({
            mark: { value: KUBE_PROXY_MASQUERADE_MARK, mask: KUBE_PROXY_MASQUERADE_MARK },
            action: leave,
          }),
          // Between containers, in both directions, addresses stay as they are.
          rule({ source: is(subnet), destination: is(network), action: leave }),
          rule({ source: is(network), destination: is(subnet), action: leave }),
          // From outside to a container of this node (a NodePort with externalTrafficPolicy Local): the client's
          // address must stay visible.
          rule({ source: not(network), destination: is(subnet), action: leave }),
          // From a container to the world.
          rule({ source: is(network), destination: not(multicast), action: masquerade }),
          // From this host's other addresses to containers on other nodes: the reply must come back the same way.
          rule({ source: not(network), destination: is(network), action: masquerade }),
        ].filter((candidate) => candidate !== undefined)
      : [],
    forward: forwardRules
      ? [
          rule({ source: is(network), action: { type: 'accept' } }),
          rule({ destination: is(network), action: { type: 'accept' } }),
        ].filter((candidate) => candidate !== undefined)
      : [],
  };
}

/**
 * Both ends of a tunnel have the same port, so a direction is told by whose address this host's is. What a container or
 * another program sends from or to that port at other addresses is tracked as ever.
 */
function untrackedRules(
  { listenAddress, listenPort }: TunnelSocket,
  network: IpPrefix | undefined,
): Pick<FamilyRules, 'untrackedIn' | 'untrackedOut'> {
  const own = is(singlePrefix(listenAddress));
  const action: Action = { type: 'notrack' };
  const none = { mark: undefined, source: undefined, destination: undefined, of: network };
  return {
    untrackedIn: [{ ...none, destination: own, udp: { end: 'destination', port: listenPort }, action }],
    untrackedOut: [{ ...none, source: own, udp: { end: 'source', port: listenPort }, action }],
  };
}

function is(prefix: IpPrefix): PrefixMatch {
  return { prefix, negated: false };
}

function not(prefix: IpPrefix): PrefixMatch {
  return { prefix, negated: true };
}

/**
 * Conditions on a prefix of length 0 are resolved here, because neither tool keeps them as written (iptables does not
 * print them, nft refuses them): one that always holds is left out, and with one that never holds there is no rule.
 */
function rule(parts: Partial<TrafficRule> & Pick<TrafficRule, 'action'>): TrafficRule | undefined {
  const matches = [parts.source, parts.destination];
  if (matches.some((match) => match?.negated === true && match.prefix.length === 0)) return undefined;
  const [source, destination] = matches.map((match) => (match?.prefix.length === 0 ? undefined : match));
  return { mark: parts.mark, source, destination, udp: parts.udp, action: parts.action };
}

/** Equal for two rules exactly when they do the same; also a short text for messages. */
export function ruleKey({ mark, source, destination, udp, action, of }: TrafficRule): string {
  const parts: string[] = [];
  if (mark !== undefined) parts.push(`mark 0x${mark.value.toString(16)}/0x${mark.mask.toString(16)}`);
  if (source !== undefined) parts.push(`from ${matchText(source)}`);
  if (destination !== undefined) parts.push(`to ${matchText(destination)}`);
  if (udp !== undefined) parts.push(`udp ${udp.end} port ${udp.port}`);
  parts.push(action.type === 'masquerade' && action.fullyRandom ? 'masquerade fully-random' : action.type);
  if (of !== undefined) parts.push(ofText(of));
  return parts.join(' ');
}

function matchText({ prefix, negated }: PrefixMatch): string {
  return `${negated ? 'not ' : ''}${formatPrefix(prefix)}`;
}

/** The networks that a rule names, itself or a part of them. */
export function networksNamed({ source, destination, of }: TrafficRule): readonly IpPrefix[] {
  return of === undefined ? [source, destination].flatMap((match) => match?.prefix ?? []) : [of];
}

/** What stands in a comment for {@link TrafficRule.of}. */
export function ofText(of: IpPrefix): string {
  return `of ${formatPrefix(of)}`;
}

/** The network in a comment that ends with {@link ofText}. */
export function parseOf(comment: string): IpPrefix | undefined {
  const text = /(?:^| )of (\S+)$/.exec(comment)?.[1];
  return text === undefined ? undefined : parsePrefix(text);
}

/** For tools that do not know fully-random source ports (iptables before 1.6.2, Linux before 3.13). */
export function withoutFullyRandom(rules: readonly TrafficRule[]): readonly TrafficRule[] {
  return rules.map((each) =>
    each.action.type === 'masquerade' && each.action.fullyRandom
      ? { ...each, action: { type: 'masquerade', fullyRandom: false } }
      : each,
  );
}

export function rulesOf(rules: TrafficRules, family: IpFamily): FamilyRules {
  return family === 4 ? rules.ipv4 : rules.ipv6;
}
