import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import {
  CUT_ARRIVED_AT,
  CUT_UNTIL,
  DISTRUST_UNTIL,
  ENDPOINT_VALUE_BYTES,
  NEXT_TO_SOCKET,
  TAG_CUT_ARRIVED,
  TAG_SUPER,
  UNANSWERED_SINCE,
  UNHEARD_SINCE,
} from '../../src/dataplane/fast-path/layout.ts';
import { encodeSign } from '../../src/dataplane/fast-path/sign.ts';
import { ipv4Of } from '../../src/ip/ipv4.ts';
import { parsePrefix6, prefix4 } from '../../src/ip/prefix.ts';
import { address, aged, concat, payloadOf, slowChecksum, tcpPacket, udpPacket } from '../fakes/packets.ts';
import { address6, icmp6Packet, tcp6Packet, udp6Packet } from '../fakes/packets6.ts';
import {
  ETHERNET,
  MARK,
  OWN,
  openProgramBench,
  PORT,
  type ProgramBench,
  runProgram,
  TAG,
  XDP_PASSED,
} from '../fuzz/program-bench.ts';

const PEER = ipv4Of(address('192.168.77.2'));
const FOREVER = 1n << 62n;
const ip = { source: address('10.244.2.9'), destination: address('10.244.1.2') };
const ports = { sourcePort: 1, destinationPort: 2 };

interface Outer {
  readonly source?: string;
  readonly withoutChecksum?: boolean;
  readonly mayFragment?: boolean;
  readonly port?: number;
  readonly tag?: number;
}

function datagram(inner: Uint8Array, { source, withoutChecksum, mayFragment, port, tag }: Outer = {}): Uint8Array {
  const outer = udpPacket({
    ip: {
      source: source === undefined ? PEER : address(source),
      destination: OWN,
      id: tag ?? TAG,
      dontFragment: !mayFragment,
    },
    ...{ sourcePort: PORT, destinationPort: port ?? PORT, withoutChecksum: withoutChecksum ?? false, payload: inner },
  });
  return concat(ETHERNET, outer);
}

function changed(packet: Uint8Array, at: number): Uint8Array {
  const copy = packet.slice();
  copy[at]! ^= 0x55;
  return copy;
}

const tcp = (bytes: number): Uint8Array => tcpPacket({ ip, ...ports, payload: payloadOf(bytes) });
const udp = (bytes: number): Uint8Array => udpPacket({ ip, ...ports, payload: payloadOf(bytes) });

const ip6 = { source: address6('fd00:244:0:2::9'), destination: address6('fd00:244:0:1::2') };
const tcp6 = (bytes: number): Uint8Array => tcp6Packet({ ip: ip6, ...ports, payload: payloadOf(bytes) });
const udp6 = (bytes: number): Uint8Array => udp6Packet({ ip: ip6, ...ports, payload: payloadOf(bytes) });
const icmp6 = (bytes: number): Uint8Array => icmp6Packet(ip6, 128, 0, 7, payloadOf(bytes));

/** An echo request, or whatever the protocol makes of it. */
function icmp(protocol = 1): Uint8Array {
  const packet = udpPacket({ ip, ...ports, payload: payloadOf(33) });
  packet[9] = protocol;
  packet.set([0, 0], 10);
  new DataView(packet.buffer).setUint16(10, slowChecksum(packet.subarray(0, 20)));
  packet.set([8, 0, 0, 0, 1, 2, 3, 4], 20);
  new DataView(packet.buffer).setUint16(22, slowChecksum(packet.subarray(20)));
  return packet;
}

describe('the program before GRO', () => {
  let bench: ProgramBench;
  const key = Uint8Array.from([192, 168, 77, 2]);

  before(async () => {
    bench = await openProgramBench();
    bench.tables.publish({
      ipv4: {
        network: prefix4(ipv4Of(address('10.244.0.0')), 16),
        own: prefix4(ipv4Of(address('10.244.1.0')), 24),
      },
      ipv6: { network: parsePrefix6('fd00:244::/48')!, own: parsePrefix6('fd00:244:0:1::/64')! },
      mtu: 1_472,
      peers: [
        {
          ...{ slot: 1, publicAddresses: { ipv4: PEER, ipv6: undefined }, port: PORT },
          subnets: {
            ipv4: prefix4(ipv4Of(address('10.244.2.0')), 24),
            ipv6: parsePrefix6('fd00:244:0:2::/64'),
          },
        },
      ],
    });
    bench.grant(PEER);
  });
  after(() => bench?.[Symbol.asyncDispose]());

  const field = (at: number): bigint => {
    const value = new Uint8Array(ENDPOINT_VALUE_BYTES);
    bench.tables.maps.endpoints.lookup(key, value);
    return new DataView(value.buffer).getBigUint64(at, true);
  };
  const put = (at: number, number: bigint): void => {
    const value = new DataView(new ArrayBuffer(ENDPOINT_VALUE_BYTES));
    value.setBigUint64(at, number, true);
    bench.tables.maps.endpoints.update(key, new Uint8Array(value.buffer));
  };
  /** The socket has had its share. */
  const nothingForSocket = (): void => put(NEXT_TO_SOCKET, FOREVER);
  function assertLeft(segmentation: 'beyond' | 'host', frame: Uint8Array): void {
    const { verdict, packet } = runProgram(bench.xdp[segmentation], frame);
    assert.equal(verdict, XDP_PASSED);
    assert.deepEqual(packet, frame);
  }
  function assertTaken(segmentation: 'beyond' | 'host', frame: Uint8Array, inner: Uint8Array): void {
    const { verdict, packet } = runProgram(bench.xdp[segmentation], frame);
    assert.equal(verdict, XDP_PASSED);
    assert.deepEqual(packet, concat(MARK, ETHERNET, aged(inner, 1)));
  }

  for (const segmentation of ['beyond', 'host'] as const) {
    it(`takes TCP, UDP and ICMP of every length from peers, with an outer checksum or without (${segmentation})`, () => {
      nothingForSocket();
      const lengths = [...Array.from({ length: 20 }, (_, bytes) => bytes), 255, 511, 512, 513, 1_023, 1_400, 3_000];
      const inner = [...lengths.flatMap((bytes) => [tcp(bytes), udp(bytes)]), icmp()];
      inner.push(udpPacket({ ip, ...ports, withoutChecksum: true, payload: payloadOf(9) }));
      for (const packet of inner) {
        for (const withoutChecksum of [true, false]) {
          assertTaken(segmentation, datagram(packet, { withoutChecksum }), packet);
        }
      }
    });

    it(`takes IPv6's TCP, UDP and ICMPv6 of every length as well (${segmentation})`, () => {
      nothingForSocket();
      const lengths = [...Array.from({ length: 20 }, (_, bytes) => bytes), 255, 511, 512, 513, 1_023, 1_400, 2_900];
      for (const inner of lengths.flatMap((bytes) => [tcp6(bytes), udp6(bytes), icmp6(bytes)])) {
        for (const withoutChecksum of [true, false]) {
          const { verdict, packet } = runProgram(bench.xdp[segmentation], datagram(inner, { withoutChecksum }));
          assert.equal(verdict, XDP_PASSED);
          const older = inner.slice();
          older[7]! -= 1;
          assert.deepEqual(packet, concat(MARK, ETHERNET.subarray(0, 12), [0x86, 0xdd], older));
        }
      }
    });

    for (const [what, frame] of [
      ['an IPv6 TCP checksum that is wrong', () => datagram(changed(tcp6(100), 80), { withoutChecksum: true })],
      ['an IPv6 UDP checksum that is wrong', () => datagram(changed(udp6(100), 80), { withoutChecksum: true })],
      [
        'IPv6’s UDP without a checksum',
        () => datagram(udp6Packet({ ip: ip6, ...ports, payload: payloadOf(9), withoutChecksum: true })),
      ],
      ['an ICMPv6 checksum that is wrong', () => datagram(changed(icmp6(100), 80), { withoutChecksum: true })],
      ['an outer checksum around IPv6 that is wrong', () => changed(datagram(tcp6(100)), 14 + 20 + 6)],
      ['another peer’s container of IPv6', () => datagram(changed(tcp6(100), 15))],
      ['IPv6 for another host', () => datagram(changed(tcp6(100), 31))],
      [
        'a hop limit that ends here',
        () => datagram(tcp6Packet({ ip: { ...ip6, hopLimit: 1 }, ...ports, payload: payloadOf(0) })),
      ],
      ['an inner TCP checksum that is wrong', () => datagram(changed(tcp(100), 60))],
      ['the same without an outer checksum', () => datagram(changed(tcp(100), 60), { withoutChecksum: true })],
      ['an inner UDP checksum that is wrong', () => datagram(changed(udp(101), 128))],
      ['an ICMP checksum that is wrong', () => datagram(changed(icmp(), 30))],
      ['an outer checksum that is wrong', () => changed(datagram(tcp(100)), 14 + 20 + 6)],
      ['another protocol, whose checksum is not known', () => datagram(icmp(132))],
      ['a frame for another MAC address', () => changed(datagram(tcp(100)), 5)],
      ['another host’s datagram', () => datagram(tcp(100), { source: '192.168.77.3' })],
      [
        'another peer’s container',
        () => datagram(tcpPacket({ ip: { ...ip, source: address('10.244.3.9') }, ...ports, payload: payloadOf(9) })),
      ],
      [
        'what is for another host',
        () =>
          datagram(tcpPacket({ ip: { ...ip, destination: address('10.244.3.9') }, ...ports, payload: payloadOf(9) })),
      ],
      ['a TTL that ends here', () => datagram(tcpPacket({ ip: { ...ip, ttl: 1 }, ...ports, payload: payloadOf(9) }))],
      [
        'an inner fragment',
        () => datagram(udpPacket({ ip: { ...ip, moreFragments: true }, ...ports, payload: payloadOf(8) })),
      ],
      [
        'inner options',
        () => datagram(udpPacket({ ip: { ...ip, options: new Uint8Array(4) }, ...ports, payload: payloadOf(8) })),
      ],
      ['what may be fragmented', () => datagram(tcp(9), { mayFragment: true })],
      ['another port', () => datagram(tcp(9), { port: 8_472 })],
      [
        'a sign',
        () =>
          datagram(
            encodeSign(
              {
                ...{
                  nonce: 1n,
                  echo: 2n,
                  takes: true,
                  arrives: true,
                  takes6: true,
                  arrives6: true,
                  takesCut: false,
                },
                ...{ alone: false, tag: 1, tagWhole: 2 },
              },
              PEER,
              OWN,
            ),
          ),
      ],
    ] as const) {
      it(`leaves as it came: ${what} (${segmentation})`, () => {
        nothingForSocket();
        assertLeft(segmentation, frame());
      });
    }
  }

  it('leaves one that may be a socket’s to the socket, once a second, and none without a checksum', () => {
    put(NEXT_TO_SOCKET, 0n);
    const small = tcp(0);
    assertTaken('host', datagram(small, { withoutChecksum: true }), small);
    assertLeft('host', datagram(small));
    assertTaken('host', datagram(small), small);
    assert.ok(field(NEXT_TO_SOCKET) > process.hrtime.bigint());
    // One of a bulk waits for longer.
    const large = tcp(1_000);
    put(NEXT_TO_SOCKET, process.hrtime.bigint() - 500_000_000n);
    assertTaken('host', datagram(large), large);
    put(NEXT_TO_SOCKET, process.hrtime.bigint() - 1_500_000_000n);
    assertLeft('host', datagram(large));
  });

  it('learns from the tag that the peer’s fast path is alive', () => {
    put(UNHEARD_SINCE, 1n);
    const packet = tcp(100);
    assertTaken('beyond', datagram(packet, { withoutChecksum: true }), packet);
    assert.equal(field(UNHEARD_SINCE), 0n);
  });

  it('learns from the first segment of a super-packet that it has arrived cut, and from the peer that one of ours has', () => {
    const learned = (tag: number): readonly boolean[] => {
      const value = new DataView(new ArrayBuffer(ENDPOINT_VALUE_BYTES));
      for (const at of [UNHEARD_SINCE, UNANSWERED_SINCE]) value.setBigUint64(at, 1n, true);
      bench.tables.maps.endpoints.update(key, new Uint8Array(value.buffer));
      const packet = tcp(100);
      assertTaken('beyond', datagram(packet, { withoutChecksum: true, tag: tag & 0xffff }), packet);
      assert.equal(field(CUT_UNTIL) > process.hrtime.bigint(), field(UNANSWERED_SINCE) === 0n);
      return [CUT_ARRIVED_AT, CUT_UNTIL, DISTRUST_UNTIL]
        .map((at) => field(at) !== 0n)
        .concat(field(UNHEARD_SINCE) === 0n);
    };
    const both = TAG_SUPER + TAG_CUT_ARRIVED;
    const found = [
      0,
      1,
      127,
      TAG_SUPER,
      TAG_SUPER + 1,
      TAG_CUT_ARRIVED,
      TAG_CUT_ARRIVED + 127,
      both,
      both + 45,
      both + 128,
      1_024,
      -1,
    ].map((more) => [more, ...learned(TAG + more)]);
    const nothing = [false, false, false, false];
    const distrust = [false, false, true, false];
    assert.deepEqual(found, [
      [0, false, false, false, true],
      ...[1, 127].map((more) => [more, ...nothing]),
      [TAG_SUPER, true, false, false, true],
      [TAG_SUPER + 1, ...nothing],
      [TAG_CUT_ARRIVED, false, true, false, true],
      [TAG_CUT_ARRIVED + 127, ...nothing],
      [both, true, true, false, true],
      [both + 45, ...nothing],
      ...[both + 128, 1_024, -1].map((more) => [more, ...distrust]),
    ]);
  });

  it('takes what would go to the socket while nobody reads it', () => {
    put(NEXT_TO_SOCKET, 0n);
    bench.closeSocket();
    const packet = tcp(100);
    assertTaken('host', datagram(packet), packet);
  });
});
