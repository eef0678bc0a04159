import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { CheckResult } from '../../src/doctor/check.ts';
import { formatIpv4 } from '../../src/ip/ipv4.ts';
import { type Agent, startAgent } from '../../src/lab/agent.ts';
import { openSubnetStore } from '../../src/lab/open-subnet-store.ts';
import type { SubnetStore } from '../../src/lab/subnet-store.ts';
import { type LabContainer, type LabHost, type Place, Topology, type TopologyOptions } from '../../src/lab/topology.ts';
import { HEALTHZ_PORT } from './flanneld.ts';
import { eventuallyHolds, PATIENCE_MS } from './waiting.ts';

const WEFT = fileURLToPath(new URL('../../src/cmd/weft/main.ts', import.meta.url));

export const NET_CONF = '{"Network": "10.244.0.0/16", "Backend": {"Type": "udp"}}';

export interface OverlayOptions extends Omit<TopologyOptions, 'purpose'> {
  readonly netConf?: string;
  /** Appended to every agent's command line. */
  readonly agentFlags?: readonly string[];
}

/** Hosts with a real agent each and containers behind cni0. */
export class Overlay implements AsyncDisposable {
  readonly topology: Topology;
  readonly store: SubnetStore;
  readonly agents: Agent[] = [];
  readonly #flags: readonly string[];

  private constructor(topology: Topology, store: SubnetStore, flags: readonly string[]) {
    this.topology = topology;
    this.store = store;
    this.#flags = flags;
  }

  static async create({ netConf, agentFlags, ...options }: OverlayOptions, signal: AbortSignal): Promise<Overlay> {
    await using stack = new AsyncDisposableStack();
    const topology = stack.use(await Topology.create({ ...options, purpose: 'test' }, signal));
    const store = await openSubnetStore('local', topology, netConf ?? NET_CONF, signal);
    const overlay = Overlay.on(topology, store, agentFlags);
    await overlay.startAll(signal);
    stack.move();
    return overlay;
  }

  /** With hosts that are there already. Nothing runs yet, see {@link startAll}. */
  static on(topology: Topology, store: SubnetStore, agentFlags: readonly string[] = []): Overlay {
    return new Overlay(topology, store, agentFlags);
  }

  /** An agent on each host, and its containers. */
  async startAll(signal: AbortSignal): Promise<void> {
    const { topology } = this;
    await Promise.all(
      topology.hosts.map(async (host) => {
        const agent = await this.startAgent(host, signal);
        await topology.attachContainers(host, agent.network, signal);
      }),
    );
  }

  /** The first start, or one after the agent has ended, with more flags if wanted; waits until it is ready. */
  async startAgent(host: LabHost, signal: AbortSignal, flags: readonly string[] = []): Promise<Agent> {
    const extraFlags = [...this.#flags, ...flags];
    const options = { extraFlags, readyTimeoutMs: PATIENCE_MS };
    const agent = await startAgent(this.topology, host, this.store, options, signal);
    this.agents[host.index] = agent;
    return agent;
  }

  log(host: LabHost): Promise<string> {
    return readFile(this.agents[host.index]!.logPath, 'utf8');
  }

  /** What that host's agent answers, with the head. */
  async ask(host: LabHost, path: string): Promise<string> {
    const argv = ['socat', '-t', '5', 'STDIO', `TCP4:127.0.0.1:${HEALTHZ_PORT}`];
    return (await this.topology.exec(host, argv, { stdin: `GET ${path} HTTP/1.0\r\n\r\n` })).stdout;
  }

  /** What that check of the doctor finds on that host. */
  async examine(host: LabHost, check: string): Promise<CheckResult> {
    const files = [
      ...['--subnet-file', join(host.stateDirectory, 'subnet.env')],
      ...['--net-config-path', join(this.topology.stateDirectory, 'net-conf.json')],
    ];
    const argv = [process.execPath, '--disable-warning=ExperimentalWarning', WEFT, 'doctor', '--json', ...files];
    const { stdout } = await this.topology.exec(host, argv, { okExitCodes: 'any', timeoutMs: PATIENCE_MS });
    const { checks } = JSON.parse(stdout) as { readonly checks: readonly CheckResult[] };
    const found = checks.find(({ name }) => name === check);
    if (found === undefined) throw new Error(`the doctor has no check ${check}: ${stdout}`);
    return found;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.topology[Symbol.asyncDispose]();
  }
}

/** The address of a container that is attached. */
export function addressOf(container: LabContainer): string {
  if (container.address === undefined) throw new Error(`${container.name} is not attached`);
  return formatIpv4(container.address);
}

/** One echo request and its answer; everything that `ping` printed. */
export async function ping(
  topology: Topology,
  from: Place,
  to: string,
  ...flags: string[]
): Promise<{ ok: boolean; output: string }> {
  const argv = ['ping', '-n', '-c', '1', '-W', '3', ...flags, to];
  const { stdout, stderr, exitCode } = await topology.exec(from, argv, { okExitCodes: 'any' });
  return { ok: exitCode === 0, output: `${stdout}${stderr}` };
}

/** The container of each of these hosts reaches that of every other one, once its agent has heard of that. */
export async function assertPings(topology: Topology, hosts: readonly LabHost[]): Promise<void> {
  const containers = hosts.map((host) => host.containers[0]!);
  for (const from of containers) {
    for (const to of containers) {
      if (from === to) continue;
      await eventuallyHolds(async () => {
        const { ok, output } = await ping(topology, from, addressOf(to));
        assert.ok(ok, `${from.name} to ${to.name}: ${output}`);
      });
    }
  }
}
