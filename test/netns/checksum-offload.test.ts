import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { parseAddr } from '../../src/ip/address.ts';
import { openSubnetStore } from '../../src/lab/open-subnet-store.ts';
import { type LabHost, Topology } from '../../src/lab/topology.ts';
import { probeChecksum } from '../../src/linux/checksum-probe.ts';
import { EchoConnection, serveEcho } from './echo-connection.ts';
import { addressOf, Overlay, ping } from './overlay.ts';
import { eventually } from './waiting.ts';

const signal = new AbortController().signal;

const CARD = fileURLToPath(new URL('./spoiling-card.ts', import.meta.url));

const netConf = (offload: string): string =>
  JSON.stringify({ Network: '10.244.0.0/16', Backend: { Type: 'vxlan', TxChecksumOffload: offload } });

/**
 * Puts a card with a fault into the first host's cable, see spoiling-card.ts.
 */
async function spoilChecksums(topology: Topology): Promise<void> {
  const { switchNamespace } = topology.plan;
  const [host] = topology.hosts as [LabHost];
  await topology.ipBatch(
    switchNamespace,
    [
      'link add card0 type veth peer name card1',
      `link set ${host.switchPort} nomaster`,
      'link set card1 master br0',
      'link set card0 up',
      'link set card1 up',
      '',
    ].join('\n'),
  );
  const argv = [process.execPath, '--disable-warning=ExperimentalWarning', CARD, host.switchPort, 'card0'];
  await topology.start(switchNamespace, argv, { stdout: 'ignore' });
  await eventually('the card carries frames', async () => {
    const { exitCode } = await topology.exec(host, ['ping', '-c1', '-W1', '192.168.77.254'], { okExitCodes: 'any' });
    return exitCode === 0 || undefined;
  });
}

async function offloads(topology: Topology, host: LabHost): Promise<string> {
  const { stdout } = await topology.exec(host, ['ethtool', '-k', 'flannel.1'], { okExitCodes: 'any' });
  return /^\s*tx-checksum-ip-generic: (\S+)/m.exec(stdout)?.[1] ?? 'no device';
}

async function untilOffloads(topology: Topology, wanted: string): Promise<void> {
  for (const host of topology.hosts) {
    await eventually(`tx-checksum-ip-generic of ${host.name} is ${wanted}`, async () =>
      (await offloads(topology, host)) === wanted ? true : undefined,
    );
  }
}

describe('TxChecksumOffload of vxlan', () => {
  it('auto finds a path that spoils checksums which a device computes, and computes them itself', async () => {
    await using topology = await Topology.create({ hosts: 2, containersPerHost: 1, purpose: 'test' }, signal);
    await spoilChecksums(topology);
    const store = await openSubnetStore('local', topology, netConf('on'), signal);
    const overlay = Overlay.on(topology, store);
    await overlay.startAll(signal);
    const [near, far] = topology.containers as [(typeof topology.containers)[0], (typeof topology.containers)[0]];
    await eventually('ping, which has no such checksum', async () =>
      (await ping(topology, near, addressOf(far))).ok ? true : undefined,
    );
    await serveEcho(topology, far);
    const connect = ['socat', '-u', 'OPEN:/dev/null', `TCP4:${addressOf(far)}:7777,connect-timeout=4`];
    const { exitCode } = await topology.exec(near, connect, { okExitCodes: 'any' });
    assert.notEqual(exitCode, 0, 'the path spoils nothing: a connection came through');
    assert.deepEqual(await Promise.all(topology.hosts.map((host) => offloads(topology, host))), ['on', 'on']);

    writeFileSync(join(topology.stateDirectory, 'net-conf.json'), netConf('auto'));
    for (const host of topology.hosts) {
      const { child } = overlay.agents[host.index]!;
      child.kill('SIGTERM');
      await child.exited;
      await overlay.startAgent(host, signal);
    }
    await untilOffloads(topology, 'off');
    const [host] = topology.hosts as [LabHost];
    assert.match(await overlay.log(host), /Checksum offload corrupts packets from flannel\.1: .* answers only if/);
    {
      await using connection = await EchoConnection.open(topology, near, far);
      await connection.flowing();
    }
    await topology.exec(host, ['ip', 'link', 'delete', 'flannel.1']);
    await untilOffloads(topology, 'off');
    await topology.exec(host, ['ethtool', '-K', 'flannel.1', 'tx-checksum-ip-generic', 'on']);
    await untilOffloads(topology, 'off');
  });

  it('auto leaves the device as it is where checksums arrive; off turns it off', async () => {
    const options = { hosts: 2, containersPerHost: 1, netConf: netConf('auto') };
    await using overlay = await Overlay.create(options, signal);
    const { topology } = overlay;
    const [host] = topology.hosts as [LabHost];
    await eventually('a peer has answered', async () =>
      /Checksum offload works on flannel\.1: 10\.244\.\d+\.0 has answered/.test(await overlay.log(host))
        ? true
        : undefined,
    );
    assert.equal(await offloads(topology, host), 'on');
    const { child } = overlay.agents[host.index]!;
    child.kill('SIGTERM');
    await child.exited;
    writeFileSync(join(topology.stateDirectory, 'net-conf.json'), netConf('off'));
    await overlay.startAgent(host, signal);
    await eventually('off', async () => ((await offloads(topology, host)) === 'off' ? true : undefined));
  });

  it('a host answers a datagram whoever has computed its checksum, over IPv4 and IPv6', async () => {
    for (const address of ['127.0.0.1', '::1']) {
      const addr = parseAddr(address) ?? assert.fail(address);
      for (const by of ['device', 'kernel'] as const) {
        assert.equal(
          await probeChecksum({ from: addr, to: addr, by, timeoutMs: 5_000 }, signal),
          true,
          `${address} ${by}`,
        );
      }
    }
  });
});
