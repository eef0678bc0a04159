import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { after, before, test } from 'node:test';
import { DIST, ROOT } from '../../scripts/packaging/architecture.ts';
import { kubernetesBinaries } from '../../src/lab/servers/kube-build.ts';
import type { RunResult } from '../../src/linux/run.ts';
import { eventually } from '../netns/waiting.ts';
import { AGENT_LABELS, AGENTS } from './nodes/agents.ts';
import { applyManifest, type ManifestObject, readManifest } from './nodes/manifest.ts';
import { readyOnEveryNode } from './nodes/ready-pods.ts';
import { POD_CIDRS, type Pod, RealCluster, type Workload } from './nodes/real-cluster.ts';
import { EchoStream, PingStream } from './nodes/traffic.ts';
import { dnsObjects, SERVICE_OBJECTS, WEB_DAEMON_SET, WEB_LABELS, WEB_PORT } from './nodes/workloads.ts';

/**
 * udp and vxlan on real nodes in dual stack: kubelets, containerd and kube-proxy, and the manifest that users apply, of which only
 * net-conf.json is another. One cluster for all tests, which build on one another in the order of this file.
 */

const SHOP: Workload = { kind: 'deployments', namespace: 'default', name: 'shop' };
const DNS: Workload = { kind: 'deployments', namespace: 'kube-system', name: 'coredns' };
const ROLLOUT_MS = 300_000;
/** `make e2e` has made it. */
const IMAGE = join(DIST, 'weft-image.tar');

let cluster: RealCluster;
let config: ConfigMap;

const limit = (): AbortSignal => AbortSignal.timeout(ROLLOUT_MS);
const webPods = (): Promise<[Pod, Pod]> => readyOnEveryNode(cluster, WEB_LABELS) as Promise<[Pod, Pod]>;

before(async () => {
  assert.ok(existsSync(IMAGE), `${IMAGE} is missing: make image`);
  cluster = await RealCluster.start(
    { nodes: 2, images: [IMAGE], dualStack: true, say: (line) => process.stderr.write(`${line}\n`) },
    // Kubernetes may have to be built, when it is not make that runs this.
    AbortSignal.timeout(900_000),
  );
  const { binary } = await kubernetesBinaries();
  const manifest = await readManifest(join(ROOT, 'deploy/kube-flannel.yml'));
  config = manifest.find(({ kind }) => kind === 'ConfigMap') as ConfigMap;
  config.data['net-conf.json'] = netConf('udp');
  const services = SERVICE_OBJECTS.map((object) => (object.kind === 'Service' ? onEveryNode(object) : object));
  await applyManifest(cluster.api, [...manifest, WEB_DAEMON_SET, ...dnsObjects(dirname(binary)), ...services]);
});
after(async () => {
  await cluster?.[Symbol.asyncDispose]();
});

test('udp: pods, services, DNS and NodePorts in both families', () => worksWith('flannel0'));

test('udp becomes vxlan by net-conf.json and a rolling restart, and no connection breaks', async () => {
  const [first, second] = await webPods();
  await using echo = await EchoStream.start(cluster, first, second);
  await using back = await EchoStream.start(cluster, second, first);
  config.data['net-conf.json'] = netConf('vxlan');
  await applyManifest(cluster.api, [config]);
  await cluster.restart(AGENTS);
  await cluster.rolledOut(AGENTS, limit());
  for (const stream of [echo, back]) {
    const { sent, echoed } = await stream.stop();
    assert.deepEqual(echoed, sent);
  }
  // The last node to change has kept the other way for the peers before it.
  for (const node of cluster.nodes) {
    await eventually(`${node.name} has no device of udp`, async () => {
      const { exitCode } = await node.exec(['ip', 'link', 'show', 'flannel0'], { okExitCodes: 'any' });
      return exitCode !== 0 || undefined;
    });
  }
});

test('vxlan: pods, services, DNS and NodePorts in both families', () => worksWith('flannel.1', 'flannel-v6.1'));

test('vxlan: a rolling restart of the agents loses no ping of either family', async (t) => {
  const [first, second] = await webPods();
  const before = await cluster.pods(AGENTS.namespace, AGENT_LABELS);
  await using stack = new AsyncDisposableStack();
  const pings: PingStream[] = [];
  for (const address of addressesOf(second)) {
    const to = { ...second, status: { ...second.status, podIP: address } };
    pings.push(stack.use(await PingStream.start(cluster, first, to)));
  }
  await cluster.restart(AGENTS);
  await cluster.rolledOut(AGENTS, limit());
  for (const ping of pings) {
    const { sent, received, slowestMs } = await ping.stop();
    t.diagnostic(`${sent - received} of ${sent} pings lost; slowest ${slowestMs} ms`);
    assert.equal(received, sent);
  }
  const old = before.map(({ metadata }) => metadata.uid);
  for (const { metadata } of await cluster.pods(AGENTS.namespace, AGENT_LABELS)) {
    assert.ok(!old.includes(metadata.uid), `${metadata.name} is a new pod`);
  }
});

interface ConfigMap extends ManifestObject {
  data: Record<string, string>;
}

interface Service extends ManifestObject {
  spec: { clusterIPs: string[]; ports: { nodePort: number }[] };
}

function netConf(type: string): string {
  const { ipv4: Network, ipv6: IPv6Network } = POD_CIDRS;
  return JSON.stringify({ Network, EnableIPv6: true, IPv6Network, Backend: { Type: type } });
}

/** With an address of each family, and a port of every node. */
function onEveryNode(service: ManifestObject): ManifestObject {
  return { ...service, spec: { ...(service.spec as object), type: 'NodePort', ipFamilyPolicy: 'RequireDualStack' } };
}

function addressesOf({ status, metadata }: Pod): string[] {
  const addresses = (status.podIPs ?? []).map(({ ip }) => ip);
  assert.deepEqual(
    addresses.map((address) => address.includes(':')),
    [false, true],
    `${metadata.name} has an address of each family`,
  );
  return addresses;
}

const urlHost = (address: string): string => (address.includes(':') ? `[${address}]` : address);

/** All that a cluster needs of its network, on nodes that have these devices of the backend. */
async function worksWith(...devices: string[]): Promise<void> {
  await cluster.rolledOut(AGENTS, limit());
  for (const workload of [DNS, SHOP]) await cluster.rolledOut(workload, limit());
  for (const node of cluster.nodes) for (const device of devices) await node.exec(['ip', 'link', 'show', device]);
  const [first, second] = await webPods();
  for (const [from, to] of [
    [first, second],
    [second, first],
  ] as const) {
    for (const address of addressesOf(to)) {
      await eventually(`${address} answers a ping`, async () => {
        const argv = ['ping', '-c', '3', '-W', '5', address];
        const { exitCode, stdout } = await cluster.exec(from, argv, { okExitCodes: 'any' });
        return (exitCode === 0 && / 0% packet loss/.test(stdout)) || undefined;
      });
      assert.equal((await httpGet(from, `${urlHost(address)}:${WEB_PORT}`)).stdout.trim(), to.metadata.name);
    }
  }
  const { spec } = await cluster.api.get<Service>('/api/v1/namespaces/default/services/shop');
  const shops = (await cluster.pods('default', { app: 'shop' })).map(({ metadata }) => metadata.name).sort();
  assert.equal(shops.length, 2);
  for (const pod of [first, second]) {
    const found = ['a', 'aaaa'].map((type) =>
      eventually(`the ${type} record of shop`, () => resolve(pod, type, 'shop.default.svc.cluster.local')),
    );
    assert.deepEqual((await Promise.all(found)).sort(), [...spec.clusterIPs].sort());
    for (const address of spec.clusterIPs) {
      await bothAnswer(`service ${address} on ${pod.spec.nodeName}`, shops, () => httpGet(pod, urlHost(address)));
    }
  }
  const { namespace } = cluster.topology.store!;
  for (const node of cluster.nodes) {
    for (const address of [node.address, node.addressV6!]) {
      const url = `http://${urlHost(address)}:${spec.ports[0]!.nodePort}/`;
      await bothAnswer(url, shops, () => cluster.topology.exec(namespace, curl(url), { okExitCodes: 'any' }));
    }
  }
}

/** Also the pod on the other node. What is not answered at once is asked again: kube-proxy may not have heard of it yet. */
async function bothAnswer(what: string, names: readonly string[], ask: () => Promise<RunResult>): Promise<void> {
  const answers = new Set<string>();
  await eventually(`both pods answer at ${what}`, async () => {
    const { exitCode, stdout } = await ask();
    if (exitCode === 0) answers.add(stdout.trim());
    return answers.size === names.length || undefined;
  });
  assert.deepEqual([...answers].sort(), names);
}

function curl(url: string): string[] {
  return ['curl', '--silent', '--show-error', '--fail', '--globoff', '--max-time', '5', url];
}

function httpGet(from: Pod, host: string): Promise<RunResult> {
  return cluster.exec(from, curl(`http://${host}/`), { okExitCodes: 'any' });
}

/** The address that the resolver of a pod finds, or undefined. */
async function resolve(from: Pod, type: string, name: string): Promise<string | undefined> {
  const { stdout } = await cluster.exec(from, ['nslookup', `-type=${type}`, name], { okExitCodes: 'any' });
  return /^Name:.*\nAddress: (\S+)$/m.exec(stdout)?.[1];
}
