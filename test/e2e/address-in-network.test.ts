import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { assertPings } from '../netns/overlay.ts';
import { eventually } from '../netns/waiting.ts';
import { hostAddress, untilReady } from './golden-hosts.ts';
import { KubeHosts } from './kube-hosts.ts';

/** Nodes whose own addresses, 10.98.0.11 and 10.98.0.12, lie in the network of their pods. */
describe('node addresses in the network, on Kubernetes', () => {
  const netConf = (type: string): string => `{"Network": "10.98.0.0/16", "Backend": {"Type": "${type}"}}`;
  let nodes: KubeHosts;

  before(async () => {
    nodes = await KubeHosts.start({ hosts: 2, netConf: netConf('vxlan'), podCidrs: ['10.98.1.0/24', '10.98.2.0/24'] });
  });
  after(() => nodes?.[Symbol.asyncDispose]());

  const relaunched = async (type: string): Promise<void> => {
    for (const host of nodes.hosts) await untilReady(await nodes.relaunch(host, netConf(type)));
  };

  for (const type of ['vxlan', 'host-gw']) {
    it(`${type}: hosts and containers reach each other, and the agent says what to mind`, async () => {
      if (type !== 'vxlan') await relaunched(type);
      await assertPings(nodes.topology, nodes.hosts);
      for (const { index } of nodes.hosts) {
        const agent = nodes.agents[index]!;
        await agent.logged(
          /^10\.98\.0\.1\d, the address of this host \(eth0\), lies in the IPv4 network 10\.98\.0\.0\/16\./,
        );
        assert.doesNotMatch((await agent.get('/metrics')).body, /^weft_refused_leases\{.*\} [1-9]/m);
      }
    });
  }

  it('a pod CIDR around the address of a node that came first is refused', async () => {
    const annotations = { 'flannel.alpha.coreos.com/kube-subnet-manager': 'true' };
    await nodes.cluster.admin.createNode('around', {
      podCidrs: ['10.98.0.0/26'],
      annotations: { ...annotations, 'flannel.alpha.coreos.com/public-ip': '10.98.0.99' },
    });
    for (const host of nodes.hosts) {
      const other = hostAddress(nodes.hosts[1 - host.index]!);
      await eventually('the refusal', async () => {
        const { body } = await nodes.agents[host.index]!.get('/metrics');
        return body.includes('weft_refused_leases{reason="overlaps-earlier"} 1\n') || undefined;
      });
      await nodes.agents[host.index]!.logged(
        new RegExp(`^Refusing the lease 10\\.98\\.0\\.0/26 .* contains the public address of .* of ${other} `),
      );
    }
    await assertPings(nodes.topology, nodes.hosts);
  });

  it('udp does not start: it could not tell the host from a container', async () => {
    const agent = await nodes.relaunch(nodes.hosts[0]!, netConf('udp'));
    await agent.logged(/10\.98\.0\.0\/16 overlaps the underlay: .* 10\.98\.0\.11 in it is the address of this host/);
    assert.equal((await agent.ended()).code, 1);
  });
});
