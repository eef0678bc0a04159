/** What must hold in a soak, from figures that were read of agents and hosts. Pure. */
import { summarise } from './stats.ts';

/** One agent at one moment. */
export interface AgentSample {
  readonly pid: number;
  readonly ageMs: number;
  /** Whether its fast path is open, which has descriptors. */
  readonly isFast: boolean;
  readonly rssMiB: number;
  readonly anonymousMiB: number;
  readonly descriptors: number;
  readonly threads: number;
}

/** All hosts together, at one moment. */
export interface HostsSample {
  /** How many of them have a fast path. */
  readonly fast: number;
  readonly processes: number;
  /** Files below the bpffs: programs, maps and links that are kept. */
  readonly pinned: number;
  readonly mapKeys: number;
}

/** Warming up: caches, rings and heaps that are filled once. */
const WARM_SHARE = 0.2;
/** Less is no sequence that grows. */
const FEWEST_SAMPLES = 3;

type Limits<T> = readonly (readonly [name: keyof T & string, mayGrow: number])[];

/** The middle of each figure in the first and in the last third, after the warm-up; `undefined` for too few samples. */
export function thirds<T, N extends keyof T & string>(
  samples: readonly T[],
  names: readonly N[],
): { readonly early: Record<N, number>; readonly late: Record<N, number> } | undefined {
  if (samples.length < FEWEST_SAMPLES) return undefined;
  const warm = samples.slice(Math.floor(samples.length * WARM_SHARE));
  const third = Math.max(1, Math.floor(warm.length / 3));
  const typical = (some: readonly T[]): Record<N, number> =>
    Object.fromEntries(names.map((name) => [name, summarise(some.map((one) => Number(one[name]))).median])) as Record<
      N,
      number
    >;
  return { early: typical(warm.slice(0, third)), late: typical(warm.slice(-third)) };
}

function grown<T>(who: string, samples: readonly T[], limits: Limits<T>): string[] {
  const found = thirds(
    samples,
    limits.map(([name]) => name),
  );
  if (found === undefined) return [];
  const { early, late } = found;
  return limits.flatMap(([name, mayGrow]) =>
    late[name] > early[name] + mayGrow
      ? `${who}: ${name} grew from ${early[name].toFixed(1)} to ${late[name].toFixed(1)}`
      : [],
  );
}

/** An agent younger than that still fills its heap, by more than an old one may grow. */
const YOUNG_MS = 60_000;
/** Garbage that is not collected yet. */
const OLD_MAY_GROW_MIB = 12;
const YOUNG_MAY_GROW_MIB = 40;
const DESCRIPTORS_MAY_GROW = 2;

/** What has grown in the life of one agent, among samples with the fast path and among those without it. */
export function agentGrowth(samples: readonly AgentSample[]): string[] {
  const who = `agent ${samples[0]?.pid}`;
  const old = samples.filter(({ ageMs }) => ageMs >= YOUNG_MS);
  return [
    ...grown(who, old, [['anonymousMiB', OLD_MAY_GROW_MIB]]),
    ...grown(who, samples, [['anonymousMiB', YOUNG_MAY_GROW_MIB]]),
    ...[true, false].flatMap((isFast) =>
      grown(
        who,
        samples.filter((sample) => sample.isFast === isFast),
        [
          ['descriptors', DESCRIPTORS_MAY_GROW],
          ['threads', 0],
        ],
      ),
    ),
  ];
}

/** What has grown on the hosts, among samples in which as many of them have a fast path. */
export function hostsGrowth(samples: readonly HostsSample[]): string[] {
  const states = new Set(samples.map(({ fast }) => fast));
  return [...states].flatMap((state) =>
    grown(
      `hosts, ${state} with a fast path`,
      samples.filter(({ fast }) => fast === state),
      [
        ['processes', 1],
        ['pinned', 0],
        // Each host may be about to ask the other for a sign.
        ['mapKeys', state],
      ],
    ),
  );
}

/** By name with labels, what an agent's /metrics has of its counters; gauges are left out. */
export type Counters = ReadonlyMap<string, number>;

export function countersOf(metrics: string): Counters {
  const isCounter = new Set([...metrics.matchAll(/^# TYPE (\S+) counter$/gm)].map(([, name]) => name));
  const series = [...metrics.matchAll(/^(([a-zA-Z_:][\w:]*)(?:\{.*\})?) (\S+)$/gm)];
  return new Map(
    series.flatMap(([, key, name, value]) => (isCounter.has(name) ? [[key!, Number(value)] as const] : [])),
  );
}

/** Counters of one agent that have gone back or away since. */
export function goneBack(before: Counters, after: Counters): string[] {
  return [...before].flatMap(([key, value]) => {
    const now = after.get(key);
    return now === undefined || now < value ? `${key} went from ${value} to ${now ?? 'nothing'}` : [];
  });
}

/** Packets of a host since some moment, as its agent and its programs have counted them. */
export interface Packets {
  /** By the fast path, out and in. */
  readonly fastTx: number;
  readonly fastRx: number;
  /** By either way, both directions. */
  readonly all: number;
}

/** Why packets between two moments did not take the fast path; `undefined` when they did. @param share of all packets, at least. */
export function notByFastPath(before: Packets, after: Packets, share: number): string | undefined {
  const [tx, rx, all] = [after.fastTx - before.fastTx, after.fastRx - before.fastRx, after.all - before.all];
  const isTaken = tx > 0 && rx > 0 && tx + rx >= share * all;
  return isTaken ? undefined : `of ${all} packets the fast path has sent ${tx} and received ${rx}`;
}

/** Maps that have more keys than a host of that many peers needs: one a peer, and one for nobody or itself. */
export function tooManyKeys(keys: Readonly<Record<string, number>>, peers: number): string[] {
  return Object.entries(keys).flatMap(([name, count]) =>
    count > peers + 1 ? `the map ${name} has ${count} keys` : [],
  );
}
