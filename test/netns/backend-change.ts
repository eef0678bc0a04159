import assert from 'node:assert/strict';
import type { SubnetStore } from '../../src/lab/subnet-store.ts';
import { type LabHost, Topology } from '../../src/lab/topology.ts';
import { addressOf, Overlay, ping } from './overlay.ts';
import { eventually, LineFeed } from './waiting.ts';

const signal = new AbortController().signal;
const PORT = 9000;

const netConf = (type: string): string => JSON.stringify({ Network: '10.244.0.0/16', Backend: { Type: type } });
/** The device by which packets leave for other hosts, and those that weft makes. */
const DEVICE = { udp: 'flannel0', vxlan: 'flannel.1', 'host-gw': 'eth0' } as const;
type Type = keyof typeof DEVICE;
const madeFor = (...types: Type[]): string[] =>
  types
    .map((type): string => DEVICE[type])
    .filter((name) => name.startsWith('flannel'))
    .sort();

export interface ChangingCluster<S extends SubnetStore> {
  openStore(topology: Topology, netConf: string): Promise<S>;
  /** Gives the cluster another net-conf.json. */
  publish(topology: Topology, store: S, netConf: string): Promise<void> | void;
  /** Whether the store is a server. */
  readonly hasServer: boolean;
}

/**
 * A cluster of two hosts goes from one backend to another, node by node: both kinds of hosts reach each other meanwhile, and a TCP
 * connection between containers survives.
 */
export async function changeBackend<S extends SubnetStore>(
  before: Type,
  after: Type,
  cluster: ChangingCluster<S>,
): Promise<void> {
  const options = { hosts: 2, containersPerHost: 1, store: cluster.hasServer, purpose: 'test' };
  await using topology = await Topology.create(options, signal);
  await using store = await cluster.openStore(topology, netConf(before));
  const overlay = Overlay.on(topology, store);
  await overlay.startAll(signal);
  const [first, second] = topology.hosts as [LabHost, LabHost];
  const [from, to] = [first.containers[0]!, second.containers[0]!];
  const restart = async (host: LabHost): Promise<void> => {
    const { child } = overlay.agents[host.index]!;
    child.kill('SIGTERM');
    await child.exited;
    await overlay.startAgent(host, signal);
  };
  const linksOf = async (host: LabHost): Promise<string[]> => {
    const { stdout } = await topology.exec(host, ['ip', '-br', 'link']);
    return stdout
      .split('\n')
      .flatMap((line) => /^flannel[^ @]*/.exec(line)?.[0] ?? [])
      .sort();
  };
  const wayTo = async (host: LabHost, address: string): Promise<string> =>
    / dev (\S+)/.exec((await topology.exec(host, ['ip', 'route', 'get', address])).stdout)?.[1] ?? '';

  await using _server = await topology.start(to, ['socat', `TCP-LISTEN:${PORT},fork,reuseaddr`, 'EXEC:cat'], {
    stdout: 'ignore',
  });
  await using client = await topology.start(
    from,
    ['socat', 'STDIO', `TCP:${addressOf(to)}:${PORT},retry=100,interval=0.1`],
    { stdin: 'pipe' },
  );
  const echoed = new LineFeed(client.stdout!);
  const echoes = async (text: string): Promise<void> => {
    client.stdin!.write(`${text}\n`);
    await eventually(
      `the connection carries "${text}"`,
      async () => echoed.seen.some((line) => line.text === text) || undefined,
    );
  };
  const reach = async (): Promise<void> => {
    for (const [a, b] of [
      [from, to],
      [to, from],
    ] as const) {
      await eventually(
        `${a.name} reaches ${b.name}`,
        async () => (await ping(topology, a, addressOf(b))).ok || undefined,
      );
    }
  };
  await echoes('nobody has changed');

  await cluster.publish(topology, store, netConf(after));
  const news = `has changed: the backend is ${after} now, no longer ${before}; restart this agent to apply it`;
  for (const host of [first, second]) {
    await eventually(`${host.name} notices`, async () => (await overlay.log(host)).includes(news) || undefined);
  }

  await restart(first);
  await reach();
  await echoes('one is ahead');
  assert.deepEqual(await linksOf(first), madeFor(before, after));
  assert.equal(await wayTo(first, addressOf(to)), DEVICE[before]);
  const beside = `Some peers use the backend ${before}. They are reached with it`;
  assert.ok((await overlay.log(first)).includes(beside));
  // What is reached in the other way is not skipped.
  const metrics = await overlay.ask(first, '/metrics');
  assert.match(metrics, /^weft_skipped_peers 0$/m);
  assert.equal(/^weft_forwarder_running 1$/m.test(metrics), before === 'udp');
  if (before === 'udp') {
    const subnet = addressOf(to).replace(/\d+$/, '0/24');
    for (const direction of ['tx', 'rx'])
      assert.match(
        metrics,
        new RegExp(`^weft_packets_total\\{peer="${subnet}",direction="${direction}"\\} [1-9]`, 'm'),
      );
  }

  await restart(second);
  await reach();
  await echoes('everybody has changed');
  for (const [host, other] of [
    [first, to],
    [second, from],
  ] as const) {
    await eventually(`${host.name} has nothing of ${before} left`, async () => {
      const isNew = (await linksOf(host)).join() === madeFor(after).join();
      return (isNew && (await wayTo(host, addressOf(other))) === DEVICE[after]) || undefined;
    });
  }
  assert.equal(/^weft_forwarder_running/m.test(await overlay.ask(first, '/metrics')), after === 'udp');
  await reach();
  await echoes('the end');
}
