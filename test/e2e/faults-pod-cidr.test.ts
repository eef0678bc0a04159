import { after, before, describe, it } from 'node:test';
import { type KubeStore, openKubeStore } from '../../src/lab/kube-store.ts';
import { Topology } from '../../src/lab/topology.ts';
import { Bed, proveInTime } from '../diagnosis/bed.ts';
import { nodeFaults } from '../diagnosis/faults-store.ts';
import { NET_CONF, Overlay } from '../netns/overlay.ts';

describe('weft test with Kubernetes', () => {
  let [topology, store, bed]: [Topology?, KubeStore?, Bed?] = [];

  before(async () => {
    const signal = AbortSignal.timeout(400_000);
    const options = { hosts: 3, containersPerHost: 1, underlay: 'wire', store: true, purpose: 'test' } as const;
    topology = await Topology.create(options, signal);
    store = await openKubeStore(topology, NET_CONF, signal);
    const agents = Overlay.on(topology, store);
    await agents.startAll(signal);
    bed = Bed.on(agents, signal);
    await bed.allHealthy();
  });
  after(async () => {
    await store?.[Symbol.asyncDispose]();
    await topology?.[Symbol.asyncDispose]();
  });

  const faults = nodeFaults({
    createNode: (name, node) => store!.cluster.admin.createNode(name, node),
    deleteNode: (name) => store!.cluster.admin.deleteNode(name),
  });
  for (const fault of faults) it(`names ${fault.name}`, (t) => proveInTime(t, bed!, fault));

  it('finds nothing wrong when the Nodes are gone', () => bed!.allHealthy());
});
