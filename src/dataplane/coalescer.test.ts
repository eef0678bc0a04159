import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { cut, readFrame } from '../../test/fakes/kernel-offload.ts';
import { GuardedLayout, MemoryTun } from '../../test/fakes/memory-dataplane.ts';
import {
  ACK,
  address,
  aged,
  CWR,
  ECE,
  FIN,
  hex,
  type IpOnly,
  icmpPacket,
  ipv4Packet,
  PSH,
  packetFault,
  payloadOf,
  SYN,
  type TcpFields,
  tcpPacket,
  transportChecksum,
  udpPacket,
} from '../../test/fakes/packets.ts';
import { createArena } from './arena.ts';
import { decrementTtl } from './checksum.ts';
import { Coalescer } from './coalescer.ts';
import { Counters } from './counters.ts';
import { IPV4_FLOWS } from './flow-family.ts';
import { COALESCE_FLOWS, COALESCE_SEGMENTS } from './limits.ts';

const ip: IpOnly = { source: address('10.244.2.5'), destination: address('10.244.1.2') };
const ports = { sourcePort: 5_201, destinationPort: 40_000 };

interface Outcome {
  /** How many packets each frame holds, in the order of writing. */
  readonly counts: number[];
  readonly frames: Uint8Array[];
}

type Pushed = Uint8Array | readonly [packet: Uint8Array, slot: number];

/**
 * Pushes packets, each with its slot or 1, and flushes; what the kernel gets must be what was pushed, in whatever frames. Once
 * each packet by itself, once in trains: those that are as long as the one before them may follow it. No difference is to be seen.
 */
function join(packets: readonly Pushed[], joinUdp = true): Outcome {
  const single = deliver(packets, joinUdp, false);
  assert.deepEqual(deliver(packets, joinUdp, true).counts, single.counts);
  return single;
}

function deliver(packets: readonly Pushed[], joinUdp: boolean, inTrains: boolean): Outcome {
  const layout = new GuardedLayout(createArena(() => 0x7f12_ffff_f000));
  const { bytes, view } = layout.arena;
  const tun = new MemoryTun(layout);
  const coalescer = new Coalescer(layout, tun, Counters.allocate(4), joinUdp, IPV4_FLOWS);
  const scratch = layout.take(65_536);
  let at = layout.take(1_000_000);
  const plain = packets.map((entry) => (entry instanceof Uint8Array ? ([entry, 1] as const) : entry));
  const laid = plain.map(([packet, slot]) => {
    const ip = at;
    at += packet.length;
    bytes.set(received(packet), ip);
    bytes.copyWithin(scratch, ip, at);
    decrementTtl(view, scratch);
    return { ip, length: packet.length, slot, wanted: bytes.slice(scratch, scratch + packet.length) };
  });
  for (let index = 0; index < laid.length; ) {
    const { ip, length, slot } = laid[index]!;
    decrementTtl(view, ip);
    coalescer.push(ip, length, slot);
    index++;
    let end = ip + length;
    for (const next of laid.slice(index)) {
      if (next.slot !== slot || next.length > length) break;
      end += next.length;
      if (next.length < length) break;
    }
    if (inTrains) index += coalescer.follow(ip + length, end, length, slot);
  }
  coalescer.flush();
  coalescer.flush(); // nothing is left
  layout.checkGuards();
  const sorted = (list: readonly Uint8Array[]): string[] => list.map(hex).sort();
  assert.deepEqual(sorted(tun.written.flatMap(cut)), sorted(laid.map(({ wanted }) => wanted)));
  return { counts: tun.written.map((frame) => cut(frame).length), frames: tun.written };
}

/** The packet before its TTL was taken down; a header checksum that is wrong is so by the same bits. */
function received(packet: Uint8Array): Uint8Array {
  const right = aged(packet, 0);
  const before = aged(packet, -1);
  for (const at of [10, 11]) before[at]! ^= packet[at]! ^ right[at]!;
  return before;
}

/** Segment `index` of a bulk flow, 100 bytes each. */
function segment(index: number, fields: Partial<Omit<TcpFields, 'ip'>> & { ip?: Partial<IpOnly> } = {}): Uint8Array {
  const { ip: ipFields, ...rest } = fields;
  const base = { sequence: 1_000 + index * 100, acknowledgement: 9, payload: payloadOf(100, index) };
  return tcpPacket({ ...ports, ...base, ...rest, ip: { ...ip, id: 50 + index, ...ipFields } });
}

/** Datagram `index` of a flow; its last two bytes are zero. */
function datagram(index: number, length = 100): Uint8Array {
  const payload = payloadOf(length, index).fill(0, Math.max(0, length - 2));
  return udpPacket({ ip: { ...ip, id: 50 + index }, ...ports, payload });
}

/** The packet after a change, with a transport checksum that is right again. */
function resummed(packet: Uint8Array, change: (packet: Uint8Array) => void): Uint8Array {
  change(packet);
  const field = packet[9] === 6 ? 36 : 26;
  packet.fill(0, field, field + 2);
  const sum = transportChecksum(ip.source, ip.destination, packet[9]!, packet.subarray(20));
  packet.set([sum >>> 8, sum & 255], field);
  return packet;
}

describe('TCP', () => {
  it('segments that follow each other become one', () => {
    const { counts, frames } = join([segment(0), segment(1), segment(2)]);
    assert.deepEqual(counts, [3]);
    const { gsoType, gsoSize, checksumStart, checksumOffset, packet } = readFrame(frames[0]!);
    assert.deepEqual([gsoType, gsoSize, checksumStart, checksumOffset], [1, 100, 20, 16]);
    assert.equal(packet.length, 340);
    assert.equal(new DataView(frames[0]!.buffer).getUint16(2, true), 40); // hdr_len
  });

  it('a shorter segment ends it, a longer one begins another', () => {
    assert.deepEqual(
      join([segment(0), segment(1, { payload: payloadOf(60) }), segment(2, { sequence: 1_160 })]).counts,
      [2, 1],
    );
    const longer = segment(1, { payload: payloadOf(101) });
    assert.deepEqual(join([segment(0), longer, segment(2, { sequence: 1_201 })]).counts, [1, 2]);
  });

  it('PSH ends it and stays with the last', () => {
    assert.deepEqual(join([segment(0), segment(1, { flags: ACK | PSH }), segment(2)]).counts, [2, 1]);
    assert.deepEqual(join([segment(0, { flags: ACK | PSH }), segment(1)]).counts, [1, 1]);
  });

  it('a segment with other flags, or without payload, is alone and keeps its place', () => {
    for (const flags of [SYN, FIN | ACK, 4, ACK | CWR, ACK | ECE, ACK | 32, 0]) {
      assert.deepEqual(join([segment(0), segment(1), segment(2, { flags }), segment(3), segment(4)]).counts, [2, 1, 2]);
    }
    const pureAck = segment(2, { payload: new Uint8Array(0) });
    assert.deepEqual(join([segment(0), segment(1), pureAck, segment(2), segment(3)]).counts, [2, 1, 2]);
  });

  const breaks: readonly [name: string, second: Uint8Array][] = [
    ['a gap', segment(2, { ip: { id: 51 } })],
    ['another source', segment(1, { ip: { source: address('10.244.2.6') } })],
    ['another destination', segment(1, { ip: { destination: address('10.244.1.3') } })],
    ['another source port', segment(1, { sourcePort: 5_202 })],
    ['another destination port', segment(1, { destinationPort: 40_001 })],
    ['a repetition', segment(0, { ip: { id: 51 } })],
    ['another acknowledgement', segment(1, { acknowledgement: 10 })],
    ['another window', segment(1, { window: 7 })],
    ['an urgent pointer', segment(1, { urgent: 7 })],
    ['another TTL', segment(1, { ip: { ttl: 63 } })],
    ['another TOS (a congestion mark)', segment(1, { ip: { tos: 3 } })],
    ['DF', segment(1, { ip: { dontFragment: true } })],
    ['an identification that does not follow, without DF', segment(1, { ip: { id: 52 } })],
    ['TCP options that came or went', segment(1, { options: Uint8Array.from([1, 1, 1, 1]) })],
    ['IP options', segment(1, { ip: { options: Uint8Array.from([7, 4, 4, 0]) } })],
  ];
  for (const [name, second] of breaks) {
    it(`not across ${name}`, () => {
      assert.deepEqual(join([segment(0), second]).counts, [1, 1]);
    });
  }

  it('not across other values in the TCP options, nor reserved bits', () => {
    const first = Uint8Array.from([1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2]);
    const second = Uint8Array.from([1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 3]);
    assert.deepEqual(join([segment(0, { options: first }), segment(1, { options: second })]).counts, [1, 1]);
    assert.deepEqual(join([segment(0, { options: first }), segment(1, { options: first })]).counts, [2]);
    const reserved = segment(1);
    reserved[32]! |= 1; // accurate ECN
    const sum = new DataView(reserved.buffer).getUint16(36) - 0x100;
    new DataView(reserved.buffer).setUint16(36, sum < 0 ? sum - 1 : sum);
    assert.deepEqual(join([segment(0), reserved]).counts, [1, 1]);
  });

  it('identifications do not matter under DF', () => {
    const df = (index: number, id: number): Uint8Array => segment(index, { ip: { dontFragment: true, id } });
    const layout = new GuardedLayout(createArena());
    const tun = new MemoryTun(layout);
    const coalescer = new Coalescer(layout, tun, Counters.allocate(4), true, IPV4_FLOWS);
    const buffer = layout.take(1_000);
    [df(0, 0), df(1, 0), df(2, 77)].forEach((packet, index) => {
      layout.arena.bytes.set(packet, buffer + index * 140);
      coalescer.push(buffer + index * 140, 140, 1);
    });
    coalescer.flush();
    assert.deepEqual(
      tun.written.map((bytes) => cut(bytes).length),
      [3],
    );
  });

  it('sequence numbers and identifications wrap', () => {
    const at = (index: number): Uint8Array =>
      segment(index, { sequence: (0xffff_ff80 + index * 100) >>> 0, ip: { id: (0xffff + index) & 0xffff } });
    assert.deepEqual(join([at(0), at(1), at(2)]).counts, [3]);
  });

  it('a wrong checksum is alone, and what comes after it is joined again', () => {
    const bad = segment(2);
    bad[139]! ^= 1;
    assert.deepEqual(join([segment(0), segment(1), bad, segment(3), segment(4)]).counts, [2, 1, 2]);
    const badFirst = segment(0);
    badFirst[60]! ^= 1;
    assert.deepEqual(join([badFirst, segment(1), segment(2)]).counts, [1, 2]);
    const badHeader = segment(1);
    badHeader[11]! ^= 1;
    assert.deepEqual(join([segment(0), badHeader, segment(2)]).counts, [1, 1, 1]);
  });

  it(`at most ${COALESCE_SEGMENTS} segments and 65,535 bytes`, () => {
    const many = Array.from({ length: COALESCE_SEGMENTS + 2 }, (_, index) => segment(index));
    assert.deepEqual(join(many).counts, [COALESCE_SEGMENTS, 2]);
    const big = Array.from({ length: 4 }, (_, index) =>
      segment(index, { sequence: index * 21_831, payload: payloadOf(21_831, index), ip: { id: index } }),
    );
    assert.deepEqual(join(big).counts, [3, 1]); // 40 + 3 × 21,831 is 65,533; one more byte each would be too much
    const tooBig = big.map((_, index) => segment(index, { sequence: index * 21_832, payload: payloadOf(21_832, index), ip: { id: index } })); // biome-ignore format: one line
    assert.deepEqual(join(tooBig).counts, [2, 2]);
  });

  it('packets of two peers are not joined: each is counted as its own', () => {
    assert.deepEqual(join([[segment(0), 1], [segment(1), 2], [segment(2), 2]]).counts, [1, 2]); // biome-ignore format: one line
  });

  it('not when the data offset lies, though the checksums are right', () => {
    for (const offset of [0x00, 0x40, 0xf0]) {
      const lying = [0, 1, 2].map((index) => resummed(segment(index), (packet) => packet.fill(offset, 32, 33)));
      assert.deepEqual(join(lying).counts, [1, 1, 1]);
      assert.deepEqual(join([segment(0), lying[1]!, segment(2)]).counts, [1, 1, 1]);
    }
  });

  it('not for first fragments, though they follow each other', () => {
    const fragments = [0, 1].map((index) => segment(index, { ip: { moreFragments: true } }));
    assert.deepEqual(join(fragments).counts, [1, 1]);
  });
});

describe('UDP', () => {
  it('equal datagrams become one, a shorter one ends it', () => {
    const { counts, frames } = join([datagram(0), datagram(1), datagram(2, 40), datagram(3, 40)]);
    assert.deepEqual(counts, [3, 1]);
    const { gsoType, gsoSize, checksumStart, checksumOffset } = readFrame(frames[0]!);
    assert.deepEqual([gsoType, gsoSize, checksumStart, checksumOffset], [5, 100, 20, 6]);
  });

  it('not when the TUN does not take them', () => {
    assert.deepEqual(join([datagram(0), datagram(1)], false).counts, [1, 1]);
  });

  it('at most 64', () => {
    assert.deepEqual(join(Array.from({ length: 66 }, (_, index) => datagram(index))).counts, [64, 2]);
  });

  it('not without a checksum, without payload, or with a length that is not the packet’s', () => {
    const without = udpPacket({ ip: { ...ip, id: 51 }, ...ports, payload: payloadOf(100), withoutChecksum: true });
    assert.deepEqual(join([datagram(0), without, datagram(2)]).counts, [1, 1, 1]);
    assert.deepEqual(join([datagram(0), datagram(1, 0), datagram(2)]).counts, [1, 1, 1]);
    const short = [0, 1].map((index) => resummed(datagram(index), (packet) => packet.fill(104, 25, 26)));
    assert.deepEqual(join(short).counts, [1, 1]);
  });

  it('not when the field says "no checksum" and zero happens to be the sum', () => {
    const zero = [0, 1].map((index) => {
      const packet = datagram(index);
      packet.set(packet.subarray(26, 28), 28 + 98); // the complement of the rest, in place of two zero bytes
      return packet.fill(0, 26, 28);
    });
    for (const packet of zero) assert.equal(packetFault(packet), undefined);
    assert.deepEqual(join(zero).counts, [1, 1]);
  });

  it('a wrong checksum is alone', () => {
    const bad = datagram(1);
    bad[100]! ^= 0x10;
    assert.deepEqual(join([datagram(0), bad, datagram(2), datagram(3)]).counts, [1, 1, 2]);
  });
});

describe('several flows', () => {
  it('that are interleaved are each joined', () => {
    const flow = (index: number, number: number): Uint8Array => segment(index, { sourcePort: 1_000 + number });
    const packets = [0, 1, 2].flatMap((index) =>
      Array.from({ length: COALESCE_FLOWS }, (_, number) => flow(index, number)),
    );
    assert.deepEqual(
      join(packets).counts,
      Array.from({ length: COALESCE_FLOWS }, () => 3),
    );
  });

  it('one too many sends the oldest on its way, and no more than that', () => {
    const flow = (index: number, number: number): Uint8Array => segment(index, { sourcePort: 1_000 + number });
    const packets = Array.from({ length: COALESCE_FLOWS + 1 }, (_, number) => flow(0, number));
    const again = Array.from({ length: COALESCE_FLOWS }, (_, number) => flow(1, number + 1));
    const { counts } = join([...packets, ...again]);
    assert.deepEqual(counts.sort(), [1, ...Array.from({ length: COALESCE_FLOWS }, () => 2)]);
  });

  it('TCP and UDP with the same addresses and ports are two', () => {
    assert.deepEqual(join([segment(0), datagram(0), segment(1), datagram(1)]).counts, [2, 2]);
  });

  it('a fragment or a packet with options comes after what came before it; ICMP goes ahead', () => {
    const fragment = ipv4Packet({ ...ip, protocol: 6, fragmentOffset: 3 }, payloadOf(30));
    assert.deepEqual(join([segment(0), segment(1), fragment, segment(2)]).counts, [2, 1, 1]);
    const cutOff = ipv4Packet({ ...ip, protocol: 6 }, payloadOf(8));
    assert.deepEqual(join([segment(0), segment(1), cutOff, segment(2)]).counts, [2, 1, 1]);
    const echo = icmpPacket(ip, 8, 0, 0, payloadOf(8));
    assert.deepEqual(join([segment(0), echo, segment(1)]).counts, [1, 2]);
  });
});

describe('what the kernel is told', () => {
  it('a packet alone carries no request, whatever it follows', () => {
    const { frames } = join([segment(0), segment(1), segment(5), icmpPacket(ip, 8, 0, 0, payloadOf(8))]);
    const headers = frames.map((bytes) => bytes.subarray(0, 10).every((byte) => byte === 0));
    assert.deepEqual(headers, [false, true, true]);
    assert.deepEqual(frames[2]!.slice(10), segment(5));
  });
});
