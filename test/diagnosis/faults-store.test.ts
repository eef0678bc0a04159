import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { formatIpv4 } from '../../src/ip/ipv4.ts';
import { type EtcdStore, openEtcdStore } from '../../src/lab/etcd-store.ts';
import { CertificateAuthority } from '../../src/lab/servers/certs.ts';
import { Topology } from '../../src/lab/topology.ts';
import { faketimeLibrary } from '../e2e/faketime.ts';
import { NET_CONF, Overlay } from '../netns/overlay.ts';
import { eventuallyHolds } from '../netns/waiting.ts';
import { Bed, proveInTime } from './bed.ts';
import { storeFaults } from './faults-store.ts';

describe('weft test with etcd', () => {
  let [topology, store, bed]: [Topology?, EtcdStore?, Bed?] = [];
  let clock = '';
  const setClock = (offset: string): void => writeFileSync(clock, `${offset}\n`);

  before(async () => {
    const signal = AbortSignal.timeout(500_000);
    const options = { hosts: 3, containersPerHost: 1, underlay: 'wire', store: true, purpose: 'test' } as const;
    topology = await Topology.create(options, signal);
    clock = join(topology.stateDirectory, 'clock');
    setClock('+0');
    const ca = await CertificateAuthority.create(join(topology.stateDirectory, 'ca'), 'etcd-ca');
    const pair = await ca.issueServer('etcd', [formatIpv4(topology.store!.address)]);
    store = await openEtcdStore(topology, NET_CONF, signal, { caFile: ca.certFile, ...pair });
    // The first host alone has a clock that can be set: what a program is told, for the kernel's own is that of all.
    const faked = {
      LD_PRELOAD: faketimeLibrary(),
      FAKETIME_TIMESTAMP_FILE: clock,
      FAKETIME_NO_CACHE: '1',
      FAKETIME_DONT_FAKE_MONOTONIC: '1',
    };
    const agents = Overlay.on(topology, { ...store, agentEnvironment: ({ index }) => (index === 0 ? faked : {}) });
    await agents.startAll(signal);
    bed = Bed.on(agents, signal);
    await bed.allHealthy();
  });
  after(async () => {
    await store?.[Symbol.asyncDispose]();
    await topology?.[Symbol.asyncDispose]();
  });

  const faults = storeFaults({
    etcdctl: (...argv) => store!.server.etcdctl(...argv),
    stop: () => store!.server.kill(),
    start: () => store!.server.restart(),
    setClock,
  });
  for (const fault of faults) it(`names ${fault.name}`, (t) => proveInTime(t, bed!, fault));

  it('finds nothing of it any more when all is put right', async () => {
    const said = new Set(faults.flatMap((fault) => fault.faults));
    await eventuallyHolds(async () => {
      const { problems } = await bed!.test('a');
      assert.deepEqual(
        problems.filter(({ fault }) => said.has(fault)),
        [],
      );
    });
  });
});
