/** For bench/scale.ts: one agent with the backend vxlan and thousands of peers, each of which is three entries of the kernel. */
import { setTimeout as delay } from 'node:timers/promises';
import { formatIpv4 } from '../src/ip/ipv4.ts';
import { percentile } from '../src/lab/ping-output.ts';
import { lines } from '../src/linux/run.ts';
import { type Memory, memoryOf } from './process-figures.ts';
import { Rig, SETTLE_MS, say } from './scale-rig.ts';
import { addressOf, macOf, subnetOf } from './scale-stores.ts';

export interface VxlanCluster {
  readonly nodes: number;
  /** From the start of the process to a route, a neighbour and a forwarding entry of every peer in the kernel. */
  readonly startMs: number;
  readonly startCpuSeconds: number;
  readonly memory: Memory;
  readonly peakMiB: number;
  readonly changes: number;
  /** From asking the store for another address and MAC address of one node to the last entry in the kernel. */
  readonly changeMs: { readonly p50: number; readonly p99: number; readonly max: number };
  /** Processor time of the agent for each change, the programs that it starts left out. */
  readonly changeCpuMs: number;
  readonly memoryAfterChanges: Memory;
  /** What reading everything again, with nothing changed, has caused. */
  readonly relistKernelOperations: number;
}

const ENTRIES_A_PEER = 3;
const CHANGE_MS = 20_000;
const OPERATIONS = 'weft_kernel_operations_total';

export async function measureVxlan(nodes: number, changes: number, signal: AbortSignal): Promise<VxlanCluster> {
  await using rig = await Rig.create('etcd', 'vxlan', signal);
  say(`vxlan: creating ${nodes} nodes`);
  await rig.scale.fill(nodes, signal);
  {
    // What is compiled once in the life of an installation is not part of a start.
    const first = await rig.startAgent(signal);
    await first.child[Symbol.asyncDispose]();
  }
  // A host that was just booted: the start makes every entry.
  await (await rig.start(['ip', 'link', 'delete', 'flannel.1'], {})).exited;
  say('vxlan: starting the agent');
  const startedAt = Date.now();
  const agent = await rig.startAgent(signal);
  const ready = await rig.until(
    `${nodes} peers in the kernel`,
    (metric) => metric(OPERATIONS) >= ENTRIES_A_PEER * nodes && metric('weft_kernel_converged') === 1,
    signal,
  );
  const startMs = Date.now() - startedAt;
  await delay(SETTLE_MS, undefined, { signal });
  const { peakMiB, ...memory } = memoryOf(agent.child.pid);
  say(`vxlan: ${nodes} peers after ${startMs} ms, ${memory.rssMiB} MiB; ${changes} changes`);
  const entries = await watchEntries(rig);
  const before = await rig.metrics(signal);
  const latencies: number[] = [];
  for (let change = 0; change < changes; change++) {
    const [node, round] = [(change * 7_919) % nodes, change + 1];
    const mac = macOf(node, round);
    const [at, last] = await Promise.all([
      rig.scale.move(node, round),
      entries.last([
        `${formatIpv4(addressOf(node, round))} dev flannel.1 lladdr ${mac} `,
        `${formatIpv4(subnetOf(node).addr)} dev flannel.1 lladdr ${mac} `,
      ]),
    ]);
    latencies.push(last - at);
  }
  latencies.sort((a, b) => a - b);
  const spent = await rig.metrics(signal);
  const cpuSeconds = spent('process_cpu_seconds_total') - before('process_cpu_seconds_total');
  const { peakMiB: _, ...memoryAfterChanges } = memoryOf(agent.child.pid);
  say('vxlan: reading everything again');
  const known = await rig.metrics(signal);
  await rig.scale.forceRelist();
  const snapshots = 'weft_lease_events_total{event="snapshot"}';
  const after = await rig.until('another snapshot', (metric) => metric(snapshots) > known(snapshots), signal);
  return {
    nodes,
    startMs,
    startCpuSeconds: Number(ready('process_cpu_seconds_total').toFixed(2)),
    memory,
    peakMiB,
    changes,
    changeMs: {
      p50: Math.round(percentile(latencies, 0.5)),
      p99: Math.round(percentile(latencies, 0.99)),
      max: Math.round(latencies.at(-1)!),
    },
    changeCpuMs: Number(((cpuSeconds * 1_000) / changes).toFixed(1)),
    memoryAfterChanges,
    relistKernelOperations: after(OPERATIONS) - known(OPERATIONS),
  };
}

interface Entries {
  /** When the last of these came into the kernel, in milliseconds since the epoch. Ask before they can. */
  last(texts: readonly string[]): Promise<number>;
}

/** The kernel's own clock: asking the agent would delay what is measured. */
async function watchEntries(rig: Rig): Promise<Entries> {
  const monitor = await rig.start(['ip', '-ts', '-N', 'monitor', 'neigh'], {});
  const waiting = new Map<string, (atMs: number) => void>();
  void (async () => {
    for await (const line of lines(monitor.stdout!)) {
      const [, time = '', text = ''] = /^\[(\S+)\] (.*)$/.exec(line) ?? [];
      for (const [wanted, found] of waiting) if (text.startsWith(wanted)) found(Date.parse(time));
    }
  })();
  // It says nothing when it listens.
  await delay(500);
  return {
    last: async (texts) => {
      const hangs = AbortSignal.timeout(CHANGE_MS);
      const times = texts.map((text) => {
        const { promise, resolve, reject } = Promise.withResolvers<number>();
        waiting.set(text, resolve);
        hangs.addEventListener('abort', () => reject(new Error(`not within ${CHANGE_MS / 1_000} s: ${text}`)));
        return promise.finally(() => waiting.delete(text));
      });
      return Math.max(...(await Promise.all(times)));
    },
  };
}

export function vxlanTable(clusters: readonly VxlanCluster[]): string {
  const row = (title: string, cell: (cluster: VxlanCluster) => string): string =>
    `| ${[title, ...clusters.map(cell)].join(' | ')} |`;
  const mib = ({ rssMiB, anonymousMiB }: Memory): string =>
    `${rssMiB.toFixed(0)} MiB <sub>${anonymousMiB.toFixed(0)} private</sub>`;
  return [
    row('vxlan, etcd', ({ nodes }) => `${nodes} nodes, ${ENTRIES_A_PEER * nodes} entries`),
    `|---|${clusters.map(() => '---|').join('')}`,
    row('start of the agent → all entries in the kernel', ({ startMs, startCpuSeconds }) => {
      return `${(startMs / 1_000).toFixed(2)} s <sub>${startCpuSeconds.toFixed(2)} s of CPU</sub>`;
    }),
    row('a node gets another address and MAC address → in the kernel, p50 / p99', ({ changeMs, changes }) => {
      return `${changeMs.p50} / ${changeMs.p99} ms <sub>of ${changes}</sub>`;
    }),
    row('CPU of the agent for each of those changes', ({ changeCpuMs }) => `${changeCpuMs} ms`),
    row('resident memory', ({ memory, peakMiB }) => `${mib(memory)}, ${peakMiB.toFixed(0)} at most while starting`),
    row('resident memory after those changes', ({ memoryAfterChanges }) => mib(memoryAfterChanges)),
    row('everything read again, nothing changed: kernel operations', (cluster) => `${cluster.relistKernelOperations}`),
  ].join('\n');
}
