import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { cut } from '../../test/fakes/kernel-offload.ts';
import { type MemoryHost, memoryHost } from '../../test/fakes/memory-dataplane.ts';
import {
  ACK,
  address,
  aged,
  CWR,
  ECE,
  FIN,
  frame,
  hex,
  type IpOnly,
  icmpPacket,
  ipv4Packet,
  PSH,
  packetFault,
  payloadOf,
  SYN,
  tcpFrame,
  tcpPacket,
  udpFrame,
  udpPacket,
} from '../../test/fakes/packets.ts';
import { assertNever } from '../assert-never.ts';

/**
 * Two forwarders back to back: frames of one host's kernel → Outbound → datagrams → Inbound → frames for the other host's
 * kernel. What comes out, cut as that kernel would cut it, must be what went in, cut as the first kernel would have cut
 * it, but for two hops' worth of TTL.
 */
const HOST_1 = memoryHost({ mtu: 60_000 });
const HOST_2 = memoryHost({
  // Some of these tests damage packets, also where it says for whom they are.
  destinationCheck: 'off',
  mtu: 60_000,
  peers: [
    { slot: 1, subnet: '10.244.1.0/24', publicIp: '192.168.77.1' },
    { slot: 2, subnet: '10.244.3.0/24', publicIp: '192.168.77.3' },
  ],
});
const OUTER_1 = { address: address('192.168.77.1'), port: 8_285 };
const POD_1 = address('10.244.1.2');
const POD_2 = address('10.244.2.2');

interface Carried {
  readonly received: Uint8Array[];
  /** Frames as they were written to the second host's TUN. */
  readonly frames: Uint8Array[];
}

/** @param group whether the second host's socket puts equal datagrams together (UDP_GRO). */
function carry(
  frames: readonly Uint8Array[],
  group: boolean,
  from: MemoryHost = HOST_1,
  to: MemoryHost = HOST_2,
): Carried {
  from.tx.tun.incoming.push(...frames);
  from.run();
  const datagrams = from.tx.conn.sent.splice(0).map(({ data }) => ({ ...OUTER_1, data }));
  for (const { data } of datagrams) assert.equal(packetFault(data), undefined, hex(data));
  to.rx.conn.deliver(datagrams, group);
  to.run();
  const written = to.rx.tun.written.splice(0);
  return { received: written.flatMap(cut), frames: written };
}

function expected(frames: readonly Uint8Array[]): Uint8Array[] {
  return frames.flatMap(cut).map((packet) => aged(packet, 2));
}

/** Packets of a connection, or what a fragment is part of; fragments have no ports and belong to every flow. */
function flowOf(packet: Uint8Array): string {
  const view = new DataView(packet.buffer, packet.byteOffset);
  const ports = view.getUint32((view.getUint8(0) & 15) * 4);
  return `${view.getUint8(9)} ${view.getUint32(12)} ${view.getUint32(16)} ${ports}`;
}

function isFragment(packet: Uint8Array): boolean {
  return (new DataView(packet.buffer, packet.byteOffset).getUint16(6) & 0x3fff) !== 0;
}

/** A packet without its identification where DF makes that meaningless (RFC 6864): the kernel renumbers what it cuts. */
function comparable(packet: Uint8Array): string {
  const view = new DataView(packet.buffer, packet.byteOffset);
  if ((view.getUint16(6) & 0x4000) === 0) return hex(packet);
  const copy = Uint8Array.from(packet);
  copy.fill(0, 4, 6);
  copy.fill(0, 10, 12);
  return hex(copy);
}

function assertSameFlows(received: readonly Uint8Array[], wanted: readonly Uint8Array[]): void {
  assert.deepEqual(received.map(comparable).sort(), wanted.map(comparable).sort());
  for (const flow of new Set(wanted.filter((packet) => !isFragment(packet)).map(flowOf))) {
    const inFlow = (packet: Uint8Array): boolean => isFragment(packet) || flowOf(packet) === flow;
    assert.deepEqual(received.filter(inFlow).map(comparable), wanted.filter(inFlow).map(comparable));
  }
}

type Step =
  | { readonly kind: 'tcp'; readonly gso: number; readonly length: number; readonly flags: number }
  | { readonly kind: 'udp'; readonly gso: number; readonly length: number; readonly withoutChecksum: boolean }
  | { readonly kind: 'icmp'; readonly length: number }
  | { readonly kind: 'fragment'; readonly length: number };

interface Event {
  readonly step: Step;
  readonly flow: number;
  readonly dontFragment: boolean;
  readonly timestamps: boolean;
  readonly ipOptions: boolean;
  /** Sequence number or identification does not continue. */
  readonly jump: boolean;
  readonly ttl: number;
  readonly tos: number;
  readonly acknowledgement: number;
  readonly seed: number;
}

const lengths = fc.oneof(
  { weight: 3, arbitrary: fc.integer({ min: 1, max: 3_000 }) },
  fc.integer({ min: 1, max: 40_000 }),
);
const gsoSizes = fc.oneof(
  { weight: 4, arbitrary: fc.constantFrom(1_000, 1_408, 536) },
  fc.integer({ min: 24, max: 2_000 }),
);
const flags = fc.oneof(
  { weight: 6, arbitrary: fc.constantFrom(ACK, ACK | PSH) },
  fc.constantFrom(SYN, FIN | ACK, ACK | PSH | CWR, ACK | ECE, ACK | CWR | FIN, 4),
);
const rarely = fc.integer({ min: 0, max: 9 }).map((n) => n === 0);

const steps: fc.Arbitrary<Step> = fc.oneof(
  { weight: 6, arbitrary: fc.record({ kind: fc.constant('tcp' as const), gso: gsoSizes, length: lengths, flags }) },
  {
    weight: 3,
    arbitrary: fc.record({
      kind: fc.constant('udp' as const),
      gso: gsoSizes,
      length: lengths,
      withoutChecksum: rarely,
    }),
  },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('icmp' as const), length: fc.nat(1_400) }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('fragment' as const), length: fc.nat(100) }) },
);

const events: fc.Arbitrary<Event> = fc.record({
  step: steps,
  flow: fc.nat(2),
  dontFragment: fc.boolean(),
  timestamps: fc.boolean(),
  ipOptions: rarely,
  jump: rarely,
  ttl: fc.constantFrom(64, 64, 64, 3, 255),
  tos: fc.constantFrom(0, 0, 0, 2),
  acknowledgement: fc.constantFrom(1, 1, 1, 0xffff_ffff),
  seed: fc.nat(),
});

const TIMESTAMPS = Uint8Array.from([1, 1, 8, 10, 0, 0, 1, 2, 0, 0, 3, 4]);

/** Three TCP and three UDP flows between two containers, each with its own sequence numbers and identifications. */
function framesOf(list: readonly Event[]): Uint8Array[] {
  const sequences = [0, 0xffff_f000, 1_000_000]; // one wraps
  const ids = [0, 0xfff0, 7];
  return list.map(({ step, flow, dontFragment, timestamps, ipOptions, jump, ttl, tos, acknowledgement, seed }) => {
    if (jump) ids[flow]! += 77;
    const ip: IpOnly = {
      source: POD_1,
      destination: POD_2,
      id: ids[flow]! & 0xffff,
      dontFragment,
      ttl,
      tos,
      ...(ipOptions ? { options: Uint8Array.from([7, 7, 4, 0, 0, 0, 0, 0]) } : {}),
    };
    const count = step.kind === 'tcp' || step.kind === 'udp' ? Math.ceil(step.length / step.gso) : 1;
    ids[flow]! += count;
    const ports = { sourcePort: 40_000 + flow, destinationPort: 5_201 };
    switch (step.kind) {
      case 'tcp': {
        if (jump) sequences[flow]! += 999;
        const sequence = sequences[flow]! >>> 0;
        sequences[flow]! += step.length;
        const options = timestamps ? TIMESTAMPS : new Uint8Array(0);
        const fields = { ip, ...ports, sequence, acknowledgement, flags: step.flags, options };
        return tcpFrame({ ...fields, payload: payloadOf(step.length, seed) }, count > 1 ? step.gso : 0);
      }
      case 'udp': {
        const fields = { ip, ...ports, payload: payloadOf(step.length, seed) };
        if (step.withoutChecksum && step.length < 1_400) return frame(udpPacket({ ...fields, withoutChecksum: true }));
        return udpFrame(fields, count > 1 ? step.gso : 0);
      }
      case 'icmp':
        return frame(icmpPacket(ip, 8, 0, seed >>> 0, payloadOf(step.length, seed)));
      case 'fragment':
        return frame(
          ipv4Packet({ ...ip, dontFragment: false, protocol: 17, fragmentOffset: 185 }, payloadOf(step.length, seed)),
        );
      default:
        return assertNever(step);
    }
  });
}

describe('from host to host', () => {
  it('every packet arrives as it was sent, in the order of its flow, with right checksums', () => {
    fc.assert(
      fc.property(fc.array(events, { minLength: 1, maxLength: 24 }), fc.boolean(), (list, group) => {
        const frames = framesOf(list);
        assertSameFlows(carry(frames, group).received, expected(frames));
      }),
      { numRuns: 150 },
    );
  });

  it('counters on both sides agree with each other and with what was carried', () => {
    fc.assert(
      fc.property(fc.array(events, { minLength: 1, maxLength: 12 }), (list) => {
        for (const host of [HOST_1, HOST_2]) for (const slot of [0, 1, 2]) host.counters.clear(slot);
        const wanted = expected(framesOf(list));
        carry(framesOf(list), true);
        const totals = {
          packets: wanted.length,
          bytes: wanted.reduce((sum, packet) => sum + packet.length, 0),
          drops: {},
        };
        assert.deepEqual(HOST_1.counters.read(1, 'tx'), totals);
        assert.deepEqual(HOST_2.counters.read(1, 'rx'), totals);
      }),
      { numRuns: 50 },
    );
  });

  it('a 64 KiB TCP super-packet crosses in few datagram messages and comes back as one', () => {
    const payload = payloadOf(65_536 - 60);
    const ip = { source: POD_1, destination: POD_2, id: 100 };
    const super64 = tcpFrame(
      { ip, sourcePort: 1, destinationPort: 2, sequence: 5, options: TIMESTAMPS, payload },
      1_420,
    );
    HOST_1.tx.conn.messages.length = 0;
    const { received, frames } = carry([super64], true);
    assert.deepEqual(
      HOST_1.tx.conn.messages.map(({ datagrams }) => datagrams),
      [44, 3],
    );
    assert.deepEqual(received, expected([super64]));
    assert.equal(frames.length, 1);
  });

  it('interleaved bulk flows are each put together', () => {
    const frames: Uint8Array[] = [];
    for (let flow = 0; flow < 8; flow++) {
      const ip = { source: POD_1, destination: POD_2, dontFragment: true };
      const fields = {
        ip,
        sourcePort: 1_000 + flow,
        destinationPort: 2,
        sequence: 0,
        payload: payloadOf(14_080, flow),
      };
      frames.push(tcpFrame(fields, 1_408));
    }
    HOST_1.tx.tun.incoming.push(...frames);
    HOST_1.run();
    const byFlow = HOST_1.tx.conn.sent.splice(0);
    const mixed = byFlow.map((_, index) => byFlow[(index % 8) * 10 + Math.floor(index / 8)]!);
    HOST_2.rx.conn.deliver(
      mixed.map(({ data }) => ({ ...OUTER_1, data })),
      true,
    );
    HOST_2.run();
    const written = HOST_2.rx.tun.written.splice(0);
    assert.equal(written.length, 8);
    assertSameFlows(written.flatMap(cut), expected(frames));
  });
});

describe('what must not be laundered', () => {
  /** Datagrams of one bulk flow, of which some are changed on the way. */
  const flowFields = { sourcePort: 40_000, destinationPort: 5_201 };

  it('a packet with a wrong checksum is written alone, as it came', () => {
    const damage = fc.record({ index: fc.nat(19), at: fc.nat(), bit: fc.nat(7) });
    fc.assert(
      fc.property(
        fc.boolean(),
        fc.array(damage, { minLength: 1, maxLength: 4 }),
        fc.boolean(),
        (isTcp, damages, group) => {
          const datagrams: Uint8Array[] = [];
          for (let index = 0; index < 20; index++) {
            const ip = { source: POD_1, destination: POD_2, id: index };
            const payload = payloadOf(100, index);
            const fields = { ip, ...flowFields, payload };
            datagrams.push(isTcp ? tcpPacket({ ...fields, sequence: index * 100 }) : udpPacket(fields));
          }
          for (const { index, at, bit } of damages) {
            const packet = datagrams[index]!;
            // Everything but version, length, TTL and source, whose change is refused or answered before it gets here.
            const places = [1, 4, 5, 6, 7, 9, 10, 11, ...Array.from({ length: packet.length - 16 }, (_, n) => n + 16)];
            packet[places[at % places.length]!]! ^= 1 << bit;
          }
          HOST_2.rx.conn.deliver(
            datagrams.map((data) => ({ ...OUTER_1, data })),
            group,
          );
          HOST_2.run();
          const written = HOST_2.rx.tun.written.splice(0);
          const alone = written.filter((bytes) => bytes[0] === 0).map((bytes) => bytes.subarray(10));
          const joined = written.filter((bytes) => bytes[0] !== 0).flatMap(cut);
          const passedOn = (data: Uint8Array): Uint8Array => {
            const copy = Uint8Array.from(data);
            const view = new DataView(copy.buffer);
            copy[8]!--;
            const sum = view.getUint16(10) + 0x100;
            view.setUint16(10, sum >= 0xffff ? sum + 1 : sum);
            return copy;
          };
          const bad = datagrams.filter((data) => packetFault(data) !== undefined).map((data) => hex(passedOn(data)));
          const good = datagrams.filter((data) => packetFault(data) === undefined).map((data) => hex(passedOn(data)));
          assert.deepEqual([...alone, ...joined].map(hex).sort(), [...bad, ...good].sort());
          const aloneHex = new Set(alone.map(hex));
          for (const data of bad) assert.ok(aloneHex.has(data), `damaged packet ${data} was put together with others`);
          for (const data of joined) assert.equal(packetFault(data), undefined);
        },
      ),
      { numRuns: 300 },
    );
  });

  it('what a packet becomes does not depend on bytes behind it', () => {
    const { rx } = HOST_2;
    fc.assert(
      fc.property(fc.array(fc.uint8Array({ minLength: 1, maxLength: 80 }), { minLength: 1, maxLength: 8 }), (tails) => {
        const datagrams = tails.map((tail, index) => {
          const ip = { source: POD_1, destination: POD_2, id: index };
          const data = tcpPacket({ ip, ...flowFields, sequence: index, payload: tail.subarray(0, 1) });
          data.set(tail.subarray(1), data.length - Math.min(data.length - 20, tail.length - 1)); // lying offsets, ports
          return { ...OUTER_1, data };
        });
        const results = [0x00, 0xff].map((stale) => {
          rx.conn.deliver(Array.from({ length: 24 }, () => ({ ...OUTER_1, data: new Uint8Array(300).fill(stale) })));
          HOST_2.run();
          rx.tun.written.length = 0;
          rx.conn.deliver(datagrams);
          HOST_2.run();
          return rx.tun.written.splice(0).map(hex);
        });
        assert.deepEqual(results[0], results[1]);
      }),
    );
  });
});
