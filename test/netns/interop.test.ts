import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { formatIpv4 } from '../../src/ip/ipv4.ts';
import { sendFile } from '../../src/lab/checks.ts';
import { type LabContainer, Topology } from '../../src/lab/topology.ts';
import { addressOf, ping } from './overlay.ts';
import { startPlainPeer } from './plain-peer.ts';
import { attach, NETWORK, OVERHEAD, PORT, subnetOf, Tunnel } from './tunnel.ts';

const MTU = 1500 - OVERHEAD;
const FILE_BYTES = 64 * 1024 * 1024;
const ICMP_HEADERS = 28;

describe('beside a peer that moves one raw packet a datagram', () => {
  let topology: Topology;
  let tunnel: Tunnel;
  let ours: LabContainer;
  let theirs: LabContainer;

  before(async () => {
    topology = await Topology.create({ hosts: 2, containersPerHost: 1, underlay: 'wire', purpose: 'test' });
    const [weft, plain] = [topology.hosts[0]!, topology.hosts[1]!];
    tunnel = await Tunnel.start(topology, weft, { peers: [{ host: plain }] });
    await startPlainPeer(topology, plain, {
      tunAddress: `${formatIpv4(subnetOf(plain).addr)}/${NETWORK.length}`,
      local: `${formatIpv4(plain.address)}:${PORT}`,
      remote: `${formatIpv4(weft.address)}:${PORT}`,
      mtuBytes: MTU,
    });
    for (const host of topology.hosts) await attach(topology, host, MTU);
    [ours, theirs] = [weft.containers[0]!, plain.containers[0]!];
  });
  after(() => topology?.[Symbol.asyncDispose]());

  it('pings both ways, up to the full MTU with DF set', async () => {
    for (const [from, to] of [
      [ours, theirs],
      [theirs, ours],
    ] as const) {
      for (const size of [56, 1000, MTU - ICMP_HEADERS]) {
        const { ok, output } = await ping(topology, from, addressOf(to), '-M', 'do', '-s', String(size));
        assert.ok(ok, `${from.name} to ${to.name}, ${size} bytes: ${output}`);
      }
      const { ok, output } = await ping(
        topology,
        from,
        addressOf(to),
        '-M',
        'do',
        '-s',
        String(MTU - ICMP_HEADERS + 1),
      );
      assert.ok(!ok && output.includes('message too long'), output);
    }
  });

  it('passes a longer packet without DF in fragments', async () => {
    for (const [from, to] of [
      [ours, theirs],
      [theirs, ours],
    ] as const) {
      const { ok, output } = await ping(topology, from, addressOf(to), '-M', 'dont', '-s', '6000');
      assert.ok(ok, output);
    }
  });

  it('carries 64 MB of TCP from weft to the plain peer', async (t) => {
    const { bytes, receivedBytes, sha256, receivedSha256, seconds } = await sendFile(
      topology,
      ours,
      theirs,
      FILE_BYTES,
    );
    assert.deepEqual([receivedBytes, receivedSha256], [bytes, sha256]);
    t.diagnostic(`${((bytes * 8) / seconds / 1e9).toFixed(2)} Gbit/s`);
  });

  it('carries 64 MB of TCP from the plain peer to weft', async (t) => {
    const { bytes, receivedBytes, sha256, receivedSha256, seconds } = await sendFile(
      topology,
      theirs,
      ours,
      FILE_BYTES,
    );
    assert.deepEqual([receivedBytes, receivedSha256], [bytes, sha256]);
    t.diagnostic(`${((bytes * 8) / seconds / 1e9).toFixed(2)} Gbit/s`);
  });

  it('refused nothing in doing so', async () => {
    const { peers, nobody } = await tunnel.counters();
    const [peer] = peers;
    assert.deepEqual(peer!.sent.drops, {});
    // The plain device sends the kernel's IPv6 router solicitations too.
    const { 'ipv6-multicast': _, ...drops } = peer!.received.drops;
    assert.deepEqual(drops, {});
    assert.deepEqual([nobody.received.packets, nobody.received.drops], [0, {}]);
    const fullPackets = FILE_BYTES / MTU;
    assert.ok(peer!.sent.packets > fullPackets && peer!.received.packets > fullPackets, JSON.stringify(peer));
  });
});
