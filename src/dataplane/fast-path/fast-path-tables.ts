import type { IpAddr } from '../../ip/address.ts';
import { ipv4Of } from '../../ip/ipv4.ts';
import { ipv6At } from '../../ip/ipv6.ts';
import type { Direction } from '../counters.ts';
import type { Peer, PeerTableContent } from '../peer-table.ts';
import type { Slot } from '../peer-table-layout.ts';
import type { BpfMaps } from './bpf-map.ts';
import {
  ACCEPT_UNTIL,
  AGENT_KEY_BYTES,
  AGENT_PLACE,
  AGENT_UNTIL,
  AGENT_VALUE_BYTES,
  ARRIVED_AT,
  ARRIVED_AT_6,
  COUNTER_VALUE_BYTES,
  ENDPOINT_VALUE_BYTES,
  EXPECT_TAG,
  EXPECT_TAG_WHOLE,
  GRANT_VALUE_BYTES,
  GRANT_WHOLE_UNTIL,
  GRANT_WHOLE_UNTIL_6,
  OWN_KEY_BYTES,
  OWN_VALUE_BYTES,
  OWN_VALUE_BYTES_6,
  RX_BYTES,
  RX_PACKETS,
  SEND_TAG,
  SEND_TAG_WHOLE,
  SEND_UNTIL,
  SEND_UNTIL_6,
  SUBNET_ENDPOINT,
  TAKES_CUT_UNTIL,
  TX_BYTES,
  TX_PACKETS,
  UNANSWERED_SINCE,
  UNANSWERED_SINCE_6,
  UNHEARD_SINCE,
  UNHEARD_SINCE_6,
  type UnderlayLayout,
  WAY_BACK_UNTIL,
  WHOLE_UNTIL,
  WHOLE_UNTIL_6,
} from './layout.ts';
import { counterKey, hostKey, nameOf, own4, own6, putHost, type SubnetEntry, subnetsOf } from './map-entries.ts';
import type { Grant, Observed } from './sign-exchange.ts';

export interface Traffic {
  readonly packets: number;
  readonly bytes: number;
}

const EEXIST = 17;

/** A peer with the address that its host has on the network between the hosts. */
interface ReachablePeer {
  readonly peer: Peer;
  readonly host: IpAddr;
}

const viewOf = (bytes: Uint8Array): DataView => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
const equal = (a: Uint8Array, b: Uint8Array): boolean => Buffer.compare(a, b) === 0;

/**
 * The peers as the programs of the fast path see them: the peer table's content in maps of the kernel. Written by the control
 * plane; what the programs learn about a peer (endpoints) and count (counters) is theirs, and outlives every change of the
 * table. A peer that does not get in is no harm: its packets take the way through the forwarder.
 *
 * Maps may come filled from an agent before this one. What it held stays until the first table is published, and then what is
 * not in that goes; counts begin at zero, for they are by slots of the former agent.
 */
export class FastPathTables implements Disposable {
  readonly maps: BpfMaps;
  readonly layout: UnderlayLayout;
  readonly #subnets = new Map<string, SubnetEntry & { readonly value: Uint8Array }>();
  /** With the port of each. */
  readonly #endpoints = new Map<IpAddr, number>();
  readonly #counted = new Set<Slot>();
  readonly #own = new Map<'own' | 'own6', Uint8Array>();
  #refused = 0;
  #isPublished = false;

  /** @param layout by which the maps are made. */
  constructor(maps: BpfMaps, layout: UnderlayLayout) {
    this.maps = maps;
    this.layout = layout;
    this.#inherit();
  }

  #hostAt(view: DataView, offset: number): IpAddr {
    return this.layout.addressBytes === 4 ? ipv4Of(view.getUint32(offset)) : ipv6At(view, offset);
  }

  #inherit(): void {
    for (const key of this.maps.endpoints.keys()) this.#endpoints.set(this.#hostAt(viewOf(key), 0), 0);
    for (const map of ['subnets', 'subnets6'] as const) {
      for (const key of this.maps[map].keys()) {
        const value = new Uint8Array(this.layout.subnetValueBytes);
        this.maps[map].lookup(key, value);
        this.#subnets.set(nameOf(key), { map, key, value });
        const address = this.#hostAt(viewOf(value), SUBNET_ENDPOINT);
        const port = viewOf(value).getUint16(this.layout.subnetPort);
        if (this.#endpoints.has(address)) this.#endpoints.set(address, port);
      }
    }
    for (const [map, bytes] of [
      ['own', OWN_VALUE_BYTES],
      ['own6', OWN_VALUE_BYTES_6],
    ] as const) {
      const value = new Uint8Array(bytes);
      if (this.maps[map].lookup(new Uint8Array(OWN_KEY_BYTES), value) >= 0) this.#own.set(map, value);
    }
  }

  /** Whether the peers are those of this agent: until the first table there may be those of an earlier one. */
  get isPublished(): boolean {
    return this.#isPublished;
  }

  /** Changes the kernel refused, for want of memory or room. */
  get refused(): number {
    return this.#refused;
  }

  /**
   * Only what has changed is written. An endpoint comes before its subnets and goes after them. Of two peers with one subnet the
   * first counts, as in the peer table. A subnet that is not of the network stays out: the forwarder, too, believes a source
   * outside only as far as `--source-check` says. Of a peer without a subnet of IPv6 no packet of IPv6 is known.
   */
  publish(content: PeerTableContent): void {
    const { ipv4, ipv6, mtu, peers } = content;
    if (!this.#isPublished) for (const key of this.maps.counters.keys()) this.maps.counters.remove(key);
    this.#putOwn('own', ipv4 && own4(ipv4.own));
    this.#putOwn('own6', ipv6 && own6(ipv6.own));
    const wanted = new Map<string, ReachablePeer & { readonly subnet: SubnetEntry }>();
    for (const peer of peers) {
      const host = peer.publicAddresses[this.layout.addressBytes === 4 ? 'ipv4' : 'ipv6'];
      if (host === undefined) continue;
      for (const subnet of subnetsOf(peer, content)) {
        const name = nameOf(subnet.key);
        if (!wanted.has(name)) wanted.set(name, { subnet, peer, host });
      }
    }
    for (const [name, subnet] of this.#subnets) if (!wanted.has(name)) this.#forget(subnet);
    const endpoints = new Map([...wanted.values()].map(({ peer, host }) => [host, peer.port]));
    for (const [address, port] of endpoints) {
      const isKnown =
        this.#endpoints.has(address) ||
        this.#check(this.maps.endpoints.add(hostKey(address), new Uint8Array(ENDPOINT_VALUE_BYTES)));
      if (isKnown) this.#endpoints.set(address, port);
    }
    for (const { subnet, ...peer } of wanted.values()) this.#put(subnet, peer, mtu);
    for (const address of this.#endpoints.keys()) {
      if (endpoints.has(address)) continue;
      this.maps.grants.remove(hostKey(address));
      this.maps.endpoints.remove(hostKey(address));
      this.#endpoints.delete(address);
    }
    this.#isPublished = true;
  }

  /** When it cannot be written there is none, and all packets are the forwarder's. */
  #putOwn(map: 'own' | 'own6', value: Uint8Array | undefined): void {
    const held = this.#own.get(map);
    if (value === held || (value !== undefined && held !== undefined && equal(held, value))) return;
    const key = new Uint8Array(OWN_KEY_BYTES);
    if (value !== undefined && this.#check(this.maps[map].update(key, value))) {
      this.#own.set(map, value);
      return;
    }
    this.maps[map].remove(key);
    this.#own.delete(map);
  }

  #put(subnet: SubnetEntry, { peer: { port, slot }, host }: ReachablePeer, mtu: number): void {
    const { subnetPort, subnetMtu, subnetSlot, subnetValueBytes } = this.layout;
    this.#countFor(slot);
    const { map, key } = subnet;
    const view = new DataView(new ArrayBuffer(subnetValueBytes));
    putHost(view, SUBNET_ENDPOINT, host);
    view.setUint16(subnetPort, port);
    view.setUint16(subnetMtu, Math.min(mtu, 0xffff), true);
    view.setUint32(subnetSlot, slot, true);
    const value = new Uint8Array(view.buffer);
    const held = this.#subnets.get(nameOf(key));
    if (held !== undefined && equal(held.value, value)) return;
    if (this.#check(this.maps[map].update(key, value))) this.#subnets.set(nameOf(key), { map, key, value });
    else this.#forget(subnet);
  }

  /** An old value must not outlive a peer that has moved. */
  #forget({ map, key }: SubnetEntry): void {
    this.maps[map].remove(key);
    this.#subnets.delete(nameOf(key));
  }

  #countFor(slot: Slot): void {
    if (this.#counted.has(slot)) return;
    const result = this.maps.counters.add(counterKey(slot), new Uint8Array(COUNTER_VALUE_BYTES));
    if (result === -EEXIST || this.#check(result)) this.#counted.add(slot);
  }

  #check(result: number): boolean {
    if (result < 0) this.#refused++;
    return result >= 0;
  }

  /** What went to (tx) and came from (rx) a peer by the fast path. */
  read(slot: Slot): Record<Direction, Traffic> {
    const view = new DataView(new ArrayBuffer(COUNTER_VALUE_BYTES));
    if (this.#counted.has(slot)) this.maps.counters.lookup(counterKey(slot), new Uint8Array(view.buffer));
    const at = (offset: number): number => Number(view.getBigUint64(offset, true));
    return {
      tx: { packets: at(TX_PACKETS), bytes: at(TX_BYTES) },
      rx: { packets: at(RX_PACKETS), bytes: at(RX_BYTES) },
    };
  }

  /**
   * Whether packets to that host may take the fast path.
   * @param now nanoseconds of CLOCK_MONOTONIC.
   */
  sendsTo(address: IpAddr, now: bigint): boolean {
    const value = new DataView(new ArrayBuffer(GRANT_VALUE_BYTES));
    // Its key would be one of another length else.
    if (!this.#endpoints.has(address)) return false;
    if (this.maps.grants.lookup(hostKey(address), new Uint8Array(value.buffer)) < 0) return false;
    return value.getBigUint64(SEND_UNTIL, true) > now;
  }

  /** The port of a host that some peer's subnet is at; `undefined` for others. */
  portOf(address: IpAddr): number | undefined {
    return this.#endpoints.get(address);
  }

  /** Hosts of peers. */
  hosts(): readonly IpAddr[] {
    return [...this.#endpoints.keys()];
  }

  /** Lets the programs do no more with that host than this. Without effect for one that is no peer's. */
  grant(address: IpAddr, grant: Grant): void {
    if (!this.#endpoints.has(address)) return;
    const value = new DataView(new ArrayBuffer(GRANT_VALUE_BYTES));
    value.setBigUint64(SEND_UNTIL, grant.sendUntil, true);
    value.setBigUint64(ACCEPT_UNTIL, grant.acceptUntil, true);
    value.setBigUint64(GRANT_WHOLE_UNTIL, grant.wholeUntil, true);
    value.setBigUint64(SEND_UNTIL_6, grant.sendUntil6, true);
    value.setBigUint64(GRANT_WHOLE_UNTIL_6, grant.wholeUntil6, true);
    value.setBigUint64(TAKES_CUT_UNTIL, grant.takesCutUntil, true);
    value.setUint16(SEND_TAG, grant.tag);
    value.setUint16(SEND_TAG_WHOLE, grant.tagWhole);
    value.setUint16(EXPECT_TAG, grant.expectTag);
    value.setUint16(EXPECT_TAG_WHOLE, grant.expectTagWhole);
    this.#check(this.maps.grants.update(hostKey(address), new Uint8Array(value.buffer)));
  }

  /**
   * When a super-packet of that host last arrived in one piece, and until when the way back to it is known to lead through the
   * device that its datagrams come by; in nanoseconds of CLOCK_MONOTONIC, 0n for never.
   */
  observed(address: IpAddr): Observed {
    const value = new DataView(new ArrayBuffer(ENDPOINT_VALUE_BYTES));
    this.maps.endpoints.lookup(hostKey(address), new Uint8Array(value.buffer));
    return {
      arrivedAt: value.getBigUint64(ARRIVED_AT, true),
      arrivedAt6: value.getBigUint64(ARRIVED_AT_6, true),
      wayBackUntil: value.getBigUint64(WAY_BACK_UNTIL, true),
    };
  }

  /**
   * What is granted, by an earlier agent too: times are 0n where they are over by the clock of the programs. Super-packets count as
   * arriving whole where the program has learned that they do.
   * @param now nanoseconds of CLOCK_MONOTONIC.
   */
  held(now: bigint): Map<IpAddr, Grant> {
    const { until } = this.agent();
    const clock = until < now ? until : now;
    const valid = (time: bigint): bigint => (time > clock ? time : 0n);
    const grants = new Map<IpAddr, Grant>();
    for (const address of this.#endpoints.keys()) {
      const value = new DataView(new ArrayBuffer(GRANT_VALUE_BYTES));
      if (this.maps.grants.lookup(hostKey(address), new Uint8Array(value.buffer)) < 0) continue;
      const endpoint = new DataView(new ArrayBuffer(ENDPOINT_VALUE_BYTES));
      this.maps.endpoints.lookup(hostKey(address), new Uint8Array(endpoint.buffer));
      const time = (at: number): bigint => valid(value.getBigUint64(at, true));
      grants.set(address, {
        sendUntil: time(SEND_UNTIL),
        acceptUntil: time(ACCEPT_UNTIL),
        wholeUntil: time(GRANT_WHOLE_UNTIL) || valid(endpoint.getBigUint64(WHOLE_UNTIL, true)),
        sendUntil6: time(SEND_UNTIL_6),
        wholeUntil6: time(GRANT_WHOLE_UNTIL_6) || valid(endpoint.getBigUint64(WHOLE_UNTIL_6, true)),
        takesCutUntil: time(TAKES_CUT_UNTIL),
        tag: value.getUint16(SEND_TAG),
        tagWhole: value.getUint16(SEND_TAG_WHOLE),
        expectTag: value.getUint16(EXPECT_TAG),
        expectTagWhole: value.getUint16(EXPECT_TAG_WHOLE),
      });
    }
    return grants;
  }

  /**
   * That host is heard until then: its agent has answered, and its program has yet to learn the tags that are expected now. TCP's data
   * would turn to the forwarder meanwhile.
   */
  hears(address: IpAddr, until: bigint): void {
    const value = new DataView(new ArrayBuffer(ENDPOINT_VALUE_BYTES));
    this.maps.endpoints.lookup(hostKey(address), new Uint8Array(value.buffer));
    for (const field of [UNHEARD_SINCE, UNHEARD_SINCE_6, UNANSWERED_SINCE, UNANSWERED_SINCE_6]) {
      value.setBigUint64(field, until, true);
    }
    this.#check(this.maps.endpoints.update(hostKey(address), new Uint8Array(value.buffer)));
  }

  /** Nothing is granted any more, nor known of any host. */
  forget(): void {
    for (const key of this.maps.grants.keys()) this.maps.grants.remove(key);
    for (const key of this.maps.endpoints.keys()) {
      this.maps.endpoints.update(key, new Uint8Array(ENDPOINT_VALUE_BYTES));
    }
  }

  /** Until when there is an agent, in nanoseconds of CLOCK_MONOTONIC, and for which place; 0n when there was none yet. */
  agent(): { readonly until: bigint; readonly place: bigint } {
    const value = new DataView(new ArrayBuffer(AGENT_VALUE_BYTES));
    this.maps.agent.lookup(new Uint8Array(AGENT_KEY_BYTES), new Uint8Array(value.buffer));
    return { until: value.getBigUint64(AGENT_UNTIL, true), place: value.getBigUint64(AGENT_PLACE, true) };
  }

  /** There is an agent until then, and knowledge ages meanwhile. */
  beat(until: bigint, place: bigint): void {
    const value = new DataView(new ArrayBuffer(AGENT_VALUE_BYTES));
    value.setBigUint64(AGENT_UNTIL, until, true);
    value.setBigUint64(AGENT_PLACE, place, true);
    this.#check(this.maps.agent.update(new Uint8Array(AGENT_KEY_BYTES), new Uint8Array(value.buffer)));
  }

  /** Hosts that are sent to by the fast path, and whose grants want to be renewed, at most `most`; each is named once. */
  takeAwaiting(most: number): IpAddr[] {
    const taken: IpAddr[] = [];
    const key = new Uint8Array(this.layout.addressBytes);
    while (taken.length < most && this.maps.awaiting.first(key) >= 0) {
      this.maps.awaiting.remove(key);
      taken.push(this.#hostAt(viewOf(key), 0));
    }
    return taken;
  }

  /** A slot that is given to another peer starts at zero. */
  clear(slot: Slot): void {
    if (this.#counted.has(slot)) this.maps.counters.update(counterKey(slot), new Uint8Array(COUNTER_VALUE_BYTES));
  }

  [Symbol.dispose](): void {
    for (const map of Object.values(this.maps)) map[Symbol.dispose]();
  }
}
