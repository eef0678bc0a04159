import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import fc from 'fast-check';
import type { FastPathTables } from '../../src/dataplane/fast-path/fast-path-tables.ts';
import {
  DISTRUST_UNTIL,
  ENDPOINT_VALUE_BYTES,
  LONG_WAY_UNTIL,
  NEXT_TRIAL,
  TRIAL_PAUSE,
  UNANSWERED_SINCE,
  UNHEARD_SINCE,
  UNHEARD_SINCE_6,
  WAY_BACK_UNTIL,
  WHOLE_UNTIL,
  WHOLE_UNTIL_6,
} from '../../src/dataplane/fast-path/layout.ts';
import { encodeSign } from '../../src/dataplane/fast-path/sign.ts';
import { ipv4Of } from '../../src/ip/ipv4.ts';
import { parsePrefix6, prefix4 } from '../../src/ip/prefix.ts';
import type { BpfProgram } from '../../src/linux/bpf.ts';
import { ACK, address, aged, concat, ECE, FIN, payloadOf, SYN, tcpPacket, udpPacket } from '../fakes/packets.ts';
import { address6, icmp6Packet, ipv6Packet, optionsHeader, tcp6Packet, udp6Packet } from '../fakes/packets6.ts';
import {
  ETHERNET,
  NEXT,
  OWN,
  openProgramBench,
  PORT,
  type ProgramBench,
  QUESTION,
  REDIRECTED,
  runProgram,
  TAG,
  TAG_WHOLE,
} from '../fuzz/program-bench.ts';
import { eventuallyHolds } from './waiting.ts';

const PEERS = [
  { slot: 1, subnet: '10.244.2.0/24', publicIp: '192.168.77.2' },
  { slot: 2, subnet: '10.244.3.0/24', publicIp: '192.168.77.3' },
  // What a store may say of hosts that are hostile, or mistaken.
  { slot: 3, subnet: '0.0.0.0/0', publicIp: '192.168.77.5' },
  { slot: 4, subnet: '127.0.0.0/8', publicIp: '192.168.77.6' },
  { slot: 5, subnet: '10.244.7.0/24', publicIp: '192.168.77.1' },
  { slot: 6, subnet: '10.244.8.0/24', publicIp: '192.168.88.8' },
  { slot: 7, subnet: '10.244.9.0/24', publicIp: '192.168.77.9' },
].map(({ slot, subnet, publicIp }) => {
  const [base, length] = subnet.split('/');
  const ipv6 = slot < 3 ? parsePrefix6(`fd00:244:0:${slot + 1}::/64`) : undefined;
  return {
    slot,
    subnets: { ipv4: prefix4(ipv4Of(address(base!)), Number(length)), ipv6 },
    publicAddresses: { ipv4: ipv4Of(address(publicIp)), ipv6: undefined },
    port: PORT,
  };
});
/** Nothing has come from it by the socket. */
const UNHEARD = ipv4Of(address('192.168.77.9'));
/** Destinations that are not in this host's subnet; which of them its addresses are, the forwarder knows. */
const OTHERS = [
  ['for another peer’s container', '10.244.3.2'],
  ['for a container of its own', '10.244.2.2'],
  ['for a subnet that nobody has', '10.244.0.255'],
  ['for the subnet beyond', '10.244.2.0'],
  ['for an address of this host', '192.168.77.1'],
  ['for the internet', '203.0.113.7'],
  ['for loopback', '127.0.0.1'],
  ['for a link-local address', '169.254.169.254'],
] as const;
const PORTS = { sourcePort: 1, destinationPort: 2 };
const OWN_CONTAINER = address('10.244.1.2');
/** In nanoseconds. */
const MS = 1_000_000n;

interface Datagram {
  readonly outerSource: string;
  readonly outerDestination?: string;
  readonly mark?: number;
  readonly mayFragment?: boolean;
  readonly withoutChecksum?: boolean;
  readonly port?: number;
  readonly ttl?: number;
  readonly inner: Uint8Array;
}

function datagram({
  outerSource,
  outerDestination,
  mark,
  mayFragment,
  withoutChecksum,
  port,
  ttl,
  inner,
}: Datagram): Uint8Array {
  const outer = udpPacket({
    ip: {
      source: address(outerSource),
      destination: outerDestination === undefined ? OWN : address(outerDestination),
      id: mark ?? TAG,
      dontFragment: mayFragment !== true,
      ttl: ttl ?? 64,
    },
    sourcePort: PORT,
    destinationPort: port ?? PORT,
    withoutChecksum: withoutChecksum ?? true,
    payload: inner,
  });
  return concat(ETHERNET, outer);
}

const with_ = (packet: Uint8Array, at: number, ...bytes: number[]): Uint8Array => {
  const copy = packet.slice();
  copy.set(bytes, at);
  return copy;
};

function inner(
  source: string,
  options: { ttl?: number; options?: Uint8Array; moreFragments?: boolean; destination?: number } = {},
): Uint8Array {
  return tcpPacket({
    ip: { source: address(source), destination: address('10.244.1.2'), ...options },
    sourcePort: 1,
    destinationPort: 2,
    payload: payloadOf(100),
  });
}

describe('the inbound program', () => {
  let bench: ProgramBench;
  let tables: FastPathTables;
  let program: BpfProgram;
  let unchecked: BpfProgram;
  let acknowledgements: BpfProgram;

  before(async () => {
    bench = await openProgramBench();
    ({ tables } = bench);
    ({ unchecked } = bench);
    ({ beyond: program, host: acknowledgements } = bench.programs);
    tables.publish({
      ipv4: {
        network: prefix4(ipv4Of(address('10.244.0.0')), 16),
        own: prefix4(ipv4Of(address('10.244.1.0')), 24),
      },
      ipv6: { network: parsePrefix6('fd00:244::/48')!, own: parsePrefix6('fd00:244:0:1::/64')! },
      mtu: 1472,
      peers: PEERS,
    });
    for (const { ipv4 } of PEERS.map((peer) => peer.publicAddresses)) if (ipv4 !== UNHEARD) bench.grant(ipv4);
  });
  after(() => bench?.[Symbol.asyncDispose]());

  it('takes the outer headers off, and makes the packet one TTL older', () => {
    for (const [mark, source, outerSource] of [
      [TAG, '10.244.2.9', '192.168.77.2'],
      [TAG + 40, '10.244.3.1', '192.168.77.3'],
      [TAG_WHOLE, '10.244.2.0', '192.168.77.2'],
    ] as const) {
      const packet = inner(source);
      const { verdict, packet: left } = runProgram(program, datagram({ outerSource, mark, inner: packet }));
      assert.equal(verdict, REDIRECTED);
      assert.deepEqual(left, concat(ETHERNET, aged(packet, 1)));
    }
  });

  it('counts what it takes', () => {
    const before = tables.read(1).rx;
    const packet = inner('10.244.2.9');
    runProgram(program, datagram({ outerSource: '192.168.77.2', inner: packet }));
    const { packets, bytes } = tables.read(1).rx;
    assert.deepEqual([packets - before.packets, bytes - before.bytes], [1, packet.length]);
  });

  describe('what it learns', () => {
    const sender = ipv4Of(address('192.168.77.2'));
    const key = Uint8Array.from([192, 168, 77, 2]);
    const state = (): DataView => {
      const value = new Uint8Array(ENDPOINT_VALUE_BYTES);
      assert.ok(tables.maps.endpoints.lookup(key, value) >= 0);
      return new DataView(value.buffer);
    };
    /** As if super-packets had been sent and nothing been heard. */
    const forget = (): void => {
      const value = new DataView(new ArrayBuffer(ENDPOINT_VALUE_BYTES));
      for (const field of [UNANSWERED_SINCE, UNHEARD_SINCE, NEXT_TRIAL, TRIAL_PAUSE])
        value.setBigUint64(field, 7n, true);
      tables.maps.endpoints.update(key, new Uint8Array(value.buffer));
    };
    const learned = (): Record<string, boolean> => {
      const view = state();
      const at = (field: number): bigint => view.getBigUint64(field, true);
      return {
        heard: at(UNHEARD_SINCE) === 0n,
        whole: at(WHOLE_UNTIL) !== 0n && at(UNANSWERED_SINCE) === 0n && at(TRIAL_PAUSE) === 0n,
        distrusts: at(DISTRUST_UNTIL) !== 0n,
      };
    };
    const NOTHING = { heard: false, whole: false, distrusts: false };
    const from = (details: Partial<Datagram> = {}): Uint8Array =>
      datagram({ outerSource: '192.168.77.2', inner: inner('10.244.2.9'), ...details });

    for (const [what, packet, expected] of [
      ['the tag it gave: the peer is heard', () => from({ mark: TAG }), { ...NOTHING, heard: true }],
      [
        'the other one: our super-packets arrive',
        () => from({ mark: TAG_WHOLE }),
        { ...NOTHING, heard: true, whole: true },
      ],
      ['a segment of a super-packet that was cut: nothing', () => from({ mark: TAG + 9 }), NOTHING],
      [
        'another identification, as a middlebox may write: nothing',
        () => from({ mark: 7 }),
        { ...NOTHING, distrusts: true },
      ],
      ['the marks of earlier versions: nothing', () => from({ mark: 0x5780 }), { ...NOTHING, distrusts: true }],
      ['a datagram that may be fragmented: nothing', () => from({ mark: TAG_WHOLE, mayFragment: true }), NOTHING],
      ['one with a checksum: nothing', () => from({ mark: TAG_WHOLE, withoutChecksum: false }), NOTHING],
      ['one with zeros inside: nothing', () => from({ mark: TAG_WHOLE, inner: new Uint8Array(20) }), NOTHING],
      ['one of seven bytes: nothing', () => from({ mark: TAG_WHOLE, inner: new Uint8Array(7) }), NOTHING],
      ['a UDP length that does not fit: nothing', () => with_(from({ mark: TAG_WHOLE }), 38, 0, 9), NOTHING],
      ['an inner length that does not: nothing', () => with_(from({ mark: TAG_WHOLE }), 44, 0, 60), NOTHING],
      ['a container of somebody else: nothing', () => from({ mark: TAG_WHOLE, inner: inner('10.244.3.9') }), NOTHING],
    ] as const) {
      it(`from ${what}`, () => {
        forget();
        runProgram(program, packet());
        assert.deepEqual(learned(), expected);
      });
    }

    it('nothing right from who has just been wrong: the tag cannot be found by trying', () => {
      forget();
      runProgram(program, from({ mark: 1 }));
      runProgram(program, from({ mark: TAG_WHOLE }));
      assert.deepEqual(learned(), { ...NOTHING, distrusts: true });
    });

    it('nothing without a grant of the agent', () => {
      forget();
      tables.maps.grants.remove(key);
      const packet = from({ mark: TAG_WHOLE });
      assert.equal(runProgram(program, packet).verdict, NEXT);
      assert.deepEqual(learned(), NOTHING);
      bench.grant(sender);
    });
  });

  it('notes of what is for the socket whether the way back leads through the device', () => {
    const noted = (text: string): boolean => {
      const key = Uint8Array.from(text.split('.').map(Number));
      const value = new Uint8Array(ENDPOINT_VALUE_BYTES);
      tables.maps.endpoints.update(key, value);
      runProgram(program, datagram({ outerSource: text, withoutChecksum: false, inner: inner('10.244.2.9') }));
      tables.maps.endpoints.lookup(key, value);
      return new DataView(value.buffer).getBigUint64(WAY_BACK_UNTIL, true) > 0n;
    };
    assert.deepEqual(['192.168.77.2', '192.168.77.9', '192.168.88.8'].map(noted), [true, true, false]);
  });

  it('asks routing anew when the way back to a peer leads elsewhere', async () => {
    const packet = datagram({ outerSource: '192.168.77.3', inner: inner('10.244.3.9') });
    await bench.ip('route', 'add', '192.168.77.3/32', 'dev', 'eth1');
    // What it has been told of the way back holds for a while.
    await eventuallyHolds(async () => assert.equal(runProgram(program, packet).verdict, NEXT));
    await bench.ip('route', 'del', '192.168.77.3/32', 'dev', 'eth1');
    assert.equal(runProgram(program, packet).verdict, REDIRECTED);
  });

  const peer = '192.168.77.2';
  const good = (): Uint8Array => inner('10.244.2.9');
  const padded = (packet: Uint8Array): Uint8Array => concat(packet, new Uint8Array(4));
  const CASES: readonly (readonly [string, () => Uint8Array])[] = [
    ['what may be fragmented', () => datagram({ outerSource: peer, mayFragment: true, inner: good() })],
    ['a frame for another MAC address', () => with_(datagram({ outerSource: peer, inner: good() }), 0, 2)],
    ['a broadcast', () => with_(datagram({ outerSource: peer, inner: good() }), 0, ...new Array(6).fill(255))],
    ['our own address', () => datagram({ outerSource: '192.168.77.1', inner: inner('10.244.7.9') })],
    [
      'a peer that is not behind this device',
      () => datagram({ outerSource: '192.168.88.8', inner: inner('10.244.8.9') }),
    ],
    [
      'a peer that the socket has not heard from',
      () => datagram({ outerSource: '192.168.77.9', inner: inner('10.244.9.9') }),
    ],
    ['a subnet that is everything', () => datagram({ outerSource: '192.168.77.5', inner: inner('10.1.2.3') })],
    ['a subnet outside the network', () => datagram({ outerSource: '192.168.77.6', inner: inner('127.0.0.1') })],
    ['a first byte of 0', () => datagram({ outerSource: peer, inner: with_(good(), 0, 0) })],
    ['a UDP checksum', () => datagram({ outerSource: peer, withoutChecksum: false, inner: good() })],
    ['an address that is no peer’s', () => datagram({ outerSource: '192.168.77.4', inner: good() })],
    ['another peer’s container', () => datagram({ outerSource: peer, inner: inner('10.244.3.9') })],
    ['a container of the receiver', () => datagram({ outerSource: peer, inner: inner('10.244.1.9') })],
    ['the peer’s own address', () => datagram({ outerSource: peer, inner: inner(peer) })],
    ...OTHERS.map(
      ([what, to]) =>
        [
          what,
          () => datagram({ outerSource: peer, inner: inner('10.244.2.9', { destination: address(to) }) }),
        ] as const,
    ),
    ['another port', () => datagram({ outerSource: peer, port: 8472, inner: good() })],
    ['another destination', () => datagram({ outerSource: peer, outerDestination: '192.168.77.9', inner: good() })],
    ['an inner TTL that ends here', () => datagram({ outerSource: peer, inner: inner('10.244.2.9', { ttl: 1 }) })],
    [
      'inner options',
      () => datagram({ outerSource: peer, inner: inner('10.244.2.9', { options: new Uint8Array(4) }) }),
    ],
    ['an inner fragment', () => datagram({ outerSource: peer, inner: inner('10.244.2.9', { moreFragments: true }) })],
    ['bytes behind the inner packet', () => datagram({ outerSource: peer, inner: padded(good()) })],
    ['bytes behind the outer one', () => padded(datagram({ outerSource: peer, inner: good() }))],
    ['a wrong outer header checksum', () => with_(datagram({ outerSource: peer, inner: good() }), 14 + 10, 1, 2)],
    ['a UDP length that does not fit', () => with_(datagram({ outerSource: peer, inner: good() }), 14 + 20 + 4, 0, 9)],
    ['IPv6 inside', () => datagram({ outerSource: peer, inner: with_(good(), 0, 0x60) })],
    [
      'IPv6 inside that has a 5 where IPv4 has its length',
      () => datagram({ outerSource: peer, inner: with_(good(), 0, 0x65) }),
    ],
    ['no room for an inner header', () => datagram({ outerSource: peer, inner: good().slice(0, 12) })],
    ['ARP', () => with_(datagram({ outerSource: peer, inner: good() }), 12, 8, 6)],
  ];
  for (const [what, packet] of CASES) {
    it(`leaves to the forwarder: ${what}`, () => {
      const before = packet();
      const { verdict, packet: left } = runProgram(program, before);
      assert.equal(verdict, NEXT);
      assert.deepEqual(left, before);
    });
  }

  it('takes what is for anybody with --destination-check=off', () => {
    for (const [, to] of OTHERS) {
      const packet = inner('10.244.2.9', { destination: address(to) });
      const { verdict, packet: left } = runProgram(unchecked, datagram({ outerSource: peer, inner: packet }));
      assert.equal(verdict, REDIRECTED);
      assert.deepEqual(left, concat(ETHERNET, aged(packet, 1)));
    }
  });

  describe('of IPv6 inside', () => {
    const SOURCE = 'fd00:244:0:2::9';
    const DESTINATION = 'fd00:244:0:1::2';
    const between = (source = SOURCE, destination = DESTINATION, hopLimit = 64) => ({
      ...{ source: address6(source), destination: address6(destination), hopLimit },
    });
    const tcp6 = (source?: string, destination?: string, hopLimit?: number): Uint8Array =>
      tcp6Packet({ ip: between(source, destination, hopLimit), ...PORTS, payload: payloadOf(100) });
    const from = (packet: Uint8Array, outerSource = peer, mark = TAG): Uint8Array =>
      datagram({ outerSource, mark, inner: packet });

    it('takes the outer headers off, and makes the packet one hop older', () => {
      const udp = udp6Packet({ ip: between(), ...PORTS, payload: payloadOf(9) });
      for (const packet of [tcp6(), udp, icmp6Packet(between(), 128, 0, 1, payloadOf(56))]) {
        const before = tables.read(1).rx;
        const { verdict, packet: left } = runProgram(program, from(packet));
        assert.equal(verdict, REDIRECTED);
        assert.deepEqual(left, concat(ETHERNET, with_(packet, 7, 63)));
        const { packets, bytes } = tables.read(1).rx;
        assert.deepEqual([packets - before.packets, bytes - before.bytes], [1, packet.length]);
      }
    });

    for (const [what, packet] of [
      ['another peer’s container', () => from(tcp6('fd00:244:0:3::9'))],
      ['a container of the receiver', () => from(tcp6('fd00:244:0:1::9'))],
      ['a subnet that nobody has', () => from(tcp6('fd00:244:0:9::9'))],
      ['an address outside the network', () => from(tcp6('2001:db8::9'))],
      ['loopback', () => from(tcp6('::1'))],
      ['the right container, but another host', () => from(tcp6(), '192.168.77.3')],
      ['for another peer’s container', () => from(tcp6(SOURCE, 'fd00:244:0:3::2'))],
      ['for the subnet beyond', () => from(tcp6(SOURCE, 'fd00:244:0:2::'))],
      ['for one that differs in the last bit of the subnet', () => from(tcp6(SOURCE, 'fd00:244:0:0:ffff::2'))],
      ['for loopback', () => from(tcp6(SOURCE, '::1'))],
      ['for a link-local address', () => from(tcp6(SOURCE, 'fe80::1'))],
      ['for a group', () => from(tcp6(SOURCE, 'ff02::1'))],
      ['a hop limit that ends here', () => from(tcp6(SOURCE, DESTINATION, 1))],
      ['a hop limit of 0', () => from(tcp6(SOURCE, DESTINATION, 0))],
      ...[0, 43, 44, 50, 51, 60, 135].map(
        (header) =>
          [
            `extension header ${header}`,
            () =>
              from(ipv6Packet({ ...between(), extensions: [[header, optionsHeader()]], nextHeader: 6 }, payloadOf(40))),
          ] as const,
      ),
      ['another protocol', () => from(ipv6Packet({ ...between(), nextHeader: 132 }, payloadOf(40)))],
      ['bytes behind the inner packet', () => from(padded(tcp6()))],
      ['an inner length that is too long', () => from(with_(tcp6(), 4, 0xff, 0xff))],
      ['a jumbogram', () => from(with_(tcp6(), 4, 0, 0))],
      ['half a header', () => from(tcp6().slice(0, 39))],
      ['a header and nothing behind it', () => from(with_(tcp6().slice(0, 40), 4, 0, 1))],
    ] as const) {
      it(`leaves to the forwarder: ${what}`, () => {
        const before = packet();
        const { verdict, packet: left } = runProgram(program, before);
        assert.equal(verdict, NEXT);
        assert.deepEqual(left, before);
      });
    }

    it('learns from its tags of IPv6 alone', () => {
      const key = Uint8Array.from([192, 168, 77, 2]);
      const value = new DataView(new ArrayBuffer(ENDPOINT_VALUE_BYTES));
      for (const field of [UNHEARD_SINCE, UNHEARD_SINCE_6]) value.setBigUint64(field, 7n, true);
      tables.maps.endpoints.update(key, new Uint8Array(value.buffer));
      runProgram(program, from(tcp6(), peer, TAG_WHOLE));
      tables.maps.endpoints.lookup(key, new Uint8Array(value.buffer));
      const at = (field: number): bigint => value.getBigUint64(field, true);
      assert.deepEqual([at(UNHEARD_SINCE), at(WHOLE_UNTIL), at(UNHEARD_SINCE_6)], [7n, 0n, 0n]);
      assert.ok(at(WHOLE_UNTIL_6) > 0n);
    });
  });

  describe('where this host cuts super-packets', () => {
    const key = Uint8Array.from([192, 168, 77, 2]);
    /** Until when something of the peer may still be on its way through the forwarder. */
    const longWayUntil = (): bigint => {
      const value = new Uint8Array(ENDPOINT_VALUE_BYTES);
      assert.ok(tables.maps.endpoints.lookup(key, value) >= 0);
      return new DataView(value.buffer).getBigUint64(LONG_WAY_UNTIL, true);
    };
    const setLongWay = (until: bigint): void => {
      const value = new DataView(new ArrayBuffer(ENDPOINT_VALUE_BYTES));
      value.setBigUint64(LONG_WAY_UNTIL, until, true);
      tables.maps.endpoints.update(key, new Uint8Array(value.buffer));
    };
    const segment = (flags: number, bytes: number, options = new Uint8Array(12)): Uint8Array =>
      tcpPacket({
        ip: { source: address('10.244.2.9'), destination: address('10.244.1.2') },
        ...{ sourcePort: 1, destinationPort: 2, flags, options, payload: payloadOf(bytes) },
      });
    const received = (packet: Uint8Array, details: Partial<Datagram> = {}): Uint8Array =>
      datagram({ outerSource: peer, mark: 0, inner: packet, ...details });

    it('takes bare acknowledgements, with a mark or without', () => {
      for (const [packet, mark] of [
        [segment(ACK, 0), 0],
        [segment(ACK, 0, new Uint8Array(0)), TAG],
      ] as const) {
        const { verdict, packet: left } = runProgram(acknowledgements, received(packet, { mark }));
        assert.equal(verdict, REDIRECTED);
        assert.deepEqual(left, concat(ETHERNET, aged(packet, 1)));
      }
    });

    const ALONE: readonly (readonly [string, () => Uint8Array])[] = [
      ['data', () => segment(ACK, 1)],
      ['the end of a connection', () => segment(ACK | FIN, 0)],
      ['its beginning', () => segment(SYN, 0)],
      ['an acknowledgement with word of congestion', () => segment(ACK | ECE, 0)],
      ['UDP', () => udpPacket({ ip: { source: address('10.244.2.9'), destination: OWN_CONTAINER }, ...PORTS })],
    ];
    for (const [what, packet] of ALONE) {
      it(`takes what comes alone while nothing is on the way through the forwarder: ${what}`, () => {
        setLongWay(0n);
        const { verdict, packet: left } = runProgram(acknowledgements, received(packet()));
        assert.equal(verdict, REDIRECTED);
        assert.deepEqual(left, concat(ETHERNET, aged(packet(), 1)));
      });
      it(`leaves it behind what it would overtake: ${what}`, () => {
        setLongWay(1n << 62n);
        const before = received(packet());
        const { verdict, packet: left } = runProgram(acknowledgements, before);
        assert.equal(verdict, NEXT);
        assert.deepEqual(left, before);
      });
    }

    it('what the kernel has joined keeps that way for 0.1 s, a datagram alone for 2 ms', () => {
      const forSocket = received(segment(ACK, 100), { withoutChecksum: false });
      for (const [segmentSize, ms] of [
        [undefined, 2n],
        [60, 100n],
      ] as const) {
        setLongWay(0n);
        const earliest = process.hrtime.bigint() + ms * MS;
        assert.equal(runProgram(acknowledgements, forSocket, segmentSize).verdict, NEXT);
        assert.ok(longWayUntil() >= earliest && longWayUntil() <= process.hrtime.bigint() + ms * MS);
      }
      // The one that is alone does not shorten it.
      const until = longWayUntil();
      runProgram(acknowledgements, forSocket);
      assert.equal(longWayUntil(), until);
      runProgram(acknowledgements, received(segment(ACK, 0)));
      assert.equal(longWayUntil(), until, 'nor does what is taken here lengthen it');
    });

    it('a sign keeps nothing behind it: it is no data', () => {
      setLongWay(0n);
      const sign = encodeSign(QUESTION, ipv4Of(address('192.168.77.2')), OWN);
      assert.equal(runProgram(acknowledgements, received(sign, { withoutChecksum: false })).verdict, NEXT);
      assert.equal(longWayUntil(), 0n);
    });

    for (const [what, packet] of [
      ['what has a UDP checksum', () => received(segment(ACK, 0), { withoutChecksum: false })],
      [
        'an acknowledgement for another peer',
        () =>
          received(
            tcpPacket({
              ip: { source: address('10.244.2.9'), destination: address('10.244.3.2') },
              ...{ ...PORTS, flags: ACK, options: new Uint8Array(12) },
            }),
          ),
      ],
      ['what a stranger sends', () => received(segment(ACK, 0), { outerSource: '192.168.77.4' })],
    ] as const) {
      it(`leaves to the forwarder: ${what}`, () => {
        setLongWay(0n);
        const before = packet();
        const { verdict, packet: left } = runProgram(acknowledgements, before);
        assert.equal(verdict, NEXT);
        assert.deepEqual(left, before);
      });
    }
  });

  it('changes a packet only to hand over what a peer may send (property)', () => {
    const original = datagram({ outerSource: peer, inner: good() });
    const mutation = fc.record({ at: fc.nat(original.length - 1), value: fc.nat(255) });
    let taken = 0;
    fc.assert(
      fc.property(
        fc.array(mutation, { maxLength: 3 }),
        fc.integer({ min: 34, max: original.length }),
        fc.boolean(),
        (mutations, length, isCut) => {
          const packet = original.slice(0, isCut ? length : original.length);
          for (const { at, value } of mutations) if (at < packet.length) packet[at] = value;
          const { verdict, packet: left } = runProgram(program, packet);
          if (verdict === NEXT) return assert.deepEqual(left, packet);
          assert.equal(verdict, REDIRECTED);
          taken++;
          const ip = packet.slice(14);
          const view = new DataView(ip.buffer);
          assert.equal(ip.length, view.getUint16(2));
          assert.equal(view.getUint32(16), OWN);
          const owner = PEERS.find(({ publicAddresses }) => publicAddresses.ipv4 === view.getUint32(12));
          assert.ok(owner !== undefined && (view.getUint32(28 + 12) & 0xffffff00) >>> 0 === owner.subnets.ipv4.addr);
          assert.equal(view.getUint16(26), 0);
          assert.equal(view.getUint32(28 + 16) >>> 8, 0x0af401, 'for a container of this host');
          assert.equal(left.length, packet.length - 28);
          // All but TTL and header checksum is as it was.
          const [came, went] = [ip.slice(28), left.slice(14)];
          assert.equal(went[8], came[8]! - 1);
          for (const bytes of [came, went]) bytes.fill(0, 8, 9).fill(0, 10, 12);
          assert.deepEqual(went, came);
        },
      ),
      { numRuns: 5_000 },
    );
    assert.ok(taken > 100, `${taken} taken`);
  });
});
