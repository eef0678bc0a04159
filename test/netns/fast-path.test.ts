import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { formatIpv4 } from '../../src/ip/ipv4.ts';
import type { Underlay } from '../../src/lab/namespaces.ts';
import { type LabContainer, type LabHost, type Place, Topology } from '../../src/lab/topology.ts';
import { RUNTIME_FLAGS } from '../../src/runtime-flags.ts';
import { address, udpPacket } from '../fakes/packets.ts';
import { udpArrivals, withoutReversePathFilter } from './arrivals.ts';
import { assertFewer, type Carried, countersOf, transfer, untilFastPathCarries } from './fast-path-use.ts';
import { addressOf, ping } from './overlay.ts';
import { attach, OVERHEAD, PORT, Tunnel, type TunnelCounters, type TunnelSettings } from './tunnel.ts';
import { eventually, eventuallyHolds, LineFeed } from './waiting.ts';

const MTU = 1500 - OVERHEAD;
const FILE_BYTES = 64 * 1024 * 1024;
const CUT_FILE_BYTES = 16 * 1024 * 1024;
const SMALL_FILE_BYTES = 4 * 1024 * 1024;
const LISTENER_PORT = 7000;
const SEGMENT_PORT = 7001;
const ONE_WAY_PORT = 7002;
const MIXED_PORT = 7003;
const SEGMENT_BYTES = 1_400;
/** A container's TTL of 64 less four routings: two by the kernels, one by each forwarder. */
const TTL_ON_ARRIVAL = 60;

const ATTACHED = /^weft tunnel: Packets take the fast path in the kernel/;
const REFUSED = /^weft tunnel: All packets pass through the forwarder, because there is no fast path in the kernel: /;

/** From `nstat`'s source; of the namespace's kernel, all devices together. */
async function udpChecksumErrors(topology: Topology, place: Place): Promise<number> {
  const { stdout } = await topology.exec(place, ['cat', '/proc/net/snmp']);
  const [names, values] = stdout.split('\n').filter((line) => line.startsWith('Udp:'));
  const at = names!.split(' ').indexOf('InCsumErrors');
  assert.ok(at > 0, stdout);
  return Number(values!.split(' ')[at]);
}

/** Hosts 1 … n with a tunnel each to all others, and a container each. */
async function meshOf(
  hosts: number,
  underlay: Underlay,
  settings: (host: LabHost) => Partial<TunnelSettings>,
): Promise<{ topology: Topology; tunnels: Tunnel[] }> {
  const topology = await Topology.create({ hosts, containersPerHost: 1, underlay, purpose: 'test' });
  try {
    const tunnels: Tunnel[] = [];
    for (const host of topology.hosts) {
      const peers = topology.hosts.filter((other) => other !== host).map((other) => ({ host: other }));
      tunnels.push(await Tunnel.start(topology, host, { peers, ...settings(host) }));
      await attach(topology, host, MTU);
    }
    return { topology, tunnels };
  } catch (error) {
    await topology[Symbol.asyncDispose]();
    throw error;
  }
}

/** Lines that are a datagram each. */
const numbered = (count: number): string[] =>
  Array.from({ length: count }, (_, index) => `${index}`.padEnd(SEGMENT_BYTES - 1, '.').concat('\n'));

function segmentSender(to: LabContainer, port: number, ...counts: string[]): string[] {
  const script = fileURLToPath(new URL('udp-segment-sender.ts', import.meta.url));
  return [
    ...[process.execPath, ...RUNTIME_FLAGS, script],
    ...[addressOf(to), `${port}`, `${SEGMENT_BYTES}`, ...counts],
  ];
}

/** Super-packets and single packets in turn: the single ones, which have the shorter way, may not overtake. */
async function keepsOrder(topology: Topology, port = MIXED_PORT): Promise<void> {
  const [from, to] = topology.containers as readonly LabContainer[];
  const lines = numbered(210);
  const feed = await udpArrivals(topology, to!, port);
  await topology.exec(from!, segmentSender(to!, port, '20,1'), { stdin: lines.join('') });
  await eventually('all datagrams arrive', () => feed.mark >= lines.length || undefined);
  const arrived = feed.seen.map(({ text }) => Number.parseInt(text, 10));
  const isSingle = (index: number): boolean => index % 21 === 20;
  const segments = arrived.filter((index) => !isSingle(index));
  assert.deepEqual(
    segments,
    segments.toSorted((a, b) => a - b),
  );
  for (const single of arrived.filter(isSingle)) {
    const later = arrived.slice(arrived.indexOf(single)).filter((index) => index < single && !isSingle(index));
    assert.deepEqual(later, [], `${single} has overtaken`);
  }
}

/**
 * 100 datagrams, 20 a system call, from the first host to the second by the fast path, once TCP has shown that it is open; none
 * may be lost or overtake another.
 */
async function carriesSegments(
  topology: Topology,
  tunnels: readonly Tunnel[],
  [from, to]: readonly LabContainer[],
): Promise<void> {
  const lines = numbered(100);
  const feed = await udpArrivals(topology, to!, SEGMENT_PORT);
  const sender = segmentSender(to!, SEGMENT_PORT);
  const look = countersOf(tunnels.slice(0, 1));
  let before: readonly TunnelCounters[] = [];
  let mark = 0;
  await untilFastPathCarries(
    look,
    async () => {
      await transfer(topology, from!, to!, SMALL_FILE_BYTES);
      before = await look();
      mark = feed.mark;
      await topology.exec(from!, sender, { stdin: lines.join('') });
      await eventually('100 datagrams arrive', () => feed.mark >= mark + lines.length || undefined);
    },
    ({ after }) => {
      assert.ok(after[0]!.peers[0]!.sent.packets - before[0]!.peers[0]!.sent.packets >= 100);
      assertFewer({ before, after }, 'txReads', 5);
    },
  );
  assert.deepEqual(
    feed.seen.slice(mark).map(({ text }) => `${text}\n`),
    lines,
  );
}

/** A hundred pings, while signs alone pass the forwarders. */
async function carriesRoundTrips(topology: Topology, tunnels: readonly Tunnel[]): Promise<void> {
  const [a, b] = topology.containers as readonly LabContainer[];
  await untilFastPathCarries(
    countersOf(tunnels),
    async () => {
      const { ok, output } = await ping(topology, a!, addressOf(b!), '-c', '100', '-i', '0.01');
      assert.ok(ok, output);
    },
    (carried) => {
      assertFewer(carried, 'txReads', 20);
      assertFewer(carried, 'rxReceives', 20);
    },
  );
}

/** One host's packets out are the other's packets in, however they went; once none is on its way any more. */
async function countTheSame([one, other]: readonly Tunnel[]): Promise<void> {
  await eventuallyHolds(async () => {
    const [first, second] = [(await one!.counters()).peers[0]!, (await other!.counters()).peers[0]!];
    for (const [sent, received] of [
      [first.sent, second.received],
      [second.sent, first.received],
    ] as const) {
      assert.deepEqual([sent.packets, sent.bytes], [received.packets, received.bytes]);
    }
  });
}

describe('the fast path where super-packets arrive in one piece', () => {
  let topology: Topology;
  let tunnels: Tunnel[];
  let containers: readonly LabContainer[];

  before(async () => {
    // The third has none, as an agent without CAP_BPF, or flannel.
    ({ topology, tunnels } = await meshOf(3, 'native', ({ index }) => ({ fastPath: index === 2 ? 'off' : 'auto' })));
    containers = topology.containers;
  });
  after(() => topology?.[Symbol.asyncDispose]());

  it('says so at the start, or says nothing when it is off', async () => {
    await tunnels[0]!.stderr.find((text) => ATTACHED.test(text));
    assert.deepEqual(
      tunnels[2]!.stderr.seen.map(({ text }) => text),
      [],
    );
  });

  it('carries TCP both ways past the forwarders, and counts it as they would', async () => {
    const [a, b] = [containers[0]!, containers[1]!];
    const { before, after } = await untilFastPathCarries(
      countersOf(tunnels.slice(0, 2)),
      async () => {
        await transfer(topology, a, b, FILE_BYTES);
        await transfer(topology, b, a, FILE_BYTES);
      },
      (carried) => {
        // A forwarder that carried the file would read a thousand super-packets at the least, and receive as many messages.
        assertFewer(carried, 'txReads', 500);
        assertFewer(carried, 'rxReceives', 500);
      },
    );
    for (const [index, counters] of after.entries()) {
      const { sent, received } = counters.peers[0]!;
      const [sentBefore, receivedBefore] = [before[index]!.peers[0]!.sent, before[index]!.peers[0]!.received];
      const packets = [sent.packets - sentBefore.packets, received.packets - receivedBefore.packets];
      const bytes = [sent.bytes - sentBefore.bytes, received.bytes - receivedBefore.bytes];
      assert.ok(Math.min(...packets) > FILE_BYTES / MTU, `${packets} packets`);
      assert.ok(Math.min(...bytes) > FILE_BYTES, `${bytes} bytes`);
      assert.deepEqual([sent.drops, received.drops], [{}, {}]);
    }
    await countTheSame(tunnels);
  });

  it("carries UDP's super-packets in order", async () => {
    await carriesSegments(topology, tunnels, containers);
  });

  it('carries a stream that goes one way alone', async () => {
    const [a, b] = [containers[0]!, containers[1]!];
    await using _receiver = await topology.start(b, ['socat', '-u', `UDP4-RECV:${ONE_WAY_PORT}`, '/dev/null']);
    const target = `UDP4-SENDTO:${addressOf(b)}:${ONE_WAY_PORT}`;
    const ticks = `exec socat -u STDIN ${target} < <(while :; do echo tick || exit; sleep 0.02; done)`;
    await using _sender = await topology.start(a, ['bash', '-c', ticks], { stdout: 'ignore' });
    const sentMore = async (packets: number): Promise<void> => {
      const from = (await tunnels[0]!.counters()).peers[0]!.sent.packets;
      await eventually(
        `${packets} packets more`,
        async () => (await tunnels[0]!.counters()).peers[0]!.sent.packets >= from + packets || undefined,
      );
    };
    // What was learned before has run out by then: it holds for two seconds.
    await sentMore(150);
    const { after } = await untilFastPathCarries(
      countersOf(tunnels.slice(0, 1)),
      () => sentMore(150),
      (carried) => assertFewer(carried, 'txReads', 30),
    );
    const { received } = after[0]!.peers[0]!;
    assert.deepEqual(received.drops, {}, 'signs are no packets');
  });

  it('ages packets as the forwarders do', async () => {
    for (const to of [containers[1]!, containers[2]!]) {
      const { ok, output } = await ping(topology, containers[0]!, addressOf(to));
      assert.ok(ok && output.includes(`ttl=${TTL_ON_ARRIVAL}`), output);
    }
  });

  it('leaves what must be answered to the forwarder', async () => {
    const { output } = await ping(topology, containers[0]!, addressOf(containers[1]!), '-t', '2');
    assert.match(output, /From 10\.244\.1\.0 .*Time to live exceeded/);
    await eventuallyHolds(async () => {
      assert.equal((await tunnels[0]!.counters()).peers[0]!.sent.drops['ttl-exceeded'], 1);
    });
  });

  it('passes fragments', async () => {
    const { ok, output } = await ping(topology, containers[0]!, addressOf(containers[1]!), '-M', 'dont', '-s', '6000');
    assert.ok(ok, output);
  });

  it('gives a peer without one datagrams it can read', async () => {
    await transfer(topology, containers[0]!, containers[2]!, FILE_BYTES);
    await transfer(topology, containers[2]!, containers[0]!, FILE_BYTES);
    const { peers, nobody } = await tunnels[2]!.counters();
    assert.deepEqual([peers[0]!.received.drops, nobody.received.drops], [{}, {}]);
    // Whole super-packets would be datagrams of 64 KB.
    const { packets, bytes } = peers[0]!.received;
    assert.ok(bytes / packets <= MTU, `${bytes} bytes in ${packets} packets`);
  });

  it('follows the underlay when its offloads are switched', async () => {
    const offloads = async (state: 'on' | 'off'): Promise<void> => {
      for (const [index, host] of topology.hosts.slice(0, 2).entries()) {
        const from = tunnels[index]!.stderr.mark;
        await topology.exec(host, ['ethtool', '-K', 'eth0', 'tx', state, 'tso', state]);
        const says = state === 'on' ? 'receive super-packets in one piece' : 'this host segments super-packets';
        await tunnels[index]!.stderr.find((text) => ATTACHED.test(text) && text.endsWith(says), from);
      }
    };
    await offloads('off');
    await transfer(topology, containers[0]!, containers[1]!, FILE_BYTES);
    await offloads('on');
    await transfer(topology, containers[1]!, containers[0]!, FILE_BYTES);
  });

  it('goes on with a peer that comes back without one', async () => {
    await transfer(topology, containers[0]!, containers[1]!, SMALL_FILE_BYTES);
    const [first, second, third] = topology.hosts as [LabHost, LabHost, LabHost];
    await tunnels[1]!.child[Symbol.asyncDispose]();
    await using _plain = await Tunnel.start(topology, second, {
      peers: [{ host: first }, { host: third }],
      fastPath: 'off',
    });
    await transfer(topology, containers[0]!, containers[1]!, SMALL_FILE_BYTES);
    await transfer(topology, containers[1]!, containers[0]!, SMALL_FILE_BYTES);
  });
});

describe('the fast path where this host cuts super-packets', () => {
  let topology: Topology;
  let tunnels: Tunnel[];

  before(async () => {
    ({ topology, tunnels } = await meshOf(2, 'wire', () => ({ fastPath: 'auto' })));
  });
  after(() => topology?.[Symbol.asyncDispose]());

  it('carries TCP both ways past the sending forwarder, in datagrams the receiving one can join', async () => {
    const [a, b] = [topology.containers[0]!, topology.containers[1]!];
    const { after } = await untilFastPathCarries(
      countersOf(tunnels),
      async () => {
        await transfer(topology, a, b, FILE_BYTES);
        await transfer(topology, b, a, FILE_BYTES);
      },
      (carried) => {
        assertFewer(carried, 'txReads', 500);
        assertJoined(carried);
      },
    );
    for (const [index, { peers }] of after.entries()) {
      assert.deepEqual([peers[0]!.sent.drops, peers[0]!.received.drops], [{}, {}]);
      assert.equal(await udpChecksumErrors(topology, topology.hosts[index]!), 0);
    }
    await countTheSame(tunnels);
  });

  it("carries UDP's super-packets in order", async () => {
    await carriesSegments(topology, tunnels, topology.containers);
    assert.equal(await udpChecksumErrors(topology, topology.hosts[1]!), 0);
  });

  it('carries round trips past both forwarders', async () => {
    await carriesRoundTrips(topology, tunnels);
  });

  /** UDP GRO joins only datagrams that have a checksum, and only if it is right. */
  function assertJoined({ before, after }: Carried<TunnelCounters>): void {
    for (const [index, { peers, totals }] of after.entries()) {
      const packets = peers[0]!.received.packets - before[index]!.peers[0]!.received.packets;
      const joined = totals.rxCoalesced! - before[index]!.totals.rxCoalesced!;
      assert.ok(joined / packets > 0.5, `host ${index + 1}: ${joined} of ${packets} packets joined`);
    }
  }
});

describe('the fast path where a switch cuts super-packets', () => {
  let topology: Topology;
  let tunnels: Tunnel[];

  before(async () => {
    ({ topology, tunnels } = await meshOf(2, 'switch', () => ({ fastPath: 'auto' })));
  });
  after(() => topology?.[Symbol.asyncDispose]());

  it('keeps the order of super-packets and single packets, also when none of TCP was tried yet', async () => {
    await carriesRoundTrips(topology, tunnels);
    await keepsOrder(topology, MIXED_PORT + 1);
  });

  it('carries round trips past both forwarders, also once super-packets were found cut', async () => {
    const [a, b] = [topology.containers[0]!, topology.containers[1]!];
    await transfer(topology, a, b, FILE_BYTES);
    await transfer(topology, b, a, FILE_BYTES);
    await carriesRoundTrips(topology, tunnels);
  });

  it('keeps the order of super-packets and single packets', async () => {
    await keepsOrder(topology);
  });
});

describe('the fast path where a switch cuts super-packets, and XDP takes what comes', () => {
  let topology: Topology;
  let tunnels: Tunnel[];

  before(async () => {
    ({ topology, tunnels } = await meshOf(2, 'switch', () => ({ fastPath: 'auto', fastPathIn: 'xdp' })));
  });
  after(() => topology?.[Symbol.asyncDispose]());

  it('carries TCP both ways past both forwarders', async () => {
    const [a, b] = [topology.containers[0]!, topology.containers[1]!];
    const { before, after } = await untilFastPathCarries(
      countersOf(tunnels),
      async () => {
        await transfer(topology, a, b, CUT_FILE_BYTES);
        await transfer(topology, b, a, CUT_FILE_BYTES);
      },
      (carried) => {
        // Each of them would read 256 super-packets at least, and receive as many messages of joined datagrams.
        assertFewer(carried, 'txReads', 64);
        assertFewer(carried, 'rxReceives', 64);
      },
    );
    for (const [index, { peers }] of after.entries()) {
      const packets = peers[0]!.received.packets - before[index]!.peers[0]!.received.packets;
      assert.ok(packets > CUT_FILE_BYTES / MTU, `${packets} packets`);
      assert.deepEqual([peers[0]!.sent.drops, peers[0]!.received.drops], [{}, {}]);
    }
    await countTheSame(tunnels);
  });

  it("carries UDP's super-packets in order", async () => {
    await carriesSegments(topology, tunnels, topology.containers);
  });

  it('keeps the order of super-packets and single packets', async () => {
    await keepsOrder(topology);
  });

  it('leaves super-packets to the forwarder as long as the device loses them, as a card with a fault in its offloads does', async () => {
    const [a, b] = [topology.containers[0]!, topology.containers[1]!];
    const [sender] = topology.hosts as [LabHost];
    const card = await topology.start(sender, [
      ...[process.execPath, ...RUNTIME_FLAGS],
      fileURLToPath(new URL('losing-card.ts', import.meta.url)),
    ]);
    await new LineFeed(card.stdout!).find((text) => text === 'ready');
    const carried = async (): Promise<number> => {
      const before = (await tunnels[0]!.counters()).totals.txReads!;
      await transfer(topology, a, b, CUT_FILE_BYTES);
      return (await tunnels[0]!.counters()).totals.txReads! - before;
    };
    const reads = await carried();
    assert.ok(reads > 128, `it has read ${reads} of 256 at least`);
    card.kill('SIGTERM');
    await card.exited;
    await eventuallyHolds(async () => assert.ok((await carried()) < 64));
  });

  it('leaves super-packets to the forwarder again when their receiver has no XDP any more', async () => {
    const [a, b] = [topology.containers[0]!, topology.containers[1]!];
    const [sender, receiver] = topology.hosts as [LabHost, LabHost];
    await tunnels[1]![Symbol.asyncDispose]();
    tunnels[1] = await Tunnel.start(topology, receiver, { peers: [{ host: sender }], fastPathIn: 'off' });
    await eventuallyHolds(async () => {
      const before = (await tunnels[0]!.counters()).totals.txReads!;
      await transfer(topology, a, b, CUT_FILE_BYTES);
      const reads = (await tunnels[0]!.counters()).totals.txReads! - before;
      assert.ok(reads > 128, `it has read ${reads} of 256 at least`);
    });
  });
});

describe('who may use the fast path', () => {
  let topology: Topology;
  let receiver: LabHost;
  let tunnel: Tunnel;
  let arrivals: LineFeed;

  before(async () => {
    topology = await Topology.create({ hosts: 4, containersPerHost: 1, purpose: 'test' });
    receiver = topology.hosts[0]!;
    await withoutReversePathFilter(topology, receiver);
    await attach(topology, receiver, MTU);
    arrivals = await udpArrivals(topology, receiver.containers[0]!, LISTENER_PORT);
    tunnel = await Tunnel.start(topology, receiver, {
      peers: [{ host: topology.hosts[1]! }, { host: topology.hosts[2]! }],
    });
  });
  after(() => topology?.[Symbol.asyncDispose]());

  /** A datagram as the fast path of a host would send it, but for what `innerSource` is. */
  async function send(from: LabHost, innerSource: string, text: string, withoutChecksum = true): Promise<void> {
    const inner = udpPacket({
      ip: { source: address(innerSource), destination: address(addressOf(receiver.containers[0]!)) },
      sourcePort: 5000,
      destinationPort: LISTENER_PORT,
      payload: Buffer.from(`${text}\n`),
    });
    const outer = udpPacket({
      ip: { source: from.address, destination: receiver.address, dontFragment: true },
      sourcePort: PORT,
      destinationPort: PORT,
      withoutChecksum,
      payload: inner,
    });
    // 255 is IPPROTO_RAW: the packet comes with its IP header.
    await topology.exec(from, ['socat', '-u', 'STDIN', `IP4-SENDTO:${formatIpv4(receiver.address)}:255`], {
      stdin: outer,
    });
  }

  /** Packets that have come from the first peer by whatever way, and datagrams that the forwarder has seen. */
  const seen = async (): Promise<readonly [packets: number, datagrams: number]> => {
    const { peers, totals } = await tunnel.counters();
    return [peers[0]!.received.packets, totals.rxDatagrams!];
  };

  it('a peer whose datagrams the socket receives, for packets of its own subnet', async () => {
    let round = 0;
    await eventuallyHolds(async () => {
      const name = `round ${++round}`;
      const [packets, datagrams] = await seen();
      await send(topology.hosts[1]!, '10.244.2.9', `${name} by the socket`, false);
      await arrivals.find((text) => text === `${name} by the socket`);
      await eventuallyHolds(async () => assert.deepEqual(await seen(), [packets + 1, datagrams + 1]));
      await send(topology.hosts[1]!, '10.244.2.9', `${name} past it`);
      await arrivals.find((text) => text === `${name} past it`);
      await eventuallyHolds(async () => assert.equal((await seen())[0], packets + 2));
      assert.equal((await seen())[1], datagrams + 1, 'the forwarder has not seen it');
    });
  });

  it('not a peer that the socket has received nothing from', async () => {
    const [, before] = await seen();
    await send(topology.hosts[2]!, '10.244.3.9', 'out of the blue');
    await arrivals.find((text) => text === 'out of the blue');
    await eventuallyHolds(async () => assert.equal((await seen())[1], before + 1));
  });

  for (const { what, sender, innerSource, reason } of [
    { what: 'a peer, as another', sender: 1, innerSource: '10.244.3.9', reason: 'spoofed-source' },
    { what: 'a peer, as the receiver', sender: 1, innerSource: '10.244.1.9', reason: 'spoofed-source' },
    { what: 'a stranger, as a peer', sender: 3, innerSource: '10.244.2.9', reason: 'unknown-source' },
  ] as const) {
    it(`not ${what}: the forwarder refuses it`, async () => {
      const account = ({ peers, nobody }: TunnelCounters) => (sender === 3 ? nobody : peers[0]!).received;
      const before = account(await tunnel.counters());
      await send(topology.hosts[sender]!, innerSource, what);
      await eventually('it is refused', async () => {
        const { drops } = account(await tunnel.counters());
        return drops[reason] === (before.drops[reason] ?? 0) + 1 || undefined;
      });
      assert.equal(account(await tunnel.counters()).packets, before.packets);
      await send(topology.hosts[1]!, '10.244.2.9', `after ${what}`);
      await arrivals.find((text) => text === `after ${what}`);
      assert.ok(!arrivals.seen.some(({ text }) => text === what));
    });
  }
});

describe('an agent without the right to load BPF programs', () => {
  /** Takes capabilities away for good: a program that is started may have those of this list at most. */
  const limitedTo = (capabilities: string): string[] => [
    ...['setpriv', '--bounding-set', `-all,${capabilities}`, '--inh-caps', `-all,${capabilities}`],
    ...[process.execPath, ...RUNTIME_FLAGS, new URL('../../src/cmd/weft/main.ts', import.meta.url).pathname],
  ];

  for (const { capabilities, says } of [
    { capabilities: '+net_admin,+net_raw', says: REFUSED },
    { capabilities: '+net_admin,+net_raw,+bpf', says: ATTACHED },
  ]) {
    it(`${capabilities}: ${says === ATTACHED ? 'has it all the same' : 'says so and carries packets'}`, async () => {
      const { topology, tunnels } = await meshOf(2, 'native', () => ({ weft: limitedTo(capabilities) }));
      await using _ = topology;
      const line = await tunnels[0]!.stderr.find((text) => text.startsWith('weft tunnel: '));
      assert.match(line.text, says);
      if (says === REFUSED) assert.match(line.text, /EPERM \[WEFT_FAST_PATH\].*CAP_BPF/);
      const [a, b] = [topology.containers[0]!, topology.containers[1]!];
      await transfer(topology, a, b, SMALL_FILE_BYTES);
    });
  }
});
