import type { Ipv6Addr } from '../ip/ipv6.ts';
import { ADDRESS6_WORDS, ENTRY6_WORDS, find6, insert6 } from './prefix6-words.ts';

/** Buckets of a copy; half of them may be in use, so that a search ends soon. */
const BUCKETS = 1_024;
const MOST = BUCKETS / 2;
const COPY_WORDS = BUCKETS * ENTRY6_WORDS;
/** How many there have been; the copy in use is its lowest bit. */
const VERSION = 0;
const HEADER_WORDS = 4;
/** A reader that meets as many changes in the time of a look has no answer. */
const MOST_LOOKS = 8;

/**
 * The IPv6 addresses of this host that peers may reach, in shared memory: written by the control plane, read by the packet worker without
 * a lock. An address is longer than what can be written at a time, so there are two copies: the one that is not in use is filled, and
 * then the two change places. A reader that was overtaken looks again.
 */
export class LocalAddresses6 {
  readonly buffer: SharedArrayBuffer;
  readonly #words: Int32Array;

  static allocate(): LocalAddresses6 {
    return new LocalAddresses6(new SharedArrayBuffer((HEADER_WORDS + 2 * COPY_WORDS) * 4));
  }

  constructor(buffer: SharedArrayBuffer) {
    this.buffer = buffer;
    this.#words = new Int32Array(buffer);
  }

  /**
   * Makes these the addresses, less those that nobody may reach from afar. For the one writer alone.
   * @returns how many found no room: they are not reachable.
   */
  replace(addresses: Iterable<Ipv6Addr>): number {
    const wanted = [...new Set(addresses)].filter(isReachableFromAfar6);
    const version = Atomics.load(this.#words, VERSION);
    const base = baseOf(version + 1);
    this.#words.fill(0, base, base + COPY_WORDS);
    for (const addr of wanted.slice(0, MOST)) insert6(this.#words, base, BUCKETS - 1, { addr, length: 128 }, 1);
    Atomics.store(this.#words, VERSION, (version + 1) | 0);
    return Math.max(0, wanted.length - MOST);
  }

  /** Whether the address in the 16 bytes at `offset` is one of them. */
  has(view: DataView, offset: number): boolean {
    for (let look = 0; look < MOST_LOOKS; look++) {
      const version = Atomics.load(this.#words, VERSION);
      const isThere = find6(this.#words, baseOf(version), BUCKETS - 1, view, offset, 8 * 4 * ADDRESS6_WORDS) !== 0;
      if (Atomics.load(this.#words, VERSION) === version) return isThere;
    }
    return false;
  }
}

function baseOf(version: number): number {
  return HEADER_WORDS + (version & 1) * COPY_WORDS;
}

/** Not so: loopback and the like (::/96, ::ffff:0:0/96), link-local and multicast addresses (RFC 4291 §2.4). */
function isReachableFromAfar6(address: Ipv6Addr): boolean {
  const isLinkLocal = address >> 118n === 0x3fan;
  const isMulticast = address >> 120n === 0xffn;
  return !isLinkLocal && !isMulticast && address >> 32n !== 0n && address >> 32n !== 0xffffn;
}
