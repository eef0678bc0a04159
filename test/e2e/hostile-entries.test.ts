import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { after, before, describe, it } from 'node:test';
import { EtcdServer } from '../../src/lab/servers/etcd-server.ts';
import { KubeCluster } from '../../src/lab/servers/kube-server.ts';
import type { LabHost, Topology } from '../../src/lab/topology.ts';
import { DEFAULT_ANNOTATION_PREFIX } from '../../src/subnet/kube/annotations.ts';
import { type Flanneld, subnetFileOf } from '../netns/flanneld.ts';
import { assertPings, ping } from '../netns/overlay.ts';
import { eventually } from '../netns/waiting.ts';
import {
  attachFrom,
  goldenTopology,
  hostAddress,
  launchGolden,
  netConfFileOf,
  SERVER_ADDRESS,
  serveToHosts,
  untilReady,
  writeNetConf,
} from './golden-hosts.ts';

/** Real agents, a real store, and what an attacker who may write one entry of it puts there. */

const PATIENCE_MS = 60_000;
const NET_CONF = '{"Network": "10.244.0.0/16", "Backend": {"Type": "udp"}}';
const NESTED = ['['.repeat(3_000) + ']'.repeat(3_000), '['.repeat(3_001) + ']'.repeat(3_001)];

async function untilRefused(agent: Flanneld, reason: string, count: number): Promise<void> {
  await eventually(`${count} refused as ${reason}`, async () => {
    const { body } = await agent.get('/metrics');
    return body.includes(`weft_refused_leases{reason="${reason}"} ${count}\n`) || undefined;
  });
}

const P = `${DEFAULT_ANNOTATION_PREFIX}/`;

/** An API server, and hosts of which the first two are nodes with an agent each. */
class Attacked implements AsyncDisposable {
  readonly topology: Topology;
  readonly cluster: KubeCluster;
  readonly hosts: readonly LabHost[];
  readonly agents: Flanneld[] = [];
  readonly #kubeconfig: string;
  readonly #netConf: string;

  private constructor(topology: Topology, cluster: KubeCluster, kubeconfig: string, netConf: string) {
    this.topology = topology;
    this.hosts = topology.hosts;
    this.cluster = cluster;
    this.#kubeconfig = kubeconfig;
    this.#netConf = netConf;
  }

  static async start(hostCount: number, netConf: string): Promise<Attacked> {
    await using stack = new AsyncDisposableStack();
    const topology = stack.use(await goldenTopology(hostCount));
    const place = { netns: topology.plan.switchNamespace, address: SERVER_ADDRESS };
    // Pod CIDRs are given by hand: two nodes may have one.
    const cluster = stack.use(await KubeCluster.start({ ...place, controllerManager: false }));
    const attacked = new Attacked(topology, cluster, await cluster.flannelKubeconfig(), netConf);
    stack.defer(() => attacked.#endAgents());
    for (const host of attacked.hosts.slice(0, 2)) {
      await cluster.admin.createNode(nodeOf(host), { podCidrs: [`10.244.${host.index + 1}.0/24`] });
      await attacked.launch(host);
      await untilReady(attacked.agents[host.index]!);
      await attachFrom(topology, host, readFileSync(subnetFileOf(host), 'utf8'));
    }
    stack.move();
    return attacked;
  }

  async launch(host: LabHost, ...more: readonly string[]): Promise<void> {
    const { topology, agents } = this;
    writeNetConf(host, this.#netConf);
    const config = [`--kubeconfig-file=${this.#kubeconfig}`, `--net-config-path=${netConfFileOf(host)}`];
    const flags = ['--kube-subnet-mgr', ...config, ...more];
    agents[host.index] = await launchGolden(topology, host, flags, { NODE_NAME: nodeOf(host) });
  }

  async evil(name: string, cidr: string, publicIp: string, more: Record<string, string> = {}): Promise<void> {
    const annotations = {
      [`${P}kube-subnet-manager`]: 'true',
      [`${P}backend-type`]: '',
      [`${P}backend-data`]: 'null',
      [`${P}public-ip`]: publicIp,
      ...more,
    };
    await this.cluster.admin.createNode(name, { podCidrs: [cidr], annotations });
  }

  /** Written, changed, there at the start of an agent, and changed again. */
  async nestWithoutEnd(type: string): Promise<void> {
    const { agents, hosts, cluster } = this;
    await this.evil('evil-deep', '10.244.120.0/24', '10.98.0.69', {
      [`${P}backend-type`]: type,
      [`${P}backend-data`]: NESTED[0]!,
    });
    await cluster.admin.annotateNode('evil-deep', { [`${P}backend-data`]: NESTED[1]! });
    agents[0]!.child.kill('SIGTERM');
    assert.equal((await agents[0]!.ended()).code, 0);
    await this.launch(hosts[0]!);
    await untilReady(agents[0]!);
    await cluster.admin.annotateNode('evil-deep', { [`${P}backend-data`]: NESTED[0]! });
    await assertPings(this.topology, hosts.slice(0, 2));
    for (const agent of agents) assert.equal((await agent.get('/readyz')).status, 200);
  }

  async #endAgents(): Promise<void> {
    await Promise.all(this.agents.map((agent) => agent[Symbol.asyncDispose]()));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#endAgents();
    await this.cluster[Symbol.asyncDispose]();
    await this.topology[Symbol.asyncDispose]();
  }
}

function nodeOf(host: LabHost): string {
  return `node${host.index + 1}`;
}

describe('entries of an attacker, on Kubernetes', () => {
  let attacked: Attacked;
  let topology: Topology;
  let cluster: KubeCluster;
  let hosts: readonly LabHost[];
  let agents: readonly Flanneld[];

  before(async () => {
    attacked = await Attacked.start(3, NET_CONF);
    ({ topology, cluster, hosts, agents } = attacked);
  });
  after(() => attacked?.[Symbol.asyncDispose]());

  it('a subnet or a part of it that somebody has stays with the first, and everybody says so', async () => {
    await attacked.evil('evil-same', '10.244.2.0/24', '10.98.0.66');
    await attacked.evil('evil-half', '10.244.2.0/25', '10.98.0.67');
    await untilRefused(agents[0]!, 'overlaps-earlier', 2);
    await untilRefused(agents[1]!, 'overlaps-own', 2);
    await agents[1]!.logged(
      /^Refusing the lease 10\.244\.2\.0\/24 of 10\.98\.0\.66 \(node "evil-same"\): its subnet overlaps/,
    );
    assert.equal((await agents[1]!.get('/readyz')).status, 200);
    await assertPings(topology, hosts.slice(0, 2));
  });

  it('what lies outside the network, or is no address of a host, is refused', async () => {
    await attacked.evil('evil-all', '0.0.0.0/0', '10.98.0.68');
    for (const [i, address] of ['127.0.0.1', '224.0.0.1', '255.255.255.255'].entries()) {
      await attacked.evil(`evil-${i}`, `10.244.${100 + i}.0/24`, address);
    }
    await attacked.evil('evil-loop', '10.244.110.0/24', '10.244.110.1');
    await attacked.evil('evil-us', '10.244.111.0/24', hostAddress(hosts[0]!));
    for (const agent of agents) {
      await untilRefused(agent, 'outside-network', 1);
      await untilRefused(agent, 'address-not-unicast', 3);
      await untilRefused(agent, 'address-in-network', 1);
    }
    await untilRefused(agents[0]!, 'address-own', 1);
    // Nothing enters the tunnel for them: the sender is told that there is no such network.
    const { ok } = await ping(topology, hosts[0]!.containers[0]!, '10.244.110.9');
    assert.ok(!ok);
    await assertPings(topology, hosts.slice(0, 2));
  });

  it('brackets without end hurt nobody, also over a restart', async () => {
    await attacked.nestWithoutEnd('');
    await untilRefused(agents[0]!, 'overlaps-earlier', 2);
  });

  it('the second host with a pod CIDR knows that it is one, and is not ready', async () => {
    // Creation times have whole seconds.
    const created = await cluster.admin.createNode(nodeOf(hosts[2]!), { podCidrs: ['10.244.2.0/24'] });
    assert.ok(created !== undefined);
    await attacked.launch(hosts[2]!);
    await agents[2]!.logged(/^the subnet of this host, 10\.244\.2\.0\/24, overlaps/, 0, PATIENCE_MS);
    await agents[2]!.answers(
      '/readyz',
      503,
      /overlaps 10\.244\.2\.0\/24 of 10\.98\.0\.12 \(node "node2"\), which came first/,
    );
    await untilRefused(agents[0]!, 'overlaps-earlier', 3);
    assert.equal((await agents[1]!.get('/readyz')).status, 200);
    await assertPings(topology, hosts.slice(0, 2));
  });

  it('--require-node-address: an address that the Node does not have is refused', async () => {
    agents[0]!.child.kill('SIGTERM');
    await agents[0]!.ended();
    const addresses = [{ type: 'InternalIP', address: hostAddress(hosts[1]!) }];
    await cluster.admin.patch(`/api/v1/nodes/${nodeOf(hosts[1]!)}/status`, { status: { addresses } }, 'merge');
    await attacked.evil('evil-elsewhere', '10.244.130.0/24', '10.98.0.70');
    await attacked.launch(hosts[0]!, '--require-node-address');
    await untilReady(agents[0]!);
    await agents[0]!.logged(/^Refusing the lease 10\.244\.130\.0\/24 of 10\.98\.0\.70 .*\[address-not-of-node\]/);
    await assertPings(topology, hosts.slice(0, 2));
  });
});

describe('entries of an attacker, on Kubernetes with a backend that reads what peers publish', () => {
  let attacked: Attacked;

  before(async () => {
    attacked = await Attacked.start(2, '{"Network": "10.244.0.0/16", "Backend": {"Type": "vxlan"}}');
  });
  after(() => attacked?.[Symbol.asyncDispose]());

  it('brackets without end hurt nobody, also over a restart', async () => {
    await attacked.nestWithoutEnd('vxlan');
    for (const agent of attacked.agents) {
      await agent.logged(/^Skipping unreadable lease entry evil-deep: the annotation .*backend-data is not JSON/);
    }
  });
});

describe('entries of an attacker, in etcd', () => {
  const PORT = 12379;
  const FLAGS = [`--etcd-endpoints=http://${SERVER_ADDRESS}:${PORT}`];
  let server: EtcdServer;
  let relay: AsyncDisposable;
  let topology: Topology;
  let hosts: readonly LabHost[];
  const agents: Flanneld[] = [];

  before(async () => {
    [server, topology] = await Promise.all([EtcdServer.start(), goldenTopology(3)]);
    ({ hosts } = topology);
    relay = await serveToHosts(topology, PORT, new URL(server.endpoints[0]!).host);
    await server.etcdctl('put', '/coreos.com/network/config', NET_CONF);
    for (const host of hosts.slice(0, 2)) {
      agents[host.index] = await untilReady(await launchGolden(topology, host, FLAGS));
      await attachFrom(topology, host, readFileSync(subnetFileOf(host), 'utf8'));
    }
  });
  after(async () => {
    await topology?.[Symbol.asyncDispose]();
    await relay?.[Symbol.asyncDispose]();
    await server?.[Symbol.asyncDispose]();
  });

  const put = (key: string, value: object | string): Promise<unknown> =>
    server.etcdctl(
      'put',
      `/coreos.com/network/subnets/${key}`,
      typeof value === 'string' ? value : JSON.stringify(value),
    );
  const subnetOf = (host: LabHost): string =>
    /^FLANNEL_SUBNET=(.*)\.1\/24$/m.exec(readFileSync(subnetFileOf(host), 'utf8'))![1]!;

  it('are refused with a reason each, and packets go on', async () => {
    const victim = subnetOf(hosts[1]!);
    await put('0.0.0.0-0&::-0', { PublicIP: '10.98.0.66', PublicIPv6: 'fd98::66' });
    await put('0.0.0.0-0', { PublicIP: '10.98.0.66' });
    await put(`${victim}.0-25`, { PublicIP: '10.98.0.67' });
    for (const all of ['10.244.0.0-16', '10.244.0.0-17', '10.244.128.0-17']) await put(all, { PublicIP: '10.98.0.66' });
    await put('10.244.250.0-24', { PublicIP: '127.0.0.1' });
    await put('10.244.251.0-24', { PublicIP: '10.244.251.1' });
    await put('10.244.252.0-24', `{"PublicIP":"10.98.0.68","BackendData":${NESTED[0]}}`);
    await put('10.244.252.0-24', `{"PublicIP":"10.98.0.68","BackendData":${NESTED[1]}}`);
    for (const agent of agents) {
      await untilRefused(agent, 'outside-network', 2);
      await untilRefused(agent, 'wrong-length', 4);
      await untilRefused(agent, 'address-not-unicast', 1);
      await untilRefused(agent, 'address-in-network', 1);
    }
    await assertPings(topology, hosts.slice(0, 2));
  });

  it('take no lease from a live host, one that is restarted, or one that is new', async () => {
    const [first, second] = [subnetOf(hosts[0]!), subnetOf(hosts[1]!)];
    await server.etcdctl('del', `/coreos.com/network/subnets/${first}.0-24`);
    await agents[0]!.logged(/^Own lease .* was gone from the store and has been taken again/);
    agents[1]!.child.kill('SIGTERM');
    assert.equal((await agents[1]!.ended()).code, 0);
    agents[1] = await untilReady(await launchGolden(topology, hosts[1]!, FLAGS));
    agents[2] = await untilReady(await launchGolden(topology, hosts[2]!, FLAGS));
    assert.deepEqual([subnetOf(hosts[0]!), subnetOf(hosts[1]!)], [first, second]);
    assert.ok(![first, second].includes(subnetOf(hosts[2]!)));
    await assertPings(topology, hosts.slice(0, 2));
  });
});
