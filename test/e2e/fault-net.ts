import { appendFile, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { formatPrefix4 } from '../../src/ip/prefix.ts';
import { parseContainerNetwork } from '../../src/lab/agent.ts';
import { type LabHost, Topology } from '../../src/lab/topology.ts';
import { lastKnownPath } from '../../src/node-files/last-known.ts';
import { Flanneld, HEALTHZ_PORT, subnetFileOf } from '../netns/flanneld.ts';
import { eventually } from '../netns/waiting.ts';
import { TcpProxy } from './etcd-proxy.ts';
import { type FaultStore, STORE_PORT } from './fault-store.ts';
import { PingFlow } from './ping-flow.ts';

/** Reconnecting, listing and watching again, all with back-off, on a busy machine. */
export const RECOVERY_MS = 60_000;
/** Results are appended here, one line of JSON each. */
const REPORT = process.env.WEFT_FAULTS_REPORT;

/** How long stores are away: a few seconds show the same as two minutes, which `make faults` has. */
export const OUTAGE_MS: number = 1_000 * Number(process.env.WEFT_OUTAGE_SECONDS ?? '5');

export interface FaultHost {
  readonly host: LabHost;
  /** The way to the store; each host has its own. */
  readonly way: TcpProxy;
  agent: Flanneld;
  subnet: string;
}

export interface FaultNetOptions {
  readonly idle?: number;
  /** Commands that start the next agent. */
  readonly under?: () => readonly string[];
  /** The store is in a namespace of its own on the underlay, and agents reach it without a `way`. */
  readonly across?: boolean;
  /** Which interface the agents are told to take. */
  readonly iface?: readonly string[];
}

/** Hosts with a real agent each, a container each, and a way of its own to a real store. */
export class FaultNet implements AsyncDisposable {
  readonly topology: Topology;
  readonly store: FaultStore;
  readonly members: FaultHost[] = [];
  readonly #ways: TcpProxy[] = [];
  readonly #iface: readonly string[];
  #peers = 0;

  private constructor(topology: Topology, store: FaultStore, iface: readonly string[]) {
    this.#iface = iface;
    this.topology = topology;
    this.store = store;
  }

  /** All hosts but the last `idle` get an agent. */
  static async create(
    hosts: number,
    startStore: (topology: Topology) => Promise<FaultStore>,
    { idle = 0, under = () => [], iface = ['--iface=eth0'], across = false }: FaultNetOptions = {},
  ): Promise<FaultNet> {
    await using stack = new AsyncDisposableStack();
    const topology = stack.use(
      await Topology.create({ hosts, containersPerHost: 1, store: across, purpose: 'faults test' }),
    );
    const store = stack.use(await startStore(topology));
    const net = new FaultNet(topology, store, iface);
    stack.defer(() => net.#closeWays());
    for (const host of topology.hosts.slice(0, hosts - idle)) await net.join(host, under());
    stack.move();
    return net;
  }

  /** The way to the store, the agent, cni0 and the container. */
  async join(host: LabHost, under?: readonly string[]): Promise<FaultHost> {
    const way = this.topology.store === undefined ? await this.layWay(host) : undefined;
    const agent = await this.start(host, under);
    await agent.logged(/^flannel is ready/, 0, RECOVERY_MS);
    const path = subnetFileOf(host);
    const network = parseContainerNetwork(await readFile(path, 'utf8'), path);
    await this.topology.attachContainers(host, network);
    const member: FaultHost = {
      host,
      agent,
      subnet: formatPrefix4(network.subnet),
      get way() {
        if (way === undefined) throw new Error('there is no way to stand in: the store is across the network');
        return way;
      },
    };
    this.members.push(member);
    return member;
  }

  async layWay(host: LabHost): Promise<TcpProxy> {
    const path = join(host.stateDirectory, 'store.sock');
    const way = await TcpProxy.start(this.store.url, path);
    this.#ways.push(way);
    const listen = `TCP4-LISTEN:${STORE_PORT},bind=127.0.0.1,fork,reuseaddr,backlog=64`;
    await this.topology.start(host, ['socat', '-t', '600', listen, `UNIX-CONNECT:${path}`], { stdout: 'ignore' });
    await eventually('the way to the store', async () => {
      const { stdout } = await this.topology.exec(host, ['ss', '-Htln', `sport = :${STORE_PORT}`]);
      return stdout.includes(`:${STORE_PORT}`) || undefined;
    });
    return way;
  }

  /** Without waiting for more than the process. */
  async start(host: LabHost, under: readonly string[] = []): Promise<Flanneld> {
    const flags = [
      ...this.store.flags(host),
      ...[...this.#iface, '--ip-masq', `--subnet-file=${subnetFileOf(host)}`],
      ...['--healthz-ip=127.0.0.1', `--healthz-port=${HEALTHZ_PORT}`],
    ];
    return await Flanneld.start(this.topology, host, { flags, env: this.store.environment(host), under });
  }

  /** SIGKILL, and a new process. */
  async restartAgent(member: FaultHost): Promise<void> {
    await killed(member.agent);
    member.agent = await this.start(member.host);
  }

  /** As before the first start on that host; the store keeps what it has. */
  async forget(host: LabHost): Promise<void> {
    await rm(subnetFileOf(host), { force: true });
    await rm(lastKnownPath(subnetFileOf(host)), { force: true });
  }

  /** A flow from the first member's container to the second's. */
  flow(): Promise<PingFlow> {
    return PingFlow.start(this.topology, this.members[0]!.host.containers[0]!, this.members[1]!.host.containers[0]!);
  }

  /** Marks in all logs, and then waits until a host that is put into the store now is a peer of all agents. */
  async heardOf(put = true, timeoutMs: number = RECOVERY_MS): Promise<void> {
    const subnet = `10.244.${200 + this.#peers}.0/24`;
    if (put) await this.store.putPeer({ subnet, publicIp: `192.168.77.${200 + this.#peers}` });
    this.#peers++;
    await Promise.all(
      this.members.map(({ agent }) => agent.logged(new RegExp(`^Subnet added: ${subnet} `), 0, timeoutMs)),
    );
  }

  /** Puts what `heardOf(false)` waits for. */
  async putPeer(): Promise<void> {
    await this.store.putPeer({
      subnet: `10.244.${200 + this.#peers}.0/24`,
      publicIp: `192.168.77.${200 + this.#peers}`,
    });
  }

  /** Hosts whose subnet is another one than before, is not theirs in the store, or whose agent said that it lost it. */
  async lost(): Promise<number> {
    const stored = await this.store.leases();
    const lost = await Promise.all(
      this.members.map(async (member) => {
        const text = await readFile(subnetFileOf(member.host), 'utf8');
        const now = formatPrefix4(parseContainerNetwork(text, 'subnet.env').subnet);
        const owners = stored.filter(({ subnet }) => subnet === member.subnet);
        const publicIp = await this.addressOf(member.host);
        const isOwn = owners.length === 1 && owners[0]!.publicIp === publicIp;
        return (
          !(now === member.subnet && isOwn) || member.agent.messages.some((text) => text.includes('WEFT_LEASE_LOST'))
        );
      }),
    );
    return lost.filter(Boolean).length;
  }

  async addressOf(host: LabHost): Promise<string> {
    const { stdout } = await this.topology.exec(host, ['ip', '-j', '-4', 'addr', 'show', 'eth0']);
    return (JSON.parse(stdout) as { addr_info: { local: string }[] }[])[0]!.addr_info[0]!.local;
  }

  /**
   * One row of the table: what happens to a flow of a hundred packets a second while `fault` does its work. What it returns
   * is the time that recovery took.
   */
  async row(t: TestContext, fault: string, act: (flow: PingFlow) => Promise<number>): Promise<Row> {
    await using flow = await this.flow();
    const recoveredMs = Math.round(await act(flow));
    const figures = await flow.stop();
    const row = { store: this.store.name, fault, ...figures, recoveredMs, leasesLost: await this.lost() };
    t.diagnostic(JSON.stringify(row));
    if (REPORT !== undefined) await appendFile(REPORT, `${JSON.stringify(row)}\n`);
    return row;
  }

  async #closeWays(): Promise<void> {
    for (const way of this.#ways) await way[Symbol.asyncDispose]();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.topology[Symbol.asyncDispose]();
    await this.#closeWays();
    await this.store[Symbol.asyncDispose]();
  }
}

export interface Row {
  readonly store: string;
  readonly fault: string;
  readonly sent: number;
  readonly lost: number;
  readonly longestGapMs: number;
  readonly recoveredMs: number;
  readonly leasesLost: number;
}

/** SIGKILL; resolves when it is gone. */
export async function killed(agent: Flanneld): Promise<void> {
  agent.child.kill('SIGKILL');
  await agent.child.exited;
}

/** Milliseconds that it took. */
export async function timed(action: () => Promise<unknown>): Promise<number> {
  const fromMs = performance.now();
  await action();
  return performance.now() - fromMs;
}
