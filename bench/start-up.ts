/**
 * `make bench-start-up`: the one executable of `make dist` beside the sources: its size, how long each program takes to its
 * first answer, and, as root, how long an agent that was killed takes to carry packets again and to be ready. Runs are
 * interleaved, so that a busy machine is busy for all. Options: --runs N, --executables DIR (another build, to compare), --only-restarts,
 * --json.
 */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { gzipSync } from 'node:zlib';
import { architecturesOf, DIST, ROOT } from '../scripts/packaging/architecture.ts';
import { describeError } from '../src/errors.ts';
import { openLocalStore } from '../src/lab/local-store.ts';
import { HOST_DEVICE } from '../src/lab/namespaces.ts';
import { Topology } from '../src/lab/topology.ts';
import { lines, run } from '../src/linux/run.ts';
import { RUNTIME_FLAGS } from '../src/runtime-flags.ts';
import { describeMachine } from './machine.ts';
import { cpuNsOf } from './process-figures.ts';
import { type Summary, summarise } from './stats.ts';

interface Program {
  readonly title: string;
  /** Its name in dist/ and below src/cmd/. */
  readonly name: string;
  readonly folder: string;
  readonly args: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
}

const PROGRAMS: readonly Program[] = [
  { title: '`flanneld --version`', name: 'flanneld', folder: 'flanneld', args: ['--version'] },
  { title: '`weft --help`', name: 'weft', folder: 'weft', args: ['--help'] },
  { title: 'CNI plugin, `VERSION`', name: 'flannel', folder: 'cni', args: [], env: { CNI_COMMAND: 'VERSION' } },
];
const WAYS = ['executable', 'other executable', 'sources', 'sources, compile cache'] as const;
type Way = (typeof WAYS)[number];

/** How the programs are found, by way. */
interface Places {
  readonly executables: Readonly<Partial<Record<Way, string>>>;
  readonly cache: string;
}

function commandOf({ name, folder }: Pick<Program, 'name' | 'folder'>, way: Way, places: Places): string[] {
  const executables = places.executables[way];
  if (executables !== undefined) return [join(executables, name)];
  const flags = name === 'flanneld' ? RUNTIME_FLAGS : ['--disable-warning=ExperimentalWarning'];
  return [process.execPath, ...flags, join(ROOT, 'src/cmd', folder, 'main.ts')];
}

const environmentOf = (way: Way, { cache }: Places): Record<string, string> =>
  way === 'sources, compile cache' ? { NODE_COMPILE_CACHE: cache } : {};

async function once(program: Program, way: Way, places: Places): Promise<number> {
  const env = { ...program.env, ...environmentOf(way, places) };
  const from = performance.now();
  await run([...commandOf(program, way, places), ...program.args], { env, stdin: '{"cniVersion":"1.0.0"}' });
  return performance.now() - from;
}

/** What an agent logs when it carries packets, and when it is ready. */
const MOMENTS = { carries: 'Packet workers are running', ready: 'flannel is ready' } as const;
type Moment = keyof typeof MOMENTS;
/** And the processor time of all threads until it carries packets, which says more than the clock where others have the processor. */
const FIGURES = [...(Object.keys(MOMENTS) as Moment[]), 'cpu'] as const;
type Restart = Readonly<Record<(typeof FIGURES)[number], number>>;

/** Starts the agent on what an earlier one has left, kills it once it is ready, and says after how many milliseconds it came to what. */
async function restart(topology: Topology, flags: readonly string[], way: Way, places: Places): Promise<Restart> {
  const argv = [...commandOf({ name: 'flanneld', folder: 'flanneld' }, way, places), ...flags];
  const from = performance.now();
  await using child = await topology.start(topology.hosts[0]!, argv, {
    stderr: 'pipe',
    env: environmentOf(way, places),
  });
  const after: Partial<Record<keyof Restart, number>> = {};
  for await (const line of lines(child.stderr!)) {
    for (const [moment, words] of Object.entries(MOMENTS) as [Moment, string][]) {
      if (!line.includes(words)) continue;
      after[moment] ??= performance.now() - from;
      after.cpu ??= cpuNsOf(child.pid) / 1e6;
    }
    if (after.ready !== undefined) break;
  }
  // As much of what it leaves to the next start as one that has run for long: compiled code, and what it knows.
  await delay(200);
  child.kill(way === 'sources, compile cache' ? 'SIGTERM' : 'SIGKILL');
  await child.exited;
  const { carries, ready, cpu } = after;
  if (carries === undefined || ready === undefined || cpu === undefined)
    throw new Error(`the agent of ${way} ended before it was ready`);
  return { carries, ready, cpu };
}

async function restarts(runs: number, ways: readonly Way[], places: Places): Promise<Record<string, ByWay>> {
  const signal = new AbortController().signal;
  const options = { hosts: 1, containersPerHost: 0, purpose: 'make bench-start-up' };
  await using topology = await Topology.create(options, signal);
  await using store = await openLocalStore(
    topology,
    '{"Network": "10.244.0.0/16", "Backend": {"Type": "udp"}}',
    signal,
  );
  const host = topology.hosts[0]!;
  const files = ['--subnet-file', join(host.stateDirectory, 'subnet.env'), '--iface', HOST_DEVICE, '--ip-masq'];
  const ports = [
    '--healthz-ip',
    '127.0.0.1',
    '--healthz-port',
    '8081',
    '--api-socket',
    join(host.stateDirectory, 'api.sock'),
  ];
  const flags = [...store.agentFlags(host), ...files, ...ports, '--fast-path', 'off'];
  const taken: Record<keyof Restart, Map<Way, number[]>> = { carries: new Map(), ready: new Map(), cpu: new Map() };
  for (let round = -1; round < runs; round++) {
    for (const way of ways) {
      const after = await restart(topology, flags, way, places);
      if (round < 0) continue;
      for (const figure of FIGURES) taken[figure].set(way, [...(taken[figure].get(way) ?? []), after[figure]]);
    }
  }
  return {
    'killed agent: packets are carried again': summariesOf(taken.carries),
    'killed agent: processor time until then': summariesOf(taken.cpu),
    'killed agent: ready': summariesOf(taken.ready),
  };
}

type ByWay = Partial<Record<Way, Summary>>;

function summariesOf(taken: ReadonlyMap<Way, readonly number[]>): ByWay {
  return Object.fromEntries([...taken].map(([way, runs]) => [way, summarise(runs)]));
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      runs: { type: 'string', default: '20' },
      executables: { type: 'string' },
      'only-restarts': { type: 'boolean', default: false },
      json: { type: 'boolean', default: false },
    },
  });
  const runs = Number(values.runs);
  if (!(Number.isInteger(runs) && runs > 0)) throw new RangeError('--runs must be above 0');
  const executable = join(DIST, `linux-${architecturesOf([])[0]!.name}`);
  const other = values.executables === undefined ? {} : { 'other executable': resolve(values.executables) };
  const ways = WAYS.filter((way) => way !== 'other executable' || values.executables !== undefined);
  const file = readFileSync(join(executable, 'weft'));
  const size = { megabytes: file.length / 1e6, gzippedMegabytes: gzipSync(file, { level: 9 }).length / 1e6 };
  const cache = mkdtempSync(join(tmpdir(), 'weft-bench-start-up-'));
  const places: Places = { executables: { executable, ...other }, cache };
  const figures: Record<string, ByWay> = {};
  try {
    for (const program of values['only-restarts'] ? [] : PROGRAMS) {
      const taken = new Map<Way, number[]>(ways.map((way) => [way, []]));
      // The first round fills caches.
      for (let round = -1; round < runs; round++) {
        for (const way of ways) {
          const ms = await once(program, way, places);
          if (round >= 0) taken.get(way)!.push(ms);
        }
      }
      figures[program.title] = summariesOf(taken);
    }
    if (process.geteuid?.() === 0) Object.assign(figures, await restarts(runs, ways, places));
  } finally {
    rmSync(cache, { recursive: true });
  }
  const machine = describeMachine();
  if (values.json) {
    process.stdout.write(`${JSON.stringify({ machine, unit: 'ms', size, figures })}\n`);
    return;
  }
  const cell = (found: Summary | undefined): string =>
    found === undefined ? '' : `${found.median.toFixed(0)} (${found.min.toFixed(0)})`;
  const rows = Object.entries(figures).map(
    ([title, byWay]) => `| ${title} | ${ways.map((way) => cell(byWay[way])).join(' | ')} |`,
  );
  const rule = `|${'---|'.repeat(ways.length + 1)}`;
  process.stdout.write(
    `${[`| ms to the answer, median (fastest) | ${ways.join(' | ')} |`, rule, ...rows].join('\n')}\n\n` +
      `${size.megabytes.toFixed(0)} MB, ${size.gzippedMegabytes.toFixed(0)} MB gzipped; ${runs} interleaved runs; ${machine}\n`,
  );
}

try {
  await main();
} catch (error) {
  process.stderr.write(`bench: ${describeError(error)}\n`);
  process.exitCode = 1;
}
