import { randomUUID } from 'node:crypto';
import { mkdir } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { ROOT } from '../../../scripts/packaging/architecture.ts';
import { describeError } from '../../../src/errors.ts';
import { kubernetesBinaries } from '../../../src/lab/servers/kube-build.ts';
import type { KubeClient, KubeObject } from '../../../src/lab/servers/kube-client.ts';
import { KubeCluster } from '../../../src/lab/servers/kube-server.ts';
import { storePlace } from '../../../src/lab/store-place.ts';
import type { LabHost, Topology } from '../../../src/lab/topology.ts';
import { type Child, type RunOptions, type RunResult, run, type StartOptions } from '../../../src/linux/run.ts';
import { Bed } from './bed.ts';
import { checkNodePrerequisites } from './node-prerequisites.ts';
import { type NodeOptions, RealNode } from './real-node.ts';
import { buildToolsImage } from './test-images.ts';

export interface RealClusterOptions {
  readonly nodes: number;
  /** More archives for every node, beside the images of the tests' own pods. */
  readonly images: readonly string[];
  /** Nodes, pods and services have addresses of both families. Default: of IPv4 alone. */
  readonly dualStack?: boolean;
  readonly say?: (line: string) => void;
}

/** Of the pods where there are both families. */
export const POD_CIDRS = { ipv4: '10.244.0.0/16', ipv6: 'fd10:244::/56' };
const SERVICE_CIDRS = '10.96.0.0/16,fd10:96::/112';
/** Between the nodes, `::1` for the first. */
const UNDERLAY_V6 = 'fd77::';
const STORE_HOST_V6 = 'fd';

export interface Pod extends KubeObject {
  metadata: KubeObject['metadata'] & { deletionTimestamp?: string };
  spec: { nodeName?: string };
  status: {
    phase?: string;
    podIP?: string;
    podIPs?: { ip: string }[];
    conditions?: { type: string; status: string }[];
    containerStatuses?: ContainerStatus[];
    initContainerStatuses?: ContainerStatus[];
  };
}

export interface Workload {
  readonly kind: 'daemonsets' | 'deployments';
  readonly namespace: string;
  readonly name: string;
}

interface Rollout extends KubeObject {
  metadata: KubeObject['metadata'] & { generation: number };
  spec: { replicas?: number };
  status: {
    observedGeneration?: number;
    desiredNumberScheduled?: number;
    updatedNumberScheduled?: number;
    numberAvailable?: number;
    replicas?: number;
    updatedReplicas?: number;
    availableReplicas?: number;
  };
}

interface ContainerStatus {
  readonly name: string;
  readonly containerID?: string;
  readonly restartCount: number;
  readonly lastState?: unknown;
  readonly state?: { waiting?: { reason?: string; message?: string }; terminated?: { exitCode?: number } };
}

/**
 * A Kubernetes cluster on this machine: the control plane and every node in namespaces of a lab. It has no pod network: that
 * is what the tests bring.
 */
export class RealCluster implements AsyncDisposable {
  readonly topology: Topology;
  readonly control: KubeCluster;
  readonly #dir: string;
  readonly #images: readonly string[];
  readonly #dualStack: boolean;
  readonly #kubeProxyConfig: string;
  readonly #nodes = new Map<string, RealNode>();
  readonly #cleanup: AsyncDisposableStack;

  private constructor(
    topology: Topology,
    control: KubeCluster,
    dir: string,
    { images, dualStack = false }: Pick<RealClusterOptions, 'images' | 'dualStack'>,
    kubeProxyConfig: string,
    cleanup: AsyncDisposableStack,
  ) {
    this.topology = topology;
    this.control = control;
    this.#dir = dir;
    this.#images = images;
    this.#dualStack = dualStack;
    this.#kubeProxyConfig = kubeProxyConfig;
    this.#cleanup = cleanup;
  }

  /** Resolves when all Nodes are registered and have their pod CIDRs. What dead runs left is removed first. */
  static async start(options: RealClusterOptions, signal: AbortSignal): Promise<RealCluster> {
    await checkNodePrerequisites(options.say ?? (() => {}), signal);
    await using cleanup = new AsyncDisposableStack();
    const purpose = 'end-to-end test on real nodes';
    const { topology, dir } = cleanup.use(await Bed.open({ hosts: options.nodes, store: true, purpose }));
    const toolsImage = await buildToolsImage(dir, signal);
    const controlDir = join(dir, 'control');
    await mkdir(controlDir);
    const control = await KubeCluster.start({
      ...storePlace(topology).place,
      directory: controlDir,
      controllers: '*',
      scheduler: true,
      flannelAccount: false,
      ...(options.dualStack === true
        ? { clusterCidr: `${POD_CIDRS.ipv4},${POD_CIDRS.ipv6}`, serviceCidr: SERVICE_CIDRS }
        : {}),
    });
    cleanup.use(control);
    if (options.dualStack === true) {
      const address = `addr add ${UNDERLAY_V6}${STORE_HOST_V6}/64 dev eth0 nodad\n`;
      await topology.ipBatch(topology.store!, address, signal);
    }
    const kubeProxyConfig = await kubeconfigOf(control, 'kube-proxy', 'system:kube-proxy');
    const images = [toolsImage, ...options.images];
    const { dualStack } = options;
    const cluster = new RealCluster(
      ...([topology, control, dir] as const),
      { images, ...(dualStack === undefined ? {} : { dualStack }) },
      kubeProxyConfig,
      cleanup.move(),
    );
    // All have come to an end before anything is taken down.
    const joined = await Promise.allSettled(topology.hosts.map((host) => cluster.addNode(host, signal)));
    const failed = joined.find((outcome) => outcome.status === 'rejected');
    if (failed !== undefined) {
      await cluster[Symbol.asyncDispose]();
      throw failed.reason;
    }
    return cluster;
  }

  get api(): KubeClient {
    return this.control.admin;
  }

  get nodes(): RealNode[] {
    return [...this.#nodes.values()].sort((a, b) => a.name.localeCompare(b.name));
  }

  node(name: string): RealNode {
    const node = this.#nodes.get(name);
    if (node === undefined) throw new Error(`there is no node ${name}`);
    return node;
  }

  /** A machine that joins: its Node registers itself. */
  async addNode(
    host: LabHost,
    signal: AbortSignal,
    options: Pick<NodeOptions, 'capabilitiesBeyondReach'> = {},
  ): Promise<RealNode> {
    const name = nameOf(host);
    const dir = join(this.#dir, `${name}-${randomUUID().slice(0, 8)}`);
    const kubernetes = await kubernetesBinaries();
    const addressV6 = this.#dualStack ? `${UNDERLAY_V6}${host.index + 1}` : undefined;
    if (addressV6 !== undefined) {
      // Without a default route the agents, to which the manifest names no interface, would find none for IPv6.
      const route = `route add default via ${UNDERLAY_V6}${STORE_HOST_V6} dev eth0`;
      await this.topology.ipBatch(host, `addr add ${addressV6}/64 dev eth0 nodad\n${route}\n`, signal);
      await this.topology.exec(host, ['sysctl', '-q', '-w', 'net.ipv6.conf.all.forwarding=1'], { signal });
    }
    const node = await RealNode.start({
      name,
      host,
      dir,
      addressV6,
      programs: { kubelet: kubernetes.program('kubelet'), kubeProxy: kubernetes.program('kube-proxy') },
      kubeconfigs: {
        kubelet: await kubeconfigOf(this.control, name, `system:node:${name}`, 'system:nodes'),
        kubeProxy: this.#kubeProxyConfig,
      },
      images: this.#images,
      ...options,
    });
    this.#nodes.set(name, node);
    await this.api.waitForNode(name, ({ spec }) => (spec.podCIDRs ?? []).length > 0, signal);
    return node;
  }

  /** The machine is switched off without a word and carried away, and its Node deleted; returns the place it had. */
  async removeNode(name: string, signal: AbortSignal): Promise<LabHost> {
    const host = this.topology.hosts.find((one) => nameOf(one) === name)!;
    const node = this.node(name);
    this.#nodes.delete(name);
    await node[Symbol.asyncDispose]();
    await this.api.deleteNode(name);
    await this.topology.replaceHost(host, signal);
    return host;
  }

  /** In the order of their nodes; those that are being deleted are left out. */
  async pods(namespace: string, labels: Readonly<Record<string, string>>): Promise<Pod[]> {
    const selector = Object.entries(labels).map(([key, value]) => `${key}=${value}`);
    const query = `labelSelector=${encodeURIComponent(selector.join(','))}`;
    const pods = await this.api.list<Pod>(`/api/v1/namespaces/${namespace}/pods?${query}`);
    return pods
      .filter((pod) => pod.metadata.deletionTimestamp === undefined)
      .sort((a, b) => (a.spec.nodeName ?? '').localeCompare(b.spec.nodeName ?? ''));
  }

  /**
   * Resolves when the newest version of it runs everywhere it is to run.
   * @throws Error with the state of its pods and the ends of all logs when `signal` fires first.
   */
  async rolledOut({ kind, namespace, name }: Workload, signal: AbortSignal): Promise<void> {
    try {
      await this.api.waitFor<Rollout>(`/apis/apps/v1/namespaces/${namespace}/${kind}`, name, isRolledOut, signal);
    } catch (error) {
      const pods = (await this.pods(namespace, {})).map((pod) => this.#describe(pod));
      const state = [...(await Promise.all(pods)), ...this.nodes.map((node) => node.logTails())].join('\n');
      throw new Error(`${kind} ${name}: ${describeError(error)}\n${state}`, { cause: error });
    }
  }

  /** What `kubectl rollout restart` does. */
  async restart({ kind, namespace, name }: Workload): Promise<void> {
    const annotations = { 'kubectl.kubernetes.io/restartedAt': new Date().toISOString() };
    const patch = { spec: { template: { metadata: { annotations } } } };
    await this.api.patch(`/apis/apps/v1/namespaces/${namespace}/${kind}/${name}`, patch);
  }

  /** Runs a program in the first container of a pod, as `kubectl exec` does. */
  async exec(pod: Pod, argv: readonly string[], options: RunOptions = {}): Promise<RunResult> {
    const task = ['tasks', 'exec', `--exec-id=${randomUUID()}`, containerOf(pod)];
    // ctr stops copying the output when the process has ended, even if it has not read all of it.
    const lingering = ['sh', '-c', '"$@"; code=$?; sleep 0.3; exit $code', 'sh'];
    return this.node(pod.spec.nodeName!).ctr([...task, ...lingering, ...argv], options);
  }

  /** Starts a program of the machine in the network namespace of a pod; see {@link RealNode.start}. */
  async startBeside(pod: Pod, argv: readonly string[], options: StartOptions = {}): Promise<Child> {
    const node = this.node(pod.spec.nodeName!);
    return node.start(['nsenter', `--target=${await this.#processOf(pod)}`, '--net', '--', ...argv], options);
  }

  /** SIGKILL to the first process of a pod's first container: kubelet starts the container again. */
  async kill(pod: Pod): Promise<void> {
    await this.node(pod.spec.nodeName!).exec(['kill', '-KILL', await this.#processOf(pod)]);
  }

  /** Lines that an administrator types at the root of the repository, with `kubectl`. */
  async shell(lines: string): Promise<RunResult> {
    const { binary } = await kubernetesBinaries();
    const { place } = storePlace(this.topology);
    const admin = await kubeconfigOf(this.control, 'administrator', 'administrator', 'system:masters');
    const variables = [
      `KUBECONFIG=${admin}`,
      `HOME=${this.#dir}`,
      `PATH=${join(dirname(binary), 'bin')}:${process.env.PATH}`,
    ];
    return run(['env', `--chdir=${ROOT}`, ...variables, 'sh', '-euc', lines], { netns: place.netns });
  }

  logs(pod: Pod, query = ''): Promise<string> {
    const { name, namespace } = pod.metadata;
    return this.api.json<string>('GET', `/api/v1/namespaces/${namespace}/pods/${name}/log?${query}`);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.nodes.map((node) => node[Symbol.asyncDispose]()));
    this.#nodes.clear();
    await this.#cleanup.disposeAsync();
  }

  /** The first process of a pod's first container, as its node numbers it. */
  async #processOf(pod: Pod): Promise<string> {
    const { stdout } = await this.node(pod.spec.nodeName!).ctr(['tasks', 'list']);
    const [, pid] = new RegExp(`^${containerOf(pod)}\\s+(\\d+)\\s`, 'm').exec(stdout) ?? [];
    if (pid === undefined) throw new Error(`the container of pod ${pod.metadata.name} does not run:\n${stdout}`);
    return pid;
  }

  async #describe(pod: Pod): Promise<string> {
    const log = await this.logs(pod, 'tailLines=20').catch(describeError);
    return `--- pod ${pod.metadata.name} on ${pod.spec.nodeName}: ${JSON.stringify(pod.status)}\n${log}`;
  }
}

/** Writes a kubeconfig for a user that a certificate names; returns its path. */
async function kubeconfigOf(control: KubeCluster, file: string, user: string, group?: string): Promise<string> {
  return control.kubeconfig(file, { clientCertificate: await control.ca.issueClient(user, group) });
}

/** The id of a pod's first container. */
export function containerOf(pod: Pod): string {
  const id = pod.status.containerStatuses?.[0]?.containerID?.replace('containerd://', '');
  if (id === undefined) throw new Error(`pod ${pod.metadata.name} has no container that runs`);
  return id;
}

function isRolledOut({ metadata, spec, status }: Rollout): boolean {
  if ((status.observedGeneration ?? 0) < metadata.generation) return false;
  const wanted = status.desiredNumberScheduled ?? spec.replicas ?? 0;
  const updated = status.updatedNumberScheduled ?? status.updatedReplicas ?? 0;
  const available = status.numberAvailable ?? status.availableReplicas ?? 0;
  const all = status.replicas ?? wanted;
  return wanted > 0 && updated === wanted && available === wanted && all === wanted;
}

function nameOf(host: LabHost): string {
  return `node${host.index + 1}`;
}
