import {
  ICMP_BURST,
  ICMP_PER_SECOND,
  ICMP_RESERVE_BURST,
  ICMP_RESERVE_PER_SECOND,
  ICMP_SOURCE_BURST,
  ICMP_SOURCE_PER_SECOND,
} from './limits.ts';

/** Sources with buckets of their own; more of them share. A power of two. */
const SOURCES = 256;

/** Token buckets in fixed memory: tokens, and when they were filled last. */
class Buckets {
  readonly #tokens: Float64Array;
  readonly #filledAtMs: Float64Array;
  readonly #burst: number;
  readonly #perSecond: number;

  constructor(count: number, burst: number, perSecond: number) {
    this.#tokens = new Float64Array(count).fill(burst);
    this.#filledAtMs = new Float64Array(count);
    this.#burst = burst;
    this.#perSecond = perSecond;
  }

  /** Fills the bucket up to now; whether it has a token. */
  has(index: number, nowMs: number): boolean {
    const earned = ((nowMs - this.#filledAtMs[index]!) / 1000) * this.#perSecond;
    const tokens = Math.min(this.#burst, this.#tokens[index]! + earned);
    this.#tokens[index] = tokens;
    this.#filledAtMs[index] = nowMs;
    return tokens >= 1;
  }

  spend(index: number): void {
    this.#tokens[index]! -= 1;
  }
}

/**
 * How many ICMP errors may leave. Each source of offending packets has a limit of its own, so that one container that provokes
 * them without end does not silence the host for the others; all together have one as well. "Fragmentation needed" has a bucket of
 * its own at each source and a reserve when what all share is used up: without it, TCP through a narrow path hangs, while
 * the other errors only save their receivers a wait.
 *
 * Which sources share a bucket depends on a random seed, so that nobody can choose a victim.
 */
export class IcmpLimits {
  readonly #seed: number;
  readonly #bySource = new Buckets(SOURCES * 2, ICMP_SOURCE_BURST, ICMP_SOURCE_PER_SECOND);
  readonly #shared = new Buckets(1, ICMP_BURST, ICMP_PER_SECOND);
  readonly #reserve = new Buckets(1, ICMP_RESERVE_BURST, ICMP_RESERVE_PER_SECOND);

  /** @param seed 32 random bits. */
  constructor(seed: number) {
    this.#seed = seed;
  }

  /** With a seed that nobody knows. */
  static create(): IcmpLimits {
    return new IcmpLimits((Math.random() * 2 ** 32) | 0);
  }

  /** Takes what one error costs; false when it must not be sent. @param nowMs monotonic. */
  take(source: number, isFragmentationNeeded: boolean, nowMs: number): boolean {
    const mixed = Math.imul(source ^ this.#seed, 0x9e3779b1);
    const index = (((mixed ^ (mixed >>> 15)) >>> 4) & (SOURCES - 1)) * 2 + (isFragmentationNeeded ? 1 : 0);
    if (!this.#bySource.has(index, nowMs)) return false;
    let common = this.#shared;
    if (!common.has(0, nowMs)) {
      common = this.#reserve;
      if (!isFragmentationNeeded || !common.has(0, nowMs)) return false;
    }
    this.#bySource.spend(index);
    common.spend(0);
    return true;
  }
}
