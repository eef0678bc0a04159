import assert from 'node:assert/strict';
import { mkdir, readFile, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { ROOT } from '../../scripts/packaging/architecture.ts';
import { kubernetesBinaries } from '../../src/lab/servers/kube-build.ts';
import { type KubeClient, KubeClientError, type KubeObject } from '../../src/lab/servers/kube-client.ts';
import { KubeCluster } from '../../src/lab/servers/kube-server.ts';
import { type RunResult, run } from '../../src/linux/run.ts';
import { sectionOf, shellBlocks, shellCommands } from '../markdown.ts';
import { eventuallyHolds } from '../netns/waiting.ts';
import { deployTools } from './deploy-tools.ts';

/**
 * The commands of docs/INSTALL.md, docs/UPGRADE.md and docs/MIGRATION.md, as they stand, by kubectl and helm on a real API server with
 * its controllers and scheduler. What runs in the pods is not there: other tests run it, on real nodes.
 */

const NODES = ['node1', 'node2'];
const NAMESPACE = 'kube-flannel';
const DAEMON_SET = `/apis/apps/v1/namespaces/${NAMESPACE}/daemonsets/kube-flannel-ds`;
const COMMAND_MS = 120_000;

interface Container {
  readonly name: string;
  readonly image: string;
}

interface DaemonSet extends KubeObject {
  readonly spec: {
    readonly updateStrategy: { readonly type: string; readonly rollingUpdate?: { readonly maxSurge?: number } };
    readonly template: {
      readonly spec: { readonly initContainers?: readonly Container[]; readonly containers: readonly Container[] };
    };
  };
}

interface Pod extends KubeObject {
  readonly metadata: KubeObject['metadata'] & { readonly deletionTimestamp?: string };
  readonly spec: { readonly nodeName?: string; readonly containers: readonly Container[] };
  readonly status: { readonly phase?: string };
}

const cleanup = new AsyncDisposableStack();
let cluster: KubeCluster;
let environment: Record<string, string>;
let version: string;

before(async () => {
  ({ version } = JSON.parse(await readFile(join(ROOT, 'package.json'), 'utf8')) as { version: string });
  const { helm } = await deployTools();
  const kubernetes = await kubernetesBinaries();
  cluster = cleanup.use(
    await KubeCluster.start({ flannelAccount: false, controllers: '*,-node-lifecycle-controller', scheduler: true }),
  );
  const bin = join(cluster.dir, 'bin');
  await mkdir(bin);
  await symlink(kubernetes.program('kubectl'), join(bin, 'kubectl'));
  await symlink(helm, join(bin, 'helm'));
  // `k3s kubectl`.
  await writeFile(join(bin, 'k3s'), '#!/bin/sh\nexec "$@"\n', { mode: 0o755 });
  await writeFile(join(cluster.dir, 'values.json'), '{}');
  environment = {
    PATH: `${bin}:/usr/sbin:/usr/bin:/sbin:/bin`,
    HOME: cluster.dir,
    KUBECONFIG: await cluster.kubeconfig('admin', { token: cluster.adminToken }),
  };
  for (const name of NODES) {
    await cluster.admin.createNode(name);
    const room = { cpu: '4', memory: '8Gi', pods: '110' };
    await cluster.admin.patch(`/api/v1/nodes/${name}/status`, { status: { capacity: room, allocatable: room } });
  }
  cleanup.use(new StandInKubelets(cluster.admin));
});
after(() => cleanup.disposeAsync());

/** Pods run once they are scheduled, and go when they are told to: all that kubectl and the controllers see of a node. */
class StandInKubelets implements AsyncDisposable {
  readonly #stop = new AbortController();
  readonly #running: Promise<void>;

  constructor(api: KubeClient) {
    this.#running = this.#run(api);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort();
    await this.#running;
  }

  async #run(api: KubeClient): Promise<void> {
    while (!this.#stop.signal.aborted) {
      for (const pod of await api.list<Pod>('/api/v1/pods')) {
        await this.#serve(api, pod).catch((error: unknown) => {
          // Somebody else was faster.
          if (!(error instanceof KubeClientError) || ![404, 409].includes(error.status)) throw error;
        });
      }
      await sleep(50, undefined, { signal: this.#stop.signal }).catch(() => {});
    }
  }

  async #serve(api: KubeClient, { metadata, spec, status }: Pod): Promise<void> {
    const path = `/api/v1/namespaces/${metadata.namespace}/pods/${metadata.name}`;
    if (metadata.deletionTimestamp !== undefined) await api.delete(`${path}?gracePeriodSeconds=0`);
    else if (spec.nodeName !== undefined && status.phase !== 'Running') {
      const conditions = [{ type: 'Ready', status: 'True' }];
      await api.patch(`${path}/status`, { status: { phase: 'Running', conditions } });
    }
  }
}

/** As a user's shell runs it, at the root of the repository. */
function shell(command: string, options: { stdin?: string; okExitCodes?: 'any' } = {}): Promise<RunResult> {
  const argv = ['env', '-i', ...Object.entries(environment).map(([name, value]) => `${name}=${value}`)];
  return run([...argv, 'sh', '-ec', `cd '${ROOT}'; ${command}`], { ...options, timeoutMs: COMMAND_MS });
}

/** The commands of each block of a section. */
async function blocksOf(path: string, heading: string): Promise<string[][]> {
  return shellBlocks(sectionOf(await readFile(join(ROOT, path), 'utf8'), heading)).map(shellCommands);
}

async function runAll(commands: readonly string[] | undefined): Promise<void> {
  assert.ok(commands !== undefined && commands.length > 0);
  for (const command of commands) await shell(command.replaceAll('NODE', 'node1'));
}

function daemonSet(): Promise<DaemonSet> {
  return cluster.admin.get<DaemonSet>(DAEMON_SET);
}

async function imagesOf(): Promise<string[]> {
  const { initContainers = [], containers } = (await daemonSet()).spec.template.spec;
  return [...initContainers, ...containers].map(({ image }) => image);
}

async function netConf(): Promise<{ Network: string; Backend: { Type: string } }> {
  const path = `/api/v1/namespaces/${NAMESPACE}/configmaps/kube-flannel-cfg`;
  const { data } = await cluster.admin.get<KubeObject & { data: Record<string, string> }>(path);
  return JSON.parse(data['net-conf.json']!) as Awaited<ReturnType<typeof netConf>>;
}

/** The image of the agent on each node. */
async function agentsOf(): Promise<Record<string, string>> {
  const pods = await cluster.admin.list<Pod>(`/api/v1/namespaces/${NAMESPACE}/pods`);
  return Object.fromEntries(pods.map(({ spec }) => [spec.nodeName!, spec.containers[0]!.image]));
}

async function mayGetPods(): Promise<boolean> {
  const who = `system:serviceaccount:${NAMESPACE}:flannel`;
  const asked = await shell(`kubectl auth can-i get pods --as=${who}`, { okExitCodes: 'any' });
  return asked.stdout.trim() === 'yes';
}

describe('the commands for Helm', () => {
  it('install the chart', async () => {
    const [commands] = await blocksOf('docs/INSTALL.md', '## With Helm');
    await runAll(commands);
    assert.deepEqual(await imagesOf(), [`localhost/weft:${version}`, `localhost/weft:${version}`]);
    assert.equal((await netConf()).Network, '10.244.0.0/16');
  });

  it('upgrade a release, with the permission that pods of flannel need meanwhile', async () => {
    const helm = (await blocksOf('docs/MIGRATION.md', '### From flannel to weft')).at(-1)!;
    assert.equal(helm.length, 4);
    const commands = helm.map((command) => command.replace('YOUR-VALUES', join(cluster.dir, 'values.json')));
    assert.equal(await mayGetPods(), false);
    await runAll(commands.slice(0, 3));
    assert.equal(await mayGetPods(), true);
    await runAll(commands.slice(3));
    assert.equal(await mayGetPods(), false);
    await shell(`helm rollback flannel 1 --namespace ${NAMESPACE}`);
    await shell(`helm uninstall flannel --namespace ${NAMESPACE}`);
    await assert.rejects(daemonSet(), KubeClientError);
    await shell(`kubectl delete namespace ${NAMESPACE}`);
  });
});

describe('the commands for a cluster with weft', () => {
  it('install it on kubeadm, also for another pod CIDR, and on k3s', async () => {
    const kubeadm = await blocksOf('docs/INSTALL.md', '## On kubeadm');
    const [init, ...apply] = kubeadm[2]!;
    assert.match(init!, /^kubeadm init --pod-network-cidr=10\.244\.0\.0\/16$/);
    await runAll(apply);
    assert.equal((await netConf()).Network, '10.244.0.0/16');
    assert.deepEqual(Object.keys(await agentsOf()).sort(), NODES);
    await runAll(kubeadm[3]);
    assert.equal((await netConf()).Network, '172.20.0.0/16');
    await runAll((await blocksOf('docs/INSTALL.md', '## On k3s'))[2]);
    assert.equal((await netConf()).Network, '10.42.0.0/16');
  });

  it('choose another backend', async () => {
    const [commands] = await blocksOf('docs/INSTALL.md', '### Another backend');
    await runAll(commands);
    assert.equal((await netConf()).Backend.Type, 'vxlan');
  });

  it('restrict tokens to their own Nodes', async () => {
    const [commands] = await blocksOf('docs/INSTALL.md', "### An agent's token for its own Node alone");
    await runAll(commands);
    await cluster.admin.get('/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies/flannel-own-node');
  });

  it('upgrade it, and roll back', async () => {
    const [upgrade, rollback] = await blocksOf('docs/UPGRADE.md', '## On Kubernetes');
    await runAll(upgrade);
    assert.deepEqual(await imagesOf(), ['localhost/weft:NEW', 'localhost/weft:NEW']);
    assert.deepEqual(await agentsOf(), { node1: 'localhost/weft:NEW', node2: 'localhost/weft:NEW' });
    await runAll(rollback);
    assert.deepEqual(await imagesOf(), [`localhost/weft:${version}`, `localhost/weft:${version}`]);
  });

  it('let the next agent start first, and take that back', async () => {
    const text = sectionOf(await readFile(join(ROOT, 'docs/INSTALL.md'), 'utf8'), '## Updates without a gap');
    await runAll(shellCommands(shellBlocks(text)[0]!));
    assert.equal((await daemonSet()).spec.updateStrategy.rollingUpdate?.maxSurge, 1);
    const [, undo] = /`(kubectl -n kube-flannel patch [^`]+)`/.exec(text) ?? [];
    await runAll(undo === undefined ? undefined : [undo]);
    assert.equal((await daemonSet()).spec.updateStrategy.rollingUpdate?.maxSurge, 0);
  });

  it('remove it', async () => {
    const [commands] = await blocksOf('docs/INSTALL.md', '## Removing it');
    const [kubectl, cleanUp] = commands!;
    assert.equal(cleanUp, 'weft cleanup');
    await runAll([kubectl!]);
    await assert.rejects(cluster.admin.get(`/api/v1/namespaces/${NAMESPACE}`), KubeClientError);
  });
});

describe('the commands for a cluster with flannel', () => {
  let original: DaemonSet['spec']['template'];
  let commands: string[][];

  before(async () => {
    await shell('kubectl apply -f -', { stdin: JSON.stringify({ apiVersion: 'v1', kind: 'List', items: FLANNEL }) });
    await shell(`kubectl -n ${NAMESPACE} rollout status daemonset/kube-flannel-ds`);
    original = (await daemonSet()).spec.template;
  });

  it('give its nodes weft, one after the other', async () => {
    commands = await blocksOf('docs/MIGRATION.md', '### From flannel to weft');
    const [onDelete, apply, each, rest] = commands;
    await runAll(onDelete);
    assert.equal((await daemonSet()).spec.updateStrategy.type, 'OnDelete');
    await runAll(apply);
    assert.deepEqual(await imagesOf(), [`localhost/weft:${version}`, `localhost/weft:${version}`]);
    assert.deepEqual(await agentsOf(), { node1: FLANNEL_IMAGE, node2: FLANNEL_IMAGE }, 'no pod changes yet');
    assert.equal(await mayGetPods(), true, 'pods of flannel may still read themselves');
    await runAll(each);
    await running({ node1: `localhost/weft:${version}`, node2: FLANNEL_IMAGE });
    await runAll(each!.map((command) => command.replaceAll('NODE', 'node2')));
    await running({ node1: `localhost/weft:${version}`, node2: `localhost/weft:${version}` });
    await runAll(rest);
    assert.equal(await mayGetPods(), false);
    assert.equal((await daemonSet()).spec.updateStrategy.type, 'RollingUpdate');
  });

  it('give them flannel again, each cleaned and drained', async () => {
    await runAll(commands[0]);
    const [undo, patch, each, rest] = await blocksOf('docs/MIGRATION.md', '### From weft to flannel');
    await runAll(undo);
    assert.deepEqual((await daemonSet()).spec.template.spec, original.spec);
    await runAll(patch);
    const { initContainers } = (await daemonSet()).spec.template.spec;
    assert.deepEqual(
      initContainers!.map(({ name, image }) => [name, image]).find(([name]) => name === 'weft-cleanup'),
      ['weft-cleanup', `localhost/weft:${version}`],
    );
    // There is no kubelet to ask for a log.
    const possible = each!.filter((command) => !command.includes(' logs '));
    assert.equal(possible.length, each!.length - 1);
    await runAll(possible);
    await running({ node1: FLANNEL_IMAGE, node2: `localhost/weft:${version}` });
    await runAll(possible.map((command) => command.replaceAll('NODE', 'node2')));
    await running({ node1: FLANNEL_IMAGE, node2: FLANNEL_IMAGE });
    await runAll(rest);
    assert.deepEqual((await daemonSet()).spec.template.spec, original.spec);
  });
});

async function running(agents: Record<string, string>): Promise<void> {
  await eventuallyHolds(async () => assert.deepEqual(await agentsOf(), agents));
}

const FLANNEL_IMAGE = 'registry.test/flannel:v0.28.10';
const LABELS = { app: 'flannel', 'k8s-app': 'flannel', tier: 'node' };
const SUBJECT = { kind: 'ServiceAccount', name: 'flannel', namespace: NAMESPACE };

/** flannel's objects, as far as weft's manifest meets them: their names, labels and permissions, and the names of the containers. */
const FLANNEL: readonly object[] = [
  { apiVersion: 'v1', kind: 'Namespace', metadata: { name: NAMESPACE, labels: { 'k8s-app': 'flannel' } } },
  { apiVersion: 'v1', kind: 'ServiceAccount', metadata: { name: 'flannel', namespace: NAMESPACE } },
  {
    apiVersion: 'rbac.authorization.k8s.io/v1',
    kind: 'ClusterRole',
    metadata: { name: 'flannel' },
    rules: [
      { apiGroups: [''], resources: ['pods'], verbs: ['get'] },
      { apiGroups: [''], resources: ['nodes'], verbs: ['get', 'list', 'watch'] },
      { apiGroups: [''], resources: ['nodes/status'], verbs: ['patch'] },
    ],
  },
  {
    apiVersion: 'rbac.authorization.k8s.io/v1',
    kind: 'ClusterRoleBinding',
    metadata: { name: 'flannel' },
    roleRef: { apiGroup: 'rbac.authorization.k8s.io', kind: 'ClusterRole', name: 'flannel' },
    subjects: [SUBJECT],
  },
  {
    apiVersion: 'v1',
    kind: 'ConfigMap',
    metadata: { name: 'kube-flannel-cfg', namespace: NAMESPACE, labels: LABELS },
    data: { 'net-conf.json': '{"Network": "10.244.0.0/16", "Backend": {"Type": "vxlan"}}' },
  },
  {
    apiVersion: 'apps/v1',
    kind: 'DaemonSet',
    metadata: { name: 'kube-flannel-ds', namespace: NAMESPACE, labels: LABELS },
    spec: {
      selector: { matchLabels: { app: 'flannel' } },
      template: {
        metadata: { labels: LABELS },
        spec: {
          serviceAccountName: 'flannel',
          hostNetwork: true,
          tolerations: [{ operator: 'Exists', effect: 'NoSchedule' }],
          initContainers: [
            {
              name: 'install-cni-plugin',
              image: 'registry.test/flannel-cni-plugin:v1',
              command: ['cp', '-f', '/flannel', '/opt/cni/bin/flannel'],
              volumeMounts: [{ name: 'cni-plugin', mountPath: '/opt/cni/bin' }],
            },
            {
              name: 'install-cni',
              image: FLANNEL_IMAGE,
              command: ['cp', '-f', '/etc/kube-flannel/cni-conf.json', '/etc/cni/net.d/10-flannel.conflist'],
              volumeMounts: [
                { name: 'cni', mountPath: '/etc/cni/net.d' },
                { name: 'flannel-cfg', mountPath: '/etc/kube-flannel' },
              ],
            },
          ],
          containers: [
            {
              name: 'kube-flannel',
              image: FLANNEL_IMAGE,
              command: ['/opt/bin/flanneld'],
              args: ['--ip-masq', '--kube-subnet-mgr'],
              securityContext: { privileged: false, capabilities: { add: ['NET_ADMIN', 'NET_RAW'] } },
              volumeMounts: [
                { name: 'run', mountPath: '/run/flannel' },
                { name: 'flannel-cfg', mountPath: '/etc/kube-flannel/' },
                { name: 'xtables-lock', mountPath: '/run/xtables.lock' },
              ],
            },
          ],
          volumes: [
            { name: 'run', hostPath: { path: '/run/flannel' } },
            { name: 'cni-plugin', hostPath: { path: '/opt/cni/bin' } },
            { name: 'cni', hostPath: { path: '/etc/cni/net.d' } },
            { name: 'flannel-cfg', configMap: { name: 'kube-flannel-cfg' } },
            { name: 'xtables-lock', hostPath: { path: '/run/xtables.lock', type: 'FileOrCreate' } },
          ],
        },
      },
    },
  },
];
