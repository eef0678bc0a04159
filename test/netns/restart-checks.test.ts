import assert from 'node:assert/strict';
import { it } from 'node:test';
import { formatIpv4 } from '../../src/ip/ipv4.ts';
import type { LabHost } from '../../src/lab/topology.ts';
import { address, udpPacket } from '../fakes/packets.ts';
import { udpArrivals, withoutReversePathFilter } from './arrivals.ts';
import { addressOf, Overlay } from './overlay.ts';
import { eventually } from './waiting.ts';

const signal = new AbortController().signal;
const PORT = 7000;
const TUNNEL_PORT = 8285;

/** Sends the packets again and again, also while nobody listens. */
const SENDER = `
  const [from, to, ...packets] = process.argv.slice(1);
  const socket = require('node:dgram').createSocket('udp4');
  const bytes = packets.map((hex) => Buffer.from(hex, 'hex'));
  socket.bind(0, from, () => setInterval(() => bytes.forEach((each) => socket.send(each, ${TUNNEL_PORT}, to)), 2));
  socket.on('error', () => undefined);`;

it('a peer’s forged packets get in at no moment of a restart, while its own do', async () => {
  await using overlay = await Overlay.create(
    { hosts: 2, containersPerHost: 1, agentFlags: ['--fast-path=auto'] },
    signal,
  );
  const { topology } = overlay;
  const [host, peer] = topology.hosts as [LabHost, LabHost];
  await withoutReversePathFilter(topology, host);
  const pod = host.containers[0]!;
  const arrivals = await udpArrivals(topology, pod, PORT);
  const packet = (source: string, text: string): string => {
    const ip = { source: address(source), destination: address(addressOf(pod)) };
    const payload = Buffer.from(`${text}\n`);
    return Buffer.from(udpPacket({ ip, sourcePort: 5000, destinationPort: PORT, payload })).toString('hex');
  };
  // Of a subnet of the network that is not the peer's.
  const [, , third = ''] = addressOf(peer.containers[0]!).split('.');
  const nobodys = [1, 2, 3].map((n) => (Number(third) + n) % 256).map((n) => `10.244.${n}.9`);
  const stranger = nobodys.find((each) => each.split('.')[2] !== addressOf(pod).split('.')[2])!;
  const packets = [packet(stranger, 'forged'), packet(addressOf(peer.containers[0]!), 'own')];
  const ends = [formatIpv4(peer.address), formatIpv4(host.address)];
  await topology.start(peer, [process.execPath, '-e', SENDER, ...ends, ...packets]);

  const own = async (what: string): Promise<void> => {
    const from = arrivals.seen.length;
    await eventually(what, () => arrivals.seen.length > from + 50 || undefined);
  };
  await own('packets come');
  for (const how of ['SIGTERM', 'SIGKILL'] as const) {
    const { child } = overlay.agents[host.index]!;
    child.kill(how);
    await child.exited;
    await overlay.startAgent(host, signal);
    await own(`packets come again after ${how}`);
  }
  const texts = new Set(arrivals.seen.map(({ text }) => text));
  assert.deepEqual([...texts], ['own']);
  const { stdout } = await topology.exec(host, ['socat', '-t', '5', '-', 'TCP4:127.0.0.1:8081'], {
    stdin: 'GET /metrics HTTP/1.0\r\n\r\n',
  });
  assert.match(stdout, /^weft_dropped_packets_total\{.*direction="rx",reason="spoofed-source"\} [1-9]/m);
});
