import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { after, before, describe, it } from 'node:test';
import type { EtcdServer } from '../../src/lab/servers/etcd-server.ts';
import type { LabHost, Topology } from '../../src/lab/topology.ts';
import { golden } from '../fakes/golden.ts';
import { type Flanneld, subnetFileOf } from '../netns/flanneld.ts';
import { addressOf, assertPings, ping } from '../netns/overlay.ts';
import { eventually } from '../netns/waiting.ts';
import { etcdDump, goldenDump } from './etcd-dump.ts';
import { attachFrom, hostAddress, launchGolden, untilReady } from './golden-hosts.ts';
import { type GoldenOnEtcd, goldenOnEtcd } from './golden-on-etcd.ts';

/** Agents on hosts that a real flanneld with vxlan on etcd has left: its device, its subnet.env (test/golden/etcd-vxlan). */

const SCENARIO = 'etcd-vxlan';
/** MAC addresses that flanneld drew by lot, and subnets. */
const MACS = ['fa:13:13:7c:ab:f2', '62:ed:4b:9d:8c:0b'];
const BASES = ['10.244.20.0', '10.244.19.0'];

describe('agents with vxlan on etcd, in place of a recorded flanneld', () => {
  let on: GoldenOnEtcd;
  let server: EtcdServer;
  let flags: readonly string[];
  let topology: Topology;
  let h1: LabHost;
  let h2: LabHost;
  let agent: Flanneld;

  before(async () => {
    on = await goldenOnEtcd(SCENARIO);
    ({ server, topology, flags } = on);
    [h1, h2] = [topology.hosts[0]!, topology.hosts[1]!];
    for (const host of topology.hosts) {
      const device = `local ${hostAddress(host)} dev eth0 dstport 8472 nolearning`;
      await topology.ipBatch(host, `link add flannel.1 address ${MACS[host.index]} type vxlan id 1 ${device}\n`);
    }
    await server.etcdctl('put', '/coreos.com/network/config', golden(SCENARIO, '01-net-conf.json').trim());
  });
  after(() => on?.[Symbol.asyncDispose]());

  it('leave in etcd what flanneld leaves there, with the MAC addresses of its devices', async () => {
    await untilReady(await launchGolden(topology, h2, flags));
    agent = await untilReady(await launchGolden(topology, h1, flags));
    assert.deepEqual(await etcdDump(server), goldenDump(SCENARIO, '50-etcd'));
    for (const host of topology.hosts)
      assert.equal(readFileSync(subnetFileOf(host), 'utf8'), golden(SCENARIO, `24-subnet.env-${host.name}`));
  });

  it('lead to the other host by its MAC address', async () => {
    for (const [own, other] of [
      [h1, h2],
      [h2, h1],
    ] as const) {
      const base = BASES[other.index];
      const shown = async (...argv: string[]): Promise<string> => (await topology.exec(own, argv)).stdout;
      const fdb = await shown('bridge', 'fdb', 'show', 'dev', 'flannel.1');
      assert.ok(fdb.startsWith(`${MACS[other.index]} dst ${hostAddress(other)} self permanent`), fdb);
      const neighbours = await shown('ip', '-4', 'neighbour', 'show', 'dev', 'flannel.1');
      assert.ok(neighbours.startsWith(`${base} lladdr ${MACS[other.index]} PERMANENT`), neighbours);
      assert.match(
        await shown('ip', 'route', 'show', 'dev', 'flannel.1'),
        new RegExp(`^${base}/24 via ${base} .*onlink`),
      );
      await attachFrom(topology, own, readFileSync(subnetFileOf(own), 'utf8'));
    }
    // Containers that have just been attached may not answer yet.
    await eventually('a container reaches the other', async () => {
      const { ok } = await ping(topology, h1.containers[0]!, addressOf(h2.containers[0]!));
      return ok || undefined;
    });
    await assertPings(topology, [h1, h2]);
  });

  it('keep lease, subnet.env and MAC address over a stop and a start, as flanneld does', async () => {
    agent.child.kill('SIGTERM');
    assert.equal((await agent.ended()).code, 0);
    assert.deepEqual(await etcdDump(server), goldenDump(SCENARIO, '50-etcd-after-h1-sigterm'));
    assert.equal(readFileSync(subnetFileOf(h1), 'utf8'), golden(SCENARIO, '24-subnet.env-h1-after-sigterm'));
    agent = await untilReady(await launchGolden(topology, h1, flags));
    assert.deepEqual(await etcdDump(server), goldenDump(SCENARIO, '50-etcd-after-h1-restart'));
    await assertPings(topology, [h1, h2]);
  });
});
