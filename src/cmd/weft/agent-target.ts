import { readFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import type { Command } from 'commander';
import { type AgentClient, agentClient, overAddress, overSocket } from '../../api/client.ts';
import type { Answer } from '../../api/schema.ts';
import { DEFAULT_API_SOCKET } from '../../config/agent-sockets.ts';
import { describeError, WeftError } from '../../errors.ts';
import { readStartupError } from '../../node-files/last-error.ts';
import { printable } from '../../printable.ts';
import type { ClusterFlags } from './cluster.ts';

/** So many agents of a cluster are asked at once. */
const AT_ONCE = 16;

/** Who is asked; the verbs that ask one agent by default have {@link TargetFlags}. */
export interface AgentFlags extends ClusterFlags {
  readonly socket?: string;
  readonly host?: string | readonly string[];
  readonly tokenFile?: string;
  readonly cluster?: true;
  readonly node?: string;
}

export interface TargetFlags extends AgentFlags {
  readonly socket: string;
  readonly host?: string;
  readonly json?: true;
}

/** Whom a command asks: the agent of this host unless something else is said. */
export function withTarget(command: Command): Command {
  return withRemote(
    command
      .option('--socket <file>', "the agent's socket (--api-socket)", DEFAULT_API_SOCKET)
      .option('--host <url>', 'ask the agent at this URL (its --api-listen), such as http://192.0.2.1:8287'),
  )
    .option('--node <name>', 'ask the agent of this Kubernetes node, through the API server')
    .option('--json', 'print one JSON object');
}

/** How agents elsewhere are reached, beside `--host`. */
export function withRemote(command: Command): Command {
  return command
    .option('--token-file <file>', 'file with the token for --host')
    .option('--cluster', 'ask all agents of a Kubernetes cluster, through its API server')
    .option('--kubeconfig <file>', 'kubeconfig of the cluster (default: KUBECONFIG, ~/.kube/config)')
    .option('--namespace <name>', 'namespace of the agents (default: kube-flannel, or kube-system)');
}

/** @throws WeftError WEFT_USAGE, WEFT_API_REFUSED, WEFT_API_UNREACHABLE, WEFT_KUBE_CONFIG */
export async function clientsOf(flags: AgentFlags, signal: AbortSignal): Promise<readonly AgentClient[]> {
  const { socket = DEFAULT_API_SOCKET, host, tokenFile, cluster, node } = flags;
  if (cluster === true || node !== undefined) {
    if (host !== undefined) throw usage('--host and --cluster or --node contradict each other', 'Choose one.');
    // Most verbs ask the agent of this host and need nothing of Kubernetes.
    const { clusterClients } = await import('./cluster.ts');
    return await clusterClients(flags, node, signal);
  }
  if (host === undefined) return [agentClient(socket, overSocket(socket))];
  const hosts = await hostsOf(typeof host === 'string' ? [host] : host, tokenFile);
  return hosts.map(({ name, url, token }) => agentClient(name, overAddress(url, token)));
}

/** An agent with `--api-listen`. */
export interface HostTarget {
  /** As the user calls it, or its address. */
  readonly name: string;
  readonly url: URL;
  readonly token: string;
}

/** What `--host` and `--token-file` say, each host once: `http://192.0.2.1:8287` or `worker-1=http://…`. @throws WeftError WEFT_USAGE */
export async function hostsOf(hosts: readonly string[], tokenFile: string | undefined): Promise<readonly HostTarget[]> {
  const named = [...new Set(hosts)].map((text) => {
    const [, name, address = text] = /^([^=/:?#]+)=(.*)$/.exec(text) ?? [];
    const url = URL.parse(address);
    if (url === null || !/^https?:$/.test(url.protocol))
      throw usage(`--host is ${JSON.stringify(text)}, which is no URL`, 'Write it as http://192.0.2.1:8287.');
    return { name: name ?? url.host, url };
  });
  if (new Set(named.map(({ name }) => name)).size < named.length)
    throw usage('two --host have the same name', 'Give each a name of its own: --host NAME=URL.');
  if (named.length === 0) return [];
  if (tokenFile === undefined) throw usage('--host needs --token-file', 'Give the file with the token of that agent.');
  const token = await readFile(tokenFile, 'utf8').catch((error: unknown) => {
    throw usage(`cannot read --token-file: ${describeError(error)}`, 'Give the file with the token of that agent.');
  });
  return named.map((host) => ({ ...host, token: token.trim() }));
}

/** What one agent says of itself and of its peers. */
export interface SelfAndPeers {
  readonly self: Answer<'/self'>;
  readonly peers: Answer<'/peers'>;
}

/** @throws WeftError WEFT_API_REFUSED, WEFT_API_UNREACHABLE */
export async function selfAndPeers(client: AgentClient, signal: AbortSignal): Promise<SelfAndPeers> {
  const [self, peers] = await Promise.all([client.get('/self', signal), client.get('/peers', signal)]);
  return { self, peers };
}

/** For options that may be repeated. */
export function append(value: string, before: readonly string[] = []): readonly string[] {
  return [...before, value];
}

function usage(message: string, hint: string): WeftError {
  return new WeftError('WEFT_USAGE', message, { hint });
}

export type Asked<T> =
  | { readonly name: string; readonly answer: T }
  | { readonly name: string; readonly error: unknown; readonly text: string };

/** Asks all of them, and never rejects but with the reason of the signal: one that does not answer is an answer, too. */
export async function askAll<T>(
  clients: readonly AgentClient[],
  ask: (client: AgentClient) => Promise<T>,
  signal: AbortSignal,
): Promise<Asked<T>[]> {
  const answers: Asked<T>[] = [];
  const waiting = [...clients.entries()];
  const work = async (): Promise<void> => {
    for (let next = waiting.shift(); next !== undefined; next = waiting.shift()) {
      const [at, client] = next;
      answers[at] = await ask(client).then(
        (answer): Asked<T> => ({ name: client.name, answer }),
        (error: unknown): Asked<T> => {
          signal.throwIfAborted();
          return { name: client.name, error, text: printable(describeError(error)) };
        },
      );
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, work));
  return answers;
}

/** Why the last start on this host failed, where the agent has left it beside its socket; `undefined` when it did not. */
export function lastStart({ socket }: TargetFlags): string | undefined {
  const found = readStartupError(dirname(join(socket)));
  return found && `The last start failed at ${found.at.toISOString()}: ${printable(found.text)}`;
}
