import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { after, before, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { EtcdServer } from '../../src/lab/servers/etcd-server.ts';
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
  SERVER_ADDRESS,
  serveToHosts,
  untilReady,
} from './golden-hosts.ts';
import { KubeHosts, nodeOf } from './kube-hosts.ts';

/** Real agents, a real store, and what an attacker who may write one entry of it puts there. */

const PATIENCE_MS = 60_000;
/** A Node's creationTimestamp has whole seconds: of two that are made in the same second, the name decides which came first. */
const CREATION_TIME_MS = 1_000;
const NET_CONF = '{"Network": "10.244.0.0/16", "Backend": {"Type": "udp"}}';
const NESTED = ['['.repeat(3_000) + ']'.repeat(3_000), '['.repeat(3_001) + ']'.repeat(3_001)];

async function untilRefused(agent: Flanneld, reason: string, count: number): Promise<void> {
  await eventually(`${count} refused as ${reason}`, async () => {
    const { body } = await agent.get('/metrics');
    return body.includes(`weft_refused_leases{reason="${reason}"} ${count}\n`) || undefined;
  });
}

const P = `${DEFAULT_ANNOTATION_PREFIX}/`;
const POD_CIDRS = ['10.244.1.0/24', '10.244.2.0/24'];

/** A Node object of an attacker. */
async function evil(
  { cluster }: KubeHosts,
  name: string,
  cidr: string,
  publicIp: string,
  more: Record<string, string> = {},
): Promise<void> {
  const annotations = {
    [`${P}kube-subnet-manager`]: 'true',
    [`${P}backend-type`]: '',
    [`${P}backend-data`]: 'null',
    [`${P}public-ip`]: publicIp,
    ...more,
  };
  await cluster.admin.createNode(name, { podCidrs: [cidr], annotations });
}

/** Brackets that are written, changed, there at the start of an agent, and changed again. */
async function nestWithoutEnd(nodes: KubeHosts, type: string): Promise<void> {
  const { agents, hosts, cluster } = nodes;
  await evil(nodes, 'evil-deep', '10.244.120.0/24', '10.98.0.69', {
    [`${P}backend-type`]: type,
    [`${P}backend-data`]: NESTED[0]!,
  });
  await cluster.admin.annotateNode('evil-deep', { [`${P}backend-data`]: NESTED[1]! });
  agents[0]!.child.kill('SIGTERM');
  assert.equal((await agents[0]!.ended()).code, 0);
  await untilReady(await nodes.launch(hosts[0]!));
  await cluster.admin.annotateNode('evil-deep', { [`${P}backend-data`]: NESTED[0]! });
  await assertPings(nodes.topology, hosts.slice(0, 2));
  for (const agent of agents) assert.equal((await agent.get('/readyz')).status, 200);
}

describe('entries of an attacker, on Kubernetes', () => {
  let nodes: KubeHosts;
  let topology: Topology;
  let cluster: KubeHosts['cluster'];
  let hosts: readonly LabHost[];
  let agents: readonly Flanneld[];

  before(async () => {
    nodes = await KubeHosts.start({ hosts: 3, netConf: NET_CONF, podCidrs: POD_CIDRS });
    ({ topology, cluster, hosts, agents } = nodes);
    await sleep(CREATION_TIME_MS);
  });
  after(() => nodes?.[Symbol.asyncDispose]());

  it('a subnet or a part of it that somebody has stays with the first, and everybody says so', async () => {
    await evil(nodes, 'evil-same', '10.244.2.0/24', '10.98.0.66');
    await evil(nodes, 'evil-half', '10.244.2.0/25', '10.98.0.67');
    await untilRefused(agents[0]!, 'overlaps-earlier', 2);
    await untilRefused(agents[1]!, 'overlaps-own', 2);
    await agents[1]!.logged(
      /^Refusing the lease 10\.244\.2\.0\/24 of 10\.98\.0\.66 \(node "evil-same"\): its subnet overlaps/,
    );
    assert.equal((await agents[1]!.get('/readyz')).status, 200);
    await assertPings(topology, hosts.slice(0, 2));
  });

  it('what lies outside the network, or is no address of a host, is refused', async () => {
    await evil(nodes, 'evil-all', '0.0.0.0/0', '10.98.0.68');
    for (const [i, address] of ['127.0.0.1', '224.0.0.1', '255.255.255.255'].entries()) {
      await evil(nodes, `evil-${i}`, `10.244.${100 + i}.0/24`, address);
    }
    await evil(nodes, 'evil-loop', '10.244.110.0/24', '10.244.110.1');
    await evil(nodes, 'evil-us', '10.244.111.0/24', hostAddress(hosts[0]!));
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
    await nestWithoutEnd(nodes, '');
    await untilRefused(agents[0]!, 'overlaps-earlier', 2);
  });

  it('the second host with a pod CIDR knows that it is one, and is not ready', async () => {
    // Creation times have whole seconds.
    const created = await cluster.admin.createNode(nodeOf(hosts[2]!), { podCidrs: ['10.244.2.0/24'] });
    assert.ok(created !== undefined);
    await nodes.launch(hosts[2]!);
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
    await evil(nodes, 'evil-elsewhere', '10.244.130.0/24', '10.98.0.70');
    await nodes.launch(hosts[0]!, '--require-node-address');
    await untilReady(agents[0]!);
    await agents[0]!.logged(/^Refusing the lease 10\.244\.130\.0\/24 of 10\.98\.0\.70 .*\[address-not-of-node\]/);
    await assertPings(topology, hosts.slice(0, 2));
  });
});

describe('entries of an attacker, on Kubernetes with a backend that reads what peers publish', () => {
  let nodes: KubeHosts;

  before(async () => {
    const netConf = '{"Network": "10.244.0.0/16", "Backend": {"Type": "vxlan"}}';
    nodes = await KubeHosts.start({ hosts: 2, netConf, podCidrs: POD_CIDRS });
  });
  after(() => nodes?.[Symbol.asyncDispose]());

  it('brackets without end hurt nobody, also over a restart', async () => {
    await nestWithoutEnd(nodes, 'vxlan');
    for (const agent of nodes.agents) {
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
