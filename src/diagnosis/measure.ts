import { setTimeout as sleep } from 'node:timers/promises';
import type { ProbeIo, ProbeTarget } from '../probe/ports.ts';
import { ON_DEMAND } from '../probe/probe-kind.ts';
import type { PathResult } from '../probe/probe-path.ts';
import { Prober, type ProberOptions } from '../probe/prober.ts';

const TURN_MS = 20;
/** A command, not a load test. */
const PER_TURN = 8;
const PER_SECOND = 400;
/** What is not known by then is left open. */
const LONGEST_MS = 8_000;
/** A peer that probes is heard within that time, if its packets come through: so few probe each other once a second. */
const HEARING_MS = 2_000;
const FEW = 5;
const HEARING_AMONG_MANY_MS = 3_000;
/** More peers need longer, for {@link PER_TURN} holds for all of them together. */
const PER_PEER_MS = 120;

export interface MeasureParts {
  readonly io: ProbeIo;
  readonly describeErrno: ProberOptions['describeErrno'];
  readonly targets: readonly ProbeTarget[];
  /** Whether probes of the peers come to where these are sent from; they come to hosts, and not to containers. */
  readonly hears: boolean;
  /** Told after each turn how many of the targets are settled. */
  readonly onProgress?: (settled: number) => void;
}

/** Probes all targets until each is known, or as well as it can be. The results are in the order of the targets. */
export async function measure(
  { io, describeErrno, targets, hears, onProgress }: MeasureParts,
  signal: AbortSignal,
): Promise<readonly PathResult[]> {
  const limits = { perTurn: PER_TURN, perSecond: PER_SECOND, watched: targets.length + 1 };
  const prober = new Prober({ io, describeErrno, cadence: ON_DEMAND, ...limits });
  for (const target of targets) prober.set(target.id, target);
  const hearingMs = !hears ? 0 : targets.length <= FEW ? HEARING_MS : HEARING_AMONG_MANY_MS;
  const startedAtMs = performance.now();
  const endsAtMs = startedAtMs + Math.max(LONGEST_MS, targets.length * PER_PEER_MS);
  for (;;) {
    const nowMs = performance.now();
    prober.turn(nowMs);
    const results = prober.results(nowMs);
    const settled = results.filter((result) => isSettled(result, nowMs - startedAtMs >= hearingMs)).length;
    onProgress?.(settled);
    if (settled === targets.length || nowMs >= endsAtMs) break;
    await sleep(TURN_MS, undefined, { signal });
  }
  const nowMs = performance.now();
  return targets.flatMap(({ id }) => prober.result(id, nowMs) ?? []);
}

/** Whether more probes would tell no more. */
function isSettled({ passes, kinds, isHeard, lossRatio, pathMtuBytes }: PathResult, wouldBeHeard: boolean): boolean {
  if (passes.small === 'unknown') return false;
  // What fails through the overlay is only told from the rest by what passes beside it.
  if (passes.small === 'no')
    return (!kinds.includes('underlay') || passes.underlay !== 'unknown') && (isHeard || wouldBeHeard);
  if (lossRatio === undefined) return false;
  const open = kinds.filter((kind) => passes[kind] === 'unknown');
  return open.length === 0 && pathMtuBytes !== undefined;
}
