/** Large clusters for bench/scale.ts: a real store with an entry for each of thousands of nodes, and changes to them. */

import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { Agent, request } from 'node:http';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { backendKind } from '../src/backend/registry.ts';
import type { NetworkConfig } from '../src/config/network-config.ts';
import { formatIpv4, type Ipv4Addr, ipv4Of, parseIpv4 } from '../src/ip/ipv4.ts';
import { type MacAddr, macOfBytes } from '../src/ip/mac.ts';
import { formatPrefix4, type Ipv4Prefix, prefix4 } from '../src/ip/prefix.ts';
import { openEtcdStore } from '../src/lab/etcd-store.ts';
import { openKubeStore } from '../src/lab/kube-store.ts';
import { openLocalStore } from '../src/lab/local-store.ts';
import { mapLimit } from '../src/lab/map-limit.ts';
import type { KubeNode } from '../src/lab/servers/kube-client.ts';
import type { SubnetStore, SubnetStoreKind } from '../src/lab/subnet-store.ts';
import type { Topology } from '../src/lab/topology.ts';
import type { LeaseAttrs } from '../src/lease/lease.ts';
import { encodeLeaseValue } from '../src/lease/lease-codec.ts';
import { LocalSubnetManager } from '../src/subnet/local/local-subnet-manager.ts';

export interface ScaleStore {
  readonly store: SubnetStore;
  /** Entries of nodes 0 … count−1, which do not exist otherwise. */
  fill(count: number, signal: AbortSignal): Promise<void>;
  /** Gives a node another public address; resolves with the time at which the store was asked to. */
  move(node: number, round: number): Promise<number>;
  /** Gives so many nodes another public address, as fast as the store takes it. */
  moveMany(count: number, round: number): Promise<void>;
  /** Makes an agent read everything again, though nothing has changed. */
  forceRelist(): Promise<void>;
}

const FIRST_SUBNET = parseIpv4('10.129.0.0')!;
const NETWORK = '10.128.0.0/9';
const FIRST_ADDRESS = parseIpv4('172.16.0.1')!;
/** Each round has addresses of its own for so many nodes: a node that moves has one that nobody had lately. */
const ADDRESSES_A_ROUND = 32_768;
const ROUNDS = 120;
const WRITING = 8;

export type ScaleBackend = 'udp' | 'vxlan';

const netConf = (backend: ScaleBackend): string => JSON.stringify({ Network: NETWORK, Backend: { Type: backend } });

export function subnetOf(node: number): Ipv4Prefix {
  return prefix4(ipv4Of(FIRST_SUBNET + node * 256), 24);
}

export function addressOf(node: number, round: number): Ipv4Addr {
  const block = round === 0 ? 0 : 1 + (round % ROUNDS);
  return ipv4Of(FIRST_ADDRESS + block * ADDRESSES_A_ROUND + node);
}

/** Of its VXLAN device: another one in each round, as that of a host that was made anew. */
export function macOf(node: number, round: number): MacAddr {
  return macOfBytes(Uint8Array.of(0x02, round >> 8, round & 255, 0, node >> 8, node & 255));
}

function attrsOf(backend: ScaleBackend, node: number, round: number): LeaseAttrs {
  const data = backend === 'vxlan' ? { VNI: 1, VtepMAC: macOf(node, round) } : undefined;
  return {
    publicAddresses: { ipv4: addressOf(node, round), ipv6: undefined },
    backendType: backend === 'vxlan' ? 'vxlan' : '',
    backendData: { ipv4: data, ipv6: undefined },
  };
}

export async function openScaleStore(
  kind: SubnetStoreKind,
  backend: ScaleBackend,
  topology: Topology,
  signal: AbortSignal,
): Promise<ScaleStore> {
  switch (kind) {
    case 'local':
      return await openLocal(topology, signal);
    case 'etcd':
      return await openEtcd(backend, topology, signal);
    case 'kube':
      return await openKube(topology, signal);
  }
}

async function openLocal(topology: Topology, signal: AbortSignal): Promise<ScaleStore> {
  const store = await openLocalStore(topology, netConf('udp'), signal);
  const options = {
    storePath: join(topology.stateDirectory, 'subnets.db'),
    netConfPath: join(topology.stateDirectory, 'net-conf.json'),
    backends: backendKind,
  };
  const unsupported = (): never => {
    throw new TypeError('a local store is only measured as it is');
  };
  return {
    store,
    fill: async (count) => {
      await using manager = new LocalSubnetManager(options);
      const config: NetworkConfig = await manager.networkConfig(signal);
      for (let node = 0; node < count; node++) await manager.acquireLease(config, attrsOf('udp', node, 0), signal);
    },
    move: unsupported,
    moveMany: unsupported,
    forceRelist: unsupported,
  };
}

const PREFIX = '/coreos.com/network';
/** etcd takes up to 128 operations in a transaction. */
const TRANSACTION = 100;

async function openEtcd(backend: ScaleBackend, topology: Topology, signal: AbortSignal): Promise<ScaleStore> {
  const store = await openEtcdStore(topology, netConf(backend), signal);
  const station = topology.store!;
  const socketPath = join(station.stateDirectory, 'etcd.sock');
  await topology.start(station, [
    'socat',
    `UNIX-LISTEN:${socketPath},fork`,
    `TCP:${new URL(store.result.endpoint).host}`,
  ]);
  while (!existsSync(socketPath)) await delay(10, undefined, { signal });
  const agent = new Agent({ keepAlive: true });
  /** etcd's API as JSON, so that the clock starts with the request and not with a process that makes it. */
  const call = async (path: string, body: unknown): Promise<unknown> => {
    const message = request({ agent, socketPath, path, method: 'POST' });
    message.end(JSON.stringify(body));
    const [response] = await once(message, 'response');
    const parts: Buffer[] = [];
    for await (const part of response) parts.push(part as Buffer);
    const text = Buffer.concat(parts).toString('utf8');
    if (response.statusCode !== 200) throw new Error(`etcd ${path}: ${response.statusCode} ${text}`);
    return JSON.parse(text);
  };
  const base64 = (text: string): string => Buffer.from(text).toString('base64');
  const { ID: lease } = (await call('/v3/lease/grant', { TTL: 86_400 })) as { ID: string };
  const put = (node: number, round: number) => ({
    key: base64(`${PREFIX}/subnets/${formatPrefix4(subnetOf(node)).replace('/', '-')}`),
    value: base64(encodeLeaseValue(attrsOf(backend, node, round))),
    lease,
  });
  const putAll = async (count: number, round: number): Promise<void> => {
    for (let first = 0; first < count; first += TRANSACTION) {
      const nodes = Array.from({ length: Math.min(TRANSACTION, count - first) }, (_, i) => first + i);
      await call('/v3/kv/txn', { success: nodes.map((node) => ({ requestPut: put(node, round) })) });
    }
  };
  return {
    store,
    fill: (count) => putAll(count, 0),
    moveMany: putAll,
    move: async (node, round) => {
      const at = Date.now();
      await call('/v3/kv/put', put(node, round));
      return at;
    },
    forceRelist: async () => {
      // The history that the agent would continue from is gone when it comes back.
      for (let i = 0; i < 3; i++) await store.server.etcdctl('put', '/elsewhere', String(i));
      await store.server.compact();
      await store.server.kill();
      agent.destroy();
      await store.server.restart();
    },
  };
}

async function openKube(topology: Topology, signal: AbortSignal): Promise<ScaleStore> {
  const store = await openKubeStore(topology, netConf('udp'), signal);
  const { admin, servers } = store.cluster;
  const name = (node: number): string => `node-${String(node).padStart(5, '0')}`;
  return {
    store,
    fill: async (count) => {
      const nodes = Array.from({ length: count }, (_, i) => i);
      await mapLimit(nodes, WRITING, (node) => admin.create('/api/v1/nodes', largeNode(name(node), node)));
    },
    move: async (node, round) => {
      const at = Date.now();
      await admin.annotateNode(name(node), { [`${ANNOTATIONS}/public-ip`]: formatIpv4(addressOf(node, round)) });
      return at;
    },
    moveMany: async (count, round) => {
      const nodes = Array.from({ length: count }, (_, i) => i);
      await mapLimit(nodes, WRITING, (node) =>
        admin.annotateNode(name(node), { [`${ANNOTATIONS}/public-ip`]: formatIpv4(addressOf(node, round)) }),
      );
    },
    forceRelist: async () => {
      // A server that was started anew knows no history from before, so a version older than its own is 410 Gone.
      for (let i = 0; i < 3; i++) {
        const metadata = { annotations: { 'weft.example/round': String(i) } };
        await admin.patch('/api/v1/namespaces/default', { metadata }, 'merge');
      }
      await servers.apiServer.kill();
      await servers.apiServer.start();
    },
  };
}

const ANNOTATIONS = 'flannel.alpha.coreos.com';
const IMAGES = 45;

/** As a kubelet makes them: 10 kB, most of them names of images. */
function largeNode(name: string, node: number): KubeNode {
  const subnet = formatPrefix4(subnetOf(node));
  const address = formatIpv4(addressOf(node, 0));
  const now = new Date().toISOString().replace(/\.\d+Z$/, 'Z');
  const images = Array.from({ length: IMAGES }, (_, i) => {
    const repository = `registry.example/team-${i}/service-${i}`;
    return {
      names: [`${repository}@sha256:${String(i).padStart(64, '0123456789abcdef')}`, `${repository}:v1.${i}.0`],
      sizeBytes: 50_000_000 + i,
    };
  });
  const conditions = ['MemoryPressure', 'DiskPressure', 'PIDPressure', 'Ready'].map((type) => ({
    type,
    status: type === 'Ready' ? 'True' : 'False',
    reason: `Kubelet${type}`,
    message: `kubelet has said so of ${type}`,
    lastHeartbeatTime: now,
    lastTransitionTime: now,
  }));
  const status = {
    addresses: [
      { type: 'InternalIP', address },
      { type: 'Hostname', address: name },
    ],
    capacity: { cpu: '16', memory: '65536000Ki', pods: '110', 'ephemeral-storage': '200000000Ki' },
    conditions,
    images,
  };
  return {
    apiVersion: 'v1',
    kind: 'Node',
    metadata: {
      name,
      labels: { 'kubernetes.io/os': 'linux', 'kubernetes.io/arch': 'amd64', 'kubernetes.io/hostname': name },
      annotations: {
        [`${ANNOTATIONS}/backend-data`]: 'null',
        [`${ANNOTATIONS}/backend-type`]: '',
        [`${ANNOTATIONS}/kube-subnet-manager`]: 'true',
        [`${ANNOTATIONS}/public-ip`]: address,
      },
    },
    spec: { podCIDR: subnet, podCIDRs: [subnet] },
    status,
  };
}
