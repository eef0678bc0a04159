/**
 * `make bench-cni`: how long a pod waits for its network. Real ADDs of Debian's bridge and host-local in a namespace of their
 * own, started directly and by the plugin `flannel` in each way that Node.js has to start fast. Runs are interleaved, so that a
 * busy machine is busy for all. Options: --runs N, --json.
 */
import { randomBytes } from 'node:crypto';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { bundlePlugin } from '../scripts/packaging/bundle.ts';
import { buildDelegateConfig } from '../src/cni/delegate-config.ts';
import { parsePluginConfig } from '../src/cni/plugin-config.ts';
import { parsePluginSubnetEnv } from '../src/cni/plugin-subnet-env.ts';
import { describeError } from '../src/errors.ts';
import { run } from '../src/linux/run.ts';
import { describeMachine } from './machine.ts';
import { type Summary, summarise } from './stats.ts';

const PLUGINS = '/usr/lib/cni';
const SUBNET_ENV =
  'FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.7.1/24\nFLANNEL_MTU=1472\nFLANNEL_IPMASQ=true\n';
/** Set for the process that measures: it is in the namespace already, so that `ip netns exec` is in no figure. */
const INSIDE = 'WEFT_BENCH_CNI_POD';

interface Variant {
  readonly title: string;
  readonly argv: readonly string[];
  readonly input: string;
  readonly env?: Readonly<Record<string, string>>;
}

async function variantsIn(folder: string): Promise<Variant[]> {
  const subnetFile = join(folder, 'subnet.env');
  writeFileSync(subnetFile, SUBNET_ENV);
  const config = JSON.stringify({
    cniVersion: '0.3.1',
    name: 'cbr0',
    type: 'flannel',
    subnetFile,
    dataDir: join(folder, 'flannel'),
    delegate: { hairpinMode: true, isDefaultGateway: true },
    ipam: { dataDir: join(folder, 'networks') },
  });
  const delegate = buildDelegateConfig(parsePluginConfig(config), parsePluginSubnetEnv(SUBNET_ENV, subnetFile)).json;
  const [bundle, snapshotEntry, blob] = ['flannel.cjs', 'snapshot.cjs', 'flannel.blob'].map((name) =>
    join(folder, name),
  );
  const signal = AbortSignal.timeout(60_000);
  await bundlePlugin(bundle!, signal);
  await bundlePlugin(snapshotEntry!, signal, 'bench/cni-snapshot.ts');
  await run([process.execPath, '--snapshot-blob', blob!, '--build-snapshot', snapshotEntry!]);
  const sources = fileURLToPath(new URL('../src/cmd/cni/main.ts', import.meta.url));
  const executable = fileURLToPath(
    new URL(`../dist/linux-${process.arch === 'x64' ? 'amd64' : process.arch}/flannel`, import.meta.url),
  );
  const cache = { NODE_COMPILE_CACHE: join(folder, 'cache') };
  const node = process.execPath;
  return [
    { title: 'bridge alone (configuration by the agent)', argv: [join(PLUGINS, 'bridge')], input: delegate },
    { title: 'flannel: Node.js, one bundled file', argv: [bundle!], input: config },
    { title: 'flannel: bundled, compile cache', argv: [bundle!], input: config, env: cache },
    { title: 'flannel: user-land snapshot', argv: [node, '--snapshot-blob', blob!], input: config },
    { title: 'flannel: sources', argv: [node, sources], input: config },
    { title: 'flannel: sources, compile cache', argv: [node, sources], input: config, env: cache },
    ...(existsSync(executable) ? [{ title: 'flannel: single executable', argv: [executable], input: config }] : []),
  ];
}

/** One ADD; the DEL after it is not counted. */
interface Cost {
  readonly ms: number;
  /** Processor time of the plugin and all that it has started, in steps of 10 ms: only the mean of many says something. */
  readonly cpuMs: number;
}

/** Of the children of this process that have ended, and theirs (proc(5): cutime and cstime, in ticks of 10 ms). */
function childrenCpuMs(): number {
  const stat = readFileSync('/proc/self/stat', 'utf8');
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return (Number(fields[13]) + Number(fields[14])) * 10;
}

async function addOnce({ argv, input, env }: Variant, pod: string): Promise<Cost> {
  const call = (command: string) =>
    run(argv, {
      stdin: input,
      env: {
        ...env,
        CNI_COMMAND: command,
        CNI_CONTAINERID: 'pod',
        CNI_NETNS: `/run/netns/${pod}`,
        CNI_IFNAME: 'eth0',
        CNI_PATH: PLUGINS,
      },
    });
  const [from, cpuFrom] = [performance.now(), childrenCpuMs()];
  await call('ADD');
  const cost = { ms: performance.now() - from, cpuMs: childrenCpuMs() - cpuFrom };
  await call('DEL');
  return cost;
}

async function measure(pod: string, runs: number): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), 'weft-bench-cni-'));
  try {
    const variants = await variantsIn(folder);
    const costs = new Map<string, Cost[]>(variants.map(({ title }) => [title, []]));
    // The first round fills caches and makes the bridge.
    for (let round = -1; round < runs; round++) {
      for (const variant of variants) {
        const cost = await addOnce(variant, pod);
        if (round >= 0) costs.get(variant.title)!.push(cost);
      }
    }
    const figures: Figures = [...costs].map(([title, list]) => [
      title,
      {
        ms: summarise(list.map(({ ms }) => ms)),
        cpuMs: list.reduce((sum, { cpuMs }) => sum + cpuMs, 0) / list.length,
      },
    ]);
    process.stdout.write(JSON.stringify(figures));
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: { runs: { type: 'string', default: '30' }, json: { type: 'boolean', default: false } },
  });
  const runs = Number(values.runs);
  if (!(Number.isInteger(runs) && runs > 0)) throw new RangeError('--runs must be above 0');
  const pod = process.env[INSIDE];
  if (pod !== undefined) return await measure(pod, runs);
  const name = `weft-bench-cni-${randomBytes(3).toString('hex')}`;
  const namespaces = [name, `${name}-pod`] as const;
  try {
    for (const namespace of namespaces) await run(['ip', 'netns', 'add', namespace]);
    const self = [process.execPath, '--disable-warning=ExperimentalWarning', fileURLToPath(import.meta.url)];
    const { stdout } = await run([...self, '--runs', values.runs], { netns: name, env: { [INSIDE]: namespaces[1] } });
    const figures = JSON.parse(stdout) as Figures;
    const machine = describeMachine();
    if (values.json)
      process.stdout.write(`${JSON.stringify({ machine, unit: 'ms', figures: Object.fromEntries(figures) })}\n`);
    else process.stdout.write(`${table(figures)}\n\nms per ADD, ${runs} interleaved runs; ${machine}\n`);
  } finally {
    for (const namespace of namespaces) await run(['ip', 'netns', 'delete', namespace], { okExitCodes: 'any' });
  }
}

type Figures = readonly [string, { readonly ms: Summary; readonly cpuMs: number }][];

function table(figures: Figures): string {
  const alone = figures[0]![1].ms.median;
  const rows = figures.map(([title, { ms, cpuMs }], index) => {
    const more = index === 0 ? '' : `+${(ms.median - alone).toFixed(1)}`;
    return `| ${title} | ${ms.median.toFixed(1)} | ${ms.min.toFixed(1)} | ${more} | ${cpuMs.toFixed(0)} |`;
  });
  return ['| ADD | median | fastest | over bridge alone | processor |', '|---|---|---|---|---|', ...rows].join('\n');
}

try {
  await main();
} catch (error) {
  process.stderr.write(`bench: ${describeError(error)}\n`);
  process.exitCode = 1;
}
