import { TokenBucket } from '../token-bucket.ts';
import { type Diagnosis, diagnose, isOver, type PathEvidence, type PathFault } from './diagnose.ts';
import type { ProbeTarget } from './ports.ts';

/** The way to a peer has another fault than before, or none any more. */
export interface FaultChange {
  readonly target: ProbeTarget;
  /** `undefined`: nothing is wrong any more, or nobody looks any more. */
  readonly diagnosis: Diagnosis | undefined;
  /** What was told before; `undefined`: nothing was wrong. */
  readonly before: PathFault | undefined;
  /** Since the first fault was told, in milliseconds; 0 when this is the first. */
  readonly lastedMs: number;
  /** Whether the peer is still probed. */
  readonly isProbed: boolean;
  /** It changes so often that what comes next is told seldom. */
  readonly isOften: boolean;
}

/** Changes of one peer that are told as they come, and after how long one more is. */
const PEER_BURST = 10;
const PEER_REFILL_MS = 60_000;
/** The same of all peers together: two of each that is watched, in both families. */
const BURST = 256;
const REFILL_MS = 10_000;

interface Told {
  readonly target: ProbeTarget;
  readonly bucket: TokenBucket;
  /** What is known to be wrong, as it was told … */
  fault: PathFault | undefined;
  /** … and as it was seen last. */
  seen: PathFault | undefined;
  sinceMs: number;
}

/**
 * Tells when the way to a peer breaks, and when it is well again: each change once, however often it is looked at, and not more
 * changes than anybody can read. What was too much is told later, as it is then; that there is something is hinted at once.
 */
export class FaultLog {
  readonly #tell: (change: FaultChange) => void;
  readonly #hint: () => void;
  readonly #told = new Map<string, Told>();
  readonly #bucket = new TokenBucket(BURST, REFILL_MS);

  /**
   * @param tell must not throw.
   * @param hint that something has changed that is not told now; must not throw.
   */
  constructor(tell: (change: FaultChange) => void, hint: () => void = () => {}) {
    this.#tell = tell;
    this.#hint = hint;
  }

  /** Of a way that something was learnt of. @param nowMs of a clock that goes on. */
  look(target: ProbeTarget, evidence: PathEvidence, nowMs: number): void {
    const known = this.#told.get(target.id);
    const diagnosis = diagnose(evidence);
    const fault = diagnosis?.fault;
    if (known === undefined && fault === undefined) return;
    const told = known ?? this.#add(target, nowMs);
    const isNew = fault !== told.seen;
    told.seen = fault;
    if (!this.#lookAt(told, diagnosis, evidence, nowMs) && isNew) this.#hint();
  }

  /** @returns whether something was told. */
  #lookAt(told: Told, diagnosis: Diagnosis | undefined, evidence: PathEvidence, nowMs: number): boolean {
    const fault = diagnosis?.fault;
    if (fault === told.fault) {
      // Nothing is wrong, and nothing was lately.
      if (fault === undefined && told.bucket.isFull(nowMs)) this.#told.delete(told.target.id);
      return false;
    }
    if (told.fault !== undefined && fault === undefined && !isOver(told.fault, evidence)) return false;
    if (!told.bucket.has(nowMs) || !this.#bucket.take(nowMs)) return false;
    told.bucket.take(nowMs);
    this.#change(told, diagnosis, true, nowMs);
    return true;
  }

  /** A peer that is not probed any more. */
  gone(id: string, nowMs: number): void {
    const told = this.#told.get(id);
    this.#told.delete(id);
    if (told?.fault !== undefined) this.#change(told, undefined, false, nowMs);
  }

  #add(target: ProbeTarget, nowMs: number): Told {
    const bucket = new TokenBucket(PEER_BURST, PEER_REFILL_MS);
    const told = { target, bucket, fault: undefined, seen: undefined, sinceMs: nowMs };
    this.#told.set(target.id, told);
    return told;
  }

  #change(told: Told, diagnosis: Diagnosis | undefined, isProbed: boolean, nowMs: number): void {
    const { target, fault: before, bucket } = told;
    if (before === undefined) told.sinceMs = nowMs;
    told.fault = diagnosis?.fault;
    const lastedMs = nowMs - told.sinceMs;
    this.#tell({ target, diagnosis, before, lastedMs, isProbed, isOften: !bucket.has(nowMs) });
  }
}
