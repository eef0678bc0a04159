import {
  containsAddr,
  containsPrefix,
  type IpAddr,
  type IpPrefix,
  isIpv4,
  isPrefix4,
  isUnicast,
} from '../ip/address.ts';
import { FAMILIES, present } from '../ip/family.ts';
import type { Ipv4Addr } from '../ip/ipv4.ts';
import type { Ipv6Addr } from '../ip/ipv6.ts';
import { type Ipv4Prefix, type Ipv6Prefix, mask4 } from '../ip/prefix.ts';
import type { Lease } from './lease.ts';
import type { RefusalReason } from './refusal.ts';
import type { Subnets } from './subnets.ts';

/** What a network gives out in one family; an AddressPlan of the configuration is one. */
export interface GatePlan<P, A> {
  readonly network: P;
  readonly subnetLength: number;
  readonly subnetMin: A;
  readonly subnetMax: A;
}

/** What the leases of other hosts must be like to be believed on this one. */
export interface GateRules {
  readonly ipv4: GatePlan<Ipv4Prefix, Ipv4Addr> | undefined;
  readonly ipv6: GatePlan<Ipv6Prefix, Ipv6Addr> | undefined;
  /**
   * Whether hosts take subnets of the plan's length between its ends. False where something else gives them to the hosts, of
   * any length and anywhere in the network: Kubernetes.
   */
  readonly planned: boolean;
  /** Whether one route leads the whole network into the overlay, and not one for each subnet. */
  readonly routesWholeNetwork: boolean;
  /** Networks of this host that lead into other overlays. */
  readonly networksBeside: readonly IpPrefix[];
  /** Under which this host sends. */
  readonly ownAddresses: readonly IpAddr[];
  /** What this host reaches without a router, and so not through the overlay, whatever the network contains. */
  readonly onLink: readonly IpPrefix[];
  /** `--require-node-address`: the public address must be one of those that the store has for the holder. */
  readonly requireNodeAddress: boolean;
  /** Leases of other hosts at most; the first ones to come are admitted. */
  readonly capacity: number;
}

/** The subnets in the families that the network has; the rest of an entry means nothing here. */
export function claimedSubnets({ subnets }: Lease, { ipv4, ipv6 }: GateRules): Subnets {
  return { ipv4: ipv4 && subnets.ipv4, ipv6: ipv6 && subnets.ipv6 };
}

/** What is wrong with an entry of a store for the host that has `own`, whatever else there is. Pure. */
export function entryProblem(lease: Lease, own: Lease, rules: GateRules): RefusalReason | undefined {
  const { planned, requireNodeAddress, ownAddresses } = rules;
  const claimed = FAMILIES.flatMap(({ key }) => {
    const [subnet, plan] = [lease.subnets[key], rules[key]];
    return subnet === undefined || plan === undefined ? [] : [{ subnet, plan }];
  });
  if (claimed.length === 0) return 'outside-network';
  if (!claimed.every(({ subnet, plan }) => containsPrefix(plan.network, subnet))) return 'outside-network';
  if (planned && claimed.some(({ subnet, plan }) => subnet.length !== plan.subnetLength)) return 'wrong-length';
  const addresses = present(lease.attrs.publicAddresses);
  for (const address of addresses) {
    if (!isUnicast(address) || isBroadcast(address, rules)) return 'address-not-unicast';
    if (ownAddresses.includes(address)) return 'address-own';
    if (isRoutedIntoOverlay(address, lease, own, rules)) return 'address-in-network';
  }
  // One without an origin is remembered from an earlier run, which has judged it.
  const { origin } = lease;
  const isOfNode = (address: IpAddr): boolean => origin?.addresses?.includes(address) === true;
  if (requireNodeAddress && origin !== undefined && !addresses.every(isOfNode)) {
    return 'address-not-of-node';
  }
  return undefined;
}

/** Of a network on this host's link (RFC 919): a kernel device would send to all hosts there. Two hosts alone have none (RFC 3021). */
function isBroadcast(address: IpAddr, { onLink }: GateRules): boolean {
  return onLink.some(
    (prefix) => isPrefix4(prefix) && prefix.length < 31 && address === (prefix.addr | ~mask4(prefix.length)) >>> 0,
  );
}

/** Whether packets to it enter the overlay, whoever else there is; flannel's own sample has hosts in the network. */
function isRoutedIntoOverlay(address: IpAddr, lease: Lease, own: Lease, rules: GateRules): boolean {
  const { ipv4, ipv6, planned, routesWholeNetwork, networksBeside } = rules;
  // Two overlays could send a packet into each other for ever.
  for (const network of networksBeside)
    if (containsAddr(network, address) && !isLinked(address, network.length, rules)) return true;
  const plan = isIpv4(address) ? ipv4 : ipv6;
  if (plan === undefined || !containsAddr(plan.network, address)) return false;
  // The next host may get the subnet that it lies in. Which ones Kubernetes gives nobody knows: there the first to come is right.
  if (planned && isLeasable(plan, address)) return true;
  const key = isIpv4(address) ? 'ipv4' : 'ipv6';
  const isIn = ({ [key]: subnet }: Subnets): boolean => subnet !== undefined && containsAddr(subnet, address);
  if (isIn(own.subnets) || isIn(claimedSubnets(lease, rules))) return true;
  // The link's route must go before the network's.
  return !isLinked(address, routesWholeNetwork ? plan.network.length : 0, rules);
}

/** Whether it is on this host's link, by a longer prefix than that. */
function isLinked(address: IpAddr, than: number, { onLink }: GateRules): boolean {
  return onLink.some((prefix) => prefix.length > than && containsAddr(prefix, address));
}

/** Whether a host may get the subnet that the address lies in. */
export function isLeasable(
  { network, subnetLength, subnetMin, subnetMax }: GatePlan<Ipv4Prefix, Ipv4Addr> | GatePlan<Ipv6Prefix, Ipv6Addr>,
  address: IpAddr,
): boolean {
  const bits = typeof network.addr === 'bigint' ? 128 : 32;
  const end = BigInt(subnetMax) + (1n << BigInt(bits - subnetLength));
  return address >= subnetMin && BigInt(address) < end;
}
