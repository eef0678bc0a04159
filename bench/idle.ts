/**
 * `make bench-idle`: what four agents with three peers each cost while nothing happens: memory, processor time and wakes. Builds that are
 * compared run at the same time, each on hosts of its own, so that a busy machine is busy for all. Options: --store KIND, --backend TYPE,
 * --fast-path auto|off, --settle SECONDS, --seconds N, --sources (as well), --executables DIR (of another build; several times), --json.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { loadavg } from 'node:os';
import { basename, join, resolve } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { architecturesOf, DIST, ROOT } from '../scripts/packaging/architecture.ts';
import { describeError, WeftError } from '../src/errors.ts';
import { HOST_DEVICE } from '../src/lab/namespaces.ts';
import { openSubnetStore } from '../src/lab/open-subnet-store.ts';
import { SUBNET_STORE_KINDS, type SubnetStoreKind } from '../src/lab/subnet-store.ts';
import { Topology } from '../src/lab/topology.ts';
import { lines } from '../src/linux/run.ts';
import { RUNTIME_FLAGS } from '../src/runtime-flags.ts';
import { describeMachine } from './machine.ts';
import { memoryOf } from './process-figures.ts';
import { type Summary, summarise } from './stats.ts';

const HOSTS = 4;
const READY = 'flannel is ready';

interface Build {
  readonly title: string;
  readonly argv: readonly string[];
}

interface Options {
  readonly store: SubnetStoreKind;
  readonly backend: string;
  readonly fastPath: string;
}

/** Agents of one build, one on each host. */
interface Cluster extends AsyncDisposable {
  readonly build: Build;
  readonly pids: readonly number[];
}

interface ThreadTimes {
  readonly name: string;
  readonly cpuNs: number;
  readonly wakes: number;
}

const read = (path: string): string => readFileSync(path, 'utf8');

/** By the thread's id. */
function threadsOf(pid: number): ReadonlyMap<string, ThreadTimes> {
  const tasks = `/proc/${pid}/task`;
  return new Map(
    readdirSync(tasks).map((task) => {
      const wakes = /^voluntary_ctxt_switches:\s+(\d+)$/m.exec(read(`${tasks}/${task}/status`))?.[1];
      const [cpuNs] = read(`${tasks}/${task}/schedstat`).split(' ');
      const name = task === String(pid) ? 'main thread' : read(`${tasks}/${task}/comm`).trim();
      return [task, { name, cpuNs: Number(cpuNs), wakes: Number(wakes) }];
    }),
  );
}

/** User and system time in ticks of 10 ms, as `ps` and `top` show it. */
function ticksOf(pid: number): number {
  const fields = read(`/proc/${pid}/stat`)
    .replace(/^.*\) /s, '')
    .split(' ');
  return Number(fields[11]) + Number(fields[12]);
}

async function startCluster(build: Build, options: Options, signal: AbortSignal): Promise<Cluster> {
  await using stack = new AsyncDisposableStack();
  const { store: kind, backend, fastPath } = options;
  const topology = stack.use(
    await Topology.create(
      { hosts: HOSTS, containersPerHost: 0, store: kind !== 'local', purpose: 'make bench-idle' },
      signal,
    ),
  );
  const netConf = JSON.stringify({ Network: '10.244.0.0/16', Backend: { Type: backend } });
  const store = stack.use(await openSubnetStore(kind, topology, netConf, signal));
  const pids: number[] = [];
  for (const host of topology.hosts) {
    const { stateDirectory } = host;
    const argv = [
      ...build.argv,
      ...store.agentFlags(host),
      ...['--subnet-file', join(stateDirectory, 'subnet.env'), '--iface', HOST_DEVICE, '--ip-masq'],
      ...['--healthz-ip', '127.0.0.1', '--healthz-port', '8081', '--api-socket', join(stateDirectory, 'api.sock')],
      ...['--fast-path', fastPath],
    ];
    const env = {
      NODE_COMPILE_CACHE: join(topology.registryDirectory, 'compile-cache'),
      ...store.agentEnvironment(host),
    };
    const child = await topology.start(host, argv, { stderr: 'pipe', env });
    await untilReady(lines(child.stderr!), host.name);
    pids.push(child.pid);
  }
  const held = stack.move();
  return { build, pids, [Symbol.asyncDispose]: () => held.disposeAsync() };
}

/** Reads on afterwards, so that the agent can write. */
async function untilReady(output: AsyncIterable<string>, host: string): Promise<void> {
  const ready = Promise.withResolvers<void>();
  void (async () => {
    for await (const line of output) if (line.includes(READY)) ready.resolve();
    ready.reject(new WeftError('WEFT_LAB_FAILED', `the agent of ${host} ended before it was ready`));
  })();
  await ready.promise;
}

interface Figures {
  readonly residentMiB: Summary;
  readonly privateMiB: Summary;
  /** Of a core. */
  readonly cpuPercent: Summary;
  readonly tickPercent: Summary;
  readonly wakesPerSecond: Summary;
  /** By the name of the thread: CPU in percent of a core, and wakes per second, medians. */
  readonly threads: Readonly<Record<string, readonly [number, number]>>;
}

async function measure(clusters: readonly Cluster[], seconds: number): Promise<ReadonlyMap<Build, Figures>> {
  const look = () => clusters.map(({ pids }) => pids.map((pid) => ({ threads: threadsOf(pid), ticks: ticksOf(pid) })));
  const [before, from] = [look(), performance.now()];
  await delay(seconds * 1_000);
  const [after, spentMs] = [look(), performance.now() - from];
  return new Map(
    clusters.map(({ build, pids }, at) => {
      const memory = pids.map(memoryOf);
      const agents = pids.map((_, index) => {
        const [first, last] = [before[at]![index]!, after[at]![index]!];
        const threads = new Map<string, [number, number]>();
        for (const [id, { name, cpuNs, wakes }] of last.threads) {
          const earlier = first.threads.get(id) ?? { cpuNs: 0, wakes: 0 };
          const [cpu, woken] = threads.get(name) ?? [0, 0];
          threads.set(name, [
            cpu + (cpuNs - earlier.cpuNs) / spentMs / 1e4,
            woken + ((wakes - earlier.wakes) / spentMs) * 1e3,
          ]);
        }
        return { threads, tickPercent: ((last.ticks - first.ticks) * 1_000) / spentMs };
      });
      const sum = (which: 0 | 1): Summary =>
        summarise(
          agents.map(({ threads }) => [...threads.values()].reduce((total, thread) => total + thread[which], 0)),
        );
      const names = new Set(agents.flatMap(({ threads }) => [...threads.keys()]));
      const median = (name: string, which: 0 | 1): number =>
        summarise(agents.map(({ threads }) => threads.get(name)?.[which] ?? 0)).median;
      const figures: Figures = {
        residentMiB: summarise(memory.map(({ rssMiB }) => rssMiB)),
        privateMiB: summarise(memory.map(({ anonymousMiB }) => anonymousMiB)),
        cpuPercent: sum(0),
        tickPercent: summarise(agents.map(({ tickPercent }) => tickPercent)),
        wakesPerSecond: sum(1),
        threads: Object.fromEntries([...names].map((name) => [name, [median(name, 0), median(name, 1)] as const])),
      };
      return [build, figures];
    }),
  );
}

function table(figures: ReadonlyMap<Build, Figures>): string {
  const cell = ({ median, min, max }: Summary, digits: number): string =>
    `${median.toFixed(digits)} <sub>${min.toFixed(digits)}–${max.toFixed(digits)}</sub>`;
  const builds = [...figures];
  const row = (title: string, show: (of: Figures) => string): string =>
    `| ${[title, ...builds.map(([, of]) => show(of))].join(' | ')} |`;
  const names = new Set(builds.flatMap(([, { threads }]) => Object.keys(threads)));
  return [
    `| four agents, three peers each | ${builds.map(([{ title }]) => title).join(' | ')} |`,
    `|---|${'---|'.repeat(builds.length)}`,
    row('resident, MiB', ({ residentMiB }) => cell(residentMiB, 1)),
    row('of it private, MiB', ({ privateMiB }) => cell(privateMiB, 1)),
    row('CPU, % of a core', ({ cpuPercent }) => cell(cpuPercent, 2)),
    row('the same by `/proc/PID/stat`', ({ tickPercent }) => cell(tickPercent, 2)),
    row('times a thread is woken, per second', ({ wakesPerSecond }) => cell(wakesPerSecond, 1)),
    ...[...names].map((name) =>
      row(`of it ${name}: CPU, wakes`, ({ threads: { [name]: [cpu, wakes] = [0, 0] } }) => {
        return `${cpu.toFixed(3)} %, ${wakes.toFixed(1)}/s`;
      }),
    ),
  ].join('\n');
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      store: { type: 'string', default: 'etcd' },
      backend: { type: 'string', default: 'udp' },
      'fast-path': { type: 'string', default: 'auto' },
      settle: { type: 'string', default: '180' },
      seconds: { type: 'string', default: '60' },
      sources: { type: 'boolean', default: false },
      executables: { type: 'string', multiple: true, default: [] },
      json: { type: 'boolean', default: false },
    },
  });
  const store = SUBNET_STORE_KINDS.find((kind) => kind === values.store);
  if (store === undefined) throw new RangeError(`--store: want one of ${SUBNET_STORE_KINDS.join(', ')}`);
  const [settle, seconds] = [Number(values.settle), Number(values.seconds)];
  if (!(settle >= 0 && seconds > 0)) throw new RangeError('--settle and --seconds: want numbers of seconds');
  const own = join(DIST, `linux-${architecturesOf([])[0]!.name}`, 'flanneld');
  const builds: Build[] = [{ title: 'executable', argv: [own] }];
  for (const directory of values.executables) {
    builds.push({ title: basename(resolve(directory)), argv: [join(resolve(directory), 'flanneld')] });
  }
  if (values.sources) {
    const argv = [process.execPath, ...RUNTIME_FLAGS, join(ROOT, 'src/cmd/flanneld/main.ts')];
    builds.push({ title: 'sources', argv });
  }
  const { signal } = new AbortController();
  await using stack = new AsyncDisposableStack();
  const options: Options = { store, backend: values.backend, fastPath: values['fast-path'] };
  const clusters: Cluster[] = [];
  for (const build of builds) clusters.push(stack.use(await startCluster(build, options, signal)));
  await delay(settle * 1_000);
  const figures = await measure(clusters, seconds);
  const load = loadavg()[0]!.toFixed(1);
  const machine = describeMachine();
  if (values.json) {
    const byBuild = Object.fromEntries([...figures].map(([{ title }, of]) => [title, of]));
    process.stdout.write(`${JSON.stringify({ machine, load, ...options, settle, seconds, figures: byBuild })}\n`);
    return;
  }
  process.stdout.write(
    `${table(figures)}\n\nMedians and ranges over ${seconds} s, ${settle} s after the start; ${options.backend}, store ${store}, ` +
      `fast path ${options.fastPath}; load ${load}; ${machine}\n`,
  );
}

try {
  await main();
} catch (error) {
  process.stderr.write(`bench: ${describeError(error)}\n`);
  process.exitCode = 1;
}
