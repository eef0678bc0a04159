/** The node agent of a lab's host: the only place that knows how it is started and when it is ready. */
import { existsSync, watch } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { isSea } from 'node:sea';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { WeftError } from '../errors.ts';
import { parseIpv4 } from '../ip/ipv4.ts';
import { prefix4 } from '../ip/prefix.ts';
import type { Child } from '../linux/run.ts';
import { RUNTIME_FLAGS } from '../runtime-flags.ts';
import { type ContainerNetwork, HOST_DEVICE } from './namespaces.ts';
import type { SubnetStore } from './subnet-store.ts';
import type { LabHost, Topology } from './topology.ts';

export interface Agent {
  readonly host: LabHost;
  readonly child: Child;
  readonly logPath: string;
  readonly subnetFile: string;
  readonly network: ContainerNetwork;
  /** From the start of the process to the first 200 on /readyz. */
  readonly readyMs: number;
}

export interface AgentOptions {
  /** Appended to the command line. */
  readonly extraFlags?: readonly string[] | undefined;
  /** Default {@link READY_TIMEOUT_MS}. */
  readonly readyTimeoutMs?: number | undefined;
}

const HEALTHZ_PORT = 8081;
/** Of a machine that emulates its processor, or is busy. Agents that cannot work end, which is noticed at once. */
const READY_TIMEOUT_MS = 120_000;
const READY_POLL_MS = 50;
const LOG_LINES = 8;
const LOG_COLUMNS = 200;

export function agentCommand(host: LabHost, store: SubnetStore, subnetFile: string): string[] {
  const program = isSea()
    ? [process.execPath, 'flanneld']
    : [process.execPath, ...RUNTIME_FLAGS, fileURLToPath(new URL('../cmd/flanneld/main.ts', import.meta.url))];
  return [
    ...program,
    ...store.agentFlags(host),
    ...['--subnet-file', subnetFile, '--iface', HOST_DEVICE, '--ip-masq'],
    ...['--healthz-ip', '127.0.0.1', '--healthz-port', String(HEALTHZ_PORT)],
    // The lab is there to show the way of a packet through user space.
    ...['--fast-path', 'off'],
  ];
}

/**
 * Starts the agent in the host's namespace and waits until it can carry packets: subnet.env is there and /readyz says 200.
 * Detached, with its output in a log file, so that it goes on in a lab that is kept.
 *
 * @throws WeftError WEFT_LAB_FAILED with the end of its log when it ends before, or is not ready in time.
 */
export async function startAgent(
  topology: Topology,
  host: LabHost,
  store: SubnetStore,
  options: AgentOptions = {},
  signal?: AbortSignal,
): Promise<Agent> {
  const logPath = join(host.stateDirectory, 'flanneld.log');
  const subnetFile = join(host.stateDirectory, 'subnet.env');
  const startedAt = performance.now();
  const argv = [...agentCommand(host, store, subnetFile), ...(options.extraFlags ?? [])];
  // Hosts with one key are one host for each other; and the machine's own agent has its key in the usual place.
  const key = { WIREGUARD_KEY_FILE: join(host.stateDirectory, 'wgkey') };
  const env = { ...compileCache(topology), ...key, ...store.agentEnvironment(host) };
  const child = await topology.startLogged(host, argv, logPath, { env });
  const timeoutMs = options.readyTimeoutMs ?? READY_TIMEOUT_MS;
  const ended = new AbortController();
  const timeout = AbortSignal.timeout(timeoutMs);
  const stop = AbortSignal.any([ended.signal, timeout, ...(signal === undefined ? [] : [signal])]);
  void child.exited.then(() => ended.abort());
  try {
    await untilFile(host.stateDirectory, subnetFile, stop);
    await untilReady(topology, host, stop);
    const network = parseContainerNetwork(await readFile(subnetFile, 'utf8'), subnetFile);
    return { host, child, logPath, subnetFile, network, readyMs: performance.now() - startedAt };
  } catch (error) {
    signal?.throwIfAborted();
    if (!stop.aborted) throw error;
    const exit = ended.signal.aborted ? await child.exited : undefined;
    const what =
      exit === undefined
        ? `was not ready within ${timeoutMs / 1000} s`
        : `ended with ${exit.signal ?? `exit code ${exit.code}`}`;
    throw new WeftError(
      'WEFT_LAB_FAILED',
      `the agent of ${host.name} ${what}; its log ends:\n${await logTail(logPath)}`,
      {
        hint: 'weft lab --keep leaves the hosts and their logs in place.',
      },
    );
  }
}

/**
 * Agents leave their compiled code to those of the next lab: a third of the processor time of a large one. Beside the
 * labs, in a directory that only root can write to, because it is executed.
 */
function compileCache(topology: Topology): Readonly<Record<string, string>> {
  const { NODE_COMPILE_CACHE } = process.env;
  return { NODE_COMPILE_CACHE: NODE_COMPILE_CACHE ?? join(topology.registryDirectory, 'compile-cache') };
}

/** Resident memory in MiB; `undefined` when it has ended. */
export async function agentMemoryMiB(agent: Agent): Promise<number | undefined> {
  const status = await readFile(`/proc/${agent.child.pid}/status`, 'utf8').catch(() => '');
  const kib = /^VmRSS:\s+(\d+) kB$/m.exec(status)?.[1];
  return kib === undefined ? undefined : Number(kib) / 1024;
}

/** The last lines, cut to a readable length, indented. */
export async function logTail(path: string): Promise<string> {
  const text = await readFile(path, 'utf8').catch(() => '');
  const last = text.trimEnd().split('\n').slice(-LOG_LINES);
  return last.map((line) => `    ${line.length > LOG_COLUMNS ? `${line.slice(0, LOG_COLUMNS)}…` : line}`).join('\n');
}

async function untilFile(directory: string, path: string, signal: AbortSignal): Promise<void> {
  const found = Promise.withResolvers<void>();
  found.promise.catch(() => {});
  const fail = () => found.reject(signal.reason);
  const look = () => {
    if (existsSync(path)) found.resolve();
  };
  const watcher = watch(directory, look);
  watcher.on('error', (error) => found.reject(error));
  signal.addEventListener('abort', fail, { once: true });
  try {
    signal.throwIfAborted();
    look();
    await found.promise;
  } finally {
    signal.removeEventListener('abort', fail);
    watcher.close();
  }
}

/** The endpoint is inside the host's namespace, so it is asked from there. */
async function untilReady(topology: Topology, host: LabHost, signal: AbortSignal): Promise<void> {
  const argv = ['socat', '-t', '2', 'STDIO', `TCP4:127.0.0.1:${HEALTHZ_PORT}`];
  for (;;) {
    const { stdout } = await topology.exec(host, argv, {
      stdin: 'GET /readyz HTTP/1.0\r\nHost: localhost\r\n\r\n',
      okExitCodes: 'any',
      signal,
    });
    if (/^HTTP\/1\.[01] 200 /.test(stdout)) return;
    await sleep(READY_POLL_MS, undefined, { signal });
  }
}

/** What the CNI plugin takes from subnet.env. @throws WeftError WEFT_SUBNET_FILE_INVALID. */
export function parseContainerNetwork(text: string, path: string): ContainerNetwork {
  const values = new Map(
    text.split('\n').map((line) => [line.split('=', 1)[0] ?? '', line.slice(line.indexOf('=') + 1)]),
  );
  const [gatewayText = '', lengthText] = (values.get('FLANNEL_SUBNET') ?? '').split('/');
  const gateway = parseIpv4(gatewayText);
  const length = Number(lengthText);
  const mtuBytes = Number(values.get('FLANNEL_MTU'));
  if (gateway === undefined || !(length >= 1 && length <= 30) || !(mtuBytes >= 68)) {
    throw new WeftError(
      'WEFT_SUBNET_FILE_INVALID',
      `${path}: want FLANNEL_SUBNET (an address with a prefix length) and FLANNEL_MTU, got ${JSON.stringify(text)}`,
    );
  }
  return { subnet: prefix4(gateway, length), gateway, mtuBytes };
}
