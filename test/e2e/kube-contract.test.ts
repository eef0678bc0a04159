import { mkdtemp, rm, unlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before } from 'node:test';
import { backendKind } from '../../src/backend/registry.ts';
import { formatIpv4 } from '../../src/ip/ipv4.ts';
import { formatIpv6 } from '../../src/ip/ipv6.ts';
import { formatPrefix4, formatPrefix6 } from '../../src/ip/prefix.ts';
import { KubeClientError, type KubeNode } from '../../src/lab/servers/kube-client.ts';
import { KubeCluster } from '../../src/lab/servers/kube-server.ts';
import { type Lease, leaseKey } from '../../src/lease/lease.ts';
import { parseLeaseKey } from '../../src/lease/lease-codec.ts';
import { annotationKeys, DEFAULT_ANNOTATION_PREFIX } from '../../src/subnet/kube/annotations.ts';
import { loadKubeAccess } from '../../src/subnet/kube/kube-access.ts';
import { KubeApi } from '../../src/subnet/kube/kube-api.ts';
import { KubeSubnetManager } from '../../src/subnet/kube/kube-subnet-manager.ts';
import { subnetManagerContract } from '../contract/subnet-manager.ts';
import { TcpProxy } from './etcd-proxy.ts';

const keys = annotationKeys(DEFAULT_ANNOTATION_PREFIX);
/** The own node of every manager. Nodes of others are named after their lease. */
const OWN = 'own-node';
const OWN_CIDR = '10.5.1.0/24';

let cluster: KubeCluster;
let token: string;
before(async () => {
  // Pod CIDRs are given by hand here.
  cluster = await KubeCluster.start({ controllerManager: false });
  token = await cluster.flannelToken();
});
after(() => cluster[Symbol.asyncDispose]());

/** The CIDRs that a lease key names; a name that is no key gets none. */
function cidrsOf(key: string): string[] {
  const { ipv4: subnet, ipv6: ipv6Subnet } = parseLeaseKey(key) ?? { ipv4: undefined, ipv6: undefined };
  return [...(subnet ? [formatPrefix4(subnet)] : []), ...(ipv6Subnet ? [formatPrefix6(ipv6Subnet)] : [])];
}

function annotationsOf({ attrs }: Lease): Record<string, string> {
  return {
    [keys.kubeSubnetManager]: 'true',
    [keys.backendType]: attrs.backendType,
    [keys.backendData.ipv4]: JSON.stringify(attrs.backendData.ipv4 ?? null),
    ...(attrs.publicAddresses.ipv4 === undefined
      ? {}
      : { [keys.publicAddresses.ipv4]: formatIpv4(attrs.publicAddresses.ipv4) }),
    ...(attrs.publicAddresses.ipv6 === undefined
      ? {}
      : { [keys.publicAddresses.ipv6]: formatIpv6(attrs.publicAddresses.ipv6) }),
  };
}

subnetManagerContract(
  'kube',
  async () => {
    const { admin } = cluster;
    await admin.delete('/api/v1/nodes');
    await admin.createNode(OWN, { podCidrs: [OWN_CIDR] });
    const dir = await mkdtemp(join(tmpdir(), 'weft-kube-contract-'));
    const netConfPath = join(dir, 'net-conf.json');
    const caFile = cluster.ca.certFile;
    const proxy = await TcpProxy.start(cluster.url);
    const url = new URL(cluster.url);
    url.port = new URL(proxy.url).port;
    const kubeconfigFile = join(dir, 'kubeconfig');
    const kubeconfig = {
      clusters: [{ name: 'c', cluster: { server: url.href, 'certificate-authority': caFile } }],
      users: [{ name: 'u', user: { token } }],
      contexts: [{ name: 'x', context: { cluster: 'c', user: 'u' } }],
      'current-context': 'x',
    };
    await writeFile(kubeconfigFile, JSON.stringify(kubeconfig));
    const managers: KubeSubnetManager[] = [];
    const access = () => loadKubeAccess({ kubeconfigFile, apiUrl: '', env: {} }, () => {});
    // Managers are made without waiting, so the ways to the server are laid before.
    const ways = await Promise.all(Array.from({ length: 4 }, access));
    const nameOf = (key: string) => (cidrsOf(key)[0] === OWN_CIDR ? OWN : key.replaceAll(/[&:]/g, '-'));

    async function write(
      name: string,
      podCidrs: readonly string[],
      annotations: Record<string, string>,
    ): Promise<void> {
      try {
        await admin.createNode(name, { podCidrs, annotations });
      } catch (error) {
        if (!(error instanceof KubeClientError) || error.status !== 409) throw error;
        await admin.patch<KubeNode>(`/api/v1/nodes/${name}`, { metadata: { annotations } }, 'merge');
      }
    }
    return {
      manager(options = {}) {
        const way = ways.pop();
        if (way === undefined) throw new Error('more managers than ways were laid');
        const manager = new KubeSubnetManager({
          backends: backendKind,
          api: new KubeApi(way, 'flanneld/test'),
          nodeName: OWN,
          annotations: keys,
          netConfPath,
          setNodeNetworkUnavailable: true,
          timing: { reflector: { retry: { firstMs: 50, maxMs: 500 } } },
          ...(options.report === undefined ? {} : { report: options.report }),
        });
        managers.push(manager);
        return manager;
      },
      async configure(netConf) {
        if (netConf === undefined) await unlink(netConfPath);
        else await writeFile(netConfPath, netConf);
      },
      writeEntry: (lease, backendData) =>
        write(nameOf(leaseKey(lease)), cidrsOf(leaseKey(lease)), {
          ...annotationsOf(lease),
          ...(backendData === undefined ? {} : { [keys.backendType]: 'vxlan', [keys.backendData.ipv4]: backendData }),
        }),
      async deleteEntry(key) {
        const name = nameOf(key);
        // The own Node stays: what somebody deletes of it is what flannel wrote there.
        if (name !== OWN) await admin.deleteNode(name);
        else await admin.annotateNode(OWN, Object.fromEntries(Object.values(keys).map((one) => [one, null])));
      },
      async corruptEntry(key) {
        const cidrs = cidrsOf(key);
        await write(nameOf(key), cidrs.length > 0 ? cidrs : ['10.5.9.0/24'], {
          [keys.kubeSubnetManager]: 'true',
          [keys.publicAddresses.ipv4]: '192.168.77.',
        });
      },
      expireNow: () => Promise.reject(new Error('a Node does not expire')),
      async interrupt() {
        proxy.cut();
        return { [Symbol.asyncDispose]: async () => proxy.heal() };
      },
      async stall() {
        const frozen = cluster.servers.apiServer.freeze();
        return { [Symbol.asyncDispose]: async () => frozen[Symbol.dispose]() };
      },
      async elapse() {},
      async [Symbol.asyncDispose]() {
        for (const manager of managers) await manager[Symbol.asyncDispose]();
        for (const way of ways) way[Symbol.dispose]();
        await proxy[Symbol.asyncDispose]();
        await rm(dir, { recursive: true, force: true });
      },
    };
  },
  { allocates: false },
);
