import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { it } from 'node:test';
import { openLocalStore } from '../../src/lab/local-store.ts';
import type { SubnetStore } from '../../src/lab/subnet-store.ts';
import { type ChangingCluster, changeBackend } from './backend-change.ts';
import type { Stack } from './stacked-overlay.ts';

const { signal } = new AbortController();

const local = (stack: Stack): ChangingCluster<SubnetStore> => ({
  stack,
  hasServer: false,
  openStore: (topology, netConf) => openLocalStore(topology, netConf, signal),
  publish: (topology, _store, netConf) => writeFileSync(join(topology.stateDirectory, 'net-conf.json'), netConf),
});

it('a cluster in dual stack goes from udp to vxlan and back node by node: both kinds of hosts reach each other, and connections of both families stay', () =>
  changeBackend(['udp', 'vxlan', 'udp'], local('dual stack')));

it('a cluster goes from vxlan to host-gw node by node in the same way', () =>
  changeBackend(['vxlan', 'host-gw'], local('IPv4')));
