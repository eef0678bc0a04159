import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { overlaps } from '../../src/ip/address.ts';
import { parsePrefix4 } from '../../src/ip/prefix.ts';
import type { Flanneld } from '../netns/flanneld.ts';
import { eventually } from '../netns/waiting.ts';
import { FaultNet, killed, RECOVERY_MS } from './fault-net.ts';
import { startEtcd } from './fault-store.ts';

/** The agent's log in the order of a first start; each is the last thing that one of them says. */
const STEPS = [
  /^Created subnet manager/,
  /^Start healthz server/,
  /^Found network config/,
  /^Using interface with name/,
  /^Picking subnet in range/,
  /^Allocated lease/,
  /^Packet workers are running/,
  /^Starting flannel in/,
  /^Changing default FORWARD/,
  /^Wrote subnet file/,
  /^flannel is ready/,
];

describe('an agent is killed (SIGKILL) while it starts', () => {
  let net: FaultNet;
  before(async () => {
    net = await FaultNet.create(3, startEtcd, { idle: 1 });
    await net.layWay(net.topology.hosts[2]!);
  });
  after(() => net?.[Symbol.asyncDispose]());

  it('at any step of its first start: the next one converges, with one lease and no other host disturbed', async (t) => {
    const victim = net.topology.hosts[2]!;
    const publicIp = await net.addressOf(victim);
    const own = async (): Promise<string[]> =>
      (await net.store.leases()).filter((lease) => lease.publicIp === publicIp).map(({ subnet }) => subnet);
    const row = await net.row(t, `another host's agent killed at each of ${STEPS.length} start-up steps`, async () => {
      let slowest = 0;
      for (const step of STEPS) {
        for (const subnet of await own()) await net.store.deleteLease(victim, subnet);
        await net.forget(victim);
        const first = await net.start(victim);
        await first.logged(step, 0, RECOVERY_MS);
        await killed(first);
        const taken = await own();
        assert.ok(taken.length <= 1, `killed at ${step}: ${taken.join(', ')}`);

        const startedMs = performance.now();
        const second = await net.start(victim);
        await second.logged(/^flannel is ready/, 0, RECOVERY_MS);
        slowest = Math.max(slowest, performance.now() - startedMs);
        const [subnet, ...more] = await own();
        assert.deepEqual(more, [], `killed at ${step}`);
        if (taken[0] !== undefined) assert.equal(subnet, taken[0], `killed at ${step}`);
        await reaches(subnet!);
        await noOverlap();
        await stopped(second);
      }
      return slowest;
    });
    assert.equal(row.lost, 0);
    assert.equal(row.leasesLost, 0);
  });

  /** The others' agents carry packets to that subnet: its host answers at the base address. */
  async function reaches(subnet: string): Promise<void> {
    const target = subnet.replace(/\/.*/, '');
    await eventually(`${target} answers`, async () => {
      const argv = ['ping', '-n', '-c', '1', '-W', '1', target];
      const { exitCode } = await net.topology.exec(net.topology.hosts[0]!, argv, { okExitCodes: 'any' });
      return exitCode === 0 || undefined;
    });
  }

  async function noOverlap(): Promise<void> {
    const subnets = (await net.store.leases()).map(({ subnet }) => parsePrefix4(subnet)!);
    for (const [index, one] of subnets.entries()) {
      for (const other of subnets.slice(index + 1)) assert.ok(!overlaps(one, other));
    }
  }

  async function stopped(agent: Flanneld): Promise<void> {
    agent.child.kill('SIGTERM');
    await agent.child.exited;
  }
});
