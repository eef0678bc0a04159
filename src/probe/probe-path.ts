import { type Diagnosis, diagnose, type Passing, type PathEvidence, type Refusal } from './diagnose.ts';
import { MtuSearch } from './mtu-search.ts';
import type { ProbeTarget } from './ports.ts';
import { type Cadence, PROBE_KINDS, type ProbeKind } from './probe-kind.ts';
import { SMALLEST_PROBE_BYTES } from './probe-packet.ts';
import { ProbeWindow } from './probe-window.ts';

/** A probe that is to be sent: its kind, and for an echo its size. `search` looks for the path's MTU. */
export interface DueProbe {
  readonly kind: ProbeKind | 'search';
  readonly totalBytes: number;
}

/** What the probes of one peer have found out. */
export interface PathResult extends PathEvidence {
  readonly id: string;
  /** Those that can be sent to this peer. */
  readonly kinds: readonly ProbeKind[];
  /** Through the overlay, of the latest half minute: median and 99th percentile. */
  readonly rttMs: { readonly median: number; readonly p99: number } | undefined;
  readonly underlayRttMs: number | undefined;
  /** When a probe last had an answer, or was given up; `undefined`: none yet. By the clock of the probes. */
  readonly measuredAtMs: number | undefined;
  /** By the clock of the probes; `undefined`: never. */
  readonly lastAnswerAtMs: number | undefined;
  readonly diagnosis: Diagnosis | undefined;
}

/** Probes in a row that are lost before the kind counts as not passing: one or two may be lost by chance. */
const MISSES: Readonly<Record<ProbeKind, number>> = {
  small: 3,
  underlay: 3,
  full: 3,
  'underlay-full': 3,
  udp: 3,
  'udp-plain': 3,
};
/** A peer that probes is heard at least once in so many of its turns. */
const HEARD_MS = 6_000;
/** Below, a ratio of losses says nothing. */
const ENOUGH_RESULTS = 10;

interface KindState {
  sentAtMs: number;
  misses: number;
  answered: boolean;
}

/** The way to one peer: what was sent, what came back, what is due next. */
export class ProbePath {
  readonly target: ProbeTarget;
  readonly #cadence: Cadence;
  readonly #kinds = new Map<ProbeKind, KindState>();
  readonly #window = new ProbeWindow();
  readonly #underlayWindow = new ProbeWindow();
  #knownSinceMs: number | undefined;
  #search: MtuSearch | undefined;
  #isSearching = false;
  #pathMtuBytes: number | undefined;
  #heardAtMs: number | undefined;
  #lastAnswerAtMs: number | undefined;
  #refusal: Refusal | undefined;
  #measuredAtMs: number | undefined;

  constructor(target: ProbeTarget, cadence: Cadence) {
    this.target = target;
    this.#cadence = cadence;
    for (const kind of PROBE_KINDS) {
      const isBeside = kind === 'underlay' || kind === 'underlay-full';
      if (isBeside && target.underlay === undefined) continue;
      // IPv6 has no datagrams without a checksum (RFC 8200), and so nothing to compare with.
      if ((kind === 'udp' || kind === 'udp-plain') && (target.onlyEcho === true || typeof target.overlay !== 'number'))
        continue;
      this.#kinds.set(kind, { sentAtMs: Number.NEGATIVE_INFINITY, misses: 0, answered: false });
    }
  }

  /** The probe that has waited longest for its turn, measured by how often its kind is sent; none when no turn has come. */
  due(nowMs: number): DueProbe | undefined {
    this.#knownSinceMs ??= nowMs;
    if (nowMs - this.#knownSinceMs < this.#cadence.startAfterMs) return undefined;
    const size = this.#passing('small') === 'yes' && !this.#isSearching ? this.#search?.next : undefined;
    if (size !== undefined) return { kind: 'search', totalBytes: size };
    let best: ProbeKind | undefined;
    let bestTurns = 1;
    for (const [kind, { sentAtMs, misses, answered }] of this.#kinds) {
      const { everyMs, againMs, insists } = this.#cadence;
      const isDoubtful = misses > 0 && (answered || insists);
      const turns = (nowMs - sentAtMs) / (isDoubtful ? againMs : everyMs)[kind];
      if (turns >= bestTurns && (best === undefined || turns > bestTurns)) [best, bestTurns] = [kind, turns];
    }
    return best && { kind: best, totalBytes: this.#sizeOf(best) };
  }

  sent(probe: DueProbe, atMs: number): void {
    if (probe.kind === 'search') this.#isSearching = true;
    else this.#kinds.get(probe.kind)!.sentAtMs = atMs;
  }

  answered(probe: DueProbe, rttMs: number, atMs: number): void {
    this.#measuredAtMs = atMs;
    if (probe.kind !== 'underlay' && probe.kind !== 'underlay-full') this.#lastAnswerAtMs = atMs;
    if (probe.kind === 'search') {
      this.#isSearching = false;
      this.#search?.passed(probe.totalBytes);
      this.#endSearch();
      return;
    }
    const state = this.#kinds.get(probe.kind)!;
    state.misses = 0;
    state.answered = true;
    if (probe.kind === 'small') {
      this.#window.answered(rttMs);
      if (this.#refusal !== undefined && !isAboutSize(this.#refusal)) this.#refusal = undefined;
    } else if (probe.kind === 'underlay') this.#underlayWindow.answered(rttMs);
    else if (probe.kind === 'full') {
      this.#pathMtuBytes = probe.totalBytes;
      this.#search = undefined;
      this.#isSearching = false;
      if (this.#refusal !== undefined && isAboutSize(this.#refusal)) this.#refusal = undefined;
    }
  }

  /** Nothing came back in time. */
  lost(probe: DueProbe, atMs: number): void {
    this.#measuredAtMs = atMs;
    if (probe.kind === 'search') {
      this.#isSearching = false;
      // What is lost while nothing passes says nothing about sizes.
      if (this.#passing('small') === 'yes') this.#search?.failed(probe.totalBytes);
      this.#endSearch();
      return;
    }
    const state = this.#kinds.get(probe.kind)!;
    state.misses++;
    if (probe.kind === 'small') this.#window.lost();
    else if (probe.kind === 'underlay') this.#underlayWindow.lost();
    if (probe.kind === 'full' && this.#passing('full') === 'no') {
      this.#pathMtuBytes = this.#search?.found;
      this.#search ??= new MtuSearch(probe.totalBytes);
    }
  }

  /** The kernel or somebody on the way has refused it. Beside the overlay that counts as a loss alone. */
  refused(probe: DueProbe, refusal: Refusal, mtuBytes: number, atMs: number): void {
    this.lost(probe, atMs);
    if (probe.kind === 'underlay' || probe.kind === 'underlay-full') return;
    this.#refusal = refusal;
    if (mtuBytes > 0 && isAboutSize(refusal)) {
      this.#search ??= new MtuSearch(this.target.mtuBytes);
      this.#search.told(mtuBytes);
    }
  }

  /** A probe of the peer has arrived here. */
  heard(atMs: number): void {
    this.#heardAtMs = atMs;
  }

  result(nowMs: number): PathResult {
    const [median, p99] = [this.#window.rttMs(0.5), this.#window.rttMs(0.99)];
    const evidence: PathEvidence = {
      passes: Object.fromEntries(PROBE_KINDS.map((kind) => [kind, this.#passing(kind)])) as Record<ProbeKind, Passing>,
      isHeard: this.#heardAtMs !== undefined && nowMs - this.#heardAtMs <= HEARD_MS,
      refusal: this.#refusal,
      lossRatio: this.#window.size < ENOUGH_RESULTS ? undefined : this.#window.lossRatio,
      pathMtuBytes: this.#pathMtuBytes,
      mtuBytes: this.target.mtuBytes,
    };
    return {
      ...evidence,
      id: this.target.id,
      kinds: [...this.#kinds.keys()],
      rttMs: median === undefined || p99 === undefined ? undefined : { median, p99 },
      underlayRttMs: this.#underlayWindow.rttMs(0.5),
      measuredAtMs: this.#measuredAtMs,
      lastAnswerAtMs: this.#lastAnswerAtMs,
      diagnosis: diagnose(evidence),
    };
  }

  #sizeOf(kind: ProbeKind): number {
    const { mtuBytes, underlayMtuBytes } = this.target;
    if (kind === 'full') return mtuBytes;
    return kind === 'underlay-full' ? underlayMtuBytes : SMALLEST_PROBE_BYTES;
  }

  #passing(kind: ProbeKind): Passing {
    const state = this.#kinds.get(kind);
    if (state === undefined) return 'unknown';
    if (state.misses >= MISSES[kind]) return 'no';
    return state.answered ? 'yes' : 'unknown';
  }

  #endSearch(): void {
    const found = this.#search?.found;
    if (found !== undefined) this.#pathMtuBytes = found;
  }
}

function isAboutSize(refusal: Refusal): boolean {
  return refusal.by === 'kernel' ? refusal.errno === 'too-long' : refusal.reason === 'too-big';
}
