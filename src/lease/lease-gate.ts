import { containsAddr, type IpAddr, type IpPrefix, isIpv4 } from '../ip/address.ts';
import { present } from '../ip/family.ts';
import { prefix4, prefix6 } from '../ip/prefix.ts';
import { DisjointSubnets } from './disjoint-subnets.ts';
import { claimedSubnets, entryProblem, type GateRules } from './gate-rules.ts';
import { type EntryId, entryId, type Lease, type LeaseKey, leaseKey } from './lease.ts';
import { type Refusal, type RefusalReason, sameRefusal } from './refusal.ts';
import { agree, overlap, type Subnets } from './subnets.ts';

const NONE: readonly IpAddr[] = [];

/** The lease that counts for a key from now on; `undefined` when there is none any more. */
export interface LeaseChange {
  readonly key: LeaseKey;
  readonly lease: Lease | undefined;
}

/** What a subnet manager reports (LeaseUpdate in subnet/subnet-manager.ts). */
type Update =
  | { readonly type: 'snapshot'; readonly leases: readonly Lease[] }
  | { readonly type: 'set'; readonly lease: Lease }
  | { readonly type: 'removed'; readonly key: LeaseKey; readonly holder?: string | undefined };

/**
 * The gate that every entry of a store passes before it is believed, whichever the store and the backend. A lease of another
 * host is admitted when
 * - its subnet lies in the network and has the length that the plan, or Kubernetes, gives;
 * - it overlaps neither this host's subnet nor a lease that came before it, nor takes in the address of that one's host;
 * - its public address is one that a host can have: unicast, not this host's own, not inside the overlay: an address of the
 *   network is, unless it is on this host's link and in nobody's subnet.
 *
 * First come wins. What is admitted stays so while it is in the store and fits; of what appears together (at a start, in a
 * list) the order is: what was admitted before, in an earlier run too; then by `origin.since`; then by name. Two agents may
 * so disagree about two entries only while one of them has not been restarted since the earlier of the two was changed.
 *
 * Pure: no clock, no I/O. `apply` costs what the update changes, not what there is.
 */
export class LeaseGate {
  readonly #rules: GateRules;
  readonly #own: Lease;
  /** All that the store has but the own entry. */
  readonly #entries = new Map<EntryId, Lease>();
  readonly #admitted = new Map<EntryId, Lease>();
  /** By key, for what is admitted does not overlap, and so two entries never have one key at a time. */
  #changes = new Map<LeaseKey, LeaseChange>();
  readonly #refused = new Map<EntryId, Refusal>();
  /** Whom an admitted entry keeps out. */
  readonly #keptOut = new Map<EntryId, Set<EntryId>>();
  readonly #subnets = new DisjointSubnets<EntryId>();
  /** Public addresses of the admitted that lie in the network, each as a subnet of its own: seldom any. */
  readonly #addresses = new DisjointSubnets<Set<EntryId>>();
  readonly #counts = new Map<RefusalReason, number>();
  #ownEntry: Lease | undefined;
  #freed: EntryId[] = [];
  #news = new Map<EntryId, Refusal>();

  constructor(rules: GateRules, own: Lease) {
    this.#rules = rules;
    this.#own = own;
  }

  /** The leases of other hosts that are believed, in no particular order; no two of them overlap. */
  leases(): Lease[] {
    return [...this.#admitted.values()];
  }

  /** What was admitted, changed or released since the last call, one change for each key. */
  takeChanges(): LeaseChange[] {
    const changes = [...this.#changes.values()];
    this.#changes = new Map();
    return changes;
  }

  get size(): number {
    return this.#admitted.size;
  }

  /** Entries refused now, by reason. */
  get refusals(): Partial<Record<RefusalReason, number>> {
    return Object.fromEntries(this.#counts);
  }

  /** Entries refused now, with why. */
  refused(): Refusal[] {
    return [...this.#refused.values()];
  }

  /** The entry that has this host's subnet and came before its own: this host is the newcomer, and others do not believe it. */
  get ownConflict(): Lease | undefined {
    const own = this.#ownEntry;
    if (own === undefined || !this.#counts.has('overlaps-own')) return undefined;
    for (const { lease, reason } of this.#refused.values()) {
      if (reason === 'overlaps-own' && compareAge(lease, own) < 0) return lease;
    }
    return undefined;
  }

  /** What was refused, or for another reason, since the last call; what has gone from the store meanwhile is left out. */
  takeNews(): Refusal[] {
    const news = [...this.#news.values()];
    this.#news = new Map();
    return news;
  }

  apply(update: Update): void {
    switch (update.type) {
      case 'snapshot':
        this.#replace(update.leases);
        break;
      case 'set':
        this.#set(entryId(update.lease), update.lease);
        break;
      case 'removed':
        this.#remove(entryId(update.key, update.holder));
        break;
    }
    this.#reconsider();
  }

  #replace(leases: readonly Lease[]): void {
    const listed = new Map(leases.map((lease) => [entryId(lease), lease]));
    /** Entries that were admitted under another name of the holder, or none: those an earlier run remembers. */
    const remembered = new Set<string>();
    for (const [id, lease] of this.#entries) {
      if (listed.has(id)) continue;
      if (this.#admitted.has(id)) remembered.add(claimOf(lease));
      this.#remove(id);
    }
    const fresh: [EntryId, Lease][] = [];
    for (const [id, lease] of listed) {
      if (this.#entries.has(id) || this.#isOwn(lease)) this.#set(id, lease);
      else fresh.push([id, lease]);
    }
    // What the entries that are gone have kept out is as old as it is, and stands in one line with the new ones.
    fresh.push(...this.#takeKeptOut());
    const rank = new Map(fresh.map(([id, lease]) => [id, remembered.has(claimOf(lease)) ? 0 : 1]));
    fresh.sort(([a, left], [b, right]) => rank.get(a)! - rank.get(b)! || compareAge(left, right));
    for (const [id, lease] of fresh) this.#set(id, lease);
  }

  #set(id: EntryId, lease: Lease): void {
    if (this.#isOwn(lease)) {
      this.#ownEntry = lease;
      return;
    }
    this.#entries.set(id, lease);
    const problem = entryProblem(lease, this.#own, this.#rules);
    if (problem !== undefined) {
      this.#release(id);
      this.#refuse(id, { lease, reason: problem, by: undefined });
      return;
    }
    if (!this.#admitted.has(id)) this.#admit(id, lease);
    else if (!this.#isCovered(id, lease)) this.#keep(id, lease);
    else this.#release(id);
  }

  #keep(id: EntryId, lease: Lease): void {
    const before = this.#admitted.get(id);
    this.#admitted.set(id, lease);
    this.#noteChange(leaseKey(lease), lease);
    if (before !== undefined && this.#forgetAddresses(id, before)) this.#freed.push(id);
    for (const address of this.#addressesInside(lease)) {
      const ids = this.#addresses.overlapping(only(address));
      if (ids !== undefined) ids.add(id);
      else this.#addresses.add(only(address), new Set([id]));
    }
  }

  /** @returns whether there were any. */
  #forgetAddresses(id: EntryId, lease: Lease): boolean {
    const addresses = this.#addressesInside(lease);
    for (const address of addresses) {
      const ids = this.#addresses.overlapping(only(address));
      if (ids?.delete(id) === true && ids.size === 0) this.#addresses.delete(only(address));
    }
    return addresses.length > 0;
  }

  #addressesInside({ attrs: { publicAddresses } }: Lease): readonly IpAddr[] {
    const isInside = (address: IpAddr | undefined, plan: { readonly network: IpPrefix } | undefined): boolean =>
      address !== undefined && plan !== undefined && containsAddr(plan.network, address);
    const { ipv4, ipv6 } = this.#rules;
    const [has4, has6] = [isInside(publicAddresses.ipv4, ipv4), isInside(publicAddresses.ipv6, ipv6)];
    return has4 || has6
      ? present({ ipv4: has4 ? publicAddresses.ipv4 : undefined, ipv6: has6 ? publicAddresses.ipv6 : undefined })
      : NONE;
  }

  /** Whether its public address lies in the subnet of one that is admitted; it is refused then, and kept out by that one. */
  #isCovered(id: EntryId, lease: Lease): boolean {
    for (const address of this.#addressesInside(lease)) {
      const by = this.#subnets.overlapping(only(address));
      if (by === undefined) continue;
      this.#keepOut(id, lease, 'address-in-network', by);
      return true;
    }
    return false;
  }

  #keepOut(id: EntryId, lease: Lease, reason: RefusalReason, blocker: EntryId): void {
    this.#refuse(id, { lease, reason, by: this.#admitted.get(blocker) });
    const kept = this.#keptOut.get(blocker);
    if (kept === undefined) this.#keptOut.set(blocker, new Set([id]));
    else kept.add(id);
  }

  #noteChange(key: LeaseKey, lease: Lease | undefined): void {
    this.#changes.set(key, { key, lease });
  }

  /** Of an entry that has nothing wrong in itself. */
  #admit(id: EntryId, lease: Lease): void {
    if (this.#overlapsOwn(lease)) {
      this.#refuse(id, { lease, reason: 'overlaps-own', by: this.#ownEntry ?? this.#own });
      return;
    }
    const claimed = claimedSubnets(lease, this.#rules);
    const [addressed] = this.#addresses.overlapping(claimed) ?? [];
    const earlier = this.#subnets.overlapping(claimed) ?? addressed;
    if (earlier !== undefined) {
      this.#keepOut(id, lease, 'overlaps-earlier', earlier);
      return;
    }
    if (this.#isCovered(id, lease)) return;
    if (this.#admitted.size >= this.#rules.capacity) {
      this.#refuse(id, { lease, reason: 'too-many', by: undefined });
      return;
    }
    this.#forgive(id);
    this.#keep(id, lease);
    this.#subnets.add(claimed, id);
  }

  #remove(id: EntryId): void {
    this.#release(id);
    this.#forgive(id);
    this.#entries.delete(id);
  }

  #release(id: EntryId): void {
    const lease = this.#admitted.get(id);
    if (lease === undefined) return;
    this.#admitted.delete(id);
    this.#noteChange(leaseKey(lease), undefined);
    this.#subnets.delete(claimedSubnets(lease, this.#rules));
    this.#forgetAddresses(id, lease);
    this.#freed.push(id);
  }

  /** Whoever was kept out by what has gone gets the place, the earliest first. */
  #reconsider(): void {
    while (this.#freed.length > 0) {
      for (const [id, lease] of this.#takeKeptOut().sort(([, a], [, b]) => compareAge(a, b))) this.#set(id, lease);
    }
  }

  /** Those that have a new chance since entries were released. */
  #takeKeptOut(): [EntryId, Lease][] {
    const ids = new Set<EntryId>();
    for (const blocker of this.#freed) {
      for (const id of this.#keptOut.get(blocker) ?? []) ids.add(id);
      this.#keptOut.delete(blocker);
    }
    const hadFreed = this.#freed.length > 0;
    this.#freed = [];
    if (hadFreed && this.#counts.has('too-many') && this.#admitted.size < this.#rules.capacity) {
      for (const [id, { reason }] of this.#refused) if (reason === 'too-many') ids.add(id);
    }
    return [...ids].flatMap((id): [EntryId, Lease][] => {
      const refusal = this.#refused.get(id);
      return refusal === undefined ? [] : [[id, refusal.lease]];
    });
  }

  #refuse(id: EntryId, refusal: Refusal): void {
    const before = this.#refused.get(id);
    if (before !== undefined) this.#count(before.reason, -1);
    this.#count(refusal.reason, 1);
    this.#refused.set(id, refusal);
    if (before === undefined || !sameRefusal(before, refusal)) this.#news.set(id, refusal);
  }

  #forgive(id: EntryId): void {
    const before = this.#refused.get(id);
    if (before === undefined) return;
    this.#count(before.reason, -1);
    this.#refused.delete(id);
    this.#news.delete(id);
  }

  #count(reason: RefusalReason, by: 1 | -1): void {
    const count = (this.#counts.get(reason) ?? 0) + by;
    if (count === 0) this.#counts.delete(reason);
    else this.#counts.set(reason, count);
  }

  #isOwn(lease: Lease): boolean {
    const own = this.#own;
    const [ours, theirs] = [own.origin?.holder, lease.origin?.holder];
    if (ours !== undefined && theirs !== undefined) return ours === theirs;
    // Under another name, with one subnet more, and of another host: who has two families, and claims what this one has in the first.
    const isMine = present(lease.attrs.publicAddresses).some((one) => this.#rules.ownAddresses.includes(one));
    if (leaseKey(own) !== leaseKey(lease) && !isMine) return false;
    return agree(own.subnets, lease.subnets);
  }

  #overlapsOwn(lease: Lease): boolean {
    return overlap(claimedSubnets(lease, this.#rules), this.#own.subnets);
  }
}

function only(address: IpAddr): Subnets {
  return isIpv4(address)
    ? { ipv4: prefix4(address, 32), ipv6: undefined }
    : { ipv4: undefined, ipv6: prefix6(address, 128) };
}

/** Which of two entries came first: negative when `a` did. Total, so that every agent finds the same one. */
export function compareAge(a: Lease, b: Lease): number {
  const [left, right] = [a.origin?.since ?? Number.POSITIVE_INFINITY, b.origin?.since ?? Number.POSITIVE_INFINITY];
  if (left !== right) return left < right ? -1 : 1;
  const [one, other] = [`${a.origin?.holder ?? ''} ${leaseKey(a)}`, `${b.origin?.holder ?? ''} ${leaseKey(b)}`];
  return one < other ? -1 : one > other ? 1 : 0;
}

/** The leases among `leases` that are believed; for those of an earlier run, while the store is away. */
export function admittedOf(rules: GateRules, own: Lease, leases: readonly Lease[]): Lease[] {
  const gate = new LeaseGate(rules, own);
  gate.apply({ type: 'snapshot', leases });
  return gate.leases();
}

/** Who claims what, without the name under which the store has it. */
function claimOf(lease: Lease): string {
  const { ipv4, ipv6 } = lease.attrs.publicAddresses;
  return `${leaseKey(lease)} ${ipv4 ?? ''} ${ipv6 ?? ''}`;
}
