import { homedir } from 'node:os';
import { delimiter, join } from 'node:path';
import { type AgentClient, agentClient, type OpenAnswer, refused, unreachable } from '../../api/client.ts';
import { describeError, WeftError } from '../../errors.ts';
import { loadKubeAccess } from '../../subnet/kube/kube-access.ts';
import { ApiStatusError, KubeApi } from '../../subnet/kube/kube-api.ts';
import { VERSION } from '../version.ts';

export interface ClusterFlags {
  readonly kubeconfig?: string;
  readonly namespace?: string;
}

/** The label of the agents' pods in deploy/ and in flannel's own manifests. */
const SELECTOR = 'app=flannel';
/**
 * Where those manifests and earlier ones of flannel put them. Whoever may make pods in any other namespace could give them that label, and
 * make a Secret beside them, and would answer for the agents: such a namespace has to be named.
 */
const HOMES: readonly string[] = ['kube-flannel', 'kube-system'];
/** Where the pod proxy finds the API: the port of that name, or this one. */
const PORT_NAME = 'weft-api';
const DEFAULT_PORT = 8287;
/** Beside the agents, with the token for their API under the key `token`. */
const SECRET = 'weft-api';
/** The API server takes `Authorization` for itself, and does not hand it on. */
const TOKEN_HEADER = 'Weft-Api-Token';

interface Pod {
  readonly metadata: { readonly name: string; readonly namespace: string };
  readonly spec: {
    readonly nodeName?: string;
    readonly containers: readonly {
      readonly ports?: readonly { readonly name?: string; readonly containerPort: number }[];
    }[];
  };
}

/**
 * The agents of a cluster, through the pod proxy of its API server and with the rights of whoever asks: to list pods, to read the
 * Secret with the token, and `get pods/proxy`. Sorted by node.
 * @param node that one alone; `undefined` is all.
 * @throws WeftError WEFT_USAGE, WEFT_KUBE_CONFIG, WEFT_API_REFUSED, WEFT_API_UNREACHABLE
 */
export async function clusterClients(
  flags: ClusterFlags,
  node: string | undefined,
  signal: AbortSignal,
): Promise<readonly AgentClient[]> {
  return (await clusterAgents(flags, node, signal)).map(({ name, open }) => agentClient(name, open));
}

export interface ClusterAgent {
  /** Of its node. */
  readonly name: string;
  readonly open: OpenAnswer;
}

/** The ways to those agents. @throws as {@link clusterClients}. */
export async function clusterAgents(
  { kubeconfig, namespace }: ClusterFlags,
  node: string | undefined,
  signal: AbortSignal,
): Promise<readonly ClusterAgent[]> {
  const access = await loadKubeAccess({ kubeconfigFile: kubeconfig ?? usualKubeconfig(), apiUrl: '' }, () => {});
  const api = new KubeApi(access, `weft/${VERSION}`);
  const path = namespace === undefined ? '/api/v1/pods' : `/api/v1/namespaces/${namespace}/pods`;
  const fieldSelector = node === undefined ? {} : { fieldSelector: `spec.nodeName=${node}` };
  const list = (await asked(api, path, { labelSelector: SELECTOR, ...fieldSelector }, signal)) as {
    readonly items: readonly Pod[];
  };
  const pods = list.items.filter(({ spec }) => spec.nodeName !== undefined);
  if (pods.length === 0) {
    const where = node === undefined ? 'this cluster' : `the node ${node}`;
    throw new WeftError('WEFT_API_UNREACHABLE', `no pod with the label ${SELECTOR} was found on ${where}`, {
      hint: 'Is weft installed there? Name the namespace of its pods with --namespace.',
    });
  }
  const home = namespace ?? homeOf(pods);
  const token = await readToken(api, home, signal);
  const agents = pods
    .filter(({ metadata }) => metadata.namespace === home)
    .map((pod): ClusterAgent => ({ name: pod.spec.nodeName ?? pod.metadata.name, open: overPod(api, pod, token) }));
  return agents.sort((a, b) => (a.name < b.name ? -1 : 1));
}

/** @throws WeftError WEFT_USAGE where they are elsewhere. */
function homeOf(pods: readonly Pod[]): string {
  const namespaces = [...new Set(pods.map(({ metadata }) => metadata.namespace))];
  const home = HOMES.find((one) => namespaces.includes(one));
  if (home !== undefined) return home;
  const shown = namespaces.slice(0, 5).join(', ');
  throw new WeftError(
    'WEFT_USAGE',
    `pods with the label ${SELECTOR} are in ${shown}, and not in ${HOMES.join(' or ')}`,
    {
      hint: 'If they are the agents, name their namespace with --namespace.',
    },
  );
}

/** Of several files, as kubectl takes them, the first. */
function usualKubeconfig(): string {
  const [first] = (process.env.KUBECONFIG ?? '').split(delimiter).filter((path) => path !== '');
  return first ?? join(homedir(), '.kube', 'config');
}

async function readToken(api: KubeApi, namespace: string, signal: AbortSignal): Promise<string> {
  const path = `/api/v1/namespaces/${namespace}/secrets/${SECRET}`;
  const make = `kubectl -n ${namespace} create secret generic ${SECRET} --from-literal=token=$(openssl rand -hex 32)`;
  const secret = (await asked(api, path, {}, signal).catch((error: unknown) => {
    if (!(error instanceof ApiStatusError) || error.status !== 404) throw error;
    throw new WeftError('WEFT_API_REFUSED', `the Secret ${namespace}/${SECRET} is not there, so no agent answers`, {
      hint: `Create it, once: ${make}`,
    });
  })) as { readonly data?: { readonly token?: string } };
  return Buffer.from(secret.data?.token ?? '', 'base64')
    .toString('utf8')
    .trim();
}

/** 404 is the caller's to explain. */
async function asked(
  api: KubeApi,
  path: string,
  query: Readonly<Record<string, string>>,
  signal: AbortSignal,
): Promise<unknown> {
  try {
    return await api.json({ method: 'GET', path, query }, signal);
  } catch (error) {
    signal.throwIfAborted();
    if (error instanceof ApiStatusError && error.status === 404) throw error;
    if (error instanceof ApiStatusError) throw refused(api.server, describeError(error));
    throw error instanceof WeftError ? error : unreachable(api.server, describeError(error), error);
  }
}

function overPod(api: KubeApi, pod: Pod, token: string): OpenAnswer {
  const { name, namespace } = pod.metadata;
  const ports = pod.spec.containers.flatMap(({ ports = [] }) => ports);
  const port = ports.find((each) => each.name === PORT_NAME)?.containerPort ?? DEFAULT_PORT;
  const base = `/api/v1/namespaces/${namespace}/pods/${name}:${port}/proxy`;
  return async (path, query, signal) => {
    const headers = { [TOKEN_HEADER]: token };
    try {
      return await api.stream({ method: 'GET', path: `${base}${path}`, query, headers }, signal);
    } catch (error) {
      signal.throwIfAborted();
      const at = `${namespace}/${name}`;
      if (!(error instanceof ApiStatusError)) throw unreachable(at, describeError(error), error);
      // The API server says so when nobody listens on the node.
      if (error.status >= 500) throw unreachable(at, describeError(error), error);
      throw refused(at, describeError(error));
    }
  };
}
