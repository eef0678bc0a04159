import type { Addresses, PerFamily } from '../ip/family.ts';
import type { Ipv4Addr } from '../ip/ipv4.ts';
import { type Ipv4Prefix, type Ipv6Prefix, mask4 } from '../ip/prefix.ts';
import {
  ACTIVE,
  CARRIES_IPV6,
  ENDPOINT_ENTRY,
  FIXED_WORDS,
  HEADER_WORDS,
  hash,
  LENGTH_COUNT,
  LENGTH6_COUNT,
  LENGTHS,
  LENGTHS6,
  MTU,
  NETWORK,
  NETWORK_MASK,
  NETWORK6,
  OWN,
  OWN_MASK,
  OWN6,
  PREFIX_ENTRY,
  PREFIX_MASK,
  PREFIX6_MASK,
  READER_COUNT,
  READERS,
  type Shape,
  SLOT_ENTRY,
  type Slot,
  shapeOf,
  WAITING,
} from './peer-table-layout.ts';
import { PeerTableReader } from './peer-table-reader.ts';
import { ADDRESS6_WORDS, ENTRY6_WORDS, insert6, putAddress6, putNetwork6, word6 } from './prefix6-words.ts';

/** Another host of the network, as the packet workers need it. */
export interface Peer {
  /** Stable for as long as the peer is known; indexes the counters. 1 … capacity−1, 0 is nobody. */
  readonly slot: number;
  /** What packets of each family to it are for; of one that it has none of, it takes none. */
  readonly subnets: PerFamily<Ipv4Prefix | undefined, Ipv6Prefix | undefined>;
  /** Of that host: the outer address is the one of IPv4, and without that of IPv6, which else is only a source that it may use. */
  readonly publicAddresses: Addresses;
  readonly port: number;
}

/** One that takes IPv4 packets, over IPv4. */
export interface Ipv4Peer extends Peer {
  readonly subnets: Peer['subnets'] & { readonly ipv4: Ipv4Prefix };
  readonly publicAddresses: Addresses & { readonly ipv4: Ipv4Addr };
}

/** One family of the network that this host is in. */
export interface OwnPart<P> {
  /** The whole flannel network: a source inside it must belong to the peer that sends it. */
  readonly network: P;
  /** This host's own subnet: what peers may send to. */
  readonly own: P;
}

/** Of a family that is not there, no packet is carried. */
export interface PeerTableContent extends PerFamily<OwnPart<Ipv4Prefix> | undefined, OwnPart<Ipv6Prefix> | undefined> {
  readonly peers: readonly Peer[];
  /** Longest inner packet that fits a path nothing is known about, in bytes. */
  readonly mtu: number;
}

/**
 * Who owns which subnet, in shared memory: written by the control plane, read by the packet workers without a lock.
 *
 * Two copies of the table lie side by side. The writer fills the one that is not in use and then flips an index. A worker
 * announces the copy it reads for the length of one batch (`enter`/`leave`), and the writer waits for the workers to
 * leave a copy before it fills it again, which takes at most one batch.
 *
 * Lookup is by longest prefix: one hash probe for each prefix length that occurs (one or two in practice), so its cost
 * does not grow with the number of peers.
 */
export class PeerTable {
  readonly buffer: SharedArrayBuffer;
  readonly capacity: number;
  readonly #words: Int32Array;
  readonly #shape: Shape;
  readonly #pathMtu: number;
  #highestSlot = 0;

  /** @param capacity number of slots, slot 0 included. Memory is touched only as far as it is used. */
  static allocate(capacity: number): PeerTable {
    const { copyWords } = shapeOf(capacity);
    return new PeerTable(new SharedArrayBuffer((HEADER_WORDS + 2 * copyWords + capacity) * 4), capacity);
  }

  constructor(buffer: SharedArrayBuffer, capacity: number) {
    this.buffer = buffer;
    this.capacity = capacity;
    this.#words = new Int32Array(buffer);
    this.#shape = shapeOf(capacity);
    this.#pathMtu = HEADER_WORDS + 2 * this.#shape.copyWords;
  }

  #copyBase(copy: number): number {
    return HEADER_WORDS + copy * this.#shape.copyWords;
  }

  /**
   * Replaces the whole table. Waits until no worker reads the spare copy: normally not at all, at worst one batch.
   * @throws RangeError when there are more peers than slots or a slot is out of range.
   */
  publish(content: PeerTableContent): void {
    if (content.peers.length >= this.capacity) {
      throw new RangeError(`${content.peers.length} peers, but the table was made for ${this.capacity - 1}`);
    }
    const words = this.#words;
    const spare = 1 - Atomics.load(words, ACTIVE);
    Atomics.store(words, WAITING, 1);
    for (let reader = 0; reader < READER_COUNT; reader++) {
      // The time-out covers a worker that died inside a batch and will never leave.
      if (Atomics.load(words, READERS + reader) === spare + 1) Atomics.wait(words, READERS + reader, spare + 1, 1_000);
    }
    Atomics.store(words, WAITING, 0);
    const base = this.#copyBase(spare);
    const before = this.#copyBase(1 - spare);
    const { buckets, prefixes, endpoints, slots } = this.#shape;
    // A small cluster uses a small part of the buckets, so that publishing and looking up stay in the cache.
    const used = Math.min(buckets, 2 ** Math.ceil(Math.log2(Math.max(16, content.peers.length * 2))));
    words.fill(0, base, base + FIXED_WORDS);
    words.fill(0, base + prefixes, base + prefixes + used * PREFIX_ENTRY);
    words.fill(0, base + endpoints, base + endpoints + used * ENDPOINT_ENTRY);
    words[base + PREFIX_MASK] = used - 1;
    // Without a network: no address has this one under an empty mask.
    const { ipv4 } = content;
    words[base + NETWORK] = ipv4 === undefined ? 1 : ipv4.network.addr | 0;
    words[base + NETWORK_MASK] = ipv4 === undefined ? 0 : mask4(ipv4.network.length) | 0;
    words[base + MTU] = content.mtu;
    // A limit may have been this host's own, learned between the change of its interface and that of this table.
    if (content.mtu > words[before + MTU]!) this.forgetPathMtus();
    words[base + OWN] = ipv4 === undefined ? 1 : ipv4.own.addr | 0;
    words[base + OWN_MASK] = ipv4 === undefined ? 0 : mask4(ipv4.own.length) | 0;
    this.#writeLengths(base, LENGTH_COUNT, LENGTHS, content.peers, ({ subnets }) => subnets.ipv4);
    this.#writeNetwork6(base, content);
    for (const peer of content.peers) {
      const { slot } = peer;
      if (slot < 1 || slot >= this.capacity) throw new RangeError(`peer slot ${slot} is out of range`);
      const { ipv4: prefix } = peer.subnets;
      if (prefix !== undefined) {
        const subnet = prefix.addr | 0;
        const { length } = prefix;
        this.#insert(base + prefixes, hash(subnet, length) & (used - 1), used - 1, subnet, (slot << 6) | length, 63);
      }
      const entry = base + slots + slot * SLOT_ENTRY;
      const isSamePath = this.#writeEndpoint(base, before, used - 1, peer);
      words[entry + 1] = peer.port;
      // A path to somewhere else is another path.
      if (!isSamePath) words[this.#pathMtu + slot] = 0;
      this.#highestSlot = Math.max(this.#highestSlot, slot);
    }
    Atomics.store(words, ACTIVE, spare);
  }

  /** The prefix lengths that occur, the longest first. */
  #writeLengths(
    base: number,
    countAt: number,
    lengthsAt: number,
    peers: readonly Peer[],
    subnetOf: (peer: Peer) => { readonly length: number } | undefined,
  ): void {
    const lengths = [...new Set(peers.flatMap((peer) => subnetOf(peer)?.length ?? []))].sort((a, b) => b - a);
    this.#words[base + countAt] = lengths.length;
    this.#words.set(lengths, base + lengthsAt);
  }

  /** What is of IPv6, but for the outer addresses. */
  #writeNetwork6(base: number, { ipv6, peers }: PeerTableContent): void {
    const words = this.#words;
    const { buckets, prefixes6, endpoints6 } = this.#shape;
    putNetwork6(words, base + NETWORK6, ipv6?.network);
    putNetwork6(words, base + OWN6, ipv6?.own);
    words[base + CARRIES_IPV6] = ipv6 === undefined ? 0 : 1;
    if (ipv6 === undefined) return;
    const used = Math.min(buckets, 2 ** Math.ceil(Math.log2(Math.max(16, peers.length * 2))));
    words[base + PREFIX6_MASK] = used - 1;
    words.fill(0, base + prefixes6, base + prefixes6 + used * ENTRY6_WORDS);
    words.fill(0, base + endpoints6, base + endpoints6 + used * ENTRY6_WORDS);
    this.#writeLengths(base, LENGTH6_COUNT, LENGTHS6, peers, ({ subnets }) => subnets.ipv6);
    for (const { subnets, slot } of peers) {
      if (subnets.ipv6 !== undefined) insert6(words, base + prefixes6, used - 1, subnets.ipv6, slot);
    }
  }

  /** @returns whether the slot had the same outer address before. */
  #writeEndpoint(base: number, before: number, bucketMask: number, peer: Peer): boolean {
    const words = this.#words;
    const { endpoints, endpoints6, slots, addresses6 } = this.#shape;
    const { slot, publicAddresses } = peer;
    const entry = base + slots + slot * SLOT_ENTRY;
    const [own, earlier] = [base, before].map((copy) => copy + addresses6 + slot * ADDRESS6_WORDS) as [number, number];
    putAddress6(words, own, publicAddresses.ipv6 ?? 0n);
    if (publicAddresses.ipv4 !== undefined) {
      const endpoint = publicAddresses.ipv4 | 0;
      this.#insert(base + endpoints, hash(endpoint, 0) & bucketMask, bucketMask, endpoint, slot, 0);
      words[entry] = endpoint;
      return words[before + slots + slot * SLOT_ENTRY] === endpoint;
    }
    const address = publicAddresses.ipv6 ?? 0n;
    words[entry] = insert6(words, base + endpoints6, words[base + PREFIX6_MASK]!, { addr: address, length: 128 }, slot);
    return [0, 1, 2, 3].every((index) => words[earlier + index] === word6(address, index));
  }

  /**
   * Linear probing; the first entry of a key stays: two subnets of one host share the endpoint of the first.
   * @param identity the bits of the value that belong to the key (the prefix length, or none).
   */
  #insert(table: number, start: number, bucketMask: number, key: number, value: number, identity: number): void {
    const words = this.#words;
    for (let bucket = start; ; bucket = (bucket + 1) & bucketMask) {
      const at = table + bucket * 2;
      const present = words[at + 1]!;
      if (present === 0) {
        words[at] = key;
        words[at + 1] = value;
        return;
      }
      if (words[at] === key && (present & identity) === (value & identity)) return;
    }
  }

  /**
   * A reader for one worker; `index` 0 or 1, each used by one thread. A restarted worker takes the same index, which also
   * frees what its predecessor held.
   */
  reader(index: number): PeerTableReader {
    Atomics.store(this.#words, READERS + index, 0);
    return new PeerTableReader(this.#words, READERS + index, this.#shape, this.#pathMtu);
  }

  /** Longest inner packet the path to a slot takes, 0 when nothing is known; written by the tx worker, expired here. */
  pathMtu(slot: Slot): number {
    return this.#words[this.#pathMtu + slot] ?? 0;
  }

  /** Called now and then: a path may have widened, and only a packet that is tried at full size finds out. */
  forgetPathMtus(): void {
    this.#words.fill(0, this.#pathMtu, this.#pathMtu + this.#highestSlot + 1);
  }
}
