import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { after, before, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Topology } from '../../src/lab/topology.ts';
import { type Flanneld, subnetFileOf } from '../netns/flanneld.ts';
import { eventually } from '../netns/waiting.ts';
import { type FaultHost, FaultNet, RECOVERY_MS, type Row, timed } from './fault-net.ts';
import type { FaultStore } from './fault-store.ts';

/**
 * Rows of docs/RELIABILITY.md about the interface. The server is in a namespace of its own across the underlay, so that
 * connections to it are bound to the addresses that change.
 * @param timedOut what an agent says of a request that has waited for an answer in vain, as each does through a dead connection.
 */
export function addressFaults(
  storeName: string,
  timedOut: RegExp,
  startStore: (topology: Topology) => Promise<FaultStore>,
): void {
  describe(`faults of the interface, ${storeName} across the network`, () => {
    let net: FaultNet;
    let spare = 100;
    /** What agents are to have said since the last look. */
    const closings: { readonly agent: Flanneld; readonly closed: RegExp; readonly from: number }[] = [];
    before(async () => {
      net = await FaultNet.create(2, startStore, { across: true });
      await net.heardOf();
    });
    after(() => net?.[Symbol.asyncDispose]());

    /** Takes the host's address away, and gives it another one, which it returns. */
    async function readdress({ agent, host }: FaultHost, pauseMs = 0): Promise<string> {
      const before = await net.addressOf(host);
      const closed = new RegExp(`^Closed \\d+ TCP connections from the address ${before},`);
      closings.push({ agent, closed, from: agent.log.mark });
      const address = `192.168.77.${++spare}`;
      // The other way round the new one would be a secondary address, which goes with its primary.
      await net.topology.ipBatch(host, `addr del ${before}/24 dev eth0\n`);
      if (pauseMs > 0) await sleep(pauseMs);
      await net.topology.ipBatch(host, `addr add ${address}/24 dev eth0\n`);
      return address;
    }

    /** No lease is lost, and nobody has waited for an answer through a connection of an address that is gone. */
    async function expectRecovered({ leasesLost }: Row): Promise<void> {
      assert.equal(leasesLost, 0);
      for (const { agent, closed, from } of closings.splice(0)) {
        await agent.logged(closed, from);
        // How long it took depends on what else the machine does; whether it was waiting for that does not.
        assert.doesNotMatch(agent.messages.slice(from).join('\n'), timedOut);
      }
    }

    async function published({ subnet }: FaultHost, address: string): Promise<void> {
      await eventually(`the store has ${address}`, async () => {
        const leases = await net.store.leases();
        return leases.some((lease) => lease.subnet === subnet && lease.publicIp === address) || undefined;
      });
    }

    /** No member is waiting for anything: it has heard of what is put into the store now. */
    async function allReady(): Promise<void> {
      await net.heardOf();
      for (const { agent } of net.members) await agent.answers('/readyz', 200, /^/);
    }

    it('the address of a host changes', async (t) => {
      const member = net.members[1]!;
      const row = await net.row(t, 'node address changed', async (flow) => {
        const address = await readdress(member);
        return timed(async () => {
          await published(member, address);
          await flow.flowing(RECOVERY_MS);
        });
      });
      await expectRecovered(row);
      await allReady();
    });

    it('the address of a host is gone for a while before another one comes', async (t) => {
      const member = net.members[0]!;
      const row = await net.row(t, 'node without an address for 3 s, then another one', async (flow) => {
        const address = await readdress(member, 3_000);
        return timed(async () => {
          await published(member, address);
          await flow.flowing(RECOVERY_MS);
        });
      });
      await expectRecovered(row);
      await allReady();
    });

    it('the addresses of two hosts change, one after the other', async (t) => {
      const row = await net.row(t, 'two nodes re-addressed 2 s apart', async (flow) => {
        await readdress(net.members[0]!);
        await sleep(2_000);
        const address = await readdress(net.members[1]!);
        return timed(async () => {
          await published(net.members[1]!, address);
          await flow.flowing(RECOVERY_MS);
        });
      });
      await expectRecovered(row);
      await allReady();
    });

    it('the addresses of two hosts change in the same moment', async (t) => {
      const row = await net.row(t, 'two nodes re-addressed at once', async (flow) => {
        const addresses = await Promise.all(net.members.map((member) => readdress(member)));
        return timed(async () => {
          await Promise.all(net.members.map((member, index) => published(member, addresses[index]!)));
          await flow.flowing(RECOVERY_MS);
        });
      });
      await expectRecovered(row);
      await allReady();
    });

    it('the MTU of a host changes', async (t) => {
      const { host, agent } = net.members[1]!;
      const row = await net.row(t, 'MTU of the interface lowered', async (flow) => {
        const ms = await timed(async () => {
          await net.topology.ipBatch(host, 'link set eth0 mtu 1400\n');
          await eventually(
            'subnet.env follows',
            async () => (await readFile(subnetFileOf(host), 'utf8')).includes('FLANNEL_MTU=1372') || undefined,
          );
          const { stdout } = await net.topology.exec(host, ['ip', 'link', 'show', 'flannel0']);
          assert.match(stdout, / mtu 1372 /);
        });
        await flow.flowing();
        return ms;
      });
      assert.equal(row.leasesLost, 0);
      await agent.answers('/readyz', 200, /^/);
    });

    it('the interface vanishes and comes back', async (t) => {
      const { host, agent } = net.members[1]!;
      const row = await net.row(t, 'interface gone and back', async (flow) => {
        await net.topology.ipBatch(host, 'link set eth0 down\nlink set eth0 name away0\n');
        await agent.answers('/readyz', 503, /eth0/);
        await net.topology.ipBatch(host, 'link set away0 name eth0\nlink set eth0 up\n');
        return timed(async () => {
          await agent.answers('/readyz', 200, /^/);
          await flow.flowing(RECOVERY_MS);
        });
      });
      assert.equal(row.leasesLost, 0);
    });
  });
}
