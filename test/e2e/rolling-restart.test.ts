import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, type TestContext, test } from 'node:test';
import { DIST, ROOT } from '../../scripts/packaging/architecture.ts';
import { eventually, LineFeed } from '../netns/waiting.ts';
import { AGENT_LABELS, AGENTS, metricsOf } from './nodes/agents.ts';
import { applyManifest, readManifest } from './nodes/manifest.ts';
import { isReady, readyOnEveryNode } from './nodes/ready-pods.ts';
import { containerOf, type Pod, RealCluster } from './nodes/real-cluster.ts';
import type { RealNode } from './nodes/real-node.ts';
import { EchoStream, PingStream } from './nodes/traffic.ts';
import { WEB_DAEMON_SET, WEB_LABELS } from './nodes/workloads.ts';

/**
 * The fast path in containers, set up by the lines of docs/INSTALL.md, while agents go and come: no ping is lost, and none of them has
 * taken the way through the forwarder instead.
 */

const ROLLOUT_MS = 300_000;
const PING_INTERVAL_SECONDS = 0.001;
/** Without the fast path each ping passes four threads, which must not be what loses it on a busy machine. */
const SLOW_INTERVAL_SECONDS = 0.01;
const OPEN = /Packets take the fast path in the kernel .*, even while the agent is down$/m;
/** `make e2e` has made it. */
const IMAGE = join(DIST, 'weft-image.tar');

let cluster: RealCluster;
let pods: Pod[];

const limit = (): AbortSignal => AbortSignal.timeout(ROLLOUT_MS);

before(async () => {
  assert.ok(existsSync(IMAGE), `${IMAGE} is missing: make image`);
  cluster = await RealCluster.start(
    { nodes: 2, images: [IMAGE], say: (line) => process.stderr.write(`${line}\n`) },
    // Kubernetes may have to be built, when it is not make that runs this.
    AbortSignal.timeout(900_000),
  );
  await applyManifest(cluster.api, [...(await readManifest(join(ROOT, 'deploy/kube-flannel.yml'))), WEB_DAEMON_SET]);
  await cluster.rolledOut(AGENTS, limit());
  pods = await readyOnEveryNode(cluster, WEB_LABELS);
});
after(async () => {
  await cluster?.[Symbol.asyncDispose]();
});

test('by the lines of INSTALL.md a rolling restart loses no ping of a hundred a second without the fast path', async (t) => {
  const [lines, ...others] = commandsOf('Updates without a gap');
  assert.deepEqual(others, []);
  await cluster.shell(lines!);
  await cluster.rolledOut(AGENTS, limit());
  const before = await cluster.pods(AGENTS.namespace, AGENT_LABELS);
  const [first, second] = pods as [Pod, Pod];
  await using stack = new AsyncDisposableStack();
  const pings = [
    stack.use(await PingStream.start(cluster, first, second, SLOW_INTERVAL_SECONDS)),
    stack.use(await PingStream.start(cluster, second, first, SLOW_INTERVAL_SECONDS)),
  ];
  await cluster.shell(`kubectl -n ${AGENTS.namespace} rollout restart daemonset/${AGENTS.name}`);
  await cluster.rolledOut(AGENTS, limit());
  for (const ping of pings) {
    await ping.answered(200);
    const { sent, received, slowestMs } = await ping.stop();
    t.diagnostic(`${sent - received} of ${sent} pings lost; slowest ${slowestMs} ms`);
    assert.equal(received, sent);
  }
  const old = before.map(({ metadata }) => metadata.uid);
  for (const pod of await cluster.pods(AGENTS.namespace, AGENT_LABELS)) {
    assert.ok(!old.includes(pod.metadata.uid), `${pod.metadata.name} is a new pod`);
    assert.match(await cluster.logs(pod), /Taking over from the running agent$/m);
    assert.equal(restartsOf(pod), 0);
  }
  // What follows is tried with one agent a node at a time.
  const without = '{"spec":{"updateStrategy":{"rollingUpdate":{"maxSurge":0,"maxUnavailable":1}}}}';
  await cluster.shell(`kubectl -n ${AGENTS.namespace} patch daemonset ${AGENTS.name} --patch '${without}'`);
});

test('by the lines of INSTALL.md the agents have a fast path that is kept while they are away', async () => {
  for (const lines of fastPathCommands()) {
    await cluster.shell(lines);
    await cluster.rolledOut(AGENTS, limit());
  }
  for (const pod of await cluster.pods(AGENTS.namespace, AGENT_LABELS)) {
    await eventually(
      `the fast path is open on ${pod.spec.nodeName}`,
      async () => OPEN.test(await cluster.logs(pod)) || undefined,
    );
  }
  for (const node of cluster.nodes) {
    const script = 'ls /sys/fs/bpf/weft; stat -Lc netns-%i-flannel0 /proc/self/ns/net';
    const [kept, own] = (await node.exec(['sh', '-c', script])).stdout.trim().split('\n');
    assert.equal(kept, own, 'a node has a bpffs of its own');
  }
});

test('a rolling restart of the agents loses no ping of a thousand a second', async (t) => {
  const before = await cluster.pods(AGENTS.namespace, AGENT_LABELS);
  await withoutLoss(t, async () => {
    await cluster.shell(`kubectl -n ${AGENTS.namespace} rollout restart daemonset/${AGENTS.name}`);
    await cluster.rolledOut(AGENTS, limit());
  });
  const old = before.map(({ metadata }) => metadata.uid);
  for (const { metadata } of await cluster.pods(AGENTS.namespace, AGENT_LABELS)) {
    assert.ok(!old.includes(metadata.uid), `${metadata.name} is a new pod`);
  }
});

for (const name of ['node1', 'node2']) {
  test(`SIGKILL of the agent of ${name} loses no ping of a thousand a second`, async (t) => {
    await withoutLoss(t, async () => {
      const agent = await agentOf(name);
      await cluster.kill(agent);
      await eventually(
        'kubelet has started it again',
        async () => {
          const now = await agentOf(name);
          return (isReady(now) && restartsOf(now) > restartsOf(agent)) || undefined;
        },
        ROLLOUT_MS,
      );
    });
  });
}

/** Does it under pings and on TCP connections both ways, all of which live through it, and on the fast path. */
async function withoutLoss(t: TestContext, act: () => Promise<void>): Promise<void> {
  const [first, second] = pods as [Pod, Pod];
  await using stack = new AsyncDisposableStack();
  const pings: PingStream[] = [];
  const echoes: EchoStream[] = [];
  for (const [from, to] of [
    [first, second],
    [second, first],
  ] as const) {
    pings.push(stack.use(await PingStream.start(cluster, from, to, PING_INTERVAL_SECONDS)));
    echoes.push(stack.use(await EchoStream.start(cluster, from, to)));
  }
  const before = await Promise.all(cluster.nodes.map(figuresOf));
  await act();
  for (const ping of pings) await ping.answered(2_000);
  const after = await Promise.all(cluster.nodes.map(figuresOf));
  for (const ping of pings) {
    const { sent, received, slowestMs } = await ping.stop();
    t.diagnostic(`${sent - received} of ${sent} pings lost; slowest ${slowestMs} ms`);
    assert.equal(received, sent);
  }
  for (const echo of echoes) {
    const { sent, echoed } = await echo.stop();
    assert.deepEqual(echoed, sent);
  }
  for (const pod of pods) {
    t.diagnostic(`${await retransmissionsOf(pod)} TCP segments sent again on ${pod.spec.nodeName}`);
  }
  for (const [index, now] of after.entries()) {
    const then = before[index]!;
    // A new agent counts from zero.
    const since = then.agent === now.agent ? then : { packets: 0, forwarded: 0 };
    const [packets, forwarded] = [now.packets - since.packets, now.forwarded - since.forwarded];
    t.diagnostic(`${forwarded} of ${packets} packets through the forwarder of ${cluster.nodes[index]!.name}`);
    assert.ok(packets > 4_000, `${packets} packets`);
    assert.ok(forwarded * 20 < packets, `${forwarded} of ${packets} packets through the forwarder`);
  }
}

/** Since its agent was started: packets of both directions, by either way, and what the forwarder has read of them. */
async function figuresOf(node: RealNode): Promise<{ agent: string; packets: number; forwarded: number }> {
  const series = (await metricsOf(node)).split('\n');
  const sum = (name: string): number =>
    series.filter((line) => line.startsWith(name)).reduce((total, line) => total + Number(line.split(' ').at(-1)), 0);
  const operations = ['txReads', 'rxDatagrams'].map((name) =>
    sum(`weft_forwarder_operations_total{operation="${name}"}`),
  );
  return {
    agent: containerOf(await agentOf(node.name)),
    packets: sum('weft_packets_total{'),
    forwarded: operations.reduce((total, count) => total + count, 0),
  };
}

/** In the pod's network namespace, ever. */
async function retransmissionsOf(pod: Pod): Promise<number> {
  await using child = await cluster.startBeside(pod, ['nstat', '-asz', 'TcpRetransSegs']);
  const { text } = await new LineFeed(child.stdout!).find((line) => line.startsWith('TcpRetransSegs'));
  return Number(text.split(/\s+/)[1]);
}

async function agentOf(node: string): Promise<Pod> {
  const agents = await cluster.pods(AGENTS.namespace, AGENT_LABELS);
  return agents.find((pod) => pod.spec.nodeName === node)!;
}

function restartsOf(pod: Pod): number {
  return pod.status.containerStatuses?.[0]?.restartCount ?? 0;
}

/** INSTALL.md's check and patch for the capability, and its patch for the bpffs, as they stand. */
function fastPathCommands(): string[] {
  const patches = commandsOf('The fast path');
  assert.equal(patches.length, 2);
  return patches;
}

/** The patches of the DaemonSet in that section of INSTALL.md. */
function commandsOf(title: string): string[] {
  const text = readFileSync(join(ROOT, 'docs/INSTALL.md'), 'utf8');
  const [section] = new RegExp(`^## ${title}$.*?(?=^## )`, 'ms').exec(text) ?? [''];
  const blocks = [...section.matchAll(/^```sh$\n(.*?)^```$/gms)].map(([, block]) => block!);
  return blocks.filter((block) => block.includes('patch daemonset'));
}
