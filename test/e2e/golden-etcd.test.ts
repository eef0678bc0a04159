import assert from 'node:assert/strict';
import { readFileSync, rmSync } from 'node:fs';
import { after, before, describe, it } from 'node:test';
import type { EtcdServer } from '../../src/lab/servers/etcd-server.ts';
import type { LabHost, Topology } from '../../src/lab/topology.ts';
import { golden } from '../fakes/golden.ts';
import { type Flanneld, subnetFileOf } from '../netns/flanneld.ts';
import { addressOf, assertPings, ping } from '../netns/overlay.ts';
import { startPlainPeer } from '../netns/plain-peer.ts';
import { eventually } from '../netns/waiting.ts';
import { etcdDump, goldenDump } from './etcd-dump.ts';
import { assertLikeGolden, attachFrom, hostAddress, launchGolden, untilReady } from './golden-hosts.ts';
import { type GoldenOnEtcd, goldenOnEtcd } from './golden-on-etcd.ts';

/** The whole agent with a real etcd, step by step as a real flanneld was recorded (test/golden/etcd-udp). */

const SCENARIO = 'etcd-udp';
/** The subnets that flanneld drew by lot. */
const BASES = ['10.244.5.0', '10.244.38.0'];
const keyOf = (base: string): string => `/coreos.com/network/subnets/${base}-24`;

describe('agents on etcd, beside a recorded flanneld', () => {
  let on: GoldenOnEtcd;
  let server: EtcdServer;
  let flags: readonly string[];
  let topology: Topology;
  let h1: LabHost;
  let h2: LabHost;
  const agents: Flanneld[] = [];

  before(async () => {
    on = await goldenOnEtcd(SCENARIO);
    ({ server, topology, flags } = on);
    [h1, h2] = [topology.hosts[0]!, topology.hosts[1]!];
  });
  after(() => on?.[Symbol.asyncDispose]());

  async function stop(agent: Flanneld): Promise<void> {
    agent.child.kill('SIGTERM');
    assert.equal((await agent.ended()).code, 0);
  }

  it('wait for a configuration, then leave in etcd what flanneld leaves there', async () => {
    const second = await launchGolden(topology, h2, flags);
    agents[1] = second;
    await second.answers('/readyz', 503, /no network configuration: flannel config not found in etcd store/);
    await server.etcdctl('put', '/coreos.com/network/config', golden(SCENARIO, '01-net-conf.json').trim());
    await untilReady(second);
    assert.ok(
      second.messages.some((text) =>
        text.startsWith(
          "Couldn't fetch network config: flannel config not found in etcd store. Did you create your config using etcdv3 API?",
        ),
      ),
    );
    agents[0] = await untilReady(await launchGolden(topology, h1, flags));
    assert.deepEqual(await etcdDump(server), goldenDump(SCENARIO, '50-etcd'));
    // Who waits for subnet.env finds the peers in place.
    const { messages } = agents[0];
    const at = (text: string): number => messages.indexOf(text);
    const added = at('Subnet added: 10.244.38.0/24 via 10.98.0.12');
    assert.ok(added >= 0 && added < at(`Wrote subnet file to ${subnetFileOf(h1)}`), messages.join('\n'));
  });

  it('leave on their hosts what flanneld leaves there', async () => {
    for (const [i, host] of topology.hosts.entries()) {
      await attachFrom(topology, host, readFileSync(subnetFileOf(host), 'utf8'));
      await assertLikeGolden(topology, host, SCENARIO, BASES[i]!);
    }
    await assertPings(topology, [h1, h2]);
  });

  it('keep lease and subnet.env over a stop and a start, as flanneld does', async () => {
    await stop(agents[0]!);
    assert.deepEqual(await etcdDump(server), goldenDump(SCENARIO, '50-etcd-after-h1-sigterm'));
    assert.equal(readFileSync(subnetFileOf(h1), 'utf8'), golden(SCENARIO, '24-subnet.env-h1-after-sigterm'));
    agents[0] = await untilReady(await launchGolden(topology, h1, flags));
    assert.ok(
      agents[0].messages.includes('Found lease (ip: 10.244.5.0/24 ipv6: ::/0) for current IP (10.98.0.11), reusing'),
    );
    assert.deepEqual(await etcdDump(server), goldenDump(SCENARIO, '50-etcd-after-h1-restart'));
    await assertLikeGolden(topology, h1, SCENARIO, BASES[0]!);
    await assertPings(topology, [h1, h2]);
  });

  it('take a deleted lease again, with the same subnet, where flanneld exits', async () => {
    const from = agents[1]!.log.mark;
    await server.etcdctl('del', keyOf(BASES[1]!));
    await agents[1]!.logged(
      /^Own lease \(ip: 10\.244\.38\.0\/24 .*\) was gone from the store and has been taken again$/,
      from,
    );
    assert.match(await server.etcdctl('get', keyOf(BASES[1]!)), /"PublicIP":"10\.98\.0\.12"/);
    // The other host saw it go and come, and may not have got as far as its coming.
    await eventually('the other host knows it again', async () => {
      const { ok } = await ping(topology, h1.containers[0]!, addressOf(h2.containers[0]!));
      return ok || undefined;
    });
    await assertPings(topology, [h1, h2]);
  });

  it('reach a host of flannel by the lease that a real flanneld wrote', async () => {
    await stop(agents[1]!);
    rmSync(subnetFileOf(h2));
    await topology.ipBatch(h2, 'link del flannel0\n');
    // Key and value to the byte, with a lease as flanneld takes it.
    const line = golden(SCENARIO, '50-etcd')
      .split('\n')
      .find((text) => text.startsWith(keyOf(BASES[1]!)))!;
    const [key, value] = line.split(' | ');
    const lease = /lease ([0-9a-f]+) granted/.exec(await server.etcdctl('lease', 'grant', '86400'))![1]!;
    const from = agents[0]!.log.mark;
    await server.etcdctl('del', key!);
    await agents[0]!.logged(/^Subnet removed: 10\.244\.38\.0\/24$/, from);
    await server.etcdctl('put', key!, value!, `--lease=${lease}`);
    await agents[0]!.logged(/^Subnet added: 10\.244\.38\.0\/24 via 10\.98\.0\.12$/, from);
    await startPlainPeer(topology, h2, {
      tunAddress: `${BASES[1]}/16`,
      local: `${hostAddress(h2)}:8285`,
      remote: `${hostAddress(h1)}:8285`,
      mtuBytes: 1472,
    });
    await assertPings(topology, [h1, h2]);
  });

  it('wait until a wrong configuration is put right, as flanneld does', async () => {
    await stop(agents[0]!);
    const key = '/coreos.com/network/config';
    await server.etcdctl('put', key, '{"Network": "10.244.0.0/16", "SubnetLen": 31}');
    agents[0] = await launchGolden(topology, h1, flags);
    await agents[0].logged(/^Couldn't fetch network config: .*SubnetLen must be less than \/31/);
    await server.etcdctl('put', key, golden(SCENARIO, '01-net-conf.json').trim());
    await untilReady(agents[0]);
    await assertPings(topology, [h1, h2]);
  });

  it('leave the rules alone that flanneld left', async () => {
    const rules = async (): Promise<string[]> => {
      const { stdout } = await topology.exec(h1, ['iptables-save']);
      return stdout.split('\n').filter((line) => line.startsWith('-A'));
    };
    const repairs = (agent: Flanneld): string[] => agent.messages.filter((text) => / \(IPv4\): missing: /.test(text));
    await stop(agents[0]!);
    await topology.exec(h1, ['iptables-restore'], { stdin: golden(SCENARIO, '21-iptables-save-h1') });
    const before = await rules();
    agents[0] = await untilReady(await launchGolden(topology, h1, [...flags, '-v=1']));
    assert.deepEqual(repairs(agents[0]), []);
    assert.deepEqual(await rules(), before);

    await stop(agents[0]);
    await topology.exec(h1, ['iptables', '-w', '-t', 'nat', '-F', 'FLANNEL-POSTRTG']);
    agents[0] = await untilReady(await launchGolden(topology, h1, [...flags, '-v=1']));
    assert.equal(repairs(agents[0]).length, 6, 'where they are missing they are made');
    assert.deepEqual(await rules(), before);
    await assertPings(topology, [h1, h2]);
  });
});
