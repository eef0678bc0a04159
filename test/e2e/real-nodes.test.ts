import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { after, before, test } from 'node:test';
import { DIST, ROOT } from '../../scripts/packaging/architecture.ts';
import type { Report } from '../../src/diagnosis/report.ts';
import { kubernetesBinaries } from '../../src/lab/servers/kube-build.ts';
import type { KubeNode } from '../../src/lab/servers/kube-client.ts';
import { sectionOf, shellBlocks, shellCommands } from '../markdown.ts';
import { untilFastPathCarries } from '../netns/fast-path-use.ts';
import { eventually } from '../netns/waiting.ts';
import { AGENT_LABELS, AGENTS, metricOf } from './nodes/agents.ts';
import { applyManifest, deleteManifest, type ManifestObject, readManifest } from './nodes/manifest.ts';
import { CLUSTER_DNS } from './nodes/node-config.ts';
import { isReady, readyOnEveryNode } from './nodes/ready-pods.ts';
import { containerOf, type Pod, RealCluster, type Workload } from './nodes/real-cluster.ts';
import type { RealNode } from './nodes/real-node.ts';
import { EchoStream, PingStream } from './nodes/traffic.ts';
import { withoutTun, yamlIn } from './nodes/tun-variants.ts';
import { dnsObjects, SERVICE_OBJECTS, WEB_DAEMON_SET, WEB_HOST_PORT, WEB_LABELS, WEB_PORT } from './nodes/workloads.ts';

/**
 * weft in the place of flannel on real nodes: kubelets, containerd and kube-proxy, deployed with the manifest that users
 * apply. One cluster for all tests, which build on one another in the order of this file. docs/E2E.md says which test stands
 * for which of flannel's.
 */

const SHOP: Workload = { kind: 'deployments', namespace: 'default', name: 'shop' };
const DNS: Workload = { kind: 'deployments', namespace: 'kube-system', name: 'coredns' };
const FAST_PATH_CHECK: Workload = { kind: 'daemonsets', namespace: 'kube-flannel', name: 'weft-fast-path-check' };
/** flannel's tests give a rollout five minutes, and a removal two. */
const ROLLOUT_MS = 300_000;
const REMOVAL_MS = 120_000;
/** `make e2e` has made it. */
const IMAGE = join(DIST, 'weft-image.tar');

let cluster: RealCluster;
let manifest: ManifestObject[];
let fastPathCheck: ManifestObject[];
let policy: ManifestObject[];

const limit = (ms = ROLLOUT_MS): AbortSignal => AbortSignal.timeout(ms);
const webPods = (): Promise<[Pod, Pod]> => readyOnEveryNode(cluster, WEB_LABELS) as Promise<[Pod, Pod]>;

before(async () => {
  manifest = await readManifest(join(ROOT, 'deploy/kube-flannel.yml'));
  policy = await readManifest(join(ROOT, 'deploy/own-node-policy/policy.yml'));
  fastPathCheck = await readManifest(join(ROOT, 'deploy/fast-path-check.yml'));
  assert.ok(existsSync(IMAGE), `${IMAGE} is missing: make image`);
  cluster = await RealCluster.start(
    { nodes: 2, images: [IMAGE], say: (line) => process.stderr.write(`${line}\n`) },
    // Kubernetes may have to be built, when it is not make that runs this.
    limit(900_000),
  );
});
after(async () => {
  await cluster?.[Symbol.asyncDispose]();
});

test('from the applied manifest to pods that reach each other', async (t) => {
  const startedAt = performance.now();
  const say = (what: string) =>
    t.diagnostic(`${what} ${((performance.now() - startedAt) / 1000).toFixed(1)} s after apply`);
  // As kubespray makes them: the agents, whose containers have few capabilities, can write there all the same.
  for (const node of cluster.nodes) {
    await node.exec(['mkdir', '-p', '/opt/cni/bin', '/etc/cni/net.d']);
    await node.exec(['chown', '12345:12345', '/opt/cni/bin', '/etc/cni/net.d']);
  }
  // With the policy for Nodes, under which all that follows has to work as well.
  await applyManifest(cluster.api, [...policy, ...manifest, WEB_DAEMON_SET]);
  await cluster.rolledOut(AGENTS, limit());
  say('agents ready');
  await webPods();
  say('pods ready');
  await pingBothWays(1);
  say('pods on both nodes have pinged each other');
});

test('nodes are Ready, their network is not unavailable, and subnet.env has the pod CIDR', async () => {
  for (const { name } of cluster.nodes) {
    const node = await cluster.api.waitForNode(name, (one) => conditionOf(one, 'Ready')?.status === 'True', limit());
    const network = conditionOf(node, 'NetworkUnavailable');
    assert.deepEqual([network?.status, network?.reason], ['False', 'FlannelIsUp']);
    const env = await subnetEnv(cluster.node(name));
    assert.equal(env.FLANNEL_NETWORK, '10.244.0.0/16');
    assert.equal(env.FLANNEL_SUBNET, node.spec.podCIDR!.replace('.0/24', '.1/24'));
    assert.deepEqual([env.FLANNEL_MTU, env.FLANNEL_IPMASQ], ['1472', 'true']);
  }
});

test('pods reach each other both ways: ping, HTTP, 64 MB by hash, iperf3', async () => {
  await pingBothWays(5);
  const [first, second] = await webPods();
  for (const [from, to] of [
    [first, second],
    [second, first],
  ] as const) {
    assert.equal((await httpGet(from, `${to.status.podIP}:${WEB_PORT}`)).trim(), to.metadata.name);
    await sendBlob(from, to);
  }
  await cluster.exec(second, ['iperf3', '--server', '--one-off', '--daemon']);
  const measured = await cluster.exec(first, ['iperf3', '--client', second.status.podIP!, '--time', '2', '--json']);
  const { end } = JSON.parse(measured.stdout) as { end: { sum_received: { bytes: number } } };
  assert.ok(end.sum_received.bytes > 0);
});

test('weft doctor runs from the image on a node, by the command of docs/TROUBLESHOOTING.md', async () => {
  const command = fromImage('docs/TROUBLESHOOTING.md', '## First commands', 'weft doctor');
  const { stdout, exitCode } = await cluster.nodes[0]!.exec(['sh', '-ec', command], { okExitCodes: 'any' });
  const marks = Object.groupBy(stdout.split('\n').filter(Boolean), (line) => line.trim()[0]!);
  assert.equal(exitCode, 0, stdout);
  assert.equal(marks['✖'], undefined, stdout);
  // It sees the node's own state, which the agent has left there.
  const { FLANNEL_SUBNET: gateway } = await subnetEnv(cluster.nodes[0]!);
  const subnet = gateway!.replace('.1/', '.0/');
  assert.ok(
    marks['✔']!.some((line) => line.includes('subnet-env') && line.includes(subnet)),
    stdout,
  );
});

test('the agents have the capabilities of the manifest, under seccomp, on a root file system that cannot be written', async () => {
  const NET_ADMIN = 1 << 12;
  const NET_RAW = 1 << 13;
  const DAC_OVERRIDE = 1 << 1;
  for (const pod of await cluster.pods(AGENTS.namespace, AGENT_LABELS)) {
    const { stdout: status } = await cluster.exec(pod, ['cat', '/proc/1/status']);
    const field = (name: string) => new RegExp(`^${name}:\\s*(\\S+)$`, 'm').exec(status)?.[1];
    const mask = (NET_ADMIN | NET_RAW | DAC_OVERRIDE).toString(16).padStart(16, '0');
    assert.deepEqual([field('CapBnd'), field('CapEff'), field('CapPrm')], [mask, mask, mask]);
    assert.deepEqual([field('NoNewPrivs'), field('Seccomp')], ['1', '2']);
    for (const folder of ['/', '/usr/bin', '/etc', '/tmp', '/var/lib']) {
      const { exitCode, stderr } = await cluster.exec(pod, ['touch', `${folder}/weft-test`], { okExitCodes: 'any' });
      assert.equal(exitCode, 1, folder);
      assert.match(stderr, /Read-only file system/, folder);
    }
  }
});

test("the token that kubelet gives an agent changes that node's Node and no other", async () => {
  const [pod] = await cluster.pods(AGENTS.namespace, AGENT_LABELS);
  const token = '/var/run/secrets/kubernetes.io/serviceaccount/token';
  const { stdout } = await cluster.exec(pod!, ['cat', token]);
  const statusFor = async (name: string, annotation: string): Promise<string> => {
    const argv = ['curl', '--silent', '--insecure', '--output', '/dev/null', '--write-out', '%{http_code}'];
    const headers = [
      '--header',
      `Authorization: Bearer ${stdout}`,
      '--header',
      'Content-Type: application/merge-patch+json',
    ];
    const data = JSON.stringify({ metadata: { annotations: { [annotation]: '1' } } });
    const patch = ['--request', 'PATCH', '--data', data];
    const url = `${cluster.control.url}/api/v1/nodes/${name}/status`;
    return (await cluster.node(pod!.spec.nodeName!).exec([...argv, ...headers, ...patch, url])).stdout;
  };
  const touched = 'flannel.alpha.coreos.com/touched';
  assert.deepEqual([await statusFor('node1', touched), await statusFor('node2', touched)], ['200', '403']);
  assert.equal(await statusFor('node1', 'weft.test/touched'), '403');
});

test('health and metrics are for the node alone', async () => {
  for (const node of cluster.nodes) {
    assert.match((await node.exec(['curl', '--silent', 'http://127.0.0.1:8081/readyz'])).stdout, /^flanneld is ready/);
    const argv = ['curl', '--silent', '--max-time', '5', `http://${node.address}:8081/readyz`];
    // 7: connection refused.
    assert.equal((await node.exec(argv, { okExitCodes: 'any' })).exitCode, 7);
  }
});

test("firewall rules are flannel's, after kube-proxy's", async () => {
  for (const node of cluster.nodes) {
    const golden = readFileSync(join(ROOT, 'test/golden/udp/21-iptables-save-h1.txt'), 'utf8');
    const { podCIDR } = (await cluster.api.node(node.name)).spec;
    const expected = flannelRules(golden.replaceAll('10.244.0.0/24', podCIDR!));
    const { stdout } = await node.exec(['iptables-save']);
    assert.deepEqual(flannelRules(stdout), expected);
    const forward = stdout.split('\n').filter((line) => line.startsWith('-A FORWARD '));
    const ours = forward.findIndex((line) => line.endsWith('-j FLANNEL-FWD'));
    const jumps = forward.slice(0, ours).filter((line) => line.includes('-j KUBE-'));
    assert.ok(jumps.length >= 4, `kube-proxy's jumps come first:\n${forward.join('\n')}`);
    assert.match(stdout, /^:FORWARD ACCEPT/m);
  }
});

test('a port of the node leads to the pod on it', async () => {
  const { namespace } = cluster.topology.store!;
  for (const pod of await webPods()) {
    const { address } = cluster.node(pod.spec.nodeName!);
    const url = `http://${address}:${WEB_HOST_PORT}/`;
    const { stdout } = await cluster.topology.exec(namespace, ['curl', '--silent', '--fail', '--max-time', '5', url]);
    assert.equal(stdout.trim(), pod.metadata.name);
  }
});

test('pods reach what is outside with the address of their node', async () => {
  // It could not answer to theirs: there is no way to the pod network from where it is.
  const url = `${cluster.control.url}/livez`;
  for (const pod of await webPods()) {
    const { stdout } = await cluster.exec(pod, ['curl', '--silent', '--insecure', '--max-time', '5', url]);
    assert.equal(stdout, 'ok');
  }
});

test('services answer by name and by address on every node', async () => {
  const { binary } = await kubernetesBinaries();
  await applyManifest(cluster.api, [...dnsObjects(dirname(binary)), ...SERVICE_OBJECTS]);
  for (const workload of [DNS, SHOP]) await cluster.rolledOut(workload, limit());
  const clusterIp = (await cluster.api.get<Service>('/api/v1/namespaces/default/services/shop')).spec.clusterIP;
  const shopPods = (await cluster.pods('default', { app: 'shop' })).map((pod) => pod.metadata.name);
  assert.equal(shopPods.length, 2);
  for (const pod of await webPods()) {
    const names = ['kubernetes.default.svc.cluster.local', 'shop.default.svc.cluster.local'];
    const found = names.map((name) => eventually(`${name} resolves`, () => resolve(pod, name)));
    assert.deepEqual(await Promise.all(found), ['10.96.0.1', clusterIp]);
    for (const host of [names[1]!, 'shop', clusterIp]) {
      const answer = (await httpGet(pod, host)).trim();
      assert.ok(
        shopPods.includes(answer),
        `${host} answered ${JSON.stringify(answer)} and not as ${shopPods.join(', ')}`,
      );
    }
    // Both, and so the one on the other node, too.
    const answers = new Set<string>();
    await eventually('both pods of the service answer', async () => {
      answers.add((await httpGet(pod, clusterIp)).trim());
      return answers.size === 2 ? true : undefined;
    });
    assert.deepEqual([...answers].sort(), shopPods.sort());
  }
});

test('weft test runs from the image on a node, by the command of docs/TROUBLESHOOTING.md, and ping and trace by the same', async () => {
  const [first, second] = await webPods();
  const node = cluster.node(first.spec.nodeName!);
  // Where and as kubeadm has it.
  const kubelet = `clusterDNS:\\n- ${CLUSTER_DNS}\\nclusterDomain: cluster.local\\n`;
  await node.exec(['sh', '-ec', `mkdir -p /var/lib/kubelet; printf '${kubelet}' >/var/lib/kubelet/config.yaml`]);
  const command = fromImage('docs/TROUBLESHOOTING.md', '## First commands', 'weft test');
  const run = (words: string) =>
    node.exec(['sh', '-ec', command.replace(/weft test$/, words)], { okExitCodes: 'any', timeoutMs: 120_000 });
  const tested = await node.exec(['sh', '-ec', command], { okExitCodes: 'any', timeoutMs: 120_000 });
  assert.equal(tested.exitCode, 0, tested.stdout + tested.stderr);
  assert.match(tested.stdout, /^✔ host → \S+ on /m);
  assert.match(tested.stdout, /^✔ container → \S+ on /m);
  // Nothing that it could not check, DNS and the Service among it.
  assert.doesNotMatch(tested.stdout, /^[?✖] /m);
  assert.match(tested.stdout, /^All paths work \(\d+ ms\)\.$/m);
  const report = JSON.parse((await run('weft test --json')).stdout) as Report;
  const asked = report.checks.filter(({ name }) => name === 'dns' || name === 'service');
  assert.deepEqual(
    asked.map(({ name, status }) => [name, status]),
    [
      ['dns', 'ok'],
      ['service', 'ok'],
    ],
  );
  assert.deepEqual(report.unchecked, []);

  const pinged = await run(`weft ping --count=2 ${second.status.podIP}`);
  assert.match(pinged.stdout, /^overlay +2\/2 answered/m, pinged.stderr);
  const traced = await run(`weft trace ${first.status.podIP} ${second.status.podIP} tcp ${WEB_PORT}`);
  assert.match(traced.stdout, /^✔ answered at this host/m, traced.stdout + traced.stderr);
  await node.exec(['rm', '-r', '/var/lib/kubelet']);
});

test('a pod that is deleted and made again on its node reaches the others again', async () => {
  const [, second] = await webPods();
  await cluster.api.delete(`/api/v1/namespaces/default/pods/${second.metadata.name}`);
  const again = await eventually(
    'there is another pod in its place',
    async () => (await cluster.pods('default', WEB_LABELS)).find((pod) => isReady(pod) && isSuccessor(pod, second)),
    ROLLOUT_MS,
  );
  assert.equal(again.spec.nodeName, second.spec.nodeName);
  await pingBothWays(3);
});

test('a rolling restart of the agents interrupts no connection and changes no subnet', async (t) => {
  const subnets = await Promise.all(cluster.nodes.map(subnetEnv));
  const before = await cluster.pods(AGENTS.namespace, AGENT_LABELS);
  const [first, second] = await webPods();
  await using ping = await PingStream.start(cluster, first, second);
  await using echo = await EchoStream.start(cluster, first, second);
  await using back = await EchoStream.start(cluster, second, first);
  await cluster.restart(AGENTS);
  await cluster.rolledOut(AGENTS, limit());
  const count = await ping.stop();
  t.diagnostic(`${count.sent - count.received} of ${count.sent} pings lost, ten a second`);
  for (const stream of [echo, back]) {
    const { sent, echoed } = await stream.stop();
    assert.deepEqual(echoed, sent);
  }
  const names = before.map((pod) => pod.metadata.name);
  for (const pod of await cluster.pods(AGENTS.namespace, AGENT_LABELS)) {
    assert.ok(!names.includes(pod.metadata.name), `${pod.metadata.name} is a new pod`);
  }
  assert.deepEqual(await Promise.all(cluster.nodes.map(subnetEnv)), subnets);
});

test('with the capability BPF, pods reach each other by the fast path', async () => {
  assert.deepEqual(await Promise.all(cluster.nodes.map((node) => metricOf(node, 'weft_fast_path'))), [0, 0]);
  // What INSTALL.md has before the patch.
  await applyManifest(cluster.api, fastPathCheck);
  await cluster.rolledOut(FAST_PATH_CHECK, limit());
  await deleteManifest(cluster.api, fastPathCheck, REMOVAL_MS);
  await withCapabilities('NET_ADMIN', 'NET_RAW', 'DAC_OVERRIDE', 'BPF');
  await cluster.rolledOut(AGENTS, limit());
  assert.deepEqual(await Promise.all(cluster.nodes.map((node) => metricOf(node, 'weft_fast_path'))), [1, 1]);
  const reads = () =>
    Promise.all(cluster.nodes.map((node) => metricOf(node, 'weft_forwarder_operations_total{operation="txReads"}')));
  const [first, second] = await webPods();
  await pingBothWays(3);
  await untilFastPathCarries(
    reads,
    async () => {
      await sendBlob(first, second);
      await sendBlob(second, first);
    },
    ({ before, after }) => {
      for (const [index, count] of after.entries()) {
        // The forwarder would read a thousand super-packets at the least.
        assert.ok(count - before[index]! < 500, `${count - before[index]!} packets through the forwarder`);
      }
    },
  );
  await withCapabilities('NET_ADMIN', 'NET_RAW', 'DAC_OVERRIDE');
  await cluster.rolledOut(AGENTS, limit());
  await pingBothWays(3);
});

test('a node goes and its successor joins', async () => {
  const [, gone] = await webPods();
  const host = await cluster.removeNode('node2', limit());
  await eventually('the other node knows of it', async () => ((await peersOf('node1')) === 0 ? true : undefined));
  // The next test wants this one to be as a node of kind on a Docker from before CAP_BPF.
  await cluster.addNode(host, limit(), { capabilitiesBeyondReach: ['bpf'] });
  await cluster.rolledOut(AGENTS, limit());
  await eventually(
    "a pod runs on the new node, and its state is not the old one's",
    async () => (containerOf((await webPods())[1]) === containerOf(gone) ? undefined : true),
    ROLLOUT_MS,
  );
  assert.equal(await peersOf('node1'), 1);
  await pingBothWays(3);
});

test('a node that cannot give CAP_BPF: the check says so and does no harm, and an undone patch gives the network back', async () => {
  const [first, second] = await webPods();
  await using ping = await PingStream.start(cluster, first, second);
  const agents = await cluster.pods(AGENTS.namespace, AGENT_LABELS);
  await applyManifest(cluster.api, fastPathCheck);
  const checks = (node: string) =>
    cluster
      .pods(FAST_PATH_CHECK.namespace, { app: FAST_PATH_CHECK.name })
      .then((pods) => pods.filter((pod) => pod.spec.nodeName === node));
  await eventually('the check is ready on node1', async () => (await checks('node1')).find(isReady), ROLLOUT_MS);
  const refused = await eventually(
    'the check does not start on node2',
    async () => {
      const state = (await checks('node2'))[0]?.status.containerStatuses?.[0];
      const messages = [state?.state, state?.lastState].map((one) => JSON.stringify(one ?? {}));
      return messages.find((text) =>
        /unable to apply caps|can't apply capabilities|operation not permitted/.test(text),
      );
    },
    ROLLOUT_MS,
  );
  assert.match(refused, /caps|capabilities/);
  // So the guarded patch of INSTALL.md does not come; the agents are the same, and carry packets.
  assert.deepEqual(
    (await cluster.pods(AGENTS.namespace, AGENT_LABELS)).map(({ metadata }) => metadata.uid),
    agents.map(({ metadata }) => metadata.uid),
  );
  await deleteManifest(cluster.api, fastPathCheck, REMOVAL_MS);
  const { sent, received } = await ping.stop();
  assert.equal(received, sent);

  // Without the guard, and its undo (what kubectl rollout undo does: the template as it was).
  await withCapabilities('NET_ADMIN', 'NET_RAW', 'DAC_OVERRIDE', 'BPF');
  await eventually(
    'an agent does not start',
    async () => {
      const pods = await cluster.pods(AGENTS.namespace, AGENT_LABELS);
      const states = pods.flatMap((pod) => pod.status.containerStatuses ?? []);
      return states.some((one) => /caps|capabilities/.test(JSON.stringify([one.state, one.lastState]))) || undefined;
    },
    ROLLOUT_MS,
  );
  await withCapabilities('NET_ADMIN', 'NET_RAW', 'DAC_OVERRIDE');
  await cluster.rolledOut(AGENTS, limit());
  await pingBothWays(3);
});

test('nftables instead of iptables, by one word in the ConfigMap', async () => {
  await configure((text) => text.replace('"EnableNFTables": false', '"EnableNFTables": true'));
  await cluster.restart(AGENTS);
  await cluster.rolledOut(AGENTS, limit());
  for (const node of cluster.nodes) {
    // As flannel's, but for two rules of which its iptables have the right form: test/netns/traffic-golden.test.ts.
    const golden = readFileSync(join(ROOT, 'test/golden/udp-nft/23-nft-h1.txt'), 'utf8')
      .replace('meta mark 0x00004000 return', 'meta mark & 0x00004000 == 0x00004000 return')
      .replace('saddr != 10.244.0.0/24 ip daddr 10.244.0.0/16', 'saddr != 10.244.0.0/16 ip daddr 10.244.0.0/24');
    const { podCIDR } = (await cluster.api.node(node.name)).spec;
    const table = ['nft', 'list', 'table', 'ip', 'flannel-ipv4'];
    const expected = nftRules(golden.replaceAll('10.244.0.0/24', podCIDR!));
    assert.deepEqual(nftRules((await node.exec(table)).stdout), expected);
    assert.deepEqual(flannelRules((await node.exec(['iptables-save'])).stdout), []);
  }
  await pingBothWays(5);
  const [first, second] = await webPods();
  assert.equal((await httpGet(first, `${second.status.podIP}:${WEB_PORT}`)).trim(), second.metadata.name);
});

test('uninstalled: every object is gone, and after weft cleanup the host is clean', async () => {
  const { binary } = await kubernetesBinaries();
  const workloads = [...dnsObjects(dirname(binary)), ...SERVICE_OBJECTS, WEB_DAEMON_SET];
  await deleteManifest(cluster.api, workloads, REMOVAL_MS);
  await eventually('no pod is left', async () => ((await cluster.pods('default', {})).length === 0 ? true : undefined));
  await deleteManifest(cluster.api, [...policy, ...manifest], REMOVAL_MS);
  const cleanup = ['sh', '-ec', fromImage('docs/INSTALL.md', '## Removing it', 'weft cleanup')];
  // node2 cannot give CAP_BPF: there a shell has no more than a container gets, and ctr asks for what the shell has.
  const cleanups = [cleanup, ['setpriv', '--bounding-set=-bpf', ...cleanup]];
  for (const [index, node] of cluster.nodes.entries()) {
    await node.exec(cleanups[index]!);
    const { stdout: links } = await node.exec(['ip', '-brief', 'link', 'show']);
    // The bridge is the CNI plugin's, which never removes it.
    assert.deepEqual(
      links
        .split('\n')
        .filter(Boolean)
        .map((line) => line.split(/[ @]/)[0]),
      ['lo', 'eth0', 'cni0'],
    );
    const { stdout: routes } = await node.exec(['ip', 'route', 'show', 'table', 'all', 'proto', '241']);
    assert.equal(routes, '');
    for (const command of [['iptables-save'], ['nft', 'list', 'ruleset']]) {
      assert.doesNotMatch((await node.exec(command)).stdout, /flannel/i);
    }
    const { stdout: files } = await node.exec(['find', '/run/flannel', '/etc/cni/net.d', '-type', 'f']);
    assert.equal(files, '');
  }
});

test('no TUN device in the container: the agent names the YAML to add, and with it the pods run', async () => {
  await applyManifest(cluster.api, withoutTun(manifest));
  const { pod, log } = await eventually('an agent ends with an error', failedAgent, ROLLOUT_MS);
  assert.match(
    log,
    /failed to open TUN device: open \/dev\/net\/tun: no such file or directory.* \[WEFT_TUN_MISSING\]/,
  );
  const node = await cluster.api.waitForNode(
    pod.spec.nodeName!,
    (one) => conditionOf(one, 'NetworkUnavailable')?.status === 'True',
    limit(),
  );
  const [volume, mount] = yamlIn(log);
  assert.deepEqual(yamlIn(conditionOf(node, 'NetworkUnavailable')!.message!), [volume, mount]);

  // The two items pasted where the message says.
  const path = `/apis/apps/v1/namespaces/${AGENTS.namespace}/daemonsets/${AGENTS.name}`;
  const container = { name: 'kube-flannel', volumeMounts: [mount] };
  await cluster.api.patch(path, { spec: { template: { spec: { volumes: [volume], containers: [container] } } } });
  await cluster.rolledOut(AGENTS, limit());
  await applyManifest(cluster.api, [WEB_DAEMON_SET]);
  await pingBothWays(1);
});

interface Service extends ManifestObject {
  spec: { clusterIP: string };
}

interface ConfigMap extends ManifestObject {
  data: Record<string, string>;
}

/** The command of a document that runs these words from the image on a node. */
function fromImage(document: string, section: string, words: string): string {
  const text = sectionOf(readFileSync(join(ROOT, document), 'utf8'), section);
  const commands = shellBlocks(text).flatMap(shellCommands);
  const isMeant = (one: string): boolean => one.startsWith('ctr -n k8s.io run ') && one.endsWith(` ${words}`);
  const [command, ...more] = commands.filter(isMeant);
  assert.ok(command !== undefined && more.length === 0, commands.join('\n'));
  return command;
}

async function pingBothWays(count: number): Promise<void> {
  const [first, second] = await webPods();
  for (const [from, to] of [
    [first, second],
    [second, first],
  ] as const) {
    const { stdout } = await cluster.exec(from, ['ping', '-c', String(count), '-W', '5', to.status.podIP!]);
    assert.match(stdout, / 0% packet loss/);
  }
}

/** 64 MB, compared by hash. */
async function sendBlob(from: Pod, to: Pod): Promise<void> {
  await cluster.exec(from, ['sh', '-c', 'head -c 67108864 /dev/urandom >/tmp/blob']);
  const sent = await cluster.exec(from, ['sha256sum', '/tmp/blob']);
  const fetch = `curl --silent --fail http://${from.status.podIP}:${WEB_PORT}/blob | sha256sum`;
  const received = await cluster.exec(to, ['sh', '-c', fetch]);
  assert.equal(received.stdout.split(' ')[0], sent.stdout.split(' ')[0]);
  await cluster.exec(from, ['rm', '/tmp/blob']);
}

/** What the agents' container has besides nothing; an agent cannot but start anew. */
function withCapabilities(...add: string[]): Promise<unknown> {
  const path = `/apis/apps/v1/namespaces/${AGENTS.namespace}/daemonsets/${AGENTS.name}`;
  const container = { name: 'kube-flannel', securityContext: { capabilities: { add } } };
  return cluster.api.patch(path, { spec: { template: { spec: { containers: [container] } } } });
}

async function httpGet(from: Pod, host: string): Promise<string> {
  const argv = ['curl', '--silent', '--show-error', '--fail', '--max-time', '5', `http://${host}/`];
  return (await cluster.exec(from, argv)).stdout;
}

/** The address that the resolver of a pod finds, or undefined. */
async function resolve(from: Pod, name: string): Promise<string | undefined> {
  const { stdout } = await cluster.exec(from, ['nslookup', '-type=a', name], { okExitCodes: 'any' });
  return /^Name:.*\nAddress: (\S+)$/m.exec(stdout)?.[1];
}

async function subnetEnv(node: RealNode): Promise<Record<string, string>> {
  const { stdout } = await node.exec(['cat', '/run/flannel/subnet.env']);
  const lines = stdout.split('\n').filter(Boolean);
  return Object.fromEntries(lines.map((line) => [line.slice(0, line.indexOf('=')), line.slice(line.indexOf('=') + 1)]));
}

/** The number of other nodes that the agent of a node has leases of. */
async function peersOf(name: string): Promise<number> {
  const { stdout } = await cluster.node(name).exec(['curl', '--silent', '--fail', 'http://127.0.0.1:8081/metrics']);
  return Number(/^weft_peers (\d+)$/m.exec(stdout)?.[1]);
}

function conditionOf(node: KubeNode, type: string) {
  return node.status.conditions?.find((condition) => condition.type === type);
}

function isSuccessor(pod: Pod, of: Pod): boolean {
  return pod.spec.nodeName === of.spec.nodeName && pod.metadata.uid !== of.metadata.uid;
}

/** The log of a container that has ended, while the next one may run already. */
async function failedAgent(): Promise<{ pod: Pod; log: string } | undefined> {
  for (const pod of await cluster.pods(AGENTS.namespace, AGENT_LABELS)) {
    for (const query of ['', 'previous=true']) {
      const log = await cluster.logs(pod, query).catch(() => '');
      if (log.includes('[WEFT_TUN_')) return { pod, log };
    }
  }
  return undefined;
}

function flannelRules(saved: string): string[] {
  return saved.split('\n').filter((line) => /^-A .*flannel/i.test(line));
}

function nftRules(listing: string): string[] {
  const [table] = /^table ip flannel-ipv4 \{.*?^\}/ms.exec(listing) ?? [''];
  return table.split('\n').map((line) => line.replace(/ # handle \d+$/, ''));
}

async function configure(change: (netConf: string) => string): Promise<void> {
  const path = `/api/v1/namespaces/${AGENTS.namespace}/configmaps/kube-flannel-cfg`;
  const { data } = await cluster.api.get<ConfigMap>(path);
  await cluster.api.patch(path, { data: { 'net-conf.json': change(data['net-conf.json']!) } });
}
