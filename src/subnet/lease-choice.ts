import type { NetworkConfig } from '../config/network-config.ts';
import { WeftError } from '../errors.ts';
import type { IpAddr } from '../ip/address.ts';
import { present } from '../ip/family.ts';
import { formatIpv4, ipv4Of } from '../ip/ipv4.ts';
import { formatIpv6, ipv6Of } from '../ip/ipv6.ts';
import { containsPrefix4, containsPrefix6, type Ipv4Prefix, type Ipv6Prefix, prefix4, prefix6 } from '../ip/prefix.ts';
import { type Lease, type LeaseAttrs, leaseKey, subnetsKey } from '../lease/lease.ts';
import { overlap, type Subnets } from '../lease/subnets.ts';
import { isCompatible, pickSubnet4, pickSubnet6 } from './allocator.ts';
import { formatOwner, type ReportSink } from './report.ts';

/** An entry of the store whose key can be read. */
export interface StoredEntry {
  readonly subnets: Subnets;
  /** `undefined` when the value cannot be read: the subnet is held, nobody can say by whom. */
  readonly attrs: LeaseAttrs | undefined;
  /** `undefined` for a reservation. */
  readonly expiresAtMs: number | undefined;
  /** When the entry was created, as the store counts; absent where it does not. */
  readonly since?: number;
}

/** The networks that subnets are given out of. */
export type Networks = Pick<NetworkConfig, 'ipv4' | 'ipv6'>;

/** For a host that has not asked for a lease yet. */
export const EVERYWHERE: Networks = {
  ipv4: { network: prefix4(ipv4Of(0), 0), subnetLength: 0, subnetMin: ipv4Of(0), subnetMax: ipv4Of(0) },
  ipv6: { network: prefix6(ipv6Of(0n), 0), subnetLength: 0, subnetMin: ipv6Of(0n), subnetMax: ipv6Of(0n) },
};

/**
 * What an entry keeps from others, in each family: the subnet that it names or lies in, where that is one of the network. What names
 * more than one subnet holds none, or one entry (`0.0.0.0-0`, `10.244.0.0-16`) would hold everything, and a host whose own entry has
 * run out would lose its subnet to it. It may be the lease of a host that has not been restarted since SubnetLen was made longer: new
 * hosts keep out of its way while there is room (see `pick`). What is longer than SubnetLen, of a host from before SubnetLen was made
 * shorter, costs no more than the one subnet in which that host has its containers.
 */
export function heldOf(entry: StoredEntry, networks: Networks): Subnets {
  const { ipv4, ipv6 } = claimedOf(entry, networks);
  const isOne = (subnet: { length: number } | undefined, plan: { subnetLength: number } | undefined): boolean =>
    subnet !== undefined && plan !== undefined && subnet.length >= plan.subnetLength;
  return { ipv4: isOne(ipv4, networks.ipv4) ? ipv4 : undefined, ipv6: isOne(ipv6, networks.ipv6) ? ipv6 : undefined };
}

/** The subnets of an entry, whatever their length, as far as they lie in the networks. */
function claimedOf({ subnets }: StoredEntry, { ipv4, ipv6 }: Networks): Subnets {
  const has4 = subnets.ipv4 !== undefined && ipv4 !== undefined && containsPrefix4(ipv4.network, subnets.ipv4);
  const has6 = subnets.ipv6 !== undefined && ipv6 !== undefined && containsPrefix6(ipv6.network, subnets.ipv6);
  return { ipv4: has4 ? subnets.ipv4 : undefined, ipv6: has6 ? subnets.ipv6 : undefined };
}

/** What to do about the store so that a host has its lease. */
export type LeaseChoice<E extends StoredEntry> =
  /** Rewrite the entry with the new attributes; a reservation stays one. */
  | { readonly type: 'reuse'; readonly entry: E; readonly remove: readonly E[] }
  | {
      readonly type: 'create';
      readonly subnets: Subnets;
      readonly from: 'previous' | 'free';
      readonly remove: readonly E[];
    };

/**
 * Whether two sets of attributes speak of one host: the same IPv4 public address, as flannel has it; the IPv6 one where
 * neither has an IPv4 address.
 */
export function sameHost({ publicAddresses: a }: LeaseAttrs, { publicAddresses: b }: LeaseAttrs): boolean {
  if (a.ipv4 !== undefined || b.ipv4 !== undefined) return a.ipv4 === b.ipv4;
  return a.ipv6 !== undefined && a.ipv6 === b.ipv6;
}

/** Whether an entry is that host's. */
export function isOf(entry: StoredEntry, attrs: LeaseAttrs): boolean {
  return entry.attrs !== undefined && sameHost(entry.attrs, attrs);
}

/** Whether an entry names one of these addresses as its host's, which `sameHost` would go by. */
export function isAt(entry: StoredEntry, addresses: readonly IpAddr[]): boolean {
  const [address] = entry.attrs === undefined ? [] : present(entry.attrs.publicAddresses);
  return address !== undefined && addresses.includes(address);
}

/** Whether the entry has not run out; a reservation never does. */
export function isLive(entry: StoredEntry, nowMs: number): boolean {
  return entry.expiresAtMs === undefined || entry.expiresAtMs > nowMs;
}

export type OwnVerdict<E extends StoredEntry> =
  | { readonly type: 'held'; readonly entry: E & { readonly attrs: LeaseAttrs } }
  /** The entry is there but cannot be read: nobody else can have created it, so it is ours to put right. */
  | { readonly type: 'damaged'; readonly entry: E }
  /** Gone or expired, and nobody has taken any of it: it may be created again. */
  | { readonly type: 'absent' }
  | { readonly type: 'lost'; readonly reason: string };

/**
 * What has become of a lease that this host held. `entries` are all that the store has, expired ones included; what holds
 * nothing of `networks` takes nothing away.
 */
export function judgeOwn<E extends StoredEntry>(
  own: Lease,
  entries: readonly E[],
  nowMs: number,
  networks: Networks,
): OwnVerdict<E> {
  const key = leaseKey(own);
  const mine = entries.find((entry) => leaseKey(entry) === key);
  if (mine !== undefined) {
    const { attrs } = mine;
    if (attrs === undefined) return { type: 'damaged', entry: mine };
    if (isLive(mine, nowMs)) {
      if (sameHost(attrs, own.attrs)) return { type: 'held', entry: { ...mine, attrs } };
      return { type: 'lost', reason: `${key} is held by ${formatOwner(attrs)} now` };
    }
  }
  const other = entries.find(
    (entry) => entry !== mine && isLive(entry, nowMs) && overlap(heldOf(entry, networks), own.subnets),
  );
  if (other !== undefined) {
    return { type: 'lost', reason: `${key} overlaps ${leaseKey(other)}, which ${formatOwner(other.attrs)} holds now` };
  }
  return { type: 'absent' };
}

export interface ChooseOptions<E extends StoredEntry> {
  readonly config: NetworkConfig;
  /** Of the host that wants a lease. */
  readonly attrs: LeaseAttrs;
  /** All entries that hold a subnet now; own ones that have expired may be among them. */
  readonly entries: readonly E[];
  /** What the host held in an earlier run. */
  readonly previous: Subnets | undefined;
  /** See AcquireOptions. */
  readonly held?: Lease | undefined;
  /** See AcquireOptions. */
  readonly hostAddresses?: readonly IpAddr[] | undefined;
  readonly random: () => number;
  readonly report: ReportSink;
}

/**
 * flannel's order: the lease under the own public address (one that is held goes before the others), else one under
 * another address of this host, else the previous subnet, else a random free one of the first hundred. An own lease that does not fit the configuration any more is given up, unless it is a reservation: that is
 * the operator's to remove. Unlike flannel's, an own lease that overlaps an earlier one of somebody else is given up as well.
 *
 * @throws WeftError WEFT_SUBNET_EXHAUSTED.
 */
export function chooseLease<E extends StoredEntry>(options: ChooseOptions<E>): LeaseChoice<E> {
  const { config, attrs, entries, previous, held: ownHeld, hostAddresses = [], random, report } = options;
  const isHeld = (entry: E): boolean =>
    ownHeld !== undefined && leaseKey(entry) === leaseKey(ownHeld) && isOf(entry, ownHeld.attrs);
  const own = entries.filter((entry) => isOf(entry, attrs) || isHeld(entry));
  // A floating address may have come from another host, with its lease: that is taken in need, and never deleted.
  const here = entries.filter((entry) => !own.includes(entry) && isAt(entry, hostAddresses));
  const others = entries.filter((entry) => !own.includes(entry) && !here.includes(entry));

  const usable: E[] = [];
  const remove: E[] = [];
  for (const entry of own) {
    if (isCompatible(entry.subnets, config) && !others.some((other) => isInTheWay(other, entry, config))) {
      usable.push(entry);
    } else {
      report({ type: 'lease-incompatible', lease: { ...entry, attrs } });
      if (entry.expiresAtMs !== undefined) remove.push(entry);
    }
  }
  const usableHere = here.filter(
    (entry) =>
      isCompatible(entry.subnets, config) &&
      !entries.some((other) => other !== entry && isInTheWay(other, entry, config)),
  );
  const isPrevious = (entry: E): boolean => previous !== undefined && leaseKey(entry) === subnetsKey(previous);
  const reused =
    usable.find(isHeld) ??
    usable.find((entry) => entry.expiresAtMs === undefined) ??
    [...usable, ...usableHere].find(isPrevious) ??
    usable[0] ??
    usableHere[0];
  if (reused !== undefined) return { type: 'reuse', entry: reused, remove };

  const held = entries.filter((entry) => !remove.includes(entry));
  if (previous !== undefined && present(previous).length > 0) {
    const holder = held.find((entry) => overlap(heldOf(entry, config), previous));
    if (!isCompatible(previous, config)) report({ type: 'previous-incompatible', subnets: previous });
    else if (holder !== undefined) report({ type: 'previous-taken', subnets: previous, by: holder.attrs });
    else {
      report({ type: 'previous-reused', subnets: previous });
      return { type: 'create', subnets: previous, from: 'previous', remove };
    }
  }
  return { type: 'create', subnets: pick(config, held, random, report), from: 'free', remove };
}

/** Whether the own entry must give way: the other claims some of it, and did not come later. */
function isInTheWay(other: StoredEntry, own: StoredEntry, networks: Networks): boolean {
  const isLater = other.since !== undefined && own.since !== undefined && other.since > own.since;
  return !isLater && overlap(heldOf(other, networks), own.subnets);
}

/** A subnet that overlaps no claim at all, as flannel picks it; where there is none, one that nobody holds. */
function pick(
  config: NetworkConfig,
  entries: readonly StoredEntry[],
  random: () => number,
  report: ReportSink,
): Subnets {
  const { ipv4, ipv6 } = config;
  const claimed = entries.map((entry) => claimedOf(entry, config));
  const held = entries.map((entry) => heldOf(entry, config));
  let subnet4: Ipv4Prefix | undefined;
  if (ipv4 !== undefined) {
    report({ type: 'picking', from: ipv4.subnetMin, to: ipv4.subnetMax });
    const from = (taken: readonly Subnets[]): Ipv4Prefix | undefined =>
      pickSubnet4(
        ipv4,
        taken.flatMap((subnets) => subnets.ipv4 ?? []),
        random,
      );
    subnet4 = from(claimed) ?? from(held);
    if (subnet4 === undefined)
      throw exhausted(formatIpv4(ipv4.subnetMin), formatIpv4(ipv4.subnetMax), ipv4.subnetLength);
  }
  let subnet6: Ipv6Prefix | undefined;
  if (ipv6 !== undefined) {
    report({ type: 'picking', from: ipv6.subnetMin, to: ipv6.subnetMax });
    const from = (taken: readonly Subnets[]): Ipv6Prefix | undefined =>
      pickSubnet6(
        ipv6,
        taken.flatMap((subnets) => subnets.ipv6 ?? []),
        random,
      );
    subnet6 = from(claimed) ?? from(held);
    if (subnet6 === undefined) {
      throw exhausted(formatIpv6(ipv6.subnetMin), formatIpv6(ipv6.subnetMax), ipv6.subnetLength);
    }
  }
  const subnets = { ipv4: subnet4, ipv6: subnet6 };
  const over = entries.find((_, i) => overlap(claimed[i]!, subnets));
  if (over !== undefined) report({ type: 'picked-under', subnets, entry: over.subnets, by: over.attrs });
  return subnets;
}

function exhausted(from: string, to: string, length: number): WeftError {
  const message = `picking a /${length} subnet from ${from} to ${to}: out of subnets, every one is held`;
  return new WeftError('WEFT_SUBNET_EXHAUSTED', message, {
    hint:
      'Delete the leases of hosts that are gone, or change Network, SubnetMin, SubnetMax or SubnetLen in the network ' +
      'configuration so that it has more subnets than hosts.',
  });
}
