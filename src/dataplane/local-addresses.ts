import type { Ipv4Addr } from '../ip/ipv4.ts';
import { isReachableFromAfar } from './destination-check.ts';

/** Buckets; half of them may be in use, so that a search ends soon. */
const BUCKETS = 4_096;
const BUCKET_MASK = BUCKETS - 1;
const MOST = BUCKETS / 2;

// Neither is an address that a host can have.
const EMPTY = 0;
const REMOVED = -1;

const bucketOf = (address: number): number => (Math.imul(address, 0x9e3779b1) >>> 20) & BUCKET_MASK;

/**
 * The addresses of this host that peers may reach, in shared memory: written by the control plane, read by the packet worker
 * without a lock. A word is written at a time, and each state in between is one that the set may have: a reader never finds an
 * address that was neither in the old set nor is in the new one.
 */
export class LocalAddresses {
  readonly buffer: SharedArrayBuffer;
  readonly #words: Int32Array;
  #present: ReadonlySet<number> = new Set();

  static allocate(): LocalAddresses {
    return new LocalAddresses(new SharedArrayBuffer(BUCKETS * 4));
  }

  constructor(buffer: SharedArrayBuffer) {
    this.buffer = buffer;
    this.#words = new Int32Array(buffer);
  }

  /**
   * Makes these the addresses, less those that nobody may reach from afar. For the one writer alone.
   * @returns how many found no room: they are not reachable.
   */
  replace(addresses: Iterable<Ipv4Addr>): number {
    const wanted = new Set<number>();
    let refused = 0;
    for (const address of addresses) {
      if (!isReachableFromAfar(address) || wanted.has(address)) continue;
      if (wanted.size < MOST) wanted.add(address);
      else refused++;
    }
    for (const address of this.#present) if (!wanted.has(address)) this.#remove(address | 0);
    for (const address of wanted) if (!this.#present.has(address)) this.#add(address | 0);
    this.#present = wanted;
    return refused;
  }

  has(address: number): boolean {
    return this.#find(address | 0) >= 0;
  }

  /** The bucket of a key; below 0 when it is not there. */
  #find(key: number): number {
    if (key === EMPTY || key === REMOVED) return -1;
    let bucket = bucketOf(key);
    for (let probes = 0; probes < BUCKETS; probes++, bucket = (bucket + 1) & BUCKET_MASK) {
      const present = this.#words[bucket];
      if (present === key) return bucket;
      if (present === EMPTY) return -1;
    }
    return -1;
  }

  #add(key: number): void {
    let bucket = bucketOf(key);
    while (this.#words[bucket] !== EMPTY && this.#words[bucket] !== REMOVED) bucket = (bucket + 1) & BUCKET_MASK;
    Atomics.store(this.#words, bucket, key);
  }

  /** Others may lie beyond it, unless nothing does. */
  #remove(key: number): void {
    let bucket = this.#find(key);
    if (bucket < 0) return;
    Atomics.store(this.#words, bucket, REMOVED);
    if (this.#words[(bucket + 1) & BUCKET_MASK] !== EMPTY) return;
    for (; this.#words[bucket] === REMOVED; bucket = (bucket - 1) & BUCKET_MASK) {
      Atomics.store(this.#words, bucket, EMPTY);
    }
  }
}
