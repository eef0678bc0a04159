import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { cut } from '../../test/fakes/kernel-offload.ts';
import { type MemoryHost, memoryHost, OWN_IPV6 } from '../../test/fakes/memory-dataplane.ts';
import {
  ACK,
  address,
  aged,
  CWR,
  concat,
  ECE,
  FIN,
  frame,
  hex,
  PSH,
  packetFault,
  payloadOf,
  SYN,
  tcpFrame,
} from '../../test/fakes/packets.ts';
import {
  address6,
  aged6,
  fragmentHeader,
  type Ip6Only,
  icmp6Packet,
  ipv6Packet,
  optionsHeader,
  packet6Fault,
  tcp6Frame,
  tcp6Packet,
  udp6Frame,
  udp6Packet,
} from '../../test/fakes/packets6.ts';
import { parseIpv6 } from '../ip/ipv6.ts';

/** As round-trip.test.ts, for IPv6 and for both families mixed, over either underlay. */

const HOST_2_PEERS = [
  {
    ...{ slot: 1, subnet: '10.244.1.0/24', publicIp: '192.168.77.1' },
    ...{ ipv6Subnet: 'fd00:244:0:1::/64', publicIpv6: 'fd00:77::1' },
  },
];
const PAIRS = ([4, 6] as const).map((underlay) => ({
  underlay,
  from: memoryHost({ mtu: 60_000, ipv6: OWN_IPV6, underlay }),
  to: memoryHost({
    ...{ mtu: 60_000, underlay, peers: HOST_2_PEERS },
    own: '10.244.2.0/24',
    ipv6: { ...OWN_IPV6, own: 'fd00:244:0:2::/64' },
  }),
  outer: { address: underlay === 4 ? address('192.168.77.1') : parseIpv6('fd00:77::1')!, port: 8_285 },
}));
type Pair = (typeof PAIRS)[number];

const POD_1 = address6('fd00:244:0:1::2');
const POD_2 = address6('fd00:244:0:2::2');

const isIpv6 = (packet: Uint8Array): boolean => packet[0]! >>> 4 === 6;
const fault = (packet: Uint8Array): string | undefined => (isIpv6(packet) ? packet6Fault(packet) : packetFault(packet));

function carry({ from, to, outer }: Pair, frames: readonly Uint8Array[], group: boolean): Uint8Array[] {
  from.tx.tun.incoming.push(...frames);
  from.run();
  const datagrams = from.tx.conn.sent.splice(0).map(({ data }) => ({ ...outer, data }));
  for (const { data } of datagrams) assert.equal(fault(data), undefined, hex(data));
  return arrive(to, datagrams, group);
}

/** Frames as they were written. */
function arrive(
  to: MemoryHost,
  datagrams: Parameters<MemoryHost['rx']['conn']['deliver']>[0],
  group: boolean,
): Uint8Array[] {
  to.rx.conn.deliver(datagrams, group);
  to.run();
  return to.rx.tun.written.splice(0);
}

const older = (packet: Uint8Array): Uint8Array => (isIpv6(packet) ? aged6(packet, 2) : aged(packet, 2));

/** Behind extension headers it may be of any flow. */
const mayBeOfAny = (packet: Uint8Array): boolean => isIpv6(packet) && [0, 43, 44, 60].includes(packet[6]!);

/** Family, protocol, addresses and ports; of ICMPv6 what is at their place. */
function flowOf(packet: Uint8Array): string {
  if (!isIpv6(packet)) return `4 ${hex(packet.subarray(9, 10))} ${hex(packet.subarray(12, 24))}`;
  return `6 ${hex(packet.subarray(6, 7))} ${hex(packet.subarray(8, 44))}`;
}

function assertSameFlows(received: readonly Uint8Array[], wanted: readonly Uint8Array[]): void {
  assert.deepEqual(received.map(hex).sort(), wanted.map(hex).sort());
  for (const flow of new Set(wanted.filter((packet) => !mayBeOfAny(packet)).map(flowOf))) {
    const isOf6 = flow.startsWith('6 06') || flow.startsWith('6 11');
    const inFlow = (packet: Uint8Array): boolean => flowOf(packet) === flow || (isOf6 && mayBeOfAny(packet));
    assert.deepEqual(received.filter(inFlow).map(hex), wanted.filter(inFlow).map(hex));
  }
}

interface Event {
  readonly kind: 'tcp' | 'udp' | 'icmp' | 'fragment' | 'options' | 'tcp4';
  readonly gso: number;
  readonly length: number;
  readonly flags: number;
  readonly flow: number;
  readonly timestamps: boolean;
  readonly jump: boolean;
  readonly hopLimit: number;
  readonly trafficClass: number;
  readonly flowLabel: number;
  /** Between the header and a TCP or UDP header of a super-packet. */
  readonly options: boolean;
  readonly seed: number;
}

const rarely = fc.integer({ min: 0, max: 9 }).map((n) => n === 0);
const events: fc.Arbitrary<Event> = fc.record({
  kind: fc.constantFrom('tcp', 'tcp', 'tcp', 'tcp', 'udp', 'udp', 'icmp', 'fragment', 'options', 'tcp4'),
  gso: fc.oneof({ weight: 4, arbitrary: fc.constantFrom(1_000, 1_408, 536) }, fc.integer({ min: 24, max: 2_000 })),
  length: fc.oneof({ weight: 3, arbitrary: fc.integer({ min: 1, max: 3_000 }) }, fc.integer({ min: 1, max: 40_000 })),
  flags: fc.oneof(
    { weight: 6, arbitrary: fc.constantFrom(ACK, ACK | PSH) },
    fc.constantFrom(SYN, FIN | ACK, ACK | PSH | CWR, ACK | ECE, 4),
  ),
  flow: fc.nat(2),
  timestamps: fc.boolean(),
  jump: rarely,
  hopLimit: fc.constantFrom(64, 64, 64, 3, 255),
  trafficClass: fc.constantFrom(0, 0, 0, 2),
  flowLabel: fc.constantFrom(0xabcde, 0xabcde, 0xabcde, 1),
  options: rarely,
  seed: fc.nat(),
});

const TIMESTAMPS = Uint8Array.from([1, 1, 8, 10, 0, 0, 1, 2, 0, 0, 3, 4]);

function framesOf(list: readonly Event[], withIpv4: boolean): Uint8Array[] {
  const sequences = [0, 0xffff_f000, 1_000_000]; // one wraps
  return list.map(({ kind, gso, length, flags, flow, timestamps, jump, options, seed, ...header }) => {
    const ip: Ip6Only = {
      ...{ source: POD_1, destination: POD_2, ...header },
      ...(options ? { extensions: [[60, optionsHeader(2)] as const] } : {}),
    };
    const ports = { sourcePort: 40_000 + flow, destinationPort: 5_201 };
    const payload = payloadOf(length, seed);
    const size = length > gso ? gso : 0;
    switch (kind) {
      case 'udp':
        return udp6Frame({ ip, ...ports, payload }, size);
      case 'icmp':
        return frame(icmp6Packet(ip, 128, 0, seed >>> 0, payloadOf(Math.min(length, 1_400), seed)));
      case 'fragment': {
        const extensions = [[44, fragmentHeader(185, true)] as const];
        return frame(ipv6Packet({ ...ip, extensions, nextHeader: 17 }, payloadOf(104, seed)));
      }
      case 'options': {
        const extensions = [[0, optionsHeader()] as const, [60, optionsHeader(3)] as const];
        return frame(tcp6Packet({ ip: { ...ip, extensions }, ...ports, payload: payloadOf(99, seed) }));
      }
      case 'tcp4':
        if (withIpv4) {
          const ip4 = { source: address('10.244.1.2'), destination: address('10.244.2.2'), id: seed & 0xffff };
          return tcpFrame({ ip: ip4, ...ports, sequence: seed >>> 0, payload }, size);
        }
    }
    if (jump) sequences[flow]! += 999;
    const sequence = sequences[flow]! >>> 0;
    sequences[flow]! += length;
    const tcp = { sequence, acknowledgement: 1, flags, options: timestamps ? TIMESTAMPS : new Uint8Array(0) };
    return tcp6Frame({ ip, ...ports, ...tcp, payload }, size);
  });
}

for (const pair of PAIRS) {
  describe(`IPv6 from host to host, over IPv${pair.underlay}`, () => {
    it('every packet arrives as it was sent, in the order of its flow, with right checksums', () => {
      fc.assert(
        fc.property(fc.array(events, { minLength: 1, maxLength: 24 }), fc.boolean(), (list, group) => {
          const frames = framesOf(list, pair.underlay === 4);
          const wanted = frames.flatMap(cut);
          for (const host of [pair.from, pair.to]) host.counters.clear(1);
          assertSameFlows(carry(pair, frames, group).flatMap(cut), wanted.map(older));
          const bytes = wanted.reduce((sum, packet) => sum + packet.length, 0);
          assert.deepEqual(pair.from.counters.read(1, 'tx'), { packets: wanted.length, bytes, drops: {} });
          assert.deepEqual(pair.to.counters.read(1, 'rx'), { packets: wanted.length, bytes, drops: {} });
        }),
        { numRuns: 100 },
      );
    });

    it('a 64 KiB TCP super-packet crosses in few messages and comes back as one', () => {
      const fields = { ip: { source: POD_1, destination: POD_2 }, sourcePort: 1, destinationPort: 2, sequence: 5 };
      const super64 = tcp6Frame({ ...fields, options: TIMESTAMPS, payload: payloadOf(65_535 - 72) }, 1_400);
      pair.from.tx.conn.messages.length = 0;
      const frames = carry(pair, [super64], true);
      assert.deepEqual(
        pair.from.tx.conn.messages.map(({ datagrams }) => datagrams),
        [44, 3],
      );
      assert.equal(frames.length, 1);
      assert.deepEqual(frames.flatMap(cut).map(hex), cut(super64).map(older).map(hex));
    });

    it('a packet with a wrong checksum is written alone, as it came', () => {
      const damage = fc.record({ index: fc.nat(19), at: fc.nat(), bit: fc.nat(7) });
      fc.assert(
        fc.property(
          fc.boolean(),
          fc.array(damage, { minLength: 1, maxLength: 4 }),
          fc.boolean(),
          (isTcp, list, group) => {
            const ip = { source: POD_1, destination: POD_2 };
            const datagrams = Array.from({ length: 20 }, (_, index) => {
              const fields = { ip, sourcePort: 40_000, destinationPort: 5_201, payload: payloadOf(100, index) };
              return isTcp ? tcp6Packet({ ...fields, sequence: index * 100 }) : udp6Packet(fields);
            });
            for (const { index, at, bit } of list) {
              const packet = datagrams[index]!;
              packet[40 + (at % (packet.length - 40))]! ^= 1 << bit;
            }
            const written = arrive(
              pair.to,
              datagrams.map((data) => ({ ...pair.outer, data })),
              group,
            );
            const passedOn = (data: Uint8Array): string => hex(aged6(data, 1));
            assert.deepEqual(written.flatMap(cut).map(hex).sort(), datagrams.map(passedOn).sort());
            const alone = new Set(written.filter((bytes) => bytes[0] === 0).map((bytes) => hex(bytes.subarray(10))));
            for (const data of datagrams) {
              if (packet6Fault(data) !== undefined) assert.ok(alone.has(passedOn(data)), hex(data));
            }
          },
        ),
        { numRuns: 200 },
      );
    });
  });
}

it('what lies behind a packet in its datagram is left out', () => {
  const [pair] = PAIRS;
  const packet = udp6Packet({ ip: { source: POD_1, destination: POD_2 }, sourcePort: 1, destinationPort: 2 });
  const written = arrive(pair!.to, [{ ...pair!.outer, data: concat(packet, [1, 2, 3]) }], false);
  assert.deepEqual(
    written.map((bytes) => hex(bytes.subarray(10))),
    [hex(aged6(packet, 1))],
  );
});
