import {
  ACTIVE,
  CARRIES_IPV6,
  ENDPOINT_ENTRY,
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
  type Shape,
  SLOT_ENTRY,
  type Slot,
  WAITING,
} from './peer-table-layout.ts';
import { ADDRESS6_WORDS, find6, inside6 } from './prefix6-words.ts';

/** The peer table as one packet worker reads it, without a lock; see peer-table.ts. */
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
  #carriesIpv6 = false;
  #bucketMask6 = 0;
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
    this.#carriesIpv6 = words[base + CARRIES_IPV6] !== 0;
    this.#bucketMask6 = words[base + PREFIX6_MASK]!;
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

  /** What tells the host of a slot from others: its IPv4 address, or where the underlay is IPv6 the first slot of it. */
  endpoint(slot: Slot): number {
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

  /** Whether the network has IPv6. */
  get carriesIpv6(): boolean {
    return this.#carriesIpv6;
  }

  /** As `lookup`, of the address in the 16 bytes at `offset`. */
  lookup6(view: DataView, offset: number): Slot {
    const words = this.#words;
    const table = this.#base + this.#shape.prefixes6;
    const count = words[this.#base + LENGTH6_COUNT]!;
    for (let index = 0; index < count; index++) {
      const slot = find6(words, table, this.#bucketMask6, view, offset, words[this.#base + LENGTHS6 + index]!);
      if (slot !== 0) return slot;
    }
    return 0;
  }

  /** As `lookupEndpoint`, where the underlay is IPv6: the first slot of that host. */
  lookupEndpoint6(view: DataView, offset: number): Slot {
    return find6(this.#words, this.#base + this.#shape.endpoints6, this.#bucketMask6, view, offset, 128);
  }

  inNetwork6(view: DataView, offset: number): boolean {
    return inside6(this.#words, this.#base + NETWORK6, view, offset);
  }

  isOwn6(view: DataView, offset: number): boolean {
    return inside6(this.#words, this.#base + OWN6, view, offset);
  }

  /** Whether the address in the 16 bytes at `offset` is the one that the host of a slot has published. */
  isHostAddress6(slot: Slot, view: DataView, offset: number): boolean {
    const at = this.#base + this.#shape.addresses6 + slot * ADDRESS6_WORDS;
    for (let index = 0; index < ADDRESS6_WORDS; index++) {
      if (view.getInt32(offset + 4 * index) !== this.#words[at + index]) return false;
    }
    return true;
  }

  /** Writes the address of the host of a slot into the 16 bytes at `offset`. */
  putHostAddress6(slot: Slot, view: DataView, offset: number): void {
    const at = this.#base + this.#shape.addresses6 + slot * ADDRESS6_WORDS;
    for (let index = 0; index < ADDRESS6_WORDS; index++) view.setInt32(offset + 4 * index, this.#words[at + index]!);
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
