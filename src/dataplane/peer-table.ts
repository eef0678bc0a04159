import type { Ipv4Addr } from '../ip/ipv4.ts';
import { type Ipv4Prefix, mask4 } from '../ip/prefix.ts';

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
export interface Peer {
  /** Stable for as long as the peer is known; indexes the counters. 1 … capacity−1, 0 is nobody. */
  readonly slot: number;
  readonly subnet: Ipv4Prefix;
  readonly publicIp: Ipv4Addr;
  readonly port: number;
}

export interface PeerTableContent {
  /** The whole flannel network: a source inside it must belong to the peer that sends it. */
  readonly network: Ipv4Prefix;
  /** This host's own subnet: what peers may send to. */
  readonly own: Ipv4Prefix;
  readonly peers: readonly Peer[];
  /** Longest inner packet that fits a path nothing is known about, in bytes. */
  readonly mtu: number;
}

/** 0 = not found. */
export type Slot = number;

// Header words (Int32): the copy in use, then one word a reader: 0 idle, 1 or 2 the copy it reads; whether the writer waits.
const ACTIVE = 0;
const READERS = 1;
const READER_COUNT = 2;
const WAITING = READERS + READER_COUNT;
const HEADER_WORDS = 16;

// A copy (Int32 words): fixed fields, prefix lengths, two hash tables.
const LENGTH_COUNT = 0;
const PREFIX_MASK = 1; // of both hash tables: number of buckets − 1
const NETWORK = 2;
const NETWORK_MASK = 3;
const MTU = 4;
const OWN = 5;
const OWN_MASK = 6;
const LENGTHS = 8; // up to 33
const FIXED_WORDS = 48;
const PREFIX_ENTRY = 2; // address, slot << 6 | length; 0 = empty
const ENDPOINT_ENTRY = 2; // address, slot; 0 = empty
// By slot: address, port. Path MTU is apart, because the workers write it.
const SLOT_ENTRY = 2;

function hash(address: number, length: number): number {
  const mixed = Math.imul(address ^ Math.imul(length + 1, 0x9e3779b1), 0x85ebca6b);
  return (mixed ^ (mixed >>> 15)) >>> 0;
}

interface Shape {
  readonly buckets: number;
  readonly copyWords: number;
  readonly prefixes: number;
  readonly endpoints: number;
  readonly slots: number;
}

function shapeOf(capacity: number): Shape {
  const buckets = 2 ** Math.ceil(Math.log2(Math.max(16, capacity * 2)));
  const prefixes = FIXED_WORDS;
  const endpoints = prefixes + buckets * PREFIX_ENTRY;
  const slots = endpoints + buckets * ENDPOINT_ENTRY;
  return { buckets, prefixes, endpoints, slots, copyWords: slots + capacity * SLOT_ENTRY };
}

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
    words[base + NETWORK] = content.network.addr | 0;
    words[base + NETWORK_MASK] = mask4(content.network.length) | 0;
    words[base + MTU] = content.mtu;
    words[base + OWN] = content.own.addr | 0;
    words[base + OWN_MASK] = mask4(content.own.length) | 0;
    const lengths = [...new Set(content.peers.map((peer) => peer.subnet.length))].sort((a, b) => b - a);
    words[base + LENGTH_COUNT] = lengths.length;
    words.set(lengths, base + LENGTHS);
    for (const peer of content.peers) {
      if (peer.slot < 1 || peer.slot >= this.capacity) throw new RangeError(`peer slot ${peer.slot} is out of range`);
      const subnet = peer.subnet.addr | 0;
      const { length } = peer.subnet;
      this.#insert(base + prefixes, hash(subnet, length) & (used - 1), used - 1, subnet, (peer.slot << 6) | length, 63);
      const endpoint = peer.publicIp | 0;
      this.#insert(base + endpoints, hash(endpoint, 0) & (used - 1), used - 1, endpoint, peer.slot, 0);
      words[base + slots + peer.slot * SLOT_ENTRY] = endpoint;
      words[base + slots + peer.slot * SLOT_ENTRY + 1] = peer.port;
      // A path to somewhere else is another path.
      if (words[before + slots + peer.slot * SLOT_ENTRY] !== endpoint) words[this.#pathMtu + peer.slot] = 0;
      this.#highestSlot = Math.max(this.#highestSlot, peer.slot);
    }
    Atomics.store(words, ACTIVE, spare);
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

export class PeerTableReader {
  readonly #words: Int32Array;
  readonly #announce: number;
  readonly #shape: Shape;
  readonly #pathMtu: number;
  #base = 0;
  #prefixes = 0;
  #endpoints = 0;
  #slots = 0;
  #bucketMask = 0;
  #lengthCount = 0;
  #network = 0;
  #networkMask = 0;
  #mtu = 0;
  #own = 0;
  #ownMask = 0;
  // The last answer of this batch: packets come in trains to one address.
  #lastAddress = 0;
  #lastSlot = -1;

  constructor(words: Int32Array, announce: number, shape: Shape, pathMtu: number) {
    this.#words = words;
    this.#announce = announce;
    this.#shape = shape;
    this.#pathMtu = pathMtu;
  }

  /** Before a batch: everything until `leave` sees one version of the table. */
  enter(): void {
    const words = this.#words;
    let copy = Atomics.load(words, ACTIVE);
    for (;;) {
      Atomics.store(words, this.#announce, copy + 1);
      const now = Atomics.load(words, ACTIVE);
      if (now === copy) break;
      copy = now;
    }
    const base = HEADER_WORDS + copy * this.#shape.copyWords;
    this.#lastSlot = -1;
    this.#base = base;
    this.#prefixes = base + this.#shape.prefixes;
    this.#endpoints = base + this.#shape.endpoints;
    this.#slots = base + this.#shape.slots;
    this.#bucketMask = words[base + PREFIX_MASK]!;
    this.#lengthCount = words[base + LENGTH_COUNT]!;
    this.#network = words[base + NETWORK]!;
    this.#networkMask = words[base + NETWORK_MASK]!;
    this.#mtu = words[base + MTU]!;
    this.#own = words[base + OWN]!;
    this.#ownMask = words[base + OWN_MASK]!;
  }

  leave(): void {
    Atomics.store(this.#words, this.#announce, 0);
    // A notification is dear. A writer that says so only now sees the store above and does not wait.
    if (Atomics.load(this.#words, WAITING) !== 0) Atomics.notify(this.#words, this.#announce);
  }

  /** The peer whose subnet contains the address, by longest prefix; 0 when there is none. */
  lookup(address: number): Slot {
    if (address === this.#lastAddress && this.#lastSlot >= 0) return this.#lastSlot;
    this.#lastAddress = address;
    this.#lastSlot = this.#search(address);
    return this.#lastSlot;
  }

  #search(address: number): Slot {
    const words = this.#words;
    const bucketMask = this.#bucketMask;
    for (let index = 0; index < this.#lengthCount; index++) {
      const length = words[this.#base + LENGTHS + index]!;
      const key = length === 0 ? 0 : address & (-1 << (32 - length));
      let bucket = hash(key, length) & bucketMask;
      // Bounded: a worker that held a copy for so long that it was filled again may find no empty bucket.
      for (let probes = 0; probes <= bucketMask; probes++, bucket = (bucket + 1) & bucketMask) {
        const at = this.#prefixes + bucket * PREFIX_ENTRY;
        const value = words[at + 1]!;
        if (value === 0) break;
        if (words[at] === key && (value & 63) === length) return value >>> 6;
      }
    }
    return 0;
  }

  /** The peer that sends from this outer address; 0 when it is nobody's. */
  lookupEndpoint(address: number): Slot {
    const words = this.#words;
    const key = address | 0;
    const bucketMask = this.#bucketMask;
    let bucket = hash(key, 0) & bucketMask;
    for (let probes = 0; probes <= bucketMask; probes++, bucket = (bucket + 1) & bucketMask) {
      const at = this.#endpoints + bucket * ENDPOINT_ENTRY;
      const value = words[at + 1]!;
      if (value === 0) return 0;
      if (words[at] === key) return value;
    }
    return 0;
  }

  endpointAddress(slot: Slot): number {
    return this.#words[this.#slots + slot * SLOT_ENTRY]! >>> 0;
  }

  endpointPort(slot: Slot): number {
    return this.#words[this.#slots + slot * SLOT_ENTRY + 1]!;
  }

  inNetwork(address: number): boolean {
    return (address & this.#networkMask) === this.#network;
  }

  /** Whether the address is of this host's own subnet. */
  isOwn(address: number): boolean {
    return (address & this.#ownMask) === this.#own;
  }

  /** Longest inner packet for a peer, in bytes. */
  mtu(slot: Slot): number {
    const known = this.#words[this.#pathMtu + slot]!;
    return known === 0 || known > this.#mtu ? this.#mtu : known;
  }

  /** What the kernel said about the path. @param mtu longest inner packet in bytes. */
  learnPathMtu(slot: Slot, mtu: number): void {
    this.#words[this.#pathMtu + slot] = mtu;
  }
}
