import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import type { DropReasonName } from '../../src/dataplane/drop-reason.ts';
import { SOURCE_CHECKS, type SourceCheck } from '../../src/dataplane/source-check.ts';
import { formatIpv4 } from '../../src/ip/ipv4.ts';
import { type LabHost, Topology } from '../../src/lab/topology.ts';
import { address, udpPacket } from '../fakes/packets.ts';
import { udpArrivals, withoutReversePathFilter } from './arrivals.ts';
import { addressOf } from './overlay.ts';
import { attach, PORT, Tunnel } from './tunnel.ts';
import { eventually, type LineFeed } from './waiting.ts';

const LISTENER_PORT = 7000;

interface Case {
  readonly what: string;
  /** Index of the host that sends the datagram: 1 and 2 are peers, 3 is not. */
  readonly sender: number;
  readonly innerSource: string;
  /** What becomes of it; `undefined` is: it arrives. */
  readonly drop: Readonly<Record<SourceCheck, DropReasonName | undefined>>;
}

const everywhere = (reason: DropReasonName | undefined) => ({ loose: reason, strict: reason, off: undefined });

const CASES: readonly Case[] = [
  { what: 'a container of the peer', sender: 1, innerSource: '10.244.2.9', drop: everywhere(undefined) },
  { what: 'the base address of the peer’s subnet', sender: 1, innerSource: '10.244.2.0', drop: everywhere(undefined) },
  { what: 'another peer’s container', sender: 1, innerSource: '10.244.3.9', drop: everywhere('spoofed-source') },
  { what: 'a container of the receiver', sender: 1, innerSource: '10.244.1.9', drop: everywhere('spoofed-source') },
  { what: 'a subnet that nobody has', sender: 2, innerSource: '10.244.77.9', drop: everywhere('spoofed-source') },
  { what: 'the peer’s own address', sender: 1, innerSource: '192.168.77.2', drop: everywhere(undefined) },
  {
    what: 'another host’s address',
    sender: 1,
    innerSource: '192.168.77.3',
    drop: { loose: undefined, strict: 'foreign-source', off: undefined },
  },
  {
    what: 'an address of the internet',
    sender: 2,
    innerSource: '192.0.2.1',
    drop: { loose: undefined, strict: 'foreign-source', off: undefined },
  },
  {
    what: 'a stranger as a peer’s container',
    sender: 3,
    innerSource: '10.244.2.9',
    drop: everywhere('unknown-source'),
  },
  { what: 'a stranger under its own name', sender: 3, innerSource: '192.168.77.4', drop: everywhere('unknown-source') },
];

describe('source check of received datagrams', () => {
  let topology: Topology;
  let receiver: LabHost;
  let arrivals: LineFeed;

  before(async () => {
    topology = await Topology.create({ hosts: 4, containersPerHost: 1, purpose: 'test' });
    receiver = topology.hosts[0]!;
    await withoutReversePathFilter(topology, receiver);
    await attach(topology, receiver, 1472);
    // Answers to made-up senders would only be noise.
    arrivals = await udpArrivals(topology, receiver.containers[0]!, LISTENER_PORT);
  });
  after(() => topology?.[Symbol.asyncDispose]());

  /** One datagram with one inner packet, sent from the underlay address of a host and flannel's port. */
  async function send(from: LabHost, innerSource: string, text: string): Promise<void> {
    const packet = udpPacket({
      ip: { source: address(innerSource), destination: address(addressOf(receiver.containers[0]!)) },
      sourcePort: 5000,
      destinationPort: LISTENER_PORT,
      payload: Buffer.from(`${text}\n`),
    });
    const target = `UDP4-SENDTO:${formatIpv4(receiver.address)}:${PORT},bind=${formatIpv4(from.address)}:${PORT}`;
    await topology.exec(from, ['socat', '-u', 'STDIN', target], { stdin: packet });
  }

  for (const mode of SOURCE_CHECKS) {
    it(mode, async () => {
      await using tunnel = await Tunnel.start(topology, receiver, {
        peers: [{ host: topology.hosts[1]! }, { host: topology.hosts[2]! }],
        sourceCheck: mode,
      });
      const expected: Record<string, Record<string, number>> = { '1': {}, '2': {}, nobody: {} };
      const passed: Record<string, number> = { '1': 0, '2': 0, nobody: 0 };
      for (const [index, { sender, innerSource, drop }] of CASES.entries()) {
        await send(topology.hosts[sender]!, innerSource, `${mode} ${index}`);
        const account = sender === 3 ? 'nobody' : String(sender);
        const reason = drop[mode];
        if (reason === undefined) passed[account]!++;
        else expected[account]![reason] = (expected[account]![reason] ?? 0) + 1;
      }
      const counters = await eventually('all are accounted for', async () => {
        const { peers, nobody } = await tunnel.counters();
        const accounts = [...peers.map(({ received }) => received), nobody.received];
        const counted = accounts.flatMap(({ packets, drops }) => [packets, ...Object.values(drops)]);
        return counted.reduce((sum, count) => sum + count, 0) >= CASES.length
          ? { '1': accounts[0]!, '2': accounts[1]!, nobody: accounts[2]! }
          : undefined;
      });
      for (const [account, { packets, drops }] of Object.entries(counters)) {
        assert.deepEqual(drops, expected[account], `${mode}: what ${account} was refused`);
        assert.equal(packets, passed[account], `${mode}: packets of ${account} that passed`);
      }
      const wanted = CASES.flatMap(({ drop }, index) => (drop[mode] === undefined ? [`${mode} ${index}`] : []));
      for (const text of wanted) await arrivals.find((line) => line === text);
      const arrived = arrivals.seen.map(({ text }) => text).filter((text) => text.startsWith(`${mode} `));
      assert.deepEqual(arrived.toSorted(), wanted.toSorted(), `${mode}: exactly these arrive at the container`);
    });
  }
});
