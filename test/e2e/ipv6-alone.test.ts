import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { KubeCluster } from '../../src/lab/servers/kube-server.ts';
import type { Topology } from '../../src/lab/topology.ts';
import { Flanneld } from '../netns/flanneld.ts';
import { attachStacked, everyFamilyAnswers, extensionByRoutes, masqueradesBy } from '../netns/stacked-overlay.ts';
import { goldenTopology, SERVER_ADDRESS, untilReady } from './golden-hosts.ts';

const BACKENDS: Readonly<Record<string, (folder: string) => object>> = {
  vxlan: () => ({ Type: 'vxlan' }),
  'host-gw': () => ({ Type: 'host-gw' }),
  extension: extensionByRoutes,
  udp: () => ({ Type: 'udp' }),
};
const CELLS = Object.keys(BACKENDS).flatMap((type) =>
  (['iptables', 'nftables'] as const).map((rules) => ({ type, rules })),
);

/** Of the stores, Kubernetes alone can have a network without IPv4. */
describe('backends in a network of IPv6 alone', () => {
  let topology: Topology;
  let cluster: KubeCluster;
  let kubeconfig: string;

  before(async () => {
    topology = await goldenTopology(2 * CELLS.length);
    const place = { netns: topology.plan.switchNamespace, address: SERVER_ADDRESS };
    cluster = await KubeCluster.start({ ...place, controllerManager: false });
    kubeconfig = await cluster.flannelKubeconfig();
  });
  after(async () => {
    await cluster?.[Symbol.asyncDispose]();
    await topology?.[Symbol.asyncDispose]();
  });

  for (const [cell, { type, rules }] of CELLS.entries()) {
    it(`${type}, ${rules}: containers reach each other in packets of full size`, async () => {
      const { signal } = new AbortController();
      await using resources = new AsyncDisposableStack();
      const netConf = {
        ...{ EnableIPv4: false, EnableIPv6: true, IPv6Network: 'fd10::/48', EnableNFTables: rules === 'nftables' },
        Backend: BACKENDS[type]!(topology.stateDirectory),
      };
      const containers = await Promise.all(
        topology.hosts.slice(2 * cell, 2 * cell + 2).map(async (host) => {
          const node = `node${host.index}`;
          await cluster.admin.createNode(node, { podCidrs: [`fd10:0:0:${(host.index + 1).toString(16)}::/64`] });
          const path = join(host.stateDirectory, 'net-conf.json');
          writeFileSync(path, JSON.stringify(netConf));
          const flags = ['--kube-subnet-mgr', `--kubeconfig-file=${kubeconfig}`, `--net-config-path=${path}`];
          const agent = await Flanneld.start(topology, host, {
            flags: [...flags, '--iface=eth0', '--ip-masq'],
            env: { NODE_NAME: node },
          });
          resources.use(agent);
          await untilReady(agent);
          return await attachStacked(topology, host, signal);
        }),
      );
      await everyFamilyAnswers(topology, containers);
      await masqueradesBy(rules, topology, containers[0]!);
    });
  }
});
