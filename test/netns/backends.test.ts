import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { openSubnetStore } from '../../src/lab/open-subnet-store.ts';
import { type LabHost, Topology } from '../../src/lab/topology.ts';
import { addressOf, assertPings, NET_CONF, Overlay, ping } from './overlay.ts';
import { attachStacked, masqueradesBy } from './stacked-overlay.ts';
import { eventually, eventuallyHolds } from './waiting.ts';

const signal = new AbortController().signal;

/**
 * Well below the 30 s after which the agent looks at the kernel whatever it says (the reconciler's `resyncMs`), and well above what
 * a busy machine takes: what is put back within it was noticed.
 */
const UNNOTICED_MS = 20_000;

const netConf = (backend: object): string => JSON.stringify({ Network: '10.244.0.0/16', Backend: backend });

async function lines(topology: Topology, host: LabHost, ...argv: string[]): Promise<string[]> {
  const { stdout } = await topology.exec(host, argv);
  return stdout
    .split('\n')
    .map((line) => line.trim())
    .filter((line) => line !== '');
}

describe('backends without a forwarder, with real agents', () => {
  it('vxlan carries packets, and puts device, neighbours, forwarding entries and routes back', async () => {
    await using overlay = await Overlay.create(
      { hosts: 3, containersPerHost: 1, netConf: netConf({ Type: 'vxlan' }), agentFlags: ['--ip-masq'] },
      signal,
    );
    const { topology } = overlay;
    await assertPings(topology, topology.hosts);
    const [host] = topology.hosts as [LabHost, ...LabHost[]];
    await masqueradesBy('iptables', topology, { host, addresses: [addressOf(topology.containers[0]!)] });
    const state = async () => ({
      mac: (await lines(topology, host, 'cat', '/sys/class/net/flannel.1/address')).join(),
      routes: (await lines(topology, host, 'ip', 'route', 'show', 'dev', 'flannel.1')).sort(),
      neighbours: (await lines(topology, host, 'ip', 'neigh', 'show', 'dev', 'flannel.1', 'nud', 'permanent')).sort(),
      fdb: (await lines(topology, host, 'bridge', 'fdb', 'show', 'dev', 'flannel.1'))
        .filter((line) => / dst /.test(line))
        .sort(),
    });
    const before = await state();
    assert.deepEqual([before.routes.length, before.neighbours.length, before.fdb.length], [2, 2, 2]);
    await topology.exec(host, ['ip', 'link', 'delete', 'flannel.1']);
    await eventually('everything is back as it was', async () => {
      const now = await state().catch(() => undefined);
      return now !== undefined && JSON.stringify(now) === JSON.stringify(before) ? now : undefined;
    });
    await assertPings(topology, topology.hosts);
    // Neither name nor address tells it any more.
    await topology.ipBatch(host, 'link set flannel.1 name renamed\naddr flush dev renamed\n');
    await eventually('the device has its name back', async () => {
      const now = await state().catch(() => undefined);
      return now !== undefined && JSON.stringify(now) === JSON.stringify(before) ? now : undefined;
    });
    await assertPings(topology, topology.hosts);
    await topology.exec(host, ['ip', 'neigh', 'flush', 'dev', 'flannel.1', 'nud', 'permanent']);
    await topology.exec(host, ['bridge', 'fdb', 'del', before.fdb[0]!.split(' ')[0]!, 'dev', 'flannel.1']);
    await eventually('what was flushed is back', async () =>
      JSON.stringify(await state()) === JSON.stringify(before) ? true : undefined,
    );
  });

  it('vxlan in dual stack: a device that is deleted is back with all that was on it before the next look that nothing asks for', async (t) => {
    await using topology = await Topology.create({ hosts: 3, containersPerHost: 1, purpose: 'test' }, signal);
    for (const host of topology.hosts) {
      await topology.ipBatch(host, `addr add fd77::${host.index + 1}/64 dev eth0 nodad\n`);
      await topology.exec(host, ['sysctl', '-q', '-w', 'net.ipv6.conf.all.forwarding=1']);
    }
    const families = { EnableIPv6: true, IPv6Network: 'fd10::/48' };
    const conf = JSON.stringify({ Network: '10.244.0.0/16', ...families, Backend: { Type: 'vxlan' } });
    const overlay = Overlay.on(topology, await openSubnetStore('local', topology, conf, signal));
    const containers = await Promise.all(
      topology.hosts.map(async (host) => {
        await overlay.startAgent(host, signal);
        return await attachStacked(topology, host, signal);
      }),
    );
    const [host] = topology.hosts as [LabHost, ...LabHost[]];
    const stateOf = async (device: string) => ({
      mac: (await lines(topology, host, 'cat', `/sys/class/net/${device}/address`)).join(),
      routes: [
        ...(await lines(topology, host, 'ip', 'route', 'show', 'dev', device)),
        ...(await lines(topology, host, 'ip', '-6', 'route', 'show', 'dev', device, 'proto', '241')),
      ].sort(),
      neighbours: (await lines(topology, host, 'ip', 'neigh', 'show', 'dev', device, 'nud', 'permanent')).sort(),
      fdb: (await lines(topology, host, 'bridge', 'fdb', 'show', 'dev', device))
        .filter((line) => / dst /.test(line))
        .sort(),
    });
    const state = async () => [await stateOf('flannel.1'), await stateOf('flannel-v6.1')];
    // The first host may yet have to hear of the last.
    const before = await eventuallyHolds(async () => {
      const now = await state();
      for (const { routes, neighbours, fdb } of now)
        assert.deepEqual([routes.length, neighbours.length, fdb.length], [2, 2, 2]);
      return now;
    });
    // Each of them begins when the one before has ended, and with it the wait for the next look that nothing asks for.
    for (const devices of [['flannel.1'], ['flannel-v6.1'], ['flannel.1', 'flannel-v6.1'], ['flannel-v6.1']]) {
      const fromMs = performance.now();
      await topology.ipBatch(host, devices.map((name) => `link delete ${name}\n`).join(''));
      await eventually(
        `${devices.join(' and ')} back`,
        async () => JSON.stringify(await state().catch(() => undefined)) === JSON.stringify(before),
        UNNOTICED_MS,
      );
      t.diagnostic(`${devices.join(' and ')} back after ${Math.round(performance.now() - fromMs)} ms`);
    }
    for (const from of containers) {
      for (const address of containers.flatMap((to) => (to === from ? [] : to.addresses))) {
        const { ok, output } = await ping(topology, from, address);
        assert(ok, output);
      }
    }
  });

  it('host-gw carries packets by routes alone', async () => {
    await using overlay = await Overlay.create(
      {
        ...{ hosts: 2, containersPerHost: 1, netConf: netConf({ Type: 'host-gw' }) },
        agentFlags: ['--notrack-tunnel', '--ip-masq'],
      },
      signal,
    );
    const { topology } = overlay;
    await assertPings(topology, topology.hosts);
    const [host] = topology.hosts as [LabHost];
    await masqueradesBy('iptables', topology, { host, addresses: [addressOf(topology.containers[0]!)] });
    const warning = /--notrack-tunnel has no effect: the backend host-gw uses no socket of the agent/;
    assert.match(await overlay.log(host), warning);
    assert.doesNotMatch((await lines(topology, host, 'iptables-save')).join(), /UNTRACK|notrack/);
    const routes = await lines(topology, host, 'ip', 'route', 'show', 'proto', '241');
    assert.equal(routes.length, 1);
    assert.match(routes[0]!, /^10\.244\.\d+\.0\/24 via 192\.168\.77\.2 dev eth0/);
  });

  it('takes away what the backend before has made on the host, when the configuration names another one', async () => {
    await using overlay = await Overlay.create({ hosts: 2, containersPerHost: 1, netConf: NET_CONF }, signal);
    const { topology } = overlay;
    writeFileSync(join(topology.stateDirectory, 'net-conf.json'), netConf({ Type: 'vxlan' }));
    for (const host of topology.hosts) {
      const { child } = overlay.agents[host.index]!;
      child.kill('SIGTERM');
      await child.exited;
      await overlay.startAgent(host, signal);
    }
    await assertPings(topology, topology.hosts);
    for (const host of topology.hosts) {
      await eventually(`flannel0 of ${host.name} is gone`, async () => {
        const links = (await lines(topology, host, 'ip', '-br', 'link')).map((line) => line.split(/[ @]/)[0]);
        return (links.includes('flannel.1') && !links.includes('flannel0')) || undefined;
      });
      assert.deepEqual(await lines(topology, host, 'ip', 'route', 'show', '10.244.0.0/16'), []);
    }
  });
});
