import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { after, before, describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { formatIpv4 } from '../../src/ip/ipv4.ts';
import { HOST_DEVICE } from '../../src/lab/namespaces.ts';
import { type LabContainer, type LabHost, type Place, Topology } from '../../src/lab/topology.ts';
import type { Child } from '../../src/linux/run.ts';
import { RUNTIME_FLAGS } from '../../src/runtime-flags.ts';
import { address, udpPacket } from '../fakes/packets.ts';
import { udpArrivals } from './arrivals.ts';
import { folderOnBpffs } from './bpffs.ts';
import { assertFewer, countersOf, transfer, untilFastPathCarries } from './fast-path-use.ts';
import { xdpOf } from './native-xdp.ts';
import { addressOf, Overlay, ping } from './overlay.ts';
import { startPlainPeer } from './plain-peer.ts';
import { attach, OVERHEAD, PORT, subnetOf, Tunnel, type TunnelCounters } from './tunnel.ts';
import { eventually, eventuallyHolds, LineFeed } from './waiting.ts';

const MTU = 1500 - OVERHEAD;
const FILE_BYTES = 16 * 1024 * 1024;
const SMALL_FILE_BYTES = 2 * 1024 * 1024;
const LISTENER_PORT = 7000;
const BY_XDP = /Packets take the fast path in the kernel .*, and XDP takes what eth0 receives from peers/;
const signal = new AbortController().signal;

/** Datagrams that a namespace's UDP has refused for their checksum. */
async function checksumErrors(topology: Topology, place: Place): Promise<number> {
  const { stdout } = await topology.exec(place, ['cat', '/proc/net/snmp']);
  const [names, values] = stdout.split('\n').filter((line) => line.startsWith('Udp:'));
  return Number(values!.split(' ')[names!.split(' ').indexOf('InCsumErrors')]);
}

describe('the way in by XDP, on a link where datagrams are cut', () => {
  let topology: Topology;
  let tunnels: Tunnel[];
  let hosts: readonly LabHost[];
  let containers: readonly LabContainer[];

  before(async () => {
    topology = await Topology.create({ hosts: 3, containersPerHost: 1, underlay: 'wire', purpose: 'test' });
    ({ hosts, containers } = topology);
    const [first, second, plain] = hosts as [LabHost, LabHost, LabHost];
    const start = (host: LabHost): Promise<Tunnel> =>
      Tunnel.start(topology, host, {
        peers: hosts.filter((other) => other !== host).map((other) => ({ host: other })),
        fastPathIn: 'xdp',
      });
    tunnels = [await start(first), await start(second)];
    for (const host of hosts) await attach(topology, host, MTU);
    await startPlainPeer(topology, plain, {
      tunAddress: `${formatIpv4(subnetOf(plain).addr)}/16`,
      local: `${formatIpv4(plain.address)}:${PORT}`,
      remote: `${formatIpv4(first.address)}:${PORT}`,
      mtuBytes: MTU,
    });
  });
  after(() => topology?.[Symbol.asyncDispose]());

  it('is there when it is asked for, and says so', async () => {
    for (const [index, tunnel] of tunnels.entries()) {
      await tunnel.stderr.find((text) => BY_XDP.test(text));
      assert.ok((await xdpOf(topology, hosts[index]!)) !== undefined);
    }
  });

  it('carries TCP both ways past both forwarders, and counts every packet', async () => {
    const [a, b] = containers as [LabContainer, LabContainer];
    const { before, after } = await untilFastPathCarries(
      countersOf(tunnels),
      async () => {
        await transfer(topology, a, b, FILE_BYTES);
        await transfer(topology, b, a, FILE_BYTES);
      },
      (carried) => {
        // Each of them would read about 300 super-packets, and receive 300 messages of joined datagrams.
        assertFewer(carried, 'txReads', 60);
        assertFewer(carried, 'rxReceives', 60);
      },
    );
    for (const [index, { peers }] of after.entries()) {
      const packets = peers[0]!.received.packets - before[index]!.peers[0]!.received.packets;
      assert.ok(packets > FILE_BYTES / MTU, `${packets} packets`);
      assert.deepEqual([peers[0]!.sent.drops, peers[0]!.received.drops], [{}, {}]);
    }
    await eventuallyHolds(async () => {
      const [one, other] = (await countersOf(tunnels)()) as [TunnelCounters, TunnelCounters];
      assert.deepEqual(one.peers[0]!.sent.packets, other.peers[0]!.received.packets);
      assert.deepEqual(other.peers[0]!.sent.packets, one.peers[0]!.received.packets);
    });
  });

  it('ages packets as the forwarders do, and leaves what must be answered to them', async () => {
    const [a, b] = containers as [LabContainer, LabContainer];
    const { ok, output } = await ping(topology, a, addressOf(b));
    assert.ok(ok && output.includes('ttl=60'), output);
    assert.match((await ping(topology, a, addressOf(b), '-t', '3')).output, /Time to live exceeded/);
    assert.ok((await ping(topology, a, addressOf(b), '-M', 'dont', '-s', '6000')).ok);
  });

  it('takes what a host without weft sends', async () => {
    const [a, , plain] = containers as [LabContainer, LabContainer, LabContainer];
    await untilFastPathCarries(
      countersOf(tunnels.slice(0, 1)),
      async () => {
        await transfer(topology, plain, a, SMALL_FILE_BYTES);
        await transfer(topology, a, plain, SMALL_FILE_BYTES);
      },
      (carried) => {
        const received = ({ peers }: TunnelCounters): number => peers[1]!.received.packets;
        assert.ok(received(carried.after[0]!) - received(carried.before[0]!) > SMALL_FILE_BYTES / MTU);
        assertFewer(carried, 'rxDatagrams', 200);
      },
    );
  });

  /** A datagram as the second host's forwarder would send it, but for what is in it. */
  async function send(text: string, innerSource: string, spoil: boolean): Promise<void> {
    const inner = udpPacket({
      ip: { source: address(innerSource), destination: address(addressOf(containers[0]!)) },
      ...{ sourcePort: 5000, destinationPort: LISTENER_PORT, payload: Buffer.from(`${text}\n`) },
    });
    if (spoil) inner[inner.length - 2]! ^= 1;
    const outer = udpPacket({
      ip: { source: hosts[1]!.address, destination: hosts[0]!.address, dontFragment: true },
      ...{ sourcePort: PORT, destinationPort: PORT, payload: inner },
    });
    const target = `IP4-SENDTO:${formatIpv4(hosts[0]!.address)}:255`;
    await topology.exec(hosts[1]!, ['socat', '-u', 'STDIN', target], { stdin: outer });
  }

  it('does not vouch for an inner checksum that is wrong in a datagram whose own is right', async () => {
    const arrivals = await udpArrivals(topology, containers[0]!, LISTENER_PORT);
    const before = await checksumErrors(topology, containers[0]!);
    await send('spoiled', '10.244.2.9', true);
    await eventuallyHolds(async () => assert.equal(await checksumErrors(topology, containers[0]!), before + 1));
    await send('whole', '10.244.2.9', false);
    await arrivals.find((text) => text === 'whole');
    assert.deepEqual(
      arrivals.seen.map(({ text }) => text),
      ['whole'],
    );
  });

  it('takes nothing whose source is another host’s', async () => {
    const refused = async (): Promise<number> =>
      (await tunnels[0]!.counters()).peers[0]!.received.drops['spoofed-source'] ?? 0;
    const before = await refused();
    await send('foreign', '10.244.3.9', false);
    await eventuallyHolds(async () => assert.equal(await refused(), before + 1));
  });
});

describe('where XDP is not taken', () => {
  it('auto on veth, where it costs more than it gains; an MTU of more than a page; where another program is', async () => {
    await using topology = await Topology.create({ hosts: 2, containersPerHost: 1, underlay: 'wire', purpose: 'test' });
    const [first, second] = topology.hosts as [LabHost, LabHost];
    const tunnel = await Tunnel.start(topology, first, { peers: [{ host: second }], fastPathIn: 'auto' });
    const said = await tunnel.stderr.find((text) => text.includes('Packets take the fast path'));
    assert.ok(!said.text.includes('XDP'), said.text);
    assert.equal(await xdpOf(topology, first), undefined);

    const main = fileURLToPath(new URL('../../src/cmd/weft/main.ts', import.meta.url));
    const tunnelOn = (dev: string, port: number): Promise<Child> =>
      topology.start(
        second,
        [
          ...[process.execPath, ...RUNTIME_FLAGS, main, 'tunnel', '--dev', dev, '--fast-path-in', 'xdp'],
          ...['--address', `10.${port}.2.0/16`, '--listen', `${formatIpv4(second.address)}:${port}`],
          ...['--peer', `10.${port}.1.0/24=${formatIpv4(first.address)}:${port}`],
        ],
        { stderr: 'pipe' },
      );
    const one = new LineFeed((await tunnelOn('one0', 101)).stderr!);
    await one.find((text) => BY_XDP.test(text));
    const id = await xdpOf(topology, second);
    const other = new LineFeed((await tunnelOn('two0', 102)).stderr!);
    const refused = await other.find((text) => text.includes('without XDP on the way in'));
    assert.match(refused.text, /EBUSY.*Another XDP program/);
    assert.equal(await xdpOf(topology, second), id);

    await using big = await Topology.create({
      ...{ hosts: 2, containersPerHost: 1, underlay: 'wire', purpose: 'test', underlayMtuBytes: 9_000 },
    });
    const [jumbo, neighbour] = big.hosts as [LabHost, LabHost];
    const large = await Tunnel.start(big, jumbo, { peers: [{ host: neighbour }], fastPathIn: 'xdp' });
    await large.stderr.find((text) => text.includes('without XDP on the way in: the MTU of eth0 is 9000'));
    assert.equal(await xdpOf(big, jumbo), undefined);
  });
});

describe('an agent with XDP', () => {
  const stack = new AsyncDisposableStack();
  let overlay: Overlay;
  let root: string;

  before(async () => {
    root = await folderOnBpffs(stack);
    const agentFlags = ['--fast-path', 'auto', '--fast-path-in', 'xdp', '--fast-path-dir', root];
    overlay = stack.use(await Overlay.create({ hosts: 2, containersPerHost: 1, underlay: 'wire', agentFlags }, signal));
  });
  after(() => stack.disposeAsync());

  it('carries while both agents are away, and the next one takes it over', async () => {
    const { topology } = overlay;
    const [a, b] = topology.containers as [LabContainer, LabContainer];
    const receives = async (): Promise<number[]> =>
      Promise.all(
        topology.hosts.map(async (host) =>
          Number(/\{operation="rxReceives"\} (\d+)$/m.exec(await overlay.ask(host, '/metrics'))![1]),
        ),
      );
    await eventuallyHolds(async () => {
      const before = await receives();
      await transfer(topology, a, b, FILE_BYTES);
      const more = (await receives()).map((count, index) => count - before[index]!);
      assert.ok(
        more.every((count) => count < 100),
        `${more} messages by the sockets`,
      );
    });
    const id = await xdpOf(topology, topology.hosts[0]!);
    assert.ok(id !== undefined);
    for (const { child } of overlay.agents) {
      child.kill('SIGKILL');
      await child.exited;
    }
    await transfer(topology, a, b, SMALL_FILE_BYTES);
    await transfer(topology, b, a, SMALL_FILE_BYTES);
    assert.equal(await xdpOf(topology, topology.hosts[0]!), id);
    for (const host of topology.hosts) await overlay.startAgent(host, signal);
    await eventually('its own program is there', async () => {
      const now = await xdpOf(topology, topology.hosts[0]!);
      return (now !== undefined && now !== id) || undefined;
    });
    await transfer(topology, a, b, SMALL_FILE_BYTES);
  });

  it('has it again whenever the device’s features have changed', async () => {
    const { topology } = overlay;
    const [host] = topology.hosts as [LabHost];
    const opened = async (): Promise<string[]> =>
      (await overlay.log(host)).split('\n').filter((line) => line.includes('Packets take the fast path in the kernel'));
    for (const state of ['on', 'off', 'on', 'off', 'on', 'off']) {
      const before = (await opened()).length;
      // Where the device cuts super-packets, programs are others than where this host does.
      await topology.exec(host, ['ethtool', '-K', HOST_DEVICE, 'tx', state, 'tso', state]);
      await eventually('it has noticed', async () => (await opened()).length > before || undefined);
      assert.match((await opened()).at(-1)!, BY_XDP);
      assert.ok((await xdpOf(topology, host)) !== undefined);
    }
  });

  it('leaves nothing on the device when the next one is not to have it', async () => {
    const { topology, agents } = overlay;
    const [host] = topology.hosts as [LabHost];
    for (const flags of [
      ['--fast-path-in', 'off'],
      ['--fast-path', 'off'],
    ]) {
      agents[0]!.child.kill('SIGTERM');
      await agents[0]!.child.exited;
      await overlay.startAgent(host, signal, flags);
      await eventually('XDP is gone', async () => (await xdpOf(topology, host)) === undefined || undefined);
      const [a, b] = topology.containers as [LabContainer, LabContainer];
      await transfer(topology, b, a, SMALL_FILE_BYTES);
    }
    assert.equal(readdirSync(root).length, 1, 'the other host’s alone');
  });
});
