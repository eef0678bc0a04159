import { type Diagnosis, diagnose, type Passing, type PathEvidence, type Refusal } from './diagnose.ts';
import { MtuSearch } from './mtu-search.ts';
import type { ProbeTarget } from './ports.ts';
import { type Cadence, PROBE_KINDS, type ProbeKind } from './probe-kind.ts';
import { SMALLEST_PROBE_BYTES } from './probe-packet.ts';
import { ProbeWindow, type Silence } from './probe-window.ts';

/** A probe that is to be sent: its kind, and for an echo its size. `search` looks for the path's MTU. */
export interface DueProbe {
  readonly kind: ProbeKind | 'search';
  readonly totalBytes: number;
  /**
   * Whether a peer is silent, beside the cadence, and so not in the ratio of losses: `watch`, as long as it answers; `confirm`, when
   * an answer of it is missing.
   */
  readonly beside?: 'watch' | 'confirm';
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

/** Probes in a row that are lost before the kind counts as not passing, unless that is confirmed: one or two may be lost by chance. */
const MISSES = 3;
/** The same of `small` where nothing confirms it: a lossy link loses that many, after an answer and before the first. */
const SILENT_MISSES = 8;
const FIRST_MISSES = 5;
/** A peer that probes is heard at least once in so many of its turns. */
const HEARD_MS = 6_000;
/** Of an IP packet, before it is cut and after it is put together. */
const LONGEST_IP_BYTES = 65_535;
/** Below, a ratio of losses says nothing. */
const ENOUGH_RESULTS = 10;
/** After so many answers in a row, what was silent before is history. */
const ENOUGH_ANSWERS = 10;

/** Of so many of the answers, the longest round trip is the usual one. */
const USUAL = 0.9;
/** Longer ago, a probe beside the overlay says nothing about a silence that begins now. */
const RECENT_MS = 500;

interface KindState {
  sentAtMs: number;
  misses: number;
  /** Those of the misses in a row that were {@link COMPARED} with a probe that was answered. */
  comparedMisses: number;
  /** Of those that were answered, when the latest was sent; `undefined`: none was. */
  passedAtMs: number | undefined;
  /** When the first probe was sent that has had no answer since. */
  silentSinceMs: number | undefined;
  /** Confirming probes of this silence, and when the next is due. */
  asked: number;
  askAtMs: number;
}

/** A silence, and how many probes of the kinds that are lost with it were missing when it began. */
interface KnownSilence extends Silence {
  readonly missesBefore: ReadonlyMap<ProbeKind, number>;
}

type ConfirmedKind = 'small' | 'underlay';
/**
 * A probe of the first kind that was lost is followed by one of the second, in another turn: packets of one length may travel as one, and
 * what spoils checksums may look at the first alone. A kernel answers one host's datagrams to closed ports once a second, after six at
 * once (`net.ipv4.icmp_ratelimit`), whoever sends them there. If that is why the first had no answer, the second has none either.
 */
const COMPARED = { udp: 'udp-plain' } as const;
/** The kinds that are lost as well while a path is silent. */
const LOST_WITH_IT: readonly ProbeKind[] = ['full', 'udp', 'udp-plain'];
/** The kinds whose silence is confirmed, the more urgent first. */
export const CONFIRMED: readonly ConfirmedKind[] = ['small', 'underlay'];

/** The way to one peer: what was sent, what came back, what is due next. */
export class ProbePath {
  readonly target: ProbeTarget;
  readonly #cadence: Cadence;
  readonly #kinds = new Map<ProbeKind, KindState>();
  #window = new ProbeWindow();
  /** That of now is the last one. Of those before, the ones whose losses the window still has. */
  #silences: readonly KnownSilence[] = [];
  #answersInRow = 0;
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
      if (cadence.everyMs[kind] === Number.POSITIVE_INFINITY) continue;
      const isBeside = kind === 'underlay' || kind === 'underlay-full';
      if (isBeside && target.underlay === undefined) continue;
      // IPv6 has no datagrams without a checksum (RFC 8200), and so nothing to compare with.
      if ((kind === 'udp' || kind === 'udp-plain') && (target.onlyEcho === true || typeof target.overlay !== 'number'))
        continue;
      const never = { sentAtMs: Number.NEGATIVE_INFINITY, passedAtMs: undefined };
      const silence = { misses: 0, comparedMisses: 0, silentSinceMs: undefined };
      this.#kinds.set(kind, { ...never, ...silence, asked: 0, askAtMs: Number.POSITIVE_INFINITY });
    }
  }

  /** For how long an answer may be awaited before it is missing, in milliseconds; `undefined`: until it is given up. */
  patienceMs(kind: DueProbe['kind']): number | undefined {
    const { confirmation, timeoutMs } = this.#cadence;
    if (confirmation === undefined || (kind !== 'small' && kind !== 'underlay')) return undefined;
    const usualMs = (kind === 'small' ? this.#window : this.#underlayWindow).rttMs(USUAL);
    if (usualMs === undefined) return undefined;
    const patienceMs = Math.max(confirmation.leastPatienceMs, confirmation.roundTrips * usualMs);
    return patienceMs < timeoutMs ? patienceMs : undefined;
  }

  /** When {@link confirming} gives something, if nothing is answered till then; infinite: never. By the clock of the probes. */
  get confirmingAtMs(): number {
    const { askAtMs } = this.#kinds.get('small')!;
    return Number.isFinite(askAtMs) ? askAtMs : (this.#kinds.get('underlay')?.askAtMs ?? askAtMs);
  }

  /** The probe that must not wait for its turn, for it tells whether the peer is silent. */
  confirming(kind: ConfirmedKind, nowMs: number): DueProbe | undefined {
    const state = this.#kinds.get(kind);
    if (state === undefined || nowMs < state.askAtMs) return undefined;
    // The one beside the overlay tells why, and waits until it is known whether.
    if (kind === 'underlay' && Number.isFinite(this.#kinds.get('small')!.askAtMs)) return undefined;
    // One that is only asked because the other kind is silent is the first of its own.
    const isFirst = state.silentSinceMs === undefined;
    return { kind, totalBytes: this.#sizeOf(kind), ...(isFirst ? {} : { beside: 'confirm' }) };
  }

  /** Whether a peer that answers still does, between two of its turns. */
  watching(): DueProbe | undefined {
    const { passedAtMs, silentSinceMs } = this.#kinds.get('small')!;
    if (passedAtMs === undefined || silentSinceMs !== undefined) return undefined;
    return { kind: 'small', totalBytes: this.#sizeOf('small'), beside: 'watch' };
  }

  /** The next probe of the search for what passes: it need not wait for a turn either. */
  searching(): DueProbe | undefined {
    const size = this.#passing('small') === 'yes' && !this.#isSearching ? this.#search?.next : undefined;
    return size === undefined ? undefined : { kind: 'search', totalBytes: size };
  }

  /** The probe that has waited longest for its turn, measured by how often its kind is sent; none when no turn has come. */
  due(nowMs: number): DueProbe | undefined {
    this.#knownSinceMs ??= nowMs;
    if (nowMs - this.#knownSinceMs < this.#cadence.startAfterMs) return undefined;
    const searching = this.searching();
    if (searching !== undefined) return searching;
    const [udp, plain] = [this.#kinds.get('udp'), this.#kinds.get('udp-plain')];
    const isCompared = udp !== undefined && plain !== undefined && udp.misses > 0;
    if (isCompared && plain.sentAtMs < udp.sentAtMs && udp.sentAtMs < nowMs)
      return { kind: 'udp-plain', totalBytes: this.#sizeOf('udp-plain') };
    let best: ProbeKind | undefined;
    let bestTurns = 1;
    // What would be due before half of the time to the next turn has passed is sent now.
    const atMs = nowMs + this.#cadence.togetherMs / 2;
    for (const [kind, { sentAtMs, misses, passedAtMs }] of this.#kinds) {
      if (kind === 'udp-plain' && (isCompared || udp?.sentAtMs === nowMs)) continue;
      if (kind === 'udp' && plain?.sentAtMs === nowMs) continue;
      const { everyMs, againMs, insists } = this.#cadence;
      const isDoubtful = misses > 0 && (passedAtMs !== undefined || insists);
      const turns = (atMs - sentAtMs) / (isDoubtful ? againMs : everyMs)[kind];
      if (turns >= bestTurns && (best === undefined || turns > bestTurns)) [best, bestTurns] = [kind, turns];
    }
    return best && { kind: best, totalBytes: this.#sizeOf(best) };
  }

  sent(probe: DueProbe, atMs: number): void {
    if (probe.kind === 'search') {
      this.#isSearching = true;
      return;
    }
    if (probe.beside === 'watch') return;
    const state = this.#kinds.get(probe.kind)!;
    if (probe.beside === undefined) {
      state.sentAtMs = atMs;
      // It may have been wanted for the silence of the other kind.
      if (state.silentSinceMs === undefined) state.askAtMs = Number.POSITIVE_INFINITY;
      return;
    }
    const { probes, everyMs } = this.#cadence.confirmation!;
    state.asked++;
    state.askAtMs = state.asked < probes ? atMs + everyMs : Number.POSITIVE_INFINITY;
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
    if (probe.kind === 'small') this.#endSilence(atMs - rttMs, atMs);
    state.misses = 0;
    state.comparedMisses = 0;
    state.passedAtMs = atMs - rttMs;
    state.silentSinceMs = undefined;
    state.asked = 0;
    state.askAtMs = Number.POSITIVE_INFINITY;
    if (probe.kind === 'small') {
      const underlay = this.#kinds.get('underlay');
      if (underlay !== undefined && underlay.silentSinceMs === undefined) underlay.askAtMs = Number.POSITIVE_INFINITY;
      if (probe.beside === undefined) {
        this.#window.answered(atMs - rttMs, rttMs);
        this.#answersInRow++;
        this.#forgetSilences();
      }
      if (this.#refusal !== undefined && !isAboutSize(this.#refusal)) this.#refusal = undefined;
    } else if (probe.kind === 'underlay') {
      if (probe.beside === undefined) this.#underlayWindow.answered(atMs - rttMs, rttMs);
    } else if (probe.kind === 'full') {
      this.#pathMtuBytes = probe.totalBytes;
      this.#search = undefined;
      this.#isSearching = false;
      if (this.#refusal !== undefined && isAboutSize(this.#refusal)) this.#refusal = undefined;
    }
  }

  /** Its answer is missing ({@link patienceMs}). It may still come. */
  missing(probe: DueProbe, sentAtMs: number, atMs: number): void {
    this.#measuredAtMs = atMs;
    if (probe.kind !== 'search') this.#miss(probe.kind, sentAtMs, atMs);
  }

  /** Nothing came back in time. @param isMissing as {@link missing} has said. */
  lost(probe: DueProbe, sentAtMs: number, isMissing: boolean, atMs: number): void {
    this.#measuredAtMs = atMs;
    if (probe.kind === 'search') {
      this.#isSearching = false;
      // What is lost while nothing passes says nothing about sizes.
      if (this.#passing('small') === 'yes') this.#search?.failed(probe.totalBytes);
      this.#endSearch();
      return;
    }
    if (!isMissing) this.#miss(probe.kind, sentAtMs, atMs);
    this.#lost(probe, sentAtMs);
  }

  #lost(probe: DueProbe, sentAtMs: number): void {
    if (probe.beside !== undefined) return;
    if (probe.kind === 'small') {
      this.#window.lost(sentAtMs);
      // One of the silence that has just ended is given up only now.
      if (sentAtMs >= (this.#silences.at(-1)?.untilMs ?? 0)) this.#answersInRow = 0;
    } else if (probe.kind === 'underlay') this.#underlayWindow.lost(sentAtMs);
    if (probe.kind === 'full' && this.#passing('full') === 'no') {
      this.#pathMtuBytes = this.#search?.found;
      this.#search ??= new MtuSearch(probe.totalBytes);
    }
  }

  /** The kernel or somebody on the way has refused it. Beside the overlay that counts as a loss alone. */
  refused(probe: DueProbe, refusal: Refusal, mtuBytes: number, atMs: number): void {
    if (probe.kind === 'search') this.lost(probe, atMs, false, atMs);
    else {
      this.#measuredAtMs = atMs;
      // It may pass in a moment, as while a route is made anew: it is not tried again sooner than after a silence.
      this.#miss(probe.kind, atMs, atMs + (this.patienceMs(probe.kind) ?? 0));
      this.#lost(probe, atMs);
    }
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

  /** What the probes show now; cheaper than {@link result}. */
  evidence(nowMs: number): PathEvidence {
    const window = this.#windowThatCounts();
    return {
      passes: Object.fromEntries(PROBE_KINDS.map((kind) => [kind, this.#passing(kind)])) as Record<ProbeKind, Passing>,
      isHeard: this.#isHeard(nowMs),
      refusal: this.#refusal,
      lossRatio: window.size < ENOUGH_RESULTS ? undefined : window.lossRatio,
      pathMtuBytes: this.#pathMtuBytes,
      mtuBytes: this.target.mtuBytes,
    };
  }

  result(nowMs: number): PathResult {
    const [median, p99] = [this.#window.rttMs(0.5), this.#window.rttMs(0.99)];
    const evidence = this.evidence(nowMs);
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
    if (kind === 'fragments') return Math.min(LONGEST_IP_BYTES, 2 * mtuBytes);
    return kind === 'underlay-full' ? underlayMtuBytes : SMALLEST_PROBE_BYTES;
  }

  #passing(kind: ProbeKind): Passing {
    const state = this.#kinds.get(kind);
    if (state === undefined) return 'unknown';
    if (this.#missesThatCount(kind, state) >= this.#missesOfSilence(kind, state)) return 'no';
    return state.passedAtMs === undefined ? 'unknown' : 'yes';
  }

  /** Where nothing that it could be compared with is answered, all. */
  #missesThatCount(kind: ProbeKind, { misses, comparedMisses }: KindState): number {
    return kind === 'udp' && this.#passing(COMPARED.udp) !== 'no' ? comparedMisses : misses;
  }

  #missesOfSilence(kind: ProbeKind, { passedAtMs }: KindState): number {
    const { confirmation } = this.#cadence;
    const isAnswered = passedAtMs !== undefined;
    if (confirmation === undefined) return kind !== 'small' ? MISSES : isAnswered ? SILENT_MISSES : FIRST_MISSES;
    return isAnswered && (kind === 'small' || kind === 'underlay') ? 1 + confirmation.probes : MISSES;
  }

  /** @param askAtMs when it is to be asked again, if that is to be confirmed. */
  #miss(kind: ProbeKind, sentAtMs: number, askAtMs: number): void {
    const state = this.#kinds.get(kind)!;
    state.misses++;
    if (kind === 'udp' && (this.#kinds.get(COMPARED.udp)?.passedAtMs ?? sentAtMs) > sentAtMs) state.comparedMisses++;
    if (state.silentSinceMs !== undefined) {
      if (kind === 'small') this.#beginSilence(state.silentSinceMs);
      return;
    }
    state.silentSinceMs = sentAtMs;
    const { confirmation } = this.#cadence;
    if (confirmation === undefined || state.passedAtMs === undefined || (kind !== 'small' && kind !== 'underlay'))
      return;
    state.askAtMs = askAtMs;
    // Whether the host is there at all is the next question.
    const underlay = this.#kinds.get('underlay');
    if (kind === 'underlay' || underlay?.passedAtMs === undefined || underlay.silentSinceMs !== undefined) return;
    if (askAtMs - underlay.sentAtMs > RECENT_MS) underlay.askAtMs = askAtMs;
  }

  /** Of a path that is confirmed to be silent: what is lost then is not lost at random. */
  #beginSilence(fromMs: number): void {
    const isKnown = this.#silences.at(-1)?.untilMs === Number.POSITIVE_INFINITY;
    if (this.#cadence.confirmation === undefined || isKnown || this.#passing('small') !== 'no') return;
    const missesBefore = new Map(LOST_WITH_IT.map((kind) => [kind, this.#kinds.get(kind)?.misses ?? 0]));
    this.#silences = [...this.#silences, { fromMs, untilMs: Number.POSITIVE_INFINITY, missesBefore }];
  }

  /** Its losses say nothing of the kinds that were lost with it either: those are tried anew. */
  #endSilence(untilMs: number, nowMs: number): void {
    const silence = this.#silences.at(-1);
    if (silence?.untilMs !== Number.POSITIVE_INFINITY) return;
    this.#silences = this.#silences.with(-1, { ...silence, untilMs });
    this.#answersInRow = 0;
    for (const [kind, misses] of silence.missesBefore) {
      const state = this.#kinds.get(kind);
      if (state === undefined || state.misses <= misses) continue;
      state.misses = misses;
      state.comparedMisses = Math.min(state.comparedMisses, misses);
      state.sentAtMs = Math.min(state.sentAtMs, nowMs - this.#cadence.everyMs[kind]);
      if (kind === 'full' && this.#passing('full') !== 'no') this.#search = undefined;
    }
  }

  #forgetSilences(): void {
    if (this.#silences.length === 0) return;
    const isOver = this.#answersInRow >= ENOUGH_ANSWERS;
    if (isOver) this.#window = this.#window.without(this.#silences);
    this.#silences = isOver ? [] : this.#silences.filter(({ untilMs }) => untilMs > this.#window.sinceMs);
  }

  /** One silence is told while it lasts, and is over then. Where one follows the other, their losses are those of the link. */
  #windowThatCounts(): ProbeWindow {
    const [first, ...more] = this.#silences;
    if (first === undefined || more.length > 0 || first.untilMs === Number.POSITIVE_INFINITY) return this.#window;
    return this.#window.without(this.#silences);
  }

  /** Since its answers are missing, if they are: what was heard before may have been sent before it fell silent. */
  #isHeard(nowMs: number): boolean {
    if (this.#heardAtMs === undefined || nowMs - this.#heardAtMs > HEARD_MS) return false;
    const { silentSinceMs } = this.#kinds.get('small')!;
    return silentSinceMs === undefined || this.#heardAtMs > silentSinceMs;
  }

  #endSearch(): void {
    const found = this.#search?.found;
    if (found !== undefined) this.#pathMtuBytes = found;
  }
}

function isAboutSize(refusal: Refusal): boolean {
  return refusal.by === 'kernel' ? refusal.errno === 'too-long' : refusal.reason === 'too-big';
}
