import assert from 'node:assert/strict';
import { copyFileSync, cpSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { KubeCluster } from '../../src/lab/servers/kube-server.ts';
import type { LabHost, Topology } from '../../src/lab/topology.ts';
import { run } from '../../src/linux/run.ts';
import { Flanneld } from '../netns/flanneld.ts';
import { goldenTopology, SERVER_ADDRESS, untilReady } from './golden-hosts.ts';
import { PUBLISHED_USES, type PublishedUse } from './manifests/published.ts';

const PREFIX = 'flannel.alpha.coreos.com/';
const SERVICE_ACCOUNT = '/var/run/secrets/kubernetes.io/serviceaccount';
const PATIENCE_MS = 60_000;

describe('the agent in the place of flanneld, as distributions start it', () => {
  let topology: Topology;
  let cluster: KubeCluster;

  before(async () => {
    topology = await goldenTopology(PUBLISHED_USES.length);
    const place = { netns: topology.plan.switchNamespace, address: SERVER_ADDRESS };
    cluster = await KubeCluster.start({ ...place, controllerManager: false });
    await cluster.admin.create('/api/v1/namespaces/kube-system/serviceaccounts', {
      ...{ apiVersion: 'v1', kind: 'ServiceAccount', metadata: { name: 'flannel', namespace: 'kube-system' } },
    });
  });
  after(async () => {
    await cluster?.[Symbol.asyncDispose]();
    await topology?.[Symbol.asyncDispose]();
  });

  for (const [index, use] of PUBLISHED_USES.entries()) {
    it(`is ready, and leaves what flanneld leaves: ${use.name}`, async () => {
      const host = topology.hosts[index]!;
      const node = `node${index + 1}`;
      await cluster.admin.createNode(node, {
        podCidrs: use.podCidrs,
        annotations: withPrefix(use.annotations ?? {}),
      });
      const env = await identify(use, node);
      const root = await rootOf(use, host);
      await using agent = await Flanneld.start(topology, host, {
        flags: use.args,
        // Empty: the place that flannel has when nobody gives one.
        env: { FLANNELD_SUBNET_FILE: '', ...use.env, ...env },
        under: ['sh', '-ec', WITH_ROOT, root],
      });
      await untilReady(agent);
      const isComplete = ({ status }: { status: { conditions?: readonly { type: string; status: string }[] } }) =>
        (status.conditions ?? []).some((one) => one.type === 'NetworkUnavailable' && one.status === 'False');
      const { metadata } = await cluster.admin.waitForNode(node, isComplete, AbortSignal.timeout(PATIENCE_MS));
      const written = Object.entries(metadata.annotations ?? {}).map(([key, value]) => [
        key,
        value.replace(/"VtepMAC":"(?:[\da-f]{2}:){5}[\da-f]{2}"/, '"VtepMAC":"MAC"'),
      ]);
      assert.deepEqual(
        Object.fromEntries(written.filter(([key]) => key!.startsWith(PREFIX))),
        withPrefix({ ...use.annotations, 'kube-subnet-manager': 'true', ...use.expected.annotations }),
      );
      assert.equal(
        readFileSync(join(root, 'run/flannel/subnet.env'), 'utf8'),
        [...use.expected.subnetEnv, 'FLANNEL_IPMASQ=true', ''].join('\n'),
      );
      assert.deepEqual(
        agent.log.seen.map(({ text }) => text).filter((text) => text.startsWith('E')),
        [],
      );
    });
  }

  /** What the downward API and the kubelet set. */
  async function identify({ identity, access }: PublishedUse, node: string): Promise<Record<string, string>> {
    const { hostname, port } = new URL(cluster.url);
    const server =
      access === 'service-account' ? { KUBERNETES_SERVICE_HOST: hostname, KUBERNETES_SERVICE_PORT: port } : {};
    if (identity === 'node-name') return { ...server, NODE_NAME: node };
    const { namespace } = identity;
    const name = `kube-flannel-${node}`;
    await cluster.admin.create(`/api/v1/namespaces/${namespace}/pods`, {
      ...{ apiVersion: 'v1', kind: 'Pod', metadata: { name, namespace } },
      spec: { nodeName: node, serviceAccountName: 'flannel', containers: [{ name: 'c', image: 'none' }] },
    });
    return { ...server, POD_NAME: name, POD_NAMESPACE: namespace };
  }

  /** The folders that differ from this machine's. */
  async function rootOf({ access, netConfPath, netConf, hasRunFlannel }: PublishedUse, host: LabHost): Promise<string> {
    const root = join(host.stateDirectory, 'root');
    for (const folder of ['etc', 'run', 'var-lib']) mkdirSync(join(root, folder), { recursive: true });
    await run(['cp', '-a', '/etc/.', join(root, 'etc')]);
    if (hasRunFlannel) mkdirSync(join(root, 'run/flannel'));
    const put = (path: string): string => {
      const file = join(root, path.replace('/var/run/', '/run/').replace('/var/lib/', '/var-lib/'));
      mkdirSync(dirname(file), { recursive: true });
      return file;
    };
    writeFileSync(put(netConfPath), JSON.stringify(netConf));
    if (access === 'service-account') {
      cpSync(await cluster.serviceAccountDir(), put(SERVICE_ACCOUNT), { recursive: true });
    } else copyFileSync(await cluster.flannelKubeconfig(), put(access.kubeconfig));
    return root;
  }
});

/** Mounts are seen by the agent alone: it has a mount namespace of its own. */
const WITH_ROOT = [
  'mount --bind "$0/etc" /etc',
  'mount --bind "$0/var-lib" /var/lib',
  // The folder itself lies there.
  'mount --bind "$0/run" /run',
  'exec "$@"',
].join('\n');

function withPrefix(annotations: Readonly<Record<string, string>>): Record<string, string> {
  return Object.fromEntries(Object.entries(annotations).map(([key, value]) => [`${PREFIX}${key}`, value]));
}
