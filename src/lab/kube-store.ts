import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { backendKind } from '../backend/registry.ts';
import { parseNetConf } from '../config/net-conf.ts';
import { formatPrefix4 } from '../ip/prefix.ts';
import type { Lease } from '../lease/lease.ts';
import { annotationKeys } from '../subnet/kube/annotations.ts';
import { nodeLease } from '../subnet/kube/node-lease.ts';
import { nodeRecord } from '../subnet/kube/node-record.ts';
import { KubeCluster } from './servers/kube-server.ts';
import { storePlace } from './store-place.ts';
import type { SubnetStore } from './subnet-store.ts';
import type { Topology } from './topology.ts';

export interface KubeStore extends SubnetStore {
  readonly cluster: KubeCluster;
}

/**
 * A Kubernetes control plane with a Node object for each host: kube-controller-manager gives them their pod CIDRs, and the
 * agents have a token of flannel's service account, with the rights of flannel's manifest and no more.
 */
export async function openKubeStore(topology: Topology, netConf: string, signal: AbortSignal): Promise<KubeStore> {
  const { place, station } = storePlace(topology);
  const directory = join(station.stateDirectory, 'kubernetes');
  await mkdir(directory);
  const netConfPath = join(topology.stateDirectory, 'net-conf.json');
  await writeFile(netConfPath, netConf, { signal });
  const { ipv4 } = parseNetConf(netConf, {
    source: 'net-conf.json of the lab',
    validation: 'kube',
    backends: backendKind,
  });
  const network = ipv4 && { clusterCidr: formatPrefix4(ipv4.network) };
  const cluster = await KubeCluster.start({ ...place, directory, ...network });
  await cluster.createNodes(
    topology.hosts.map((host) => host.name),
    signal,
  );
  const kubeconfig = await cluster.flannelKubeconfig();
  const admin = await cluster.kubeconfig('admin', { token: cluster.adminToken });
  const certificate = await cluster.ca.issueClient('lab', 'system:masters');
  const inside = `ip netns exec ${station.namespace}`;
  const curl = `${inside} curl -s --cacert ${cluster.ca.certFile} --cert ${certificate.certFile} --key ${certificate.keyFile} ${cluster.url}`;
  const kubectl = `${inside} kubectl --kubeconfig ${admin}`;
  return {
    cluster,
    kind: 'kube',
    description: `Kubernetes ${cluster.version} at ${cluster.url}, in the namespace ${station.namespace}`,
    result: {
      kind: 'kube',
      endpoint: cluster.url,
      version: cluster.version,
      commands: [
        { what: 'nodes, with kubectl (if installed)', command: `${kubectl} get nodes -o yaml` },
        { what: 'a node, with curl', command: `${curl}/api/v1/nodes/h1` },
        { what: 'nodes as they change', command: `${curl}/api/v1/nodes?watch=true` },
        { what: 'rights of the agents', command: `${curl}/apis/rbac.authorization.k8s.io/v1/clusterroles/flannel` },
      ],
    },
    agentFlags: () => ['--kube-subnet-mgr', '--kubeconfig-file', kubeconfig, '--net-config-path', netConfPath],
    agentEnvironment: (host) => ({ NODE_NAME: host.name }),
    leases: () => readLeases(cluster),
    [Symbol.asyncDispose]: () => cluster[Symbol.asyncDispose](),
  };
}

const KEYS = annotationKeys('flannel.alpha.coreos.com');

async function readLeases(cluster: KubeCluster): Promise<Lease[]> {
  const nodes = await cluster.admin.list('/api/v1/nodes');
  return nodes.flatMap((node) => nodeLease(nodeRecord(node, KEYS, ''), { ipv4: true, ipv6: false }, KEYS) ?? []);
}
