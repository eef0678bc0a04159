/**
 * `make bench`: the same two containers over direct routing, kernel VXLAN, weft's backends, a one-packet loop and wireguard-go. In
 * each round every path is measured once, each round starts with another path, and ratios are those of one round, so that a
 * noisy machine is noisy for all. Options: --quick (about two minutes), --json, --write (README, docs/PERFORMANCE.md and docs/bench.svg),
 * --underlay NAME (measures that one alone; with --write the others keep their figures, which bench/figures.json has), --repeat N,
 * --seconds N, --render (measures nothing, and writes the documents again from bench/figures.json).
 */
import { readFile, writeFile } from 'node:fs/promises';
import { parseArgs } from 'node:util';
import { untilStopped } from '../src/cmd/stop-signal.ts';
import { describeError } from '../src/errors.ts';
import { writeBetween } from './document.ts';
import { describeMachine } from './machine.ts';
import { createManyPeers } from './many-peers.ts';
import { connections, createRig, type Rig, roundTrips, tcp, udp64 } from './measure.ts';
import { type BenchUnderlay, createPath, PATH_TITLES, PATHS, type PathName } from './paths.ts';
import {
  describeRatio,
  type Figures,
  type Metric,
  overview,
  plot,
  type Ratio,
  ratioOf,
  ratios,
  ratioTable,
  roundsNote,
  table,
  UNITS,
} from './report.ts';
import { summarise } from './stats.ts';
import { targetList } from './targets.ts';

interface Job {
  readonly title: string;
  readonly paths: readonly PathName[];
  readonly underlays: readonly BenchUnderlay[];
  readonly repeat: number;
  /** Before the first round on an underlay. */
  readonly prepare?: (rigs: ReadonlyMap<PathName, Rig>, signal: AbortSignal) => Promise<void>;
  readonly measure: (rig: Rig, signal: AbortSignal) => Promise<Partial<Record<Metric, number>>>;
}

function tcpJob(
  streams: 1 | 4,
  reverse: boolean,
  seconds: number,
  rest: Pick<Job, 'paths' | 'underlays' | 'repeat'>,
): Job {
  const metric = `tcp${streams}${reverse ? 'Reverse' : ''}` as Metric;
  return {
    ...rest,
    title: `TCP ${streams}${reverse ? ' reverse' : ''}`,
    measure: async (rig, signal) => {
      const result = await tcp(rig, streams, reverse, seconds, signal);
      if (metric !== 'tcp1') return { [metric]: result.gbps };
      return { tcp1: result.gbps, cpuPerGB: result.forwarderCpuPerGb, machineCpuPerGB: result.machineCpuPerGb };
    },
  };
}

function udpJob(seconds: number, rest: Pick<Job, 'paths' | 'underlays' | 'repeat'>): Job {
  return {
    ...rest,
    title: 'UDP 64 B',
    measure: async (rig, signal) => ({ udp64: (await udp64(rig, seconds, undefined, signal)).receivedKpps }),
  };
}

/** What a path loses at a rate that kernel VXLAN can just, or easily, carry. */
function lossJob(seconds: number, rest: Pick<Job, 'paths' | 'underlays' | 'repeat'>): Job {
  let vxlanKpps = 0;
  return {
    ...rest,
    title: 'UDP 64 B, losses',
    prepare: async (rigs, signal) => {
      const rates: number[] = [];
      for (let round = 0; round < 3; round++) {
        rates.push((await udp64(rigs.get('vxlan')!, seconds, undefined, signal)).receivedKpps);
      }
      vxlanKpps = summarise(rates).median;
    },
    measure: async (rig, signal) => {
      const lost = async (part: number): Promise<number> => (await udp64(rig, seconds, part * vxlanKpps, signal)).lost;
      return { lost50: await lost(0.5), lost80: await lost(0.8), lost100: await lost(1) };
    },
  };
}

function rttJob(seconds: number, rest: Pick<Job, 'paths' | 'underlays' | 'repeat'>): Job {
  return {
    ...rest,
    title: 'round trip',
    measure: async (rig, signal) => {
      const { p50, p99 } = await roundTrips(rig, seconds, undefined, signal);
      return { rttP50: p50, rttP99: p99 };
    },
  };
}

const LOAD_PACKETS_PER_SECOND = 20_000;

function loadJob(seconds: number, rest: Pick<Job, 'paths' | 'underlays' | 'repeat'>): Job {
  return {
    ...rest,
    title: 'round trip under load',
    measure: async (rig, signal) => {
      const { p50, p99, p999 } = await roundTrips(rig, seconds, LOAD_PACKETS_PER_SECOND, signal);
      return { loadP50: p50, loadP99: p99, loadP999: p999 };
    },
  };
}

const MANY_FLOWS = 64;

function connectionsJob(seconds: number, rest: Pick<Job, 'paths' | 'underlays' | 'repeat'>): Job {
  return {
    ...rest,
    title: 'short connections',
    measure: async (rig, signal) => ({
      crr1: await connections(rig, 1, seconds, signal),
      crr64: await connections(rig, MANY_FLOWS, seconds, signal),
    }),
  };
}

const UNDERLAYS: readonly BenchUnderlay[] = ['native', 'wire', 'xdp', 'switch', 'switchXdp'];

/** Enough for the ratios that matter, in about two minutes. */
function quickJobs(): Job[] {
  const paths = ['vxlan', 'weft', 'loop'] as const;
  const bulk = { paths, underlays: UNDERLAYS, repeat: 3 };
  const small = { paths, underlays: ['native'] as const, repeat: 3 };
  return [tcpJob(1, false, 1.1, bulk), udpJob(1, small), rttJob(1, small), connectionsJob(1, small)];
}

function fullJobs(repeat: number, seconds: number): Job[] {
  const all = { paths: PATHS, underlays: UNDERLAYS, repeat };
  // What a switch does to large packets is nothing to small ones.
  const small = { ...all, underlays: ['native', 'wire', 'xdp'] as const };
  return [
    tcpJob(1, false, seconds, all),
    tcpJob(1, true, seconds, all),
    tcpJob(4, false, seconds, all),
    tcpJob(4, true, seconds, all),
    udpJob(seconds, small),
    lossJob(seconds, small),
    rttJob(seconds, small),
    loadJob(seconds, small),
    connectionsJob(seconds, small),
  ];
}

/** The paths in the order of a round: each starts with the next one, so that none is always measured after the same other. */
function rotated<T>(list: readonly T[], round: number): T[] {
  const first = round % list.length;
  return [...list.slice(first), ...list.slice(0, first)];
}

async function measureAll(
  jobs: readonly Job[],
  underlays: readonly BenchUnderlay[],
  signal: AbortSignal,
): Promise<Figures> {
  const runs = new Map<string, number[]>();
  const progress = (text: string): void => void process.stderr.write(`${text}\n`);
  for (const underlay of underlays) {
    const names = PATHS.filter((path) =>
      jobs.some((job) => job.paths.includes(path) && job.underlays.includes(underlay)),
    );
    await using stack = new AsyncDisposableStack();
    const rigs = new Map<PathName, Rig>();
    for (const name of names) {
      progress(`${underlay}: setting up ${PATH_TITLES[name]}`);
      const path = stack.use(await createPath(name, underlay, signal));
      rigs.set(name, stack.use(await createRig(path)));
    }
    for (const job of jobs.filter((candidate) => candidate.underlays.includes(underlay))) {
      await job.prepare?.(rigs, signal);
      for (let round = 0; round < job.repeat; round++) {
        for (const name of rotated(job.paths, round)) {
          const rig = rigs.get(name)!;
          const values = await job.measure(rig, signal);
          rig.path.assertWay();
          for (const [metric, value] of Object.entries(values)) {
            const key = `${underlay} ${name} ${metric}`;
            runs.set(key, [...(runs.get(key) ?? []), value]);
          }
          progress(`${underlay}: ${job.title}, ${PATH_TITLES[name]}: ${JSON.stringify(values)}`);
        }
      }
    }
  }
  const figures: Record<string, Record<string, Record<string, unknown>>> = {};
  for (const [key, values] of runs) {
    const [underlay = '', path = '', metric = ''] = key.split(' ');
    ((figures[underlay] ??= {})[path] ??= {})[metric] = summarise(values);
  }
  return figures as Figures;
}

const FEW_PEERS = 3;
const MANY_PEERS = 5_000;

/** Whether the cost of a packet grows with the number of peers: thousand packets a second to random destinations. */
async function measurePeerCounts(repeat: number, seconds: number, signal: AbortSignal): Promise<Ratio> {
  await using few = await createManyPeers(FEW_PEERS, signal);
  await using many = await createManyPeers(MANY_PEERS, signal);
  const runs = { few: [] as number[], many: [] as number[] };
  for (let round = 0; round < repeat; round++) {
    runs.few.push(await few.kpps(seconds, signal));
    runs.many.push(await many.kpps(seconds, signal));
  }
  return ratioOf(summarise(runs.many), summarise(runs.few))!;
}

/** What the documents show of an underlay: all of it from one run. */
interface Measured {
  readonly machine: string;
  readonly figures: NonNullable<Figures[BenchUnderlay]>;
}
const MEASURED = new URL('figures.json', import.meta.url);
const DIGITS = 4;

type AllMeasured = Partial<Record<BenchUnderlay, Measured>>;

async function allMeasured(): Promise<AllMeasured> {
  return JSON.parse(await readFile(MEASURED, 'utf8')) as AllMeasured;
}

/** Keeps what was measured now, with what there is of the other underlays. */
async function keep(figures: Figures, machine: string): Promise<void> {
  const measured = await allMeasured();
  for (const underlay of UNDERLAYS) {
    const own = figures[underlay];
    if (own !== undefined) measured[underlay] = { machine, figures: own };
  }
  const rounded = (_key: string, value: unknown): unknown =>
    typeof value === 'number' ? Number(value.toPrecision(DIGITS)) : value;
  await writeFile(MEASURED, `${JSON.stringify(measured, rounded)}\n`);
}

/** From what is kept. */
async function writeDocuments(): Promise<void> {
  const measured = await allMeasured();
  const known = UNDERLAYS.filter((underlay) => measured[underlay] !== undefined);
  const all: Figures = Object.fromEntries(known.map((underlay) => [underlay, measured[underlay]!.figures]));
  const machines = [...new Set(known.map((underlay) => measured[underlay]!.machine))];
  const source = `Measured by \`make bench ARGS=--write\`: ${machines.join('; ')}.`;
  await writeBetween('README.md', 'overview', overview(all));
  await writeBetween('docs/PERFORMANCE.md', 'bench', `${table(all)}\n\n![TCP throughput](bench.svg)\n\n${source}`);
  await writeBetween('docs/PERFORMANCE.md', 'ratios', `${ratioTable(all)}\n\n${targetList(all)}`);
  await writeFile(new URL('../docs/bench.svg', import.meta.url), plot(all));
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      quick: { type: 'boolean', default: false },
      json: { type: 'boolean', default: false },
      write: { type: 'boolean', default: false },
      render: { type: 'boolean', default: false },
      underlay: { type: 'string', multiple: true, default: [...UNDERLAYS] },
      repeat: { type: 'string', default: '7' },
      seconds: { type: 'string', default: '1' },
    },
  });
  if (values.render) return await writeDocuments();
  const [repeat, seconds] = [Number(values.repeat), Number(values.seconds)];
  if (!(Number.isInteger(repeat) && repeat > 0 && seconds > 0))
    throw new RangeError('--repeat and --seconds must be above 0');
  const underlays = values.underlay.map((name) => {
    const underlay = UNDERLAYS.find((known) => known === name);
    if (underlay === undefined) throw new RangeError(`--underlay ${name}: known are ${UNDERLAYS.join(', ')}`);
    return underlay;
  });
  // Other paths and fewer rounds than those of the documents.
  if (values.quick && values.write) throw new RangeError('--write needs a full run, without --quick');
  using stopped = untilStopped();
  const jobs = values.quick ? quickJobs() : fullJobs(repeat, seconds);
  const figures = await measureAll(jobs, underlays, stopped.signal);
  const machine = describeMachine();
  if (values.write) {
    await keep(figures, machine);
    await writeDocuments();
  }
  const all = ratios(figures);
  if (!values.quick && underlays.includes('native'))
    all['native.peers5000.vs3'] = await measurePeerCounts(repeat, seconds, stopped.signal);
  const result = {
    machine,
    units: UNITS,
    figures,
    ratios: all,
  };
  if (values.json) process.stdout.write(`${JSON.stringify(result, undefined, 2)}\n`);
  else {
    const lines = Object.entries(all).map(([key, ratio]) => `${key.padEnd(36)} ${describeRatio(ratio)}`);
    process.stdout.write(
      `${table(figures)}\n\nweft divided by the other in the same round, median (range):\n${lines.join('\n')}\n\n` +
        `${roundsNote(all)}${machine}\n`,
    );
  }
}

try {
  await main();
} catch (error) {
  process.stderr.write(`bench: ${describeError(error)}\n`);
  process.exitCode = 1;
}
