import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { CONTAINER_DEVICE } from '../../src/lab/namespaces.ts';
import { type LabContainer, type LabHost, type Place, Topology } from '../../src/lab/topology.ts';
import { serveEcho } from './echo-connection.ts';
import { assertFewer, countersOf, transfer, untilFastPathCarries } from './fast-path-use.ts';
import { addressOf } from './overlay.ts';
import { attach, OVERHEAD, Tunnel } from './tunnel.ts';
import { eventuallyHolds } from './waiting.ts';

const MTU = 1_500 - OVERHEAD;
/** Outer IPv4, UDP, VXLAN and inner Ethernet. */
const VXLAN_OVERHEAD = 50;
const INNER_MTU = MTU - VXLAN_OVERHEAD;
/** IPv4 and TCP, with timestamps. */
const TCP_HEADERS = 52;
const SEGMENT = INNER_MTU - TCP_HEADERS;
/**
 * Ten segments, of which the last is so much shorter that the super-packet behind its first UDP header is a multiple of a segment, as
 * that of a container that sends datagrams by UDP_SEGMENT is.
 */
const WRITE_BYTES = 10 * SEGMENT - (8 + 14 + TCP_HEADERS);
const WRITES = 20;
const FILE_BYTES = 4 * 1024 * 1024;
const ECHO_PORT = 7777;

/** Writes once all of the write before has come back. */
const WRITER = `
const [address, port, bytes, writes] = process.argv.slice(1);
const socket = require('node:net').connect({ host: address, port: Number(port), noDelay: true });
let left = Number(writes);
let missing = 0;
const write = () => {
  if (left-- === 0) return socket.destroy();
  missing = Number(bytes);
  socket.write(Buffer.alloc(missing));
};
socket.on('connect', write).on('data', (data) => {
  missing -= data.length;
  if (missing === 0) write();
});`;

async function retransmitted(topology: Topology, place: Place): Promise<number> {
  const { stdout } = await topology.exec(place, ['nstat', '-asz', 'TcpRetransSegs']);
  return Number(/^TcpRetransSegs +(\d+)/m.exec(stdout)?.[1]);
}

describe('a tunnel of the containers’ own, where this host cuts super-packets', () => {
  let topology: Topology;
  let containers: readonly [LabContainer, LabContainer];
  let tunnels: readonly Tunnel[];

  before(async () => {
    topology = await Topology.create({ hosts: 2, containersPerHost: 1, underlay: 'wire', purpose: 'test' });
    const [one, other] = topology.hosts as [LabHost, LabHost];
    tunnels = [
      await Tunnel.start(topology, one, { peers: [{ host: other }] }),
      await Tunnel.start(topology, other, { peers: [{ host: one }] }),
    ];
    for (const host of topology.hosts) await attach(topology, host, MTU);
    containers = topology.containers as unknown as [LabContainer, LabContainer];
    await serveEcho(topology, containers[1]);
  });
  after(() => topology?.[Symbol.asyncDispose]());

  for (const checksum of ['noudpcsum', 'udpcsum']) {
    it(`VXLAN’s super-packets arrive as they were sent, with ${checksum}`, async () => {
      await using devices = new AsyncDisposableStack();
      for (const [index, container] of containers.entries()) {
        const [local, remote] = [addressOf(container), addressOf(containers[1 - index]!)];
        const vxlan = ['type', 'vxlan', 'id', '7', 'dstport', '4789', 'local', local, 'remote', remote, checksum];
        await topology.exec(container, ['ip', 'link', 'add', 'own0', ...vxlan, 'dev', CONTAINER_DEVICE]);
        devices.defer(async () => void (await topology.exec(container, ['ip', 'link', 'delete', 'own0'])));
        await topology.exec(container, ['ip', 'link', 'set', 'own0', 'mtu', String(INNER_MTU), 'up']);
        await topology.exec(container, ['ip', 'address', 'add', `172.31.0.${index + 1}/24`, 'dev', 'own0']);
      }
      await untilFastPathCarries(
        countersOf(tunnels),
        () => transfer(topology, containers[0], containers[1], FILE_BYTES),
        (carried) => assertFewer(carried, 'txReads', 60),
      );
      const words = ['172.31.0.2', ECHO_PORT, WRITE_BYTES, WRITES].map(String);
      // A busy machine may hold an acknowledgement back for long enough once.
      await eventuallyHolds(async () => {
        const before = await retransmitted(topology, containers[0]);
        await topology.exec(containers[0], [process.execPath, '-e', WRITER, ...words]);
        const more = (await retransmitted(topology, containers[0])) - before;
        assert.ok(more < WRITES / 4, `${more} segments of ${WRITES} writes sent again`);
      }, 20_000);
    });
  }
});
