import assert from 'node:assert/strict';
import { readFileSync, rmSync } from 'node:fs';
import { after, before, describe, it } from 'node:test';
import { KubeCluster } from '../../src/lab/servers/kube-server.ts';
import type { LabHost, Topology } from '../../src/lab/topology.ts';
import { golden } from '../fakes/golden.ts';
import { type Flanneld, subnetFileOf } from '../netns/flanneld.ts';
import { assertPings } from '../netns/overlay.ts';
import { startPlainPeer } from '../netns/plain-peer.ts';
import {
  assertLikeGolden,
  attachFrom,
  expectedHostState,
  goldenTopology,
  hostAddress,
  launchGolden,
  netConfFileOf,
  readHostState,
  SERVER_ADDRESS,
  untilReady,
  writeNetConf,
} from './golden-hosts.ts';
import { flannelPart, flannelPartOf, goldenAudit, goldenNodes, requestKind } from './golden-nodes.ts';

/** Whole agents with a real API server and controller manager, beside a recorded flanneld (test/golden/udp, udp-nft). */

const BASES = ['10.244.0.0', '10.244.1.0', '10.244.2.0'];
const PATIENCE_MS = 60_000;

describe('agents on Kubernetes, beside a recorded flanneld', () => {
  let topology: Topology;
  let cluster: KubeCluster;
  let kubeconfig: string;
  let hosts: readonly LabHost[];
  const agents: Flanneld[] = [];

  before(async () => {
    topology = await goldenTopology(3);
    ({ hosts } = topology);
    cluster = await KubeCluster.start({ netns: topology.plan.switchNamespace, address: SERVER_ADDRESS });
    await cluster.createNodes(hosts.map(nodeOf), AbortSignal.timeout(PATIENCE_MS));
    kubeconfig = await cluster.flannelKubeconfig();
  });
  after(async () => {
    await Promise.all(agents.map((agent) => agent[Symbol.asyncDispose]()));
    await cluster?.[Symbol.asyncDispose]();
    await topology?.[Symbol.asyncDispose]();
  });

  function nodeOf(host: LabHost): string {
    return `node${host.index + 1}`;
  }

  async function launch(host: LabHost, ...more: readonly string[]): Promise<void> {
    const flags = ['--kube-subnet-mgr', `--kubeconfig-file=${kubeconfig}`, `--net-config-path=${netConfFileOf(host)}`];
    const agent = await launchGolden(topology, host, [...flags, ...more], { NODE_NAME: nodeOf(host) });
    agents[host.index] = agent;
    await untilReady(agent);
  }

  async function stop(host: LabHost): Promise<void> {
    const agent = agents[host.index]!;
    agent.child.kill('SIGTERM');
    assert.equal((await agent.ended()).code, 0);
  }

  async function expectNodesLike(scenario: string, file?: string): Promise<void> {
    for (const expected of goldenNodes(scenario, file)) {
      const isComplete = ({ status }: { status: { conditions?: readonly { type: string }[] } }): boolean =>
        (status.conditions ?? []).some(({ type }) => type === 'NetworkUnavailable');
      const node = await cluster.admin.waitForNode(expected.name, isComplete, AbortSignal.timeout(PATIENCE_MS));
      assert.deepEqual(flannelPart(node), flannelPartOf(expected));
      assert.deepEqual(node.spec.podCIDRs, expected.podCIDRs);
    }
  }

  it('leave on nodes and hosts what flanneld leaves there, and pods reach each other', async () => {
    for (const host of hosts) writeNetConf(host, golden('udp', '01-net-conf.json'));
    await Promise.all(hosts.map((host) => launch(host)));
    assert.ok(agents[0]!.messages.includes('Created subnet manager: Kubernetes Subnet Manager - node1'));
    for (const host of hosts) await attachFrom(topology, host, readFileSync(subnetFileOf(host), 'utf8'));
    await expectNodesLike('udp');
    for (const host of hosts.slice(0, 2)) await assertLikeGolden(topology, host, 'udp', BASES[host.index]!);
    await assertPings(topology, hosts);
    for (const path of ['/healthz', '/readyz']) {
      const { status, body, contentType } = await agents[0]!.get(path);
      const recorded = golden('udp', '26-healthz-h1').replaceAll('\r', '');
      assert.ok(status === 200 && recorded.includes(`Content-Type: ${contentType}\n\n${body} rc 0`), body);
    }
  });

  it('send the kinds of requests that flanneld sends, all of them allowed by its minimal rights', async () => {
    const requests = (await cluster.audit()).filter(
      ({ stage }) => stage === 'ResponseComplete' || stage === 'ResponseStarted',
    );
    assert.deepEqual(
      [...new Set(requests.map(requestKind))].sort(),
      [...new Set(goldenAudit('udp').map(requestKind))].sort(),
    );
    assert.deepEqual([...new Set(requests.map(({ responseStatus }) => responseStatus?.code))], [200]);
    // One annotation patch and one for the condition each, as flanneld.
    const patches = requests.filter(({ verb }) => verb === 'patch');
    assert.equal(patches.length, 2 * hosts.length);
  });

  it('leave nodes, subnet.env and rules as they are when they stop, as flanneld does, and addresses and routes too', async () => {
    const [h1] = hosts;
    await stop(h1!);
    await expectNodesLike('udp', '31-nodes-trimmed-after-sigterm.json');
    assert.equal(readFileSync(subnetFileOf(h1!), 'utf8'), golden('udp', '24-subnet.env-h1-after-sigterm'));
    const { stdout } = await topology.exec(h1!, ['iptables-save']);
    const rules = (text: string) =>
      text
        .split('\n')
        .filter((line) => line.startsWith('-A'))
        .sort();
    assert.deepEqual(rules(stdout), rules(golden('udp', '21-iptables-save-h1-after-sigterm')));
    // flanneld's device and routes are gone then (20-net-h1-after-sigterm): connections break.
    assert.doesNotMatch(golden('udp', '20-net-h1-after-sigterm'), /flannel0/);
    const ipv4 = (routes: readonly string[] | undefined) =>
      routes?.filter((route) => !/ff00::|f[de]\d\d::|::1/.test(route));
    const after = await readHostState(topology, h1!);
    assert.deepEqual(ipv4(after.routes), ipv4(expectedHostState('udp', h1!, BASES[0]!).routes));
    await launch(h1!);
    await assertLikeGolden(topology, h1!, 'udp', BASES[0]!);
    await assertPings(topology, hosts);
  });

  it('take over from iptables with nftables, and leave what flanneld leaves in that mode', async () => {
    for (const host of hosts) writeNetConf(host, golden('udp-nft', '01-net-conf.json'));
    await Promise.all(
      hosts.map(async (host) => {
        await stop(host);
        await launch(host);
      }),
    );
    await expectNodesLike('udp-nft');
    for (const host of hosts.slice(0, 2)) await assertLikeGolden(topology, host, 'udp-nft', BASES[host.index]!);
    await assertPings(topology, hosts);
  });

  it('take addresses from the Node: node-public-ip, and the InternalIP for --iface-from-node-ip', async () => {
    const [h1, h2] = [hosts[0]!, hosts[1]!];
    const [internal, published] = [hostAddress(h2), '10.98.0.112'];
    await topology.ipBatch(h2, `addr add ${published}/24 dev eth0\n`);
    await cluster.admin.annotateNode(nodeOf(h2), { 'flannel.alpha.coreos.com/node-public-ip': published });
    const addresses = [{ type: 'InternalIP', address: internal }];
    await cluster.admin.patch(`/api/v1/nodes/${nodeOf(h2)}/status`, { status: { addresses } });

    await stop(h2);
    const from = agents[0]!.log.mark;
    await launch(h2, '--public-ip=10.98.0.113', '--iface-from-node-ip');
    for (const line of [
      `Using interface with name eth0 and address ${internal}`,
      `Using ${published} as external address`,
    ]) {
      assert.ok(agents[1]!.messages.includes(line), line);
    }
    await agents[0]!.logged(/^Subnet added: 10\.244\.1\.0\/24 via 10\.98\.0\.112$/, from);
    const node = await cluster.admin.node(nodeOf(h2));
    assert.equal(node.metadata.annotations?.['flannel.alpha.coreos.com/public-ip'], published);

    // Alone it names the interface, too, as --public-ip does.
    await stop(h2);
    await launch(h2);
    assert.ok(agents[1]!.messages.includes(`Using interface with name eth0 and address ${published}`));
    await assertPings(topology, [h1, h2]);
  });

  it('reach a host of flannel by the annotations that a real flanneld wrote', async () => {
    const [h1, , h3] = hosts;
    const recorded = goldenNodes('udp').find(({ name }) => name === nodeOf(h3!))!;
    await stop(h3!);
    rmSync(subnetFileOf(h3!));
    await topology.ipBatch(h3!, 'link del flannel0\n');
    const from = agents[0]!.log.mark;
    await cluster.admin.deleteNode(recorded.name);
    await agents[0]!.logged(/^Subnet removed: 10\.244\.2\.0\/24$/, from);
    const { podCIDRs: podCidrs, annotations } = recorded;
    await cluster.admin.createNode(recorded.name, { podCidrs, annotations });
    await agents[0]!.logged(/^Subnet added: 10\.244\.2\.0\/24 via 10\.98\.0\.13$/, from);
    await startPlainPeer(topology, h3!, {
      tunAddress: `${BASES[2]}/16`,
      local: `${hostAddress(h3!)}:8285`,
      remote: `${hostAddress(h1!)}:8285`,
      mtuBytes: 1472,
    });
    await assertPings(topology, [h1!, h3!]);
  });
});
