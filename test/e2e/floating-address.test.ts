import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { subnetFileOf } from '../netns/flanneld.ts';
import { FaultNet, killed } from './fault-net.ts';
import { startEtcd } from './fault-store.ts';

const VIP = '192.168.77.250';
/** Longer than the watch of the interface waits after a notice, and looks. */
const SETTLED_MS = 1_000;

/** Agents that find their interface by the default route, as most do. */
describe('addresses and routes that come and go beside those in use', () => {
  let net: FaultNet;
  before(async () => {
    net = await FaultNet.create(2, startEtcd, { iface: [] });
    await net.heardOf();
    for (const { host } of net.members) {
      // As DHCP gives it: flannel's order prefers any address that is not leased, a floating one for instance.
      const address = await net.addressOf(host);
      await net.topology.ipBatch(host, `addr change ${address}/24 dev eth0 valid_lft 3600 preferred_lft 3600\n`);
    }
  });
  after(() => net?.[Symbol.asyncDispose]());

  /** What happens on both hosts, one after the other, must cost no packet and change no public address. */
  async function disturb(...scripts: readonly string[]): Promise<void> {
    const before = await net.store.leases();
    const marks = net.members.map(({ agent }) => agent.log.mark);
    await using flow = await net.flow();
    for (const script of scripts) {
      for (const { host } of net.members) await net.topology.ipBatch(host, script);
      await sleep(SETTLED_MS);
      for (const { agent } of net.members) await agent.answers('/readyz', 200, /^/);
    }
    const figures = await flow.stop();
    assert.equal(figures.lost, 0, `${figures.lost} of ${figures.sent} packets lost`);
    assert.deepEqual(await net.store.leases(), before);
    for (const [index, { agent }] of net.members.entries()) {
      const said = agent.messages.slice(marks[index]);
      assert.ok(!said.some((text) => text.includes('external interface')), said.join('\n'));
    }
  }

  it('a floating address: as /32, as a second one of the subnet, IPv6 too', async () => {
    await disturb(`addr add ${VIP}/32 dev eth0\n`, `addr del ${VIP}/32 dev eth0\n`);
    await disturb(`addr add ${VIP}/24 dev eth0\n`, `addr del ${VIP}/24 dev eth0\n`);
    await disturb('addr add fd77::250/128 dev eth0 nodad\n', 'addr del fd77::250/128 dev eth0\n');
  });

  it('a second default route, with a lower metric and with a higher one', async () => {
    const vpn =
      'link add vpn0 type veth peer name vpn1\naddr add 10.8.0.2/24 dev vpn0\nlink set vpn0 up\nlink set vpn1 up\n';
    await disturb(`route change default via 192.168.77.254 dev eth0\n${vpn}`, 'route add default dev vpn0 metric 5\n');
    await disturb('route del default dev vpn0 metric 5\n', 'route append default dev vpn0 metric 500\n');
    await disturb(
      'route add default via 192.168.77.254 dev eth0 metric 900\nroute del default via 192.168.77.254 dev eth0 metric 0\n',
    );
    await disturb('link del vpn0\n');
  });

  it('a default route that is gone, and comes back with another metric', async () => {
    await disturb('route del default\n', 'route add default via 192.168.77.254 dev eth0 metric 100\n');
  });

  it('an address that is deprecated, or whose lease is renewed', async () => {
    for (const lifetimes of ['valid_lft 3600 preferred_lft 0', 'valid_lft 7200 preferred_lft 7200']) {
      const before = await net.store.leases();
      for (const { host } of net.members) {
        const address = await net.addressOf(host);
        await net.topology.ipBatch(host, `addr change ${address}/24 dev eth0 ${lifetimes}\n`);
      }
      await sleep(SETTLED_MS);
      for (const { agent } of net.members) await agent.answers('/readyz', 200, /^/);
      assert.deepEqual(await net.store.leases(), before);
    }
  });

  it('an interface that gets another name is followed, without a change of address', async () => {
    const { host, agent } = net.members[1]!;
    const before = await net.store.leases();
    const from = agent.log.mark;
    // Not every kernel renames an interface that is up.
    const back = 'route add default via 192.168.77.254 dev';
    await net.topology.ipBatch(
      host,
      `link set eth0 down\nlink set eth0 name lan0\nlink set lan0 up\n${back} lan0 metric 100\n`,
    );
    await agent.logged(/external interface .*: lan0 with/, from);
    await agent.answers('/readyz', 200, /^/);
    await (await net.flow()).stop();
    assert.deepEqual(await net.store.leases(), before);
    await net.topology.ipBatch(
      host,
      `link set lan0 down\nlink set lan0 name eth0\nlink set eth0 up\n${back} eth0 metric 100\n`,
    );
    await agent.logged(/external interface .*: eth0 with/, from);
    await agent.answers('/readyz', 200, /^/);
  });

  for (const isForgotten of [false, true]) {
    const how = isForgotten ? 'that knows nothing of an earlier run' : 'that is restarted';
    it(`an agent ${how} on the holder of a floating address keeps its subnet`, async () => {
      const member = net.members[1]!;
      const { host, subnet } = member;
      const publicIp = await net.addressOf(host);
      await net.topology.ipBatch(host, `addr add ${VIP}/32 dev eth0\n`);
      await killed(member.agent);
      if (isForgotten) await net.forget(host);
      member.agent = await net.start(host);
      await member.agent.logged(/^flannel is ready/);
      const own = (await net.store.leases()).filter((lease) => [VIP, publicIp].includes(lease.publicIp));
      // flannel's order of a first start prefers the floating address; the lease under the other one is known all the same.
      assert.deepEqual(own, [{ subnet, publicIp: isForgotten ? VIP : publicIp }]);
      await member.agent.logged(new RegExp(`Wrote subnet file to ${subnetFileOf(host)}`));
      await (await net.flow()).stop();
      if (isForgotten) return;
      await net.topology.ipBatch(host, `addr del ${VIP}/32 dev eth0\n`);
    });
  }
});
