import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import type { LabHost, Topology } from '../../src/lab/topology.ts';
import { addressOf, NET_CONF, Overlay, ping } from './overlay.ts';
import { masqueradesBy } from './stacked-overlay.ts';
import { eventually } from './waiting.ts';

const signal = new AbortController().signal;

const netConf = (backend: object): string => JSON.stringify({ Network: '10.244.0.0/16', Backend: backend });

async function lines(topology: Topology, host: LabHost, ...argv: string[]): Promise<string[]> {
  const { stdout } = await topology.exec(host, argv);
  return stdout
    .split('\n')
    .map((line) => line.trim())
    .filter((line) => line !== '');
}

async function everyPairAnswers({ topology }: Overlay): Promise<void> {
  for (const from of topology.containers) {
    for (const to of topology.containers) {
      if (from === to) continue;
      const { ok, output } = await ping(topology, from, addressOf(to));
      assert(ok, output);
    }
  }
}

describe('backends without a forwarder, with real agents', () => {
  it('vxlan carries packets, and puts device, neighbours, forwarding entries and routes back', async () => {
    await using overlay = await Overlay.create(
      { hosts: 3, containersPerHost: 1, netConf: netConf({ Type: 'vxlan' }), agentFlags: ['--ip-masq'] },
      signal,
    );
    const { topology } = overlay;
    await everyPairAnswers(overlay);
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
    await everyPairAnswers(overlay);
    // Neither name nor address tells it any more.
    await topology.ipBatch(host, 'link set flannel.1 name renamed\naddr flush dev renamed\n');
    await eventually('the device has its name back', async () => {
      const now = await state().catch(() => undefined);
      return now !== undefined && JSON.stringify(now) === JSON.stringify(before) ? now : undefined;
    });
    await everyPairAnswers(overlay);
    await topology.exec(host, ['ip', 'neigh', 'flush', 'dev', 'flannel.1', 'nud', 'permanent']);
    await topology.exec(host, ['bridge', 'fdb', 'del', before.fdb[0]!.split(' ')[0]!, 'dev', 'flannel.1']);
    await eventually('what was flushed is back', async () =>
      JSON.stringify(await state()) === JSON.stringify(before) ? true : undefined,
    );
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
    await everyPairAnswers(overlay);
    const [host] = topology.hosts as [LabHost];
    await masqueradesBy('iptables', topology, { host, addresses: [addressOf(topology.containers[0]!)] });
    const warning = /--notrack-tunnel has no effect: the backend host-gw has no socket of the agent's/;
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
    await everyPairAnswers(overlay);
    for (const host of topology.hosts) {
      await eventually(`flannel0 of ${host.name} is gone`, async () => {
        const links = (await lines(topology, host, 'ip', '-br', 'link')).map((line) => line.split(/[ @]/)[0]);
        return (links.includes('flannel.1') && !links.includes('flannel0')) || undefined;
      });
      assert.deepEqual(await lines(topology, host, 'ip', 'route', 'show', '10.244.0.0/16'), []);
    }
  });
});
