import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { ROOT } from '../../scripts/packaging/architecture.ts';
import type { ManifestObject } from '../e2e/nodes/manifest.ts';
import { readManifest } from '../e2e/nodes/manifest.ts';
import { asInFlannelsManifest, withoutTun, yamlIn } from '../e2e/nodes/tun-variants.ts';
import { SERVICE_OBJECTS, WEB_DAEMON_SET, WEB_HOST_PORT, WEB_PORT } from '../e2e/nodes/workloads.ts';
import { eventually } from '../netns/waiting.ts';
import { KindHost, WEFT_IMAGE } from './kind-host.ts';

/**
 * A real kind cluster, as a user makes it from docs/INSTALL.md: containerd 2, runc 1.4, kubeadm, kube-proxy and CoreDNS in nodes that
 * are containers of a real Docker. One host for all tests, which build on one another in the order of this file.
 */

/** What INSTALL.md's page promises for one backend, it promises for each of these. The first is the manifest's. */
const BACKENDS = ['udp', 'vxlan', 'host-gw'] as const;

const ROLLOUT = '--timeout=300s';
const ROLLOUT_MS = 300_000;
const AGENTS = ['--namespace=kube-flannel', 'daemonset/kube-flannel-ds'] as const;
const NODE_PORT = 30_080;

interface Pod {
  readonly metadata: { readonly name: string; readonly namespace: string };
  readonly spec: { readonly nodeName: string };
  readonly status: {
    readonly podIP?: string;
    readonly conditions?: readonly { readonly type: string; readonly status: string }[];
  };
}

interface Node {
  readonly metadata: { readonly name: string; readonly annotations: Readonly<Record<string, string>> };
  readonly spec: { readonly podCIDR: string };
  readonly status: {
    readonly addresses: readonly { readonly type: string; readonly address: string }[];
    readonly conditions: readonly { readonly type: string; readonly status: string; readonly reason: string }[];
    readonly nodeInfo: { readonly containerRuntimeVersion: string; readonly kubeletVersion: string };
  };
}

let host: KindHost;

before(async () => {
  assert.ok(existsSync(WEFT_IMAGE), `${WEFT_IMAGE} is missing: make image`);
  const say = (line: string) => process.stderr.write(`${line}\n`);
  // Everything may have to be built, when it is not make that runs this.
  host = await KindHost.start('kind', say, AbortSignal.timeout(1_400_000));
});
after(async () => {
  await host?.[Symbol.asyncDispose]();
});

test("INSTALL.md's page, word for word: from kind create to pods on all nodes that reach each other", async (t) => {
  const startedAt = performance.now();
  const lap = (what: string) => t.diagnostic(`${what}: ${((performance.now() - startedAt) / 1000).toFixed(1)} s`);
  for (const line of installCommands()) {
    // The archive is there; this machine has no registry that kind's own image could come from.
    if (line.startsWith('make image')) continue;
    const command = line.startsWith('kind create') ? `${line} --image ${host.nodeImage.name}` : line;
    await host.shell(command);
    lap(command);
  }
  await host.kubectl('rollout', 'status', ...AGENTS, ROLLOUT);
  lap('agents ready');
  await host.apply([everywhere(WEB_DAEMON_SET)]);
  await host.kubectl('rollout', 'status', 'daemonset/web', ROLLOUT);
  lap('pods ready');
  const [first, second] = await webPods();
  await ping(first!, second!, 1);
  lap('first ping from pod to pod');
  await allPairs();
  lap('pings between all pairs');
});

test('nodes are Ready on containerd 2 and runc 1.4, and their network is not unavailable', async () => {
  const nodes = await ready(3);
  for (const { metadata, status } of nodes) {
    const network = status.conditions.find(({ type }) => type === 'NetworkUnavailable');
    assert.deepEqual([network?.status, network?.reason], ['False', 'FlannelIsUp']);
    assert.match(status.nodeInfo.containerRuntimeVersion, /^containerd:\/\/v?2\./);
    assert.match(await host.inNode(metadata.name, 'runc', '--version'), /^runc version 1\.4\./);
  }
});

test('DNS and services answer on every node', async () => {
  await host.kubectl('rollout', 'status', '--namespace=kube-system', 'deployment/coredns', ROLLOUT);
  await host.apply([...SERVICE_OBJECTS, NODE_PORT_SERVICE]);
  await host.kubectl('rollout', 'status', 'deployment/shop', ROLLOUT);
  await servicesAnswer();
});

test('a hostPort and a NodePort of every node lead to pods', async () => {
  const pods = await webPods();
  for (const { metadata, status } of await nodes()) {
    const address = internalIp(status);
    const own = pods.find((pod) => pod.spec.nodeName === metadata.name)!;
    assert.equal((await curlFromHost(`${address}:${WEB_HOST_PORT}`)).trim(), own.metadata.name);
    assert.match(await curlFromHost(`${address}:${NODE_PORT}`), /^shop-/);
  }
});

for (const backend of BACKENDS) {
  test(`backend ${backend}: pods on all nodes reach each other`, async () => {
    const config = (await readManifest(join(ROOT, 'deploy/kube-flannel.yml'))).find(
      ({ kind }) => kind === 'ConfigMap',
    )!;
    const data = config.data as Record<string, string>;
    const netConf = JSON.stringify({ ...JSON.parse(data['net-conf.json']!), Backend: { Type: backend } });
    await host.apply([{ ...config, data: { ...data, 'net-conf.json': netConf } }]);
    await host.kubectl('rollout', 'restart', ...AGENTS);
    await host.kubectl('rollout', 'status', ...AGENTS, ROLLOUT);
    await allPairs();
    await allUse(backend);
  });

  test(`${backend}: docker restart gives nodes other addresses, and pods on all nodes reach each other again`, async () => {
    const before = new Map((await nodes()).map(({ metadata, status }) => [metadata.name, internalIp(status)]));
    const workers = [...before.keys()].filter((name) => name.includes('worker'));
    // Docker gives the lowest free address to whoever starts first: the one that had the higher one.
    const [second, first] = workers.sort((a, b) => lastByte(before.get(a)!) - lastByte(before.get(b)!));
    await host.docker.exec(['docker', 'stop', first!, second!]);
    for (const name of [first!, second!]) await host.docker.exec(['docker', 'start', name]);
    await eventually(
      "both nodes have each other's address",
      async () => {
        const now = new Map((await nodes()).map(({ metadata, status }) => [metadata.name, internalIp(status)]));
        return now.get(first!) === before.get(second!) && now.get(second!) === before.get(first!) ? true : undefined;
      },
      ROLLOUT_MS,
    );
    await allPairsAgain();
    // And the word of command itself, on the node that Kubernetes runs on.
    await host.docker.exec(['docker', 'restart', 'kind-control-plane']);
    await allPairsAgain();
    await servicesAnswer();
    await allUse(backend);
  });

  test(`${backend}: a node is removed, and another one joins`, async () => {
    const [stays, gone] = (await nodes())
      .map(({ metadata }) => metadata.name)
      .filter((name) => name.includes('worker'))
      .sort() as [string, string];
    const added = `kind-worker${Number(gone.slice('kind-worker'.length)) + 1}`;
    const configuration = await host.inNode(gone, 'cat', '/kind/kubeadm.conf');
    const goneAddress = internalIp((await nodes()).find(({ metadata }) => metadata.name === gone)!.status);
    await host.docker.exec(['docker', 'rm', '--force', '--volumes', gone]);
    await host.kubectl('delete', 'node', gone);
    await eventually('the others have no route to it', async () =>
      (await peersOf(stays)) === 1 && (await peersOf('kind-control-plane')) === 1 ? true : undefined,
    );

    // As kind starts its nodes; it adds none to a cluster that is there.
    await host.docker.exec([
      ...['docker', 'run', '--detach', '--tty', `--hostname=${added}`, `--name=${added}`, '--net=kind', '--privileged'],
      ...['--security-opt=seccomp=unconfined', '--security-opt=apparmor=unconfined', '--tmpfs=/tmp', '--tmpfs=/run'],
      ...['--volume=/var', '--volume=/lib/modules:/lib/modules:ro', '--cgroupns=private', '--init=false'],
      ...['--label=io.x-k8s.kind.cluster=kind', '--label=io.x-k8s.kind.role=worker', host.nodeImage.name],
    ]);
    const { stdout } = await host.docker.exec([
      ...['docker', 'inspect', '--format={{.NetworkSettings.Networks.kind.IPAddress}}', added],
    ]);
    const joining = configuration.replaceAll(gone, added).replaceAll(goneAddress, stdout.trim());
    await host.docker.exec(['docker', 'exec', '--interactive', added, 'tee', '/kind/kubeadm.conf'], { stdin: joining });
    await eventually(
      'containerd of the new node answers',
      async () =>
        (await host.shell(`docker exec ${added} crictl version`, { okExitCodes: 'any' })).exitCode === 0 || undefined,
      ROLLOUT_MS,
    );
    await host.inNode(added, 'kubeadm', 'join', '--config=/kind/kubeadm.conf', '--skip-phases=preflight');
    await host.shell(`kind load image-archive dist/weft-image.tar --nodes ${added}`);
    await ready(3);
    await host.kubectl('rollout', 'status', ...AGENTS, ROLLOUT);
    await host.kubectl('rollout', 'status', 'daemonset/web', ROLLOUT);
    assert.ok((await webPods()).some(({ spec }) => spec.nodeName === added));
    await allPairs();
    await allUse(backend);
  });
}

test("no CNI plugins on a node: kubelet says which is missing, and the agent's pod brings them", async () => {
  const node = 'kind-worker';
  await host.inNode(node, 'sh', '-c', 'rm /opt/cni/bin/*');
  const before = (await webPods()).find(({ spec }) => spec.nodeName === node)!;
  await host.kubectl('delete', 'pod', before.metadata.name);
  const message = await eventually(
    'an event tells of it',
    async () => {
      const { items } = await host.get<{ items: { message: string }[] }>('events', '--field-selector=type=Warning');
      return items.find((event) => event.message.includes('failed to find plugin'))?.message;
    },
    ROLLOUT_MS,
  );
  assert.match(message, /failed to find plugin "\w+" in path \[\/opt\/cni\/bin\]/);
  const selector = ['--namespace=kube-flannel', '--selector=app=flannel', `--field-selector=spec.nodeName=${node}`];
  await host.kubectl('delete', 'pod', ...selector);
  await host.kubectl('rollout', 'status', ...AGENTS, ROLLOUT);
  await host.kubectl('rollout', 'status', 'daemonset/web', ROLLOUT);
  await allPairs();
});

test("flannel's manifest, which mounts no /dev/net/tun: the agent makes the device", async () => {
  await replaceAgents(asInFlannelsManifest);
  await host.kubectl('rollout', 'status', ...AGENTS, ROLLOUT);
  await allPairs();
});

test('no /dev/net/tun, and none can be made: the agent names the YAML to add, and with it pods reach each other', async () => {
  await replaceAgents(withoutTun);
  const log = await eventually(
    'an agent ends with an error',
    async () => {
      for (const flag of ['--previous=false', '--previous']) {
        const logs = await host.kubectl('logs', ...AGENTS, flag).catch(() => '');
        if (logs.includes('[WEFT_TUN_')) return logs;
      }
      return undefined;
    },
    ROLLOUT_MS,
  );
  const recorded = /failed to open TUN device: open \/dev\/net\/tun: no such file or directory.* \[WEFT_TUN_MISSING\]/;
  assert.match(log, recorded);
  const [volume, mount] = yamlIn(log);
  const container = { name: 'kube-flannel', volumeMounts: [mount] };
  const patch = { spec: { template: { spec: { volumes: [volume], containers: [container] } } } };
  await host.kubectl('patch', ...AGENTS, '--patch', JSON.stringify(patch));
  await host.kubectl('rollout', 'status', ...AGENTS, ROLLOUT);
  await allPairs();
});

test('kind delete leaves no container and no volume', async () => {
  await host.shell('kind delete cluster');
  for (const list of [
    ['docker', 'ps', '--all', '--quiet'],
    ['docker', 'volume', 'ls', '--quiet'],
  ]) {
    assert.equal((await host.docker.exec(list)).stdout, '');
  }
});

test('the same with a folder of the machine mounted as /opt/cni/bin of all nodes, which nobody needs', async () => {
  const file = join(host.docker.dir, 'home', 'cluster.yaml');
  await writeFile(file, CLUSTER_WITH_MOUNTS);
  await host.shell(`kind create cluster --image ${host.nodeImage.name} --config ${file}`);
  await host.shell('kind load image-archive dist/weft-image.tar');
  await host.shell('kubectl apply -f deploy/kube-flannel.yml');
  await host.kubectl('rollout', 'status', ...AGENTS, ROLLOUT);
  await host.apply([everywhere(WEB_DAEMON_SET)]);
  await host.kubectl('rollout', 'status', 'daemonset/web', ROLLOUT);
  await ready(3);
  await allPairs();
  await host.shell('kind delete cluster');
});

/** As people write it who read flannel's own instructions. */
const CLUSTER_WITH_MOUNTS = `kind: Cluster
apiVersion: kind.x-k8s.io/v1alpha4
nodes:
${['control-plane', 'worker', 'worker']
  .map(
    (role) =>
      `  - role: ${role}\n    extraMounts:\n      - hostPath: /opt/cni/bin\n        containerPath: /opt/cni/bin\n`,
  )
  .join('')}networking:
  disableDefaultCNI: true
  podSubnet: "10.244.0.0/16"
`;

const NODE_PORT_SERVICE: ManifestObject = {
  apiVersion: 'v1',
  kind: 'Service',
  metadata: { name: 'shop-node-port', namespace: 'default' },
  spec: {
    type: 'NodePort',
    selector: { app: 'shop' },
    ports: [{ port: 80, targetPort: WEB_PORT, nodePort: NODE_PORT }],
  },
};

/** The lines of the first block below "On kind", without their comments. */
function installCommands(): string[] {
  const text = readFileSync(join(ROOT, 'docs/INSTALL.md'), 'utf8');
  const [, block] = /^## On kind$.*?^```sh$\n(.*?)^```$/ms.exec(text) ?? [];
  assert.ok(block !== undefined);
  return block
    .split('\n')
    .map((line) => line.replace(/\s+#.*$/, ''))
    .filter(Boolean);
}

/** On the control plane's node, too. */
function everywhere(daemonSet: ManifestObject): ManifestObject {
  const copy = structuredClone(daemonSet) as ManifestObject & { spec: { template: { spec: Record<string, unknown> } } };
  copy.spec.template.spec.tolerations = [{ operator: 'Exists' }];
  return copy;
}

async function nodes(): Promise<Node[]> {
  return (await host.get<{ items: Node[] }>('nodes')).items;
}

/** Resolves when that many nodes are Ready, and no other. */
async function ready(count: number): Promise<Node[]> {
  return eventually(
    `${count} nodes are Ready`,
    async () => {
      // An API server that has just been started refuses what it will soon allow.
      const found = await host.kubectl('get', '--raw=/readyz').then(nodes, () => []);
      const isReady = ({ status }: Node) =>
        status.conditions.some((condition) => condition.type === 'Ready' && condition.status === 'True');
      return found.length === count && found.every(isReady) ? found : undefined;
    },
    ROLLOUT_MS,
  );
}

function lastByte(address: string): number {
  return Number(address.slice(address.lastIndexOf('.') + 1));
}

function internalIp(status: Node['status']): string {
  return status.addresses.find(({ type }) => type === 'InternalIP')!.address;
}

/** The agents of deploy/kube-flannel.yml, changed; those that ran are gone before. */
async function replaceAgents(change: (objects: readonly ManifestObject[]) => ManifestObject[]): Promise<void> {
  await host.kubectl('delete', ...AGENTS);
  await host.apply(change(await readManifest(join(ROOT, 'deploy/kube-flannel.yml'))));
}

/** One on each node. */
async function webPods(): Promise<Pod[]> {
  return eventually(
    'a web server is ready on every node',
    async () => {
      const { items } = await host.get<{ items: Pod[] }>('pods', '--selector=app=web');
      const all = await nodes();
      const isReady = ({ status }: Pod) =>
        status.conditions?.some((condition) => condition.type === 'Ready' && condition.status === 'True');
      return items.length === all.length && items.every(isReady) ? items : undefined;
    },
    ROLLOUT_MS,
  );
}

async function ping(from: Pod, to: Pod, count: number): Promise<void> {
  const argv = ['ping', '-c', String(count), '-W', '5', to.status.podIP!];
  const stdout = await host.kubectl('exec', from.metadata.name, '--', ...argv);
  assert.match(stdout, / 0% packet loss/);
}

/** Every pod to every other: three pings, and HTTP. */
async function allPairs(): Promise<void> {
  const pods = await webPods();
  for (const from of pods) {
    for (const to of pods) {
      if (from === to) continue;
      await ping(from, to, 3);
      assert.equal((await curlFrom(from, `${to.status.podIP}:${WEB_PORT}`)).trim(), to.metadata.name);
    }
  }
}

/** What the nodes' leases say; flannel's udp writes no type. */
async function allUse(backend: (typeof BACKENDS)[number]): Promise<void> {
  const types = (await nodes()).map(({ metadata }) => metadata.annotations['flannel.alpha.coreos.com/backend-type']);
  assert.deepEqual(types, Array(3).fill(backend === 'udp' ? '' : backend));
}

/** After nodes were restarted: what Kubernetes says of them and of their pods is still from before, so only trying tells. */
async function allPairsAgain(): Promise<void> {
  await eventually(
    'pods on all nodes reach each other again',
    () =>
      allPairs().then(
        () => true,
        () => undefined,
      ),
    ROLLOUT_MS,
  );
  await ready(3);
  await host.kubectl('rollout', 'status', ...AGENTS, ROLLOUT);
  await allPairs();
}

async function curlFrom(pod: Pod, to: string): Promise<string> {
  return host.kubectl('exec', pod.metadata.name, '--', 'curl', '-sS', '--fail', '--max-time', '10', `http://${to}/`);
}

async function curlFromHost(to: string): Promise<string> {
  return (await host.docker.exec(['curl', '-sS', '--fail', '--max-time', '10', `http://${to}/`])).stdout;
}

/** From a pod on every node: by name, by address, and from both pods of the service. */
async function servicesAnswer(): Promise<void> {
  for (const pod of await webPods()) {
    const answers = new Set<string>();
    await eventually(
      `both pods of the service answer on ${pod.spec.nodeName}`,
      async () => {
        answers.add((await curlFrom(pod, 'shop.default.svc.cluster.local').catch(() => '')).trim());
        answers.delete('');
        return answers.size === 2 ? true : undefined;
      },
      ROLLOUT_MS,
    );
  }
}

/** The number of other nodes that the agent of a node knows. */
async function peersOf(node: string): Promise<number> {
  const metrics = await host.inNode(node, 'curl', '--silent', '--fail', 'http://127.0.0.1:8081/metrics');
  return Number(/^weft_peers (\d+)$/m.exec(metrics)?.[1]);
}
