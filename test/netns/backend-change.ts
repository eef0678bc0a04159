import assert from 'node:assert/strict';
import type { SubnetStore } from '../../src/lab/subnet-store.ts';
import { type LabHost, Topology } from '../../src/lab/topology.ts';
import { Overlay, ping } from './overlay.ts';
import { addressIn, attachStacked, NETWORKS, type Stack, type StackedContainer } from './stacked-overlay.ts';
import { eventually, LineFeed } from './waiting.ts';

const signal = new AbortController().signal;
const PORT = 9000;

const FAMILIES: Readonly<Record<Stack, readonly (4 | 6)[]>> = { IPv4: [4], 'dual stack': [4, 6] };
/** The devices by which packets of each family leave for other hosts, of which weft makes those of flannel's names. */
const DEVICES = {
  udp: { 4: 'flannel0', 6: 'flannel0' },
  vxlan: { 4: 'flannel.1', 6: 'flannel-v6.1' },
  'host-gw': { 4: 'eth0', 6: 'eth0' },
} as const;
export type Type = keyof typeof DEVICES;

export interface ChangingCluster<S extends SubnetStore> {
  readonly stack: Stack;
  openStore(topology: Topology, netConf: string): Promise<S>;
  /** Gives the cluster another net-conf.json. */
  publish(topology: Topology, store: S, netConf: string): Promise<void> | void;
  /** Whether the store is a server. */
  readonly hasServer: boolean;
}

/**
 * A cluster of two hosts goes from one backend to the next, node by node: both kinds of hosts reach each other meanwhile, and TCP
 * connections between containers survive, one of each family.
 */
export async function changeBackend<S extends SubnetStore>(
  types: readonly [Type, ...Type[]],
  cluster: ChangingCluster<S>,
): Promise<void> {
  await using bed = await ChangeBed.create(types[0], cluster, []);
  let [before] = types;
  for (const after of types.slice(1)) {
    await changeByRestart(bed, before, after);
    before = after;
  }
}

/** The same without a restart: the agents have `--live-reconfigure`. */
export async function changeBackendLive<S extends SubnetStore>(
  types: readonly [Type, ...Type[]],
  cluster: ChangingCluster<S>,
): Promise<void> {
  await using bed = await ChangeBed.create(types[0], cluster, ['--live-reconfigure']);
  const { overlay, hosts } = bed;
  const ended: string[] = [];
  for (const { child, host } of overlay.agents) void child.exited.then(() => ended.push(host.name));
  for (const type of types.slice(1)) {
    await bed.publish(type);
    for (const host of hosts) await bed.hasNothingBut(host, type);
    for (const host of hosts) await eventually(`${host.name} is ready`, () => bed.isReady(host));
    await bed.reach();
    await bed.echoes(`everybody has ${type}`);
  }
  assert.deepEqual(ended, [], 'the same processes all the time');
}

async function changeByRestart<S extends SubnetStore>(bed: ChangeBed<S>, before: Type, after: Type): Promise<void> {
  const { overlay, hosts, containers } = bed;
  const [first, second] = hosts;
  const [, to] = containers;
  await bed.publish(after);
  const news = `has changed: the backend is now ${after}, no longer ${before}; restart this agent to apply it`;
  for (const host of hosts) {
    await eventually(`${host.name} notices`, async () => (await overlay.log(host)).includes(news) || undefined);
  }

  await bed.restart(first);
  await bed.reach();
  await bed.echoes(`one is ahead with ${after}`);
  // A host with udp sends to any other by udp, and so the other one has to have both ways.
  const isUdp = after === 'udp';
  const both = isUdp ? second : first;
  assert.deepEqual(await bed.linksOf(both), bed.madeFor(before, after));
  for (const family of bed.families)
    assert.equal(await bed.wayTo(first, family, to), DEVICES[isUdp ? after : before][family]);
  const beside = `Some peers use the backend ${isUdp ? after : before}. This host uses it to reach them`;
  assert.ok((await overlay.log(both)).includes(beside));
  // What is reached in the other way is not skipped, by either.
  const metrics = await overlay.ask(first, '/metrics');
  assert.match(metrics, /^weft_skipped_peers 0$/m);
  assert.match(await overlay.ask(second, '/metrics'), /^weft_skipped_peers 0$/m);
  assert.equal(/^weft_forwarder_running 1$/m.test(metrics), [before, after].includes('udp'));
  if (before === 'udp') {
    const subnet = addressIn(4, to).replace(/\d+$/, '0/24');
    for (const direction of ['tx', 'rx'])
      assert.match(metrics, new RegExp(`^weft_packets_total\\{peer="${subnet}[^"]*",direction="${direction}"\\} [1-9]`, 'm')); // biome-ignore format: one line
  }

  await bed.restart(second);
  await bed.reach();
  await bed.echoes(`everybody has ${after}`);
  for (const host of hosts) await bed.hasNothingBut(host, after);
  assert.equal(/^weft_forwarder_running/m.test(await overlay.ask(first, '/metrics')), after === 'udp');
  await bed.reach();
  await bed.echoes(`the end of ${before}`);
}

/** Two hosts with an agent and a container each, and a connection of each family from one container to the other. */
class ChangeBed<S extends SubnetStore> implements AsyncDisposable {
  readonly overlay: Overlay;
  readonly hosts: readonly [LabHost, LabHost];
  readonly containers: readonly [StackedContainer, StackedContainer];
  readonly families: readonly (4 | 6)[];
  readonly #cluster: ChangingCluster<S>;
  readonly #store: S;
  readonly #resources: AsyncDisposableStack;
  readonly #connections: ((text: string) => Promise<void>)[] = [];

  private constructor(
    overlay: Overlay,
    containers: readonly [StackedContainer, StackedContainer],
    cluster: ChangingCluster<S>,
    store: S,
    resources: AsyncDisposableStack,
  ) {
    this.overlay = overlay;
    this.hosts = [containers[0].host, containers[1].host];
    this.containers = containers;
    this.families = FAMILIES[cluster.stack];
    this.#cluster = cluster;
    this.#store = store;
    this.#resources = resources;
  }

  static async create<S extends SubnetStore>(
    type: Type,
    cluster: ChangingCluster<S>,
    flags: readonly string[],
  ): Promise<ChangeBed<S>> {
    await using resources = new AsyncDisposableStack();
    const options = { hosts: 2, containersPerHost: 1, store: cluster.hasServer, purpose: 'test' };
    const topology = resources.use(await Topology.create(options, signal));
    if (cluster.stack === 'dual stack') {
      for (const host of topology.hosts) {
        await topology.ipBatch(host, `addr add fd77::${host.index + 1}/64 dev eth0 nodad\n`, signal);
        await topology.exec(host, ['sysctl', '-q', '-w', 'net.ipv6.conf.all.forwarding=1'], { signal });
      }
    }
    const store = resources.use(await cluster.openStore(topology, netConf(cluster.stack, type)));
    const overlay = Overlay.on(topology, store, flags);
    const start = async (host: LabHost): Promise<StackedContainer> => {
      await overlay.startAgent(host, signal);
      return await attachStacked(topology, host, signal);
    };
    const [first, second] = topology.hosts as [LabHost, LabHost];
    const containers = await Promise.all([start(first), start(second)]);
    const bed = new ChangeBed(overlay, containers, cluster, store, resources.move());
    try {
      for (const family of bed.families) await bed.#connect(family);
      await bed.echoes('nobody has changed');
    } catch (error) {
      await bed[Symbol.asyncDispose]();
      throw error;
    }
    return bed;
  }

  async #connect(family: 4 | 6): Promise<void> {
    const { topology } = this.overlay;
    const [from, to] = this.containers;
    const listen = `TCP${family}-LISTEN:${PORT + family},fork,reuseaddr`;
    this.#resources.use(await topology.start(to.namespace, ['socat', listen, 'EXEC:cat'], { stdout: 'ignore' }));
    const address = family === 4 ? addressIn(4, to) : `[${addressIn(6, to)}]`;
    const target = `TCP${family}:${address}:${PORT + family},retry=100,interval=0.1`;
    const client = await topology.start(from.namespace, ['socat', 'STDIO', target], { stdin: 'pipe' });
    this.#resources.use(client);
    const echoed = new LineFeed(client.stdout!);
    this.#connections.push(async (text) => {
      client.stdin!.write(`${text}\n`);
      await eventually(
        `the connection of IPv${family} carries "${text}"`,
        async () => echoed.seen.some((line) => line.text === text) || undefined,
      );
    });
  }

  /** What is written into each connection comes back. */
  async echoes(text: string): Promise<void> {
    for (const echoes of this.#connections) await echoes(text);
  }

  async publish(type: Type): Promise<void> {
    await this.#cluster.publish(this.overlay.topology, this.#store, netConf(this.#cluster.stack, type));
  }

  async restart(host: LabHost): Promise<void> {
    const { child } = this.overlay.agents[host.index]!;
    child.kill('SIGTERM');
    await child.exited;
    await this.overlay.startAgent(host, signal);
  }

  async isReady(host: LabHost): Promise<true | undefined> {
    const answer = await this.overlay.ask(host, '/readyz').catch(() => '');
    return /^HTTP\/1\.[01] 200 /.test(answer) || undefined;
  }

  async reach(): Promise<void> {
    const { topology } = this.overlay;
    const [one, other] = this.containers;
    for (const family of this.families) {
      for (const [from, to] of [[one, other] as const, [other, one] as const])
        await eventually(
          `IPv${family}: ${from.host.name} reaches ${to.host.name}`,
          async () => (await ping(topology, from, addressIn(family, to))).ok || undefined,
        );
    }
  }

  /** The devices that weft makes for these backends. */
  madeFor(...types: readonly Type[]): string[] {
    const names = types.flatMap((type) => this.families.map((family): string => DEVICES[type][family]));
    return [...new Set(names)].filter((name) => name.startsWith('flannel')).sort();
  }

  async linksOf(host: LabHost): Promise<string[]> {
    const { stdout } = await this.overlay.topology.exec(host, ['ip', '-br', 'link']);
    return stdout
      .split('\n')
      .flatMap((line) => /^flannel[^ @]*/.exec(line)?.[0] ?? [])
      .sort();
  }

  /** The device by which that host's packets to that container leave. */
  async wayTo(host: LabHost, family: 4 | 6, container: StackedContainer): Promise<string> {
    const argv = ['ip', 'route', 'get', addressIn(family, container)];
    const { stdout } = await this.overlay.topology.exec(host, argv, { okExitCodes: 'any' });
    return / dev (\S+)/.exec(stdout)?.[1] ?? '';
  }

  async hasNothingBut(host: LabHost, type: Type): Promise<void> {
    const other = this.containers.find((container) => container.host !== host)!;
    await eventually(`${host.name} has ${type}, and nothing else left`, async () => {
      const ways = await Promise.all(
        this.families.map(async (family) => (await this.wayTo(host, family, other)) === DEVICES[type][family]),
      );
      const isNew = (await this.linksOf(host)).join() === this.madeFor(type).join();
      return (isNew && !ways.includes(false)) || undefined;
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#resources[Symbol.asyncDispose]();
  }
}

function netConf(stack: Stack, type: Type): string {
  return JSON.stringify({ ...NETWORKS[stack], Backend: { Type: type } });
}
