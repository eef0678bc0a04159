/**
 * `make bench-scale`: one agent in a cluster of thousands of nodes, on a real etcd and a real API server. Options:
 * --nodes N,N (5000,20000), --changes N (200), --burst N (5000), --store etcd|kube (both), --json, --write (docs/PERFORMANCE.md).
 */
import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import { Agent as HttpAgent, request } from 'node:http';
import { cpus, release } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { untilStopped } from '../src/cmd/stop-signal.ts';
import { describeError } from '../src/errors.ts';
import { type Agent, startAgent } from '../src/lab/agent.ts';
import { percentile } from '../src/lab/ping-output.ts';
import { checkPrerequisites } from '../src/lab/prerequisites.ts';
import type { SubnetStoreKind } from '../src/lab/subnet-store.ts';
import { Topology } from '../src/lab/topology.ts';
import { writeBetween } from './document.ts';
import { openScaleStore, type ScaleStore } from './scale-stores.ts';

interface Memory {
  readonly rssMiB: number;
  /** Private to the process; the rest is the files it maps, which all agents of a machine share. */
  readonly anonymousMiB: number;
}

interface Burst {
  readonly changes: number;
  /** What the store took to write them. */
  readonly writeMs: number;
  /** From the last write to all of them in the peer table. */
  readonly lagMs: number;
  readonly peerTableWrites: number;
  /** The longest that /readyz took to answer meanwhile. */
  readonly slowestProbeMs: number;
}

interface LargeCluster {
  readonly nodes: number;
  /** From the start of the process to all peers in the peer table. */
  readonly startMs: number;
  /** Of the agent up to then, all threads; says more than the time where other work keeps the machine busy. */
  readonly startCpuSeconds: number;
  /** Once it has settled after the start. */
  readonly memory: Memory;
  /** The most there ever was. */
  readonly peakMiB: number;
  readonly changes: number;
  /** From asking the store for a change of one node to the change in the peer table. */
  readonly changeMs: { readonly p50: number; readonly p99: number; readonly max: number };
  readonly memoryAfterChanges: Memory;
  /** Many nodes that change at once. */
  readonly burst: Burst;
  /** What reading everything again, with nothing changed, has caused. */
  readonly relist: { readonly kernelOperations: number; readonly peerTableWrites: number };
}

interface Result {
  readonly machine: string;
  /** By the number of nodes, in the order asked for. */
  readonly large: Partial<Record<SubnetStoreKind, readonly LargeCluster[]>>;
  readonly idleWithThreePeers: Partial<Record<SubnetStoreKind, Memory>>;
}

const SETTLE_MS = 5_000;
const READY_TIMEOUT_MS = 120_000;
const WITHIN_MS = 60_000;
/** Between a change and the first look at the metrics: looking earlier would delay what is measured. */
const UNDISTURBED_MS = 60;

const say = (text: string): void => void process.stderr.write(`${text}\n`);

/** One host with an agent, and its store. */
class Rig implements AsyncDisposable {
  readonly #topology: Topology;
  readonly #socketPath: string;
  readonly #metricsAgent: HttpAgent;
  readonly scale: ScaleStore;

  private constructor(topology: Topology, scale: ScaleStore, socketPath: string) {
    this.#topology = topology;
    this.scale = scale;
    this.#socketPath = socketPath;
    this.#metricsAgent = new HttpAgent();
  }

  static async create(kind: SubnetStoreKind, signal: AbortSignal): Promise<Rig> {
    await using stack = new AsyncDisposableStack();
    const options = { hosts: 1, containersPerHost: 0, store: kind !== 'local', purpose: 'make bench-scale' };
    const topology = stack.use(await Topology.create(options, signal));
    const scale = await openScaleStore(kind, topology, signal);
    const socketPath = join(topology.hosts[0]!.stateDirectory, 'metrics.sock');
    await topology.start(topology.hosts[0]!, ['socat', `UNIX-LISTEN:${socketPath},fork`, 'TCP:127.0.0.1:8081']);
    stack.move();
    return new Rig(topology, scale, socketPath);
  }

  startAgent(signal: AbortSignal): Promise<Agent> {
    const options = { readyTimeoutMs: READY_TIMEOUT_MS };
    return startAgent(this.#topology, this.#topology.hosts[0]!, this.scale.store, options, signal);
  }

  /** How long the agent took to say that it is ready. */
  async probe(signal: AbortSignal): Promise<number> {
    const startedAt = performance.now();
    await this.#get('/readyz', signal);
    return performance.now() - startedAt;
  }

  async #get(path: string, signal: AbortSignal): Promise<string> {
    const message = request({ agent: this.#metricsAgent, socketPath: this.#socketPath, path, signal }).end();
    const [response] = await once(message, 'response');
    let text = '';
    for await (const part of response.setEncoding('utf8')) text += part;
    return text;
  }

  /** Sum of all series of a metric. */
  async metrics(signal: AbortSignal): Promise<(name: string) => number> {
    const text = await this.#get('/metrics', signal);
    return (name) => {
      let sum = 0;
      for (const line of text.split('\n')) {
        if (line.startsWith(`${name} `) || line.startsWith(`${name}{`))
          sum += Number(line.slice(line.lastIndexOf(' ')));
      }
      return sum;
    };
  }

  async until(
    what: string,
    isSo: (metric: (name: string) => number) => boolean,
    signal: AbortSignal,
  ): Promise<(name: string) => number> {
    const deadline = Date.now() + WITHIN_MS;
    for (;;) {
      const metric = await this.metrics(signal);
      if (isSo(metric)) return metric;
      if (Date.now() > deadline) throw new Error(`not within ${WITHIN_MS / 1_000} s: ${what}`);
      await delay(20, undefined, { signal });
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#metricsAgent.destroy();
    await this.#topology[Symbol.asyncDispose]();
  }
}

async function memoryOf(agent: Agent): Promise<Memory & { readonly peakMiB: number }> {
  const status = await readFile(`/proc/${agent.child.pid}/status`, 'utf8');
  const mib = (field: string): number => {
    const kib = new RegExp(`^${field}:\\s+(\\d+) kB$`, 'm').exec(status)?.[1];
    return Math.round(Number(kib) / 102.4) / 10;
  };
  return { rssMiB: mib('VmRSS'), anonymousMiB: mib('RssAnon'), peakMiB: mib('VmHWM') };
}

async function measureBurst(rig: Rig, changes: number, round: number, signal: AbortSignal): Promise<Burst> {
  const sets = 'weft_lease_events_total{event="set"}';
  const before = await rig.metrics(signal);
  let slowestProbeMs = 0;
  const burst = new AbortController();
  const probing = (async () => {
    while (!burst.signal.aborted) {
      slowestProbeMs = Math.max(slowestProbeMs, await rig.probe(signal));
      await delay(50, undefined, { signal });
    }
  })();
  const startedAt = Date.now();
  await rig.scale.moveMany(changes, round);
  const writtenAt = Date.now();
  const seen = await rig.until('the burst', (metric) => metric(sets) >= before(sets) + changes, signal);
  let writes = seen('weft_peer_table_writes_total');
  // The last of them may still be on its way to the peer table.
  const last = await rig.until(
    'the end of the burst',
    (metric) => {
      const settled = metric('weft_peer_table_writes_total') === writes && Date.now() - writtenAt > SETTLE_MS;
      writes = metric('weft_peer_table_writes_total');
      return settled;
    },
    signal,
  );
  burst.abort();
  await probing;
  return {
    changes,
    writeMs: writtenAt - startedAt,
    lagMs: Math.max(0, Math.round(last('weft_peer_table_write_timestamp_seconds') * 1_000 - writtenAt)),
    peerTableWrites: writes - before('weft_peer_table_writes_total'),
    slowestProbeMs: Math.round(slowestProbeMs),
  };
}

async function measureLarge(
  kind: SubnetStoreKind,
  nodes: number,
  changes: number,
  burstChanges: number,
  signal: AbortSignal,
): Promise<LargeCluster> {
  await using rig = await Rig.create(kind, signal);
  say(`${kind}: creating ${nodes} nodes`);
  await rig.scale.fill(nodes, signal);
  {
    // What is compiled once in the life of an installation is not part of a start.
    const first = await rig.startAgent(signal);
    await first.child[Symbol.asyncDispose]();
  }
  say(`${kind}: starting the agent`);
  const startedAt = Date.now();
  const agent = await rig.startAgent(signal);
  const ready = await rig.until(`${nodes} peers`, (metric) => metric('weft_peers') === nodes, signal);
  const startMs = ready('weft_peer_table_write_timestamp_seconds') * 1_000 - startedAt;
  await delay(SETTLE_MS, undefined, { signal });
  const { peakMiB, ...memory } = await memoryOf(agent);
  say(`${kind}: ${nodes} peers after ${Math.round(startMs)} ms, ${memory.rssMiB} MiB; ${changes} changes`);
  const latencies: number[] = [];
  let writes = (await rig.metrics(signal))('weft_peer_table_writes_total');
  for (let change = 0; change < changes; change++) {
    const askedAt = await rig.scale.move((change * 7_919) % nodes, change + 1);
    await delay(UNDISTURBED_MS, undefined, { signal });
    const metric = await rig.until('the change', (now) => now('weft_peer_table_writes_total') > writes, signal);
    writes = metric('weft_peer_table_writes_total');
    latencies.push(metric('weft_peer_table_write_timestamp_seconds') * 1_000 - askedAt);
  }
  latencies.sort((a, b) => a - b);
  const { peakMiB: _, ...memoryAfterChanges } = await memoryOf(agent);
  say(`${kind}: ${burstChanges} changes at once`);
  const burst = await measureBurst(rig, Math.min(burstChanges, nodes), changes + 1, signal);
  say(`${kind}: reading everything again`);
  const before = await rig.metrics(signal);
  await rig.scale.forceRelist();
  const snapshots = 'weft_lease_events_total{event="snapshot"}';
  const after = await rig.until('another snapshot', (metric) => metric(snapshots) > before(snapshots), signal);
  const difference = (name: string): number => after(name) - before(name);
  return {
    nodes,
    startMs: Math.round(startMs),
    startCpuSeconds: Number(ready('process_cpu_seconds_total').toFixed(2)),
    memory,
    peakMiB,
    changes,
    changeMs: {
      p50: Math.round(percentile(latencies, 0.5)),
      p99: Math.round(percentile(latencies, 0.99)),
      max: Math.round(latencies.at(-1)!),
    },
    memoryAfterChanges,
    burst,
    relist: {
      kernelOperations: difference('weft_kernel_operations_total'),
      peerTableWrites: difference('weft_peer_table_writes_total'),
    },
  };
}

async function measureIdle(kind: SubnetStoreKind, signal: AbortSignal): Promise<Memory> {
  const peers = 3;
  await using rig = await Rig.create(kind, signal);
  await rig.scale.fill(peers, signal);
  await (await rig.startAgent(signal)).child[Symbol.asyncDispose]();
  const agent = await rig.startAgent(signal);
  await rig.until(`${peers} peers`, (metric) => metric('weft_peers') === peers, signal);
  await delay(SETTLE_MS, undefined, { signal });
  const { peakMiB: _, ...memory } = await memoryOf(agent);
  say(`${kind}: ${memory.rssMiB} MiB with ${peers} peers`);
  return memory;
}

const TITLES: Readonly<Record<SubnetStoreKind, string>> = { local: 'local', etcd: 'etcd', kube: 'Kubernetes' };

function table({ large, idleWithThreePeers }: Result): string {
  const kinds = (Object.keys(TITLES) as SubnetStoreKind[]).filter(
    (kind) => kind in large || kind in idleWithThreePeers,
  );
  const row = (title: string, cell: (kind: SubnetStoreKind) => string | undefined): string =>
    `| ${[title, ...kinds.map((kind) => cell(kind) ?? '')].join(' | ')} |`;
  const peak = ({ peakMiB }: LargeCluster): string => `, ${peakMiB.toFixed(0)} at most while starting`;
  const mib = ({ rssMiB, anonymousMiB }: Memory): string =>
    `${rssMiB.toFixed(0)} MiB <sub>${anonymousMiB.toFixed(0)} private</sub>`;
  const clusterRows = (first: LargeCluster, at: number): string[] => {
    const { nodes, changes, burst } = first;
    const cluster = (show: (figures: LargeCluster) => string) => (kind: SubnetStoreKind) => {
      const figures = large[kind]?.[at];
      return figures && show(figures);
    };
    return [
      row(
        `start of the agent → ${nodes} peers programmed`,
        cluster(({ startMs, startCpuSeconds }) => {
          return `${(startMs / 1_000).toFixed(2)} s <sub>${startCpuSeconds.toFixed(2)} s of CPU</sub>`;
        }),
      ),
      row(
        `a node of ${nodes} changes → programmed, p50 / p99 of ${changes}`,
        cluster(({ changeMs }) => `${changeMs.p50} / ${changeMs.p99} ms`),
      ),
      row(
        `${burst.changes} nodes of ${nodes} change at once → programmed after the last write / peer table writes / slowest answer of /readyz`,
        cluster(({ burst: { writeMs, lagMs, peerTableWrites, slowestProbeMs } }) => {
          return `${lagMs} ms <sub>written in ${(writeMs / 1_000).toFixed(1)} s</sub> / ${peerTableWrites} / ${slowestProbeMs} ms`;
        }),
      ),
      row(
        `resident memory with ${nodes} peers`,
        cluster((figures) => mib(figures.memory) + peak(figures)),
      ),
      row(
        'resident memory after those changes',
        cluster(({ memoryAfterChanges }) => mib(memoryAfterChanges)),
      ),
      row(
        'everything read again, nothing changed: kernel operations / peer table writes',
        cluster(({ relist }) => `${relist.kernelOperations} / ${relist.peerTableWrites}`),
      ),
    ];
  };
  return [
    row('', (kind) => TITLES[kind]),
    `|---|${kinds.map(() => '---|').join('')}`,
    ...(Object.values(large)[0] ?? []).flatMap(clusterRows),
    row('resident memory with 3 peers, idle', (kind) => {
      const memory = idleWithThreePeers[kind];
      return memory && mib(memory);
    }),
  ].join('\n');
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      nodes: { type: 'string', default: '5000,20000' },
      changes: { type: 'string', default: '200' },
      burst: { type: 'string', default: '5000' },
      store: { type: 'string' },
      json: { type: 'boolean', default: false },
      write: { type: 'boolean', default: false },
    },
  });
  const counts = values.nodes.split(',').map(Number);
  const [changes, burst] = [Number(values.changes), Number(values.burst)];
  if (!counts.every((nodes) => Number.isInteger(nodes) && nodes > 0 && nodes <= 30_000)) {
    throw new RangeError('--nodes: want numbers from 1 to 30000, separated by commas');
  }
  if (!(Number.isInteger(burst) && burst > 0)) throw new RangeError('--burst must be above 0');
  if (!(Number.isInteger(changes) && changes > 0)) throw new RangeError('--changes must be above 0');
  if (values.store !== undefined && values.store !== 'etcd' && values.store !== 'kube') {
    throw new RangeError('--store: want etcd or kube');
  }
  const kinds: ('etcd' | 'kube')[] = values.store === undefined ? ['etcd', 'kube'] : [values.store];
  using stopped = untilStopped();
  const { signal } = stopped;
  for (const kind of kinds) await checkPrerequisites({ store: kind, tun: true }, say, signal);
  const large: Partial<Record<SubnetStoreKind, LargeCluster[]>> = {};
  const idleWithThreePeers: Partial<Record<SubnetStoreKind, Memory>> = {};
  for (const kind of ['local', ...kinds] as const) idleWithThreePeers[kind] = await measureIdle(kind, signal);
  for (const kind of kinds) {
    large[kind] = [];
    for (const nodes of counts) large[kind].push(await measureLarge(kind, nodes, changes, burst, signal));
  }
  const machine = `${cpus().length} cores, Linux ${release()}, Node ${process.versions.node}, ${new Date().toISOString().slice(0, 10)}`;
  const result: Result = { machine, large, idleWithThreePeers };
  if (values.write) {
    await writeBetween(
      'docs/PERFORMANCE.md',
      'scale',
      `${table(result)}\n\nMeasured by \`make bench-scale ARGS=--write\`: ${machine}.`,
    );
  }
  process.stdout.write(values.json ? `${JSON.stringify(result, undefined, 2)}\n` : `${table(result)}\n\n${machine}\n`);
}

try {
  await main();
} catch (error) {
  process.stderr.write(`bench-scale: ${describeError(error)}\n`);
  process.exitCode = 1;
}
