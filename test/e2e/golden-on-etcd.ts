import { mkdirSync, writeFileSync } from 'node:fs';
import { EtcdServer } from '../../src/lab/servers/etcd-server.ts';
import type { Topology } from '../../src/lab/topology.ts';
import { golden } from '../fakes/golden.ts';
import { subnetFileOf } from '../netns/flanneld.ts';
import { goldenTopology, SERVER_ADDRESS, serveToHosts } from './golden-hosts.ts';

const PORT = 12379;

/** Two hosts as flanneld has left them when it was recorded: each has its subnet.env, and reaches a real etcd, which is empty. */
export interface GoldenOnEtcd extends AsyncDisposable {
  readonly server: EtcdServer;
  readonly topology: Topology;
  /** Of an agent, for its store. */
  readonly flags: readonly string[];
}

export async function goldenOnEtcd(scenario: string): Promise<GoldenOnEtcd> {
  await using stack = new AsyncDisposableStack();
  const server = stack.use(await EtcdServer.start());
  const topology = stack.use(await goldenTopology(2));
  stack.use(await serveToHosts(topology, PORT, new URL(server.endpoints[0]!).host));
  for (const host of topology.hosts) {
    mkdirSync(host.stateDirectory, { recursive: true });
    writeFileSync(subnetFileOf(host), golden(scenario, `24-subnet.env-${host.name}`));
  }
  const held = stack.move();
  const flags = [`--etcd-endpoints=http://${SERVER_ADDRESS}:${PORT}`];
  return { server, topology, flags, [Symbol.asyncDispose]: () => held.disposeAsync() };
}
