/**
 * `make bench`: the same two containers over direct routing, kernel VXLAN, weft, a one-packet loop and wireguard-go, runs
 * interleaved, so that a noisy machine is noisy for all. Options: --quick (under a minute), --json, --write (README,
 * docs/PERFORMANCE.md and docs/bench.svg), --repeat N, --seconds N.
 */
import { writeFile } from 'node:fs/promises';
import { cpus, release } from 'node:os';
import { parseArgs } from 'node:util';
import { untilStopped } from '../src/cmd/stop-signal.ts';
import { describeError } from '../src/errors.ts';
import type { Underlay } from '../src/lab/namespaces.ts';
import { writeBetween } from './document.ts';
import { createManyPeers } from './many-peers.ts';
import { createRig, type Rig, roundTripP50, tcp, udp64 } from './measure.ts';
import { createPath, PATH_TITLES, PATHS, type PathName } from './paths.ts';
import { type Figures, type Metric, overview, plot, ratios, table, UNITS } from './report.ts';
import { type Summary, summarise } from './stats.ts';

interface Job {
  readonly title: string;
  readonly paths: readonly PathName[];
  readonly underlays: readonly Underlay[];
  readonly repeat: number;
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
    measure: async (rig, signal) => {
      const { receivedKpps, lost } = await udp64(rig, seconds, signal);
      return { udp64: receivedKpps, udp64Lost: lost };
    },
  };
}

function rttJob(seconds: number, rest: Pick<Job, 'paths' | 'underlays' | 'repeat'>): Job {
  return {
    ...rest,
    title: 'round trip',
    measure: async (rig, signal) => ({ rttP50: await roundTripP50(rig, seconds, signal) }),
  };
}

const BOTH: readonly Underlay[] = ['native', 'wire'];

/** Enough for the ratios that matter, in less than a minute. */
function quickJobs(): Job[] {
  const bulk = { paths: ['vxlan', 'weft', 'loop'] as const, underlays: BOTH, repeat: 3 };
  const small = { paths: ['weft', 'loop'] as const, underlays: ['native'] as const, repeat: 3 };
  return [tcpJob(1, false, 1.1, bulk), udpJob(1, small), rttJob(1, small)];
}

function fullJobs(repeat: number, seconds: number): Job[] {
  const all = { paths: PATHS, underlays: BOTH, repeat };
  return [
    tcpJob(1, false, seconds, all),
    tcpJob(1, true, seconds, all),
    tcpJob(4, false, seconds, all),
    tcpJob(4, true, seconds, all),
    udpJob(seconds, all),
    rttJob(seconds, all),
  ];
}

async function measureAll(jobs: readonly Job[], signal: AbortSignal): Promise<Figures> {
  const runs = new Map<string, number[]>();
  const progress = (text: string): void => void process.stderr.write(`${text}\n`);
  for (const underlay of BOTH) {
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
      for (let round = 0; round < job.repeat; round++) {
        for (const name of job.paths) {
          const values = await job.measure(rigs.get(name)!, signal);
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

interface PeerCounts {
  readonly few: Summary;
  readonly many: Summary;
}

const FEW_PEERS = 3;
const MANY_PEERS = 5_000;

/** Whether the cost of a packet grows with the number of peers: thousand packets a second to random destinations. */
async function measurePeerCounts(repeat: number, seconds: number, signal: AbortSignal): Promise<PeerCounts> {
  await using few = await createManyPeers(FEW_PEERS, signal);
  await using many = await createManyPeers(MANY_PEERS, signal);
  const runs = { few: [] as number[], many: [] as number[] };
  for (let round = 0; round < repeat; round++) {
    runs.few.push(await few.kpps(seconds, signal));
    runs.many.push(await many.kpps(seconds, signal));
  }
  return { few: summarise(runs.few), many: summarise(runs.many) };
}

async function writeDocuments(figures: Figures, machine: string): Promise<void> {
  const source = `Measured by \`make bench ARGS=--write\`: ${machine}.`;
  await writeBetween('README.md', 'overview', overview(figures));
  await writeBetween('docs/PERFORMANCE.md', 'bench', `${table(figures)}\n\n![TCP throughput](bench.svg)\n\n${source}`);
  await writeFile(new URL('../docs/bench.svg', import.meta.url), plot(figures));
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      quick: { type: 'boolean', default: false },
      json: { type: 'boolean', default: false },
      write: { type: 'boolean', default: false },
      repeat: { type: 'string', default: '3' },
      seconds: { type: 'string', default: '3' },
    },
  });
  const [repeat, seconds] = [Number(values.repeat), Number(values.seconds)];
  if (!(Number.isInteger(repeat) && repeat > 0 && seconds > 0))
    throw new RangeError('--repeat and --seconds must be above 0');
  using stopped = untilStopped();
  const figures = await measureAll(values.quick ? quickJobs() : fullJobs(repeat, seconds), stopped.signal);
  const machine = `${cpus().length} cores, Linux ${release()}, Node ${process.versions.node}, ${new Date().toISOString().slice(0, 10)}`;
  if (values.write) await writeDocuments(figures, machine);
  const peers = values.quick ? undefined : await measurePeerCounts(repeat, seconds, stopped.signal);
  const result = {
    machine,
    units: UNITS,
    figures,
    peers,
    ratios: {
      ...ratios(figures),
      ...(peers && { 'native.peers5000.vs3': Number((peers.many.median / peers.few.median).toPrecision(3)) }),
    },
  };
  if (values.json) process.stdout.write(`${JSON.stringify(result, undefined, 2)}\n`);
  else {
    const lines = Object.entries(result.ratios).map(([key, value]) => `${key.padEnd(36)} ${value}`);
    process.stdout.write(
      `${table(figures)}\n\nweft divided by the other, medians:\n${lines.join('\n')}\n\n${machine}\n`,
    );
  }
}

try {
  await main();
} catch (error) {
  process.stderr.write(`bench: ${describeError(error)}\n`);
  process.exitCode = 1;
}
