import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { EtcdServer } from '../../src/lab/servers/etcd-server.ts';
import type { KubeNode } from '../../src/lab/servers/kube-client.ts';
import { KubeCluster } from '../../src/lab/servers/kube-server.ts';
import { storePlace } from '../../src/lab/store-place.ts';
import type { LabHost, Topology } from '../../src/lab/topology.ts';
import { run } from '../../src/linux/run.ts';
import { LeaseStore } from '../../src/subnet/local/lease-store.ts';

/** One lease as the store has it. */
export interface StoredLease {
  /** CIDR. */
  readonly subnet: string;
  readonly publicIp: string;
}

/** A real store, and what can happen to it. */
export interface FaultStore extends AsyncDisposable {
  readonly name: string;
  /** Where agents find it, when the way there begins at port {@link STORE_PORT} of their own loopback. */
  readonly url: string;
  flags(host: LabHost): readonly string[];
  environment(host: LabHost): Readonly<Record<string, string>>;
  /** SIGKILL. */
  kill(): Promise<void>;
  /** Resolves when it takes writes. */
  restart(): Promise<void>;
  leases(): Promise<readonly StoredLease[]>;
  /** A host that exists in the store alone. */
  putPeer(lease: StoredLease): Promise<void>;
  /** By hand, behind the agents' backs. A Node is made again at once, as its kubelet does. */
  deleteLease(host: LabHost, subnet: string): Promise<void>;
  /** The subnet becomes another host's, or the Node gets another one. */
  takeAway(host: LabHost, subnet: string): Promise<void>;
  /** Another network configuration than {@link NET_CONF}. */
  configure(netConf: string): Promise<void>;
  /** All leases run out now. */
  expire(): Promise<void>;
  /** So that who missed something cannot be told what. */
  forgetHistory(): Promise<void>;
}

export const STORE_PORT = 2379;
export const NET_CONF = '{"Network": "10.244.0.0/16", "Backend": {"Type": "udp"}}';
const SUBNETS = '/coreos.com/network/subnets/';

/** In the topology's namespace for a store, when it has one: then agents reach it over the underlay. */
export async function startEtcd(topology: Topology): Promise<FaultStore> {
  const etcd = await EtcdServer.start(topology.store === undefined ? {} : storePlace(topology).place);
  await etcd.etcdctl('put', '/coreos.com/network/config', NET_CONF);
  const put = async ({ subnet, publicIp }: StoredLease): Promise<void> => {
    await etcd.etcdctl('put', `${SUBNETS}${subnet.replace('/', '-')}`, JSON.stringify({ PublicIP: publicIp }));
  };
  return {
    name: 'etcd',
    url: etcd.endpoints[0]!,
    flags: () => [
      `--etcd-endpoints=${topology.store === undefined ? `http://127.0.0.1:${STORE_PORT}` : etcd.endpoints[0]}`,
    ],
    environment: () => ({}),
    kill: () => etcd.kill(),
    restart: () => etcd.restart(),
    putPeer: put,
    async forgetHistory() {
      // The latest revision is kept: it must be one that nobody waits for.
      await etcd.etcdctl('put', '/elsewhere', '');
      await etcd.compact();
    },
    configure: async (netConf) => {
      await etcd.etcdctl('put', '/coreos.com/network/config', netConf);
    },
    async expire() {
      const table = await etcd.etcdctl('lease', 'list');
      const ids = table.split('\n').filter((line) => /^[0-9a-f]{8,}$/.test(line));
      if (!table.startsWith(`found ${ids.length} leases`)) throw new Error(`etcdctl lease list: ${table}`);
      for (const id of ids) await etcd.etcdctl('lease', 'revoke', id);
    },
    async leases() {
      const answer = JSON.parse(await etcd.etcdctl('get', '--prefix', SUBNETS, '--write-out=json')) as {
        kvs?: { key: string; value: string }[];
      };
      const text = (base64: string): string => Buffer.from(base64, 'base64').toString('utf8');
      return (answer.kvs ?? []).map(({ key, value }) => ({
        subnet: text(key).slice(SUBNETS.length).replace('-', '/'),
        publicIp: (JSON.parse(text(value)) as { PublicIP: string }).PublicIP,
      }));
    },
    deleteLease: async (_host, subnet) => {
      await etcd.etcdctl('del', `${SUBNETS}${subnet.replace('/', '-')}`);
    },
    takeAway: (_host, subnet) => put({ subnet, publicIp: '192.168.77.200' }),
    [Symbol.asyncDispose]: () => etcd[Symbol.asyncDispose](),
  };
}

/** A file that all agents share; nothing happens to it here but through them. */
export async function startLocal(topology: Topology): Promise<FaultStore> {
  const storePath = join(topology.stateDirectory, 'subnets.db');
  const netConf = join(topology.stateDirectory, 'net-conf.json');
  await writeFile(netConf, NET_CONF);
  const onlyServers = (): Promise<never> => Promise.reject(new Error('the local store has no server'));
  return {
    name: 'local',
    // Nobody goes there.
    url: 'http://127.0.0.1:9',
    flags: () => ['--subnet-mgr=local', `--local-store=${storePath}`, `--net-config-path=${netConf}`],
    environment: () => ({}),
    kill: onlyServers,
    restart: onlyServers,
    deleteLease: onlyServers,
    takeAway: onlyServers,
    forgetHistory: onlyServers,
    configure: (text) => writeFile(netConf, text),
    expire: onlyServers,
    async leases() {
      using store = LeaseStore.open(storePath);
      return store.rows().map(({ key, value }) => ({
        subnet: key.replace('-', '/'),
        publicIp: (JSON.parse(value) as { PublicIP: string }).PublicIP,
      }));
    },
    async putPeer({ subnet, publicIp }) {
      using store = LeaseStore.open(storePath);
      const row = { key: subnet.replace('/', '-'), value: JSON.stringify({ PublicIP: publicIp }), expiresAtMs: null };
      store.transact((transaction) => transaction.put(row));
    },
    [Symbol.asyncDispose]: async () => {},
  };
}

const PREFIX = 'flannel.alpha.coreos.com';

/** Pod CIDRs are given here, by host: 10.244.1.0/24 for the first. */
export async function startKube(topology: Topology): Promise<FaultStore> {
  const place = topology.store === undefined ? {} : storePlace(topology).place;
  const cluster = await KubeCluster.start({ controllerManager: false, ...place });
  const server = topology.store === undefined ? `https://127.0.0.1:${STORE_PORT}` : cluster.url;
  const { admin } = cluster;
  let taken = 100;
  const netConf = join(topology.stateDirectory, 'net-conf.json');
  await writeFile(netConf, NET_CONF);
  const kubeconfig = join(topology.stateDirectory, 'kubeconfig');
  const cert = { 'certificate-authority': cluster.ca.certFile };
  await writeFile(
    kubeconfig,
    JSON.stringify({
      clusters: [{ name: 'c', cluster: { server, ...cert } }],
      users: [{ name: 'u', user: { token: await cluster.flannelToken() } }],
      contexts: [{ name: 'x', context: { cluster: 'c', user: 'u' } }],
      'current-context': 'x',
    }),
  );
  const create = async (name: string, cidr: string, annotations: Record<string, string> = {}): Promise<void> => {
    await admin.createNode(name, { podCidrs: [cidr], annotations });
  };
  for (const host of topology.hosts) await create(host.name, `10.244.${host.index + 1}.0/24`);
  return {
    name: 'Kubernetes',
    url: cluster.url,
    flags: () => ['--kube-subnet-mgr', `--kubeconfig-file=${kubeconfig}`, `--net-config-path=${netConf}`],
    environment: (host) => ({ NODE_NAME: host.name }),
    kill: () => cluster.servers.apiServer.kill(),
    restart: () => cluster.servers.apiServer.start(),
    async leases() {
      const { items } = await admin.json<{ items: KubeNode[] }>('GET', '/api/v1/nodes');
      return items.flatMap(({ metadata, spec }) => {
        const publicIp = metadata.annotations?.[`${PREFIX}/public-ip`];
        const subnet = spec.podCIDRs?.[0];
        return publicIp === undefined || subnet === undefined ? [] : [{ subnet, publicIp }];
      });
    },
    putPeer: ({ subnet, publicIp }) =>
      create(`peer-${subnet.replaceAll(/[./]/g, '-')}`, subnet, {
        [`${PREFIX}/kube-subnet-manager`]: 'true',
        [`${PREFIX}/backend-type`]: '',
        [`${PREFIX}/backend-data`]: 'null',
        [`${PREFIX}/public-ip`]: publicIp,
      }),
    async deleteLease(host, subnet) {
      await admin.deleteNode(host.name);
      await create(host.name, subnet);
    },
    async takeAway(host) {
      await admin.deleteNode(host.name);
      await create(host.name, `10.244.${++taken}.0/24`);
    },
    configure: (text) => writeFile(netConf, text),
    expire: () => Promise.reject(new Error('a Node does not run out')),
    async forgetHistory() {
      // The API server remembers the last changes itself, until it ends; before that, etcd does.
      await cluster.servers.apiServer.kill();
      const revision = await run(['etcdctl', `--endpoints=${cluster.etcdUrl}`, 'get', 'x', '--write-out=json'], {
        env: { ETCDCTL_API: '3' },
      });
      const { header } = JSON.parse(revision.stdout) as { header: { revision: number } };
      await run(['etcdctl', `--endpoints=${cluster.etcdUrl}`, 'compact', '--physical', String(header.revision)], {
        env: { ETCDCTL_API: '3' },
      });
      await cluster.servers.apiServer.start();
    },
    [Symbol.asyncDispose]: () => cluster[Symbol.asyncDispose](),
  };
}
