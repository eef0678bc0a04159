import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { after, before, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { formatPrefix4 } from '../../src/ip/prefix.ts';
import { parseContainerNetwork } from '../../src/lab/agent.ts';
import type { LabHost, Topology } from '../../src/lab/topology.ts';
import { subnetFileOf } from '../netns/flanneld.ts';
import { eventually } from '../netns/waiting.ts';
import { FaultNet, OUTAGE_MS, RECOVERY_MS, timed } from './fault-net.ts';
import type { FaultStore } from './fault-store.ts';

/** The table of docs/RELIABILITY.md for one kind of store: real agents, a real server, real packets. */
export function faultTable(storeName: string, startStore: (topology: Topology) => Promise<FaultStore>): void {
  describe(`faults, ${storeName}`, () => {
    let net: FaultNet;
    before(async () => {
      net = await FaultNet.create(2, startStore);
      await net.heardOf();
    });
    after(() => net?.[Symbol.asyncDispose]());

    it('the server is killed and started again', async (t) => {
      const row = await net.row(t, `server killed for ${OUTAGE_MS / 1_000} s`, async () => {
        await net.store.kill();
        await sleep(OUTAGE_MS);
        await net.store.restart();
        return timed(() => net.heardOf());
      });
      assert.equal(row.lost, 0);
      assert.equal(row.leasesLost, 0);
    });

    it('an agent is killed and started again', async (t) => {
      const member = net.members[1]!;
      const row = await net.row(t, 'agent killed', async (flow) =>
        timed(async () => {
          await net.restartAgent(member);
          await member.agent.answers('/readyz', 200, /^/);
          await flow.flowing(RECOVERY_MS);
        }),
      );
      assert.equal(row.leasesLost, 0);
    });

    it('an agent is killed and started again while the server is away', async (t) => {
      const member = net.members[1]!;
      const row = await net.row(t, `agent killed while the server is away for ${OUTAGE_MS / 1_000} s`, async (flow) => {
        await net.store.kill();
        await net.restartAgent(member);
        const { body } = await member.agent.answers('/readyz', 503, /has not answered/);
        assert.match(body, /carrying packets of 10\.244\./);
        await flow.flowing(RECOVERY_MS);
        await sleep(OUTAGE_MS);
        await flow.flowing();
        await net.store.restart();
        return timed(async () => {
          await net.heardOf();
          await member.agent.answers('/readyz', 200, /^/);
        });
      });
      assert.equal(row.leasesLost, 0);
    });

    it('packets between an agent and the server are dropped, both ways, without a word', async (t) => {
      const { host } = net.members[0]!;
      const drop = (flag: '-I' | '-D') =>
        Promise.all(
          ['--dport', '--sport'].map((port) =>
            net.topology.exec(host, ['iptables', '-w', flag, 'INPUT', '-p', 'tcp', port, '2379', '-j', 'DROP']),
          ),
        );
      const row = await net.row(t, `partition for ${OUTAGE_MS / 1_000} s`, async () => {
        await drop('-I');
        await net.putPeer();
        await sleep(OUTAGE_MS);
        await drop('-D');
        return timed(() => net.heardOf(false));
      });
      assert.equal(row.lost, 0);
      assert.equal(row.leasesLost, 0);
    });

    // Kubernetes' watches are given up after 100 s of silence: kube-subnet-manager.test.ts sees the same in less time.
    const isQuick = OUTAGE_MS < 60_000 && storeName !== 'etcd';
    it('connections hang, new ones work', { skip: isQuick && 'takes 100 s: make faults' }, async (t) => {
      const row = await net.row(t, 'half-open connections', async () => {
        net.members[0]!.way.swallow();
        await net.putPeer();
        return timed(() => net.heardOf(false, 150_000));
      });
      assert.equal(row.lost, 0);
      assert.equal(row.leasesLost, 0);
    });

    it('the way to the server takes 700 ms each way', async (t) => {
      const row = await net.row(t, 'slow server (1.4 s)', async () => {
        for (const { way } of net.members) way.slow(700);
        const ms = await timed(() => net.heardOf());
        for (const { way } of net.members) way.heal();
        return ms;
      });
      assert.equal(row.lost, 0);
      assert.equal(row.leasesLost, 0);
    });

    it('the server forgets what an agent has missed', async (t) => {
      const row = await net.row(t, 'history compacted while cut off', async () => {
        const marks = net.members.map(({ agent }) => agent.log.mark);
        for (const { way } of net.members) way.cut();
        await net.putPeer();
        await net.store.forgetHistory();
        for (const { way } of net.members) way.heal();
        return timed(async () => {
          await net.heardOf(false);
          for (const [index, { agent }] of net.members.entries()) {
            await agent.logged(/^Read all \d+ leases again/, marks[index], RECOVERY_MS);
          }
        });
      });
      assert.equal(row.lost, 0);
      assert.equal(row.leasesLost, 0);
    });

    it('a lease is deleted by hand', async (t) => {
      const member = net.members[1]!;
      const row = await net.row(t, 'lease deleted by hand', async (flow) => {
        const from = member.agent.log.mark;
        return timed(async () => {
          await net.store.deleteLease(member.host, member.subnet);
          await member.agent.logged(/has been taken again/, from, RECOVERY_MS);
          await flow.flowing(RECOVERY_MS);
        });
      });
      assert.equal(row.leasesLost, 0);
    });

    // A Node does not run out.
    if (storeName === 'etcd') {
      it('all leases run out while nobody reaches the server', async (t) => {
        const row = await net.row(t, 'leases expired while cut off', async (flow) => {
          const marks = net.members.map(({ agent }) => agent.log.mark);
          for (const { way } of net.members) way.cut();
          await net.store.expire();
          for (const { way } of net.members) way.heal();
          return timed(async () => {
            await Promise.all(
              net.members.map(({ agent }, index) => agent.logged(/has been taken again/, marks[index], RECOVERY_MS)),
            );
            await flow.flowing(RECOVERY_MS);
          });
        });
        assert.equal(row.leasesLost, 0);
      });
    }

    it('the address of a host changes while it is cut off from the server', async (t) => {
      const { host, subnet, agent, way } = net.members[1]!;
      const before = await net.addressOf(host);
      const row = await net.row(t, 'node address changed while cut off', async (flow) => {
        way.cut();
        const script = `addr del ${before}/24 dev eth0\naddr add 192.168.77.98/24 dev eth0\n`;
        await net.topology.ipBatch(host, script);
        await eventually('packets leave from the new address', async () => {
          const { stdout } = await net.topology.exec(host, ['ss', '-Hunl', 'sport = :8285']);
          return stdout.includes('192.168.77.98:8285') || undefined;
        });
        await agent.answers('/readyz', 503, /waiting for a subnet lease/);
        way.heal();
        return timed(async () => {
          await agent.answers('/readyz', 200, /^/);
          await flow.flowing(RECOVERY_MS);
        });
      });
      assert.equal(row.leasesLost, 0);
      assert.equal(await subnetOf(host), subnet);
    });

    for (const isRestarted of [false, true]) {
      const who = isRestarted ? 'a host that is cut off, and its agent restarted' : 'a host that is cut off';
      it(`the subnet of ${who}, is taken away: a new one, and a loud word`, async () => {
        const member = net.members[1]!;
        let from = member.agent.log.mark;
        member.way.cut();
        if (isRestarted) {
          await net.restartAgent(member);
          await member.agent.answers('/readyz', 503, /has not answered/);
          from = 0;
        }
        await net.store.takeAway(member.host, member.subnet);
        member.way.heal();
        await member.agent.logged(/has been lost: .*\[WEFT_LEASE_LOST\]/, from, RECOVERY_MS);
        await member.agent.answers('/readyz', 200, /^/);
        const publicIp = await net.addressOf(member.host);
        const now = await subnetOf(member.host);
        assert.notEqual(now, member.subnet);
        const own = (await net.store.leases()).filter((lease) => lease.publicIp === publicIp);
        assert.deepEqual(own, [{ subnet: now, publicIp }]);
        member.subnet = now;
      });
    }

    it('the configuration changes while an agent starts without the server: it counts once it is known', async () => {
      const member = net.members[1]!;
      const sockets = async (): Promise<string> =>
        (await net.topology.exec(member.host, ['ss', '-Hunl', 'sport >= :8285 and sport <= :8286'])).stdout;
      member.way.cut();
      await net.restartAgent(member);
      await member.agent.answers('/readyz', 503, /has not answered/);
      await eventually('packets are carried', async () => (await sockets()).includes(':8285 ') || undefined);
      await net.store.configure('{"Network": "10.244.0.0/16", "Backend": {"Type": "udp", "Port": 8286}}');
      member.way.heal();
      await member.agent.answers('/readyz', 200, /^/);
      assert.match(await sockets(), /:8286 /);
      await member.agent.logged(/network configuration differs from the one used until now/);
      assert.equal(await subnetOf(member.host), member.subnet);
    });
  });
}

async function subnetOf(host: LabHost): Promise<string> {
  return formatPrefix4(parseContainerNetwork(await readFile(subnetFileOf(host), 'utf8'), 'subnet.env').subnet);
}
