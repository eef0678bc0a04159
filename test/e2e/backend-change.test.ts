import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { it } from 'node:test';
import { type EtcdStore, openEtcdStore } from '../../src/lab/etcd-store.ts';
import { type KubeStore, openKubeStore } from '../../src/lab/kube-store.ts';
import { type ChangingCluster, changeBackend, changeBackendLive } from '../netns/backend-change.ts';

const { signal } = new AbortController();

const etcd: ChangingCluster<EtcdStore> = {
  stack: 'IPv4',
  hasServer: true,
  openStore: (topology, netConf) => openEtcdStore(topology, netConf, signal),
  publish: async (_topology, { server }, netConf) => {
    await server.etcdctl('put', '/coreos.com/network/config', netConf);
  },
};

const kube: ChangingCluster<KubeStore> = {
  stack: 'IPv4',
  hasServer: true,
  openStore: (topology, netConf) => openKubeStore(topology, netConf, signal),
  // As the kubelet does when the ConfigMap has changed.
  publish: (topology, _store, netConf) => writeFile(join(topology.stateDirectory, 'net-conf.json'), netConf),
};

it('with etcd: a cluster goes from udp to vxlan node by node, and a connection stays', () =>
  changeBackend(['udp', 'vxlan'], etcd));

it('with etcd and --live-reconfigure: a cluster in dual stack goes from udp to vxlan and back without a restart, and connections of both families stay', () =>
  changeBackendLive(['udp', 'vxlan', 'udp'], { ...etcd, stack: 'dual stack' }));

it('with Kubernetes: a cluster goes from udp to vxlan node by node, and a connection stays', () =>
  changeBackend(['udp', 'vxlan'], kube));
