import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { it } from 'node:test';
import { openLocalStore } from '../../src/lab/local-store.ts';
import type { SubnetStore } from '../../src/lab/subnet-store.ts';
import { type ChangingCluster, changeBackend } from './backend-change.ts';

const { signal } = new AbortController();

const local: ChangingCluster<SubnetStore> = {
  hasServer: false,
  openStore: (topology, netConf) => openLocalStore(topology, netConf, signal),
  publish: (topology, _store, netConf) => writeFileSync(join(topology.stateDirectory, 'net-conf.json'), netConf),
};

it('a cluster goes from udp to vxlan node by node: both kinds of hosts reach each other, and a connection stays', () =>
  changeBackend('udp', 'vxlan', local));

it('a cluster goes from vxlan to host-gw node by node in the same way', () => changeBackend('vxlan', 'host-gw', local));
