/**
 * `make bench-scale`: one agent in a cluster of thousands of nodes, on a real etcd and a real API server. Options:
 * --nodes N,N (5000,20000), --changes N (200), --burst N (5000), --store etcd|kube (both), --backend udp|vxlan (both; vxlan is measured with etcd alone), --json, --write (docs/PERFORMANCE.md).
 */

import { setTimeout as delay } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { untilStopped } from '../src/cmd/stop-signal.ts';
import { describeError } from '../src/errors.ts';
import { percentile } from '../src/lab/ping-output.ts';
import { checkPrerequisites } from '../src/lab/prerequisites.ts';
import type { SubnetStoreKind } from '../src/lab/subnet-store.ts';
import { writeBetween } from './document.ts';
import { describeMachine } from './machine.ts';
import { type Memory, memoryOf } from './process-figures.ts';
import { chooseScale } from './scale-choice.ts';
import { Rig, SETTLE_MS, say } from './scale-rig.ts';
import { measureVxlan, type VxlanCluster, vxlanTable } from './scale-vxlan.ts';

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
  readonly vxlan: readonly VxlanCluster[];
}

/** What a change costs in a small cluster is what it must cost in a large one. */
const FEW_NODES = 100;
/** Between a change and the first look at the metrics: looking earlier would delay what is measured. */
const UNDISTURBED_MS = 60;

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
  await using rig = await Rig.create(kind, 'udp', signal);
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
  const { peakMiB, ...memory } = memoryOf(agent.child.pid);
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
  const { peakMiB: _, ...memoryAfterChanges } = memoryOf(agent.child.pid);
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
  await using rig = await Rig.create(kind, 'udp', signal);
  await rig.scale.fill(peers, signal);
  await (await rig.startAgent(signal)).child[Symbol.asyncDispose]();
  const agent = await rig.startAgent(signal);
  await rig.until(`${peers} peers`, (metric) => metric('weft_peers') === peers, signal);
  await delay(SETTLE_MS, undefined, { signal });
  const { peakMiB: _, ...memory } = memoryOf(agent.child.pid);
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
      backend: { type: 'string' },
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
  const choice = chooseScale(values.store, values.backend);
  using stopped = untilStopped();
  const { signal } = stopped;
  for (const kind of new Set([...choice.udp, ...choice.vxlan]))
    await checkPrerequisites({ store: kind, tun: true }, say, signal);
  const large: Partial<Record<SubnetStoreKind, LargeCluster[]>> = {};
  const idleWithThreePeers: Partial<Record<SubnetStoreKind, Memory>> = {};
  const isUdp = choice.udp.length > 0;
  for (const kind of isUdp ? (['local', ...choice.udp] as const) : [])
    idleWithThreePeers[kind] = await measureIdle(kind, signal);
  for (const kind of choice.udp) {
    large[kind] = [];
    for (const nodes of counts) large[kind].push(await measureLarge(kind, nodes, changes, burst, signal));
  }
  const machine = describeMachine();
  const vxlan: VxlanCluster[] = [];
  if (choice.vxlan.length > 0) {
    for (const nodes of [FEW_NODES, counts[0]!]) vxlan.push(await measureVxlan(nodes, changes, signal));
  }
  const result: Result = { machine, large, idleWithThreePeers, vxlan };
  const tables = [
    ...(isUdp ? [['scale', table(result)] as const] : []),
    ...(vxlan.length > 0 ? [['scale-vxlan', vxlanTable(vxlan)] as const] : []),
  ];
  if (values.write) {
    for (const [name, text] of tables) {
      const body = `${text}\n\nMeasured by \`make bench-scale ARGS=--write\`: ${machine}.`;
      await writeBetween('docs/PERFORMANCE.md', name, body);
    }
  }
  const text = tables.map(([, body]) => body).join('\n\n');
  process.stdout.write(values.json ? `${JSON.stringify(result, undefined, 2)}\n` : `${text}\n\n${machine}\n`);
}

try {
  await main();
} catch (error) {
  process.stderr.write(`bench-scale: ${describeError(error)}\n`);
  process.exitCode = 1;
}
