import { readFile } from 'node:fs/promises';
import { formatIpv4 } from '../../src/ip/ipv4.ts';
import { type Agent, startAgent } from '../../src/lab/agent.ts';
import { openSubnetStore } from '../../src/lab/open-subnet-store.ts';
import type { SubnetStore } from '../../src/lab/subnet-store.ts';
import { type LabContainer, type LabHost, type Place, Topology, type TopologyOptions } from '../../src/lab/topology.ts';

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
    const agent = await startAgent(this.topology, host, this.store, { extraFlags }, signal);
    this.agents[host.index] = agent;
    return agent;
  }

  log(host: LabHost): Promise<string> {
    return readFile(this.agents[host.index]!.logPath, 'utf8');
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
