import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { cut } from '../../test/fakes/kernel-offload.ts';
import {
  address,
  hex,
  payloadOf,
  slowChecksum,
  tcpFrame,
  tcpPacket,
  udpFrame,
  udpPacket,
} from '../../test/fakes/packets.ts';
import { ArenaLayout, createArena, putIovec } from './arena.ts';
import { swap16 } from './checksum.ts';

describe('ArenaLayout', () => {
  it('hands out aligned regions that do not overlap, never offset 0', () => {
    const layout = new ArenaLayout(createArena());
    const first = layout.take(10);
    const second = layout.take(100, 16);
    const third = layout.take(1, 4_096);
    assert.ok(first > 0);
    assert.equal(first % 64, 0);
    assert.equal(second % 16, 0);
    assert.equal(third % 4_096, 0);
    assert.ok(second >= first + 10);
    assert.ok(third >= second + 100);
  });

  it('throws when a region does not fit', () => {
    const arena = createArena();
    const layout = new ArenaLayout(arena);
    layout.take(arena.size - 128);
    assert.throws(() => layout.take(128), RangeError);
  });
});

describe('putIovec', () => {
  it('writes address and length as 64-bit little-endian words, also across 4 GiB', () => {
    const base = 0x7fff_ffff_ff00;
    const arena = createArena(() => base);
    putIovec(arena, 64, 0x200, 65_535);
    assert.equal(arena.view.getBigUint64(64, true), BigInt(base) + 0x200n);
    assert.equal(arena.view.getBigUint64(72, true), 65_535n);
  });
});

describe('sum16', () => {
  const arena = createArena();
  const noise = payloadOf(66_000, 7);

  function compare(offset: number, length: number): void {
    const naive = 0xffff - slowChecksum(arena.bytes.subarray(offset, offset + length));
    assert.equal(swap16(arena.sum16(offset, length)), naive, `offset ${offset}, length ${length}`);
  }

  it('agrees with a naive sum for every length up to 2,000 at every alignment', () => {
    arena.bytes.set(noise, 1_024);
    for (let offset = 1_024; offset < 1_028; offset++)
      for (let length = 0; length <= 2_000; length++) compare(offset, length);
  });

  it('agrees for the longest packet, of any bytes and of all ones', () => {
    arena.bytes.set(noise, 1_024);
    for (let offset = 1_024; offset < 1_028; offset++) for (const length of [65_534, 65_535]) compare(offset, length);
    arena.bytes.fill(0xff, 1_024, 1_024 + 65_600);
    for (let offset = 1_024; offset < 1_028; offset++) for (const length of [65_534, 65_535]) compare(offset, length);
  });

  it('traps outside the arena instead of reading something else', () => {
    assert.throws(() => arena.sum16(arena.size - 16, 64), { name: 'RuntimeError' });
  });
});

describe('valid4', () => {
  const arena = createArena();
  const ip = { source: address('10.244.1.2'), destination: address('255.255.255.254') };
  const packets = fc.record({ isTcp: fc.boolean(), payload: fc.uint8Array({ maxLength: 300 }), ttl: fc.nat(255) });

  it('right checksums are right, and one flipped bit anywhere is seen', () => {
    fc.assert(
      fc.property(packets, fc.nat(), fc.nat(7), fc.nat(3), ({ isTcp, payload, ttl }, where, bit, shift) => {
        const fields = { ip: { ...ip, ttl }, sourcePort: 65_535, destinationPort: 2, payload };
        const packet = isTcp ? tcpPacket(fields) : udpPacket(fields);
        const at = 8_192 + shift;
        arena.bytes.fill(0xaa, at, at + packet.length + 64);
        arena.bytes.set(packet, at);
        assert.equal(arena.valid4(at, packet.length), 1);
        arena.bytes[at + (where % packet.length)]! ^= 1 << bit;
        assert.equal(arena.valid4(at, packet.length), 0);
      }),
    );
  });

  it('the longest packet, of zeros and of ones', () => {
    for (const value of [0, 0xff]) {
      const payload = new Uint8Array(65_535 - 40).fill(value);
      const packet = tcpPacket({ ip, sourcePort: 1, destinationPort: 2, payload });
      arena.bytes.set(packet, 8_192);
      assert.equal(arena.valid4(8_192, packet.length), 1);
      arena.bytes[8_192 + 40_000]! ^= 2;
      assert.equal(arena.valid4(8_192, packet.length), 0);
    }
  });
});

describe('segment4', () => {
  const BASE = 0x7f12_ffff_f000;
  const arena = createArena(() => BASE);
  const [headersAt, vectorAt, packetAt, end] = [8_192, 40_000, 50_002, 60_000];
  const stride = 128;
  const fields = fc.record({
    isTcp: fc.boolean(),
    ipOptions: fc.constantFrom(0, 4, 40),
    options: fc.constantFrom(0, 12, 40),
    payload: fc.uint8Array({ minLength: 1, maxLength: 900 }),
    size: fc.integer({ min: 9, max: 500 }),
    id: fc.nat(0xffff),
    sequence: fc.oneof(fc.nat(0xffff_ffff), fc.constantFrom(0, 0xffff_fff0)),
    flags: fc.nat(255),
  });

  it('lays down the segments that are asked for, as the kernel would cut them, and touches nothing else', () => {
    fc.assert(
      fc.property(fields, fc.nat(), fc.nat(), (recipe, some, many) => {
        const { isTcp, payload, size, id, sequence, flags } = recipe;
        const ip = {
          source: address('10.244.1.2'),
          destination: address('10.244.2.3'),
          id,
          options: payloadOf(recipe.ipOptions),
        };
        const ports = { sourcePort: 1, destinationPort: 65_535 };
        const frame = isTcp
          ? tcpFrame({ ip, ...ports, payload, sequence, flags, options: payloadOf(recipe.options) }, size)
          : udpFrame({ ip, ...ports, payload }, size);
        const segments = cut(frame);
        const headerLength = 20 + recipe.ipOptions;
        const headers = headerLength + (isTcp ? 20 + recipe.options : 8);
        const index = some % segments.length;
        const count = 1 + (many % (segments.length - index));
        arena.bytes.fill(0xc5, 0, end);
        arena.bytes.set(frame.subarray(10), packetAt);
        const wanted = arena.bytes.slice(0, end);
        const vector = new DataView(wanted.buffer, vectorAt);
        arena.segment4(packetAt, headerLength, headers, size, index, count, headersAt, stride, vectorAt);
        segments.slice(index, index + count).forEach((segment, number) => {
          const header = headersAt + number * stride;
          const copied = header + Math.ceil(headers / 16) * 16; // the rest of the last piece is anything
          wanted.set(arena.bytes.subarray(header, copied), header);
          wanted.set(segment.subarray(0, headers), header);
          const entries = [header, headers, packetAt + headers + (index + number) * size, segment.length - headers];
          entries.forEach((value, entry) => {
            vector.setBigUint64(number * 32 + entry * 8, BigInt(entry % 2 === 0 ? BASE + value : value), true);
          });
        });
        assert.equal(hex(arena.bytes.subarray(0, end)), hex(wanted));
      }),
    );
  });
});

describe('continue4', () => {
  it('counts the packets before the first that differs in any bit, and lists their payloads', () => {
    const BASE = 0x7f12_ffff_f000;
    const arena = createArena(() => BASE);
    const [first, train, vector] = [8_194, 10_000, 40_000];
    const ip = { source: address('10.244.1.2'), destination: address('10.244.2.3') };
    const ports = { sourcePort: 1, destinationPort: 2 };
    const make = (isTcp: boolean, index: number, ttl: number): Uint8Array => {
      const fields = { ip: { ...ip, id: (0xfffe + index) & 0xffff, ttl }, ...ports, payload: payloadOf(60, index) };
      const sequence = (0xffff_ff80 + index * 60) >>> 0;
      return isTcp ? tcpPacket({ ...fields, sequence, options: payloadOf(12) }) : udpPacket(fields);
    };
    fc.assert(
      fc.property(fc.boolean(), fc.integer({ min: 1, max: 6 }), fc.option(fc.nat()), (isTcp, most, damage) => {
        const headers = isTcp ? 52 : 28;
        const length = headers + 60;
        arena.bytes.set(make(isTcp, 0, 63), first);
        for (let index = 0; index < most; index++) arena.bytes.set(make(isTcp, index + 1, 64), train + index * length);
        arena.bytes.fill(0xc5, vector, vector + 128);
        const bit = damage === null ? undefined : damage % (most * length * 8);
        if (bit !== undefined) arena.bytes[train + (bit >>> 3)]! ^= 1 << (bit & 7);
        const count = arena.continue4(first, headers, train, length, most, 1, 0xffff_ff80 + 60, 0xffff, vector);
        assert.equal(count, bit === undefined ? most : Math.floor(bit / 8 / length));
        for (let index = 0; index < count; index++) {
          const payload = BigInt(BASE + train + index * length + headers);
          assert.equal(arena.view.getBigUint64(vector + index * 16, true), payload);
          assert.equal(arena.view.getBigUint64(vector + index * 16 + 8, true), 60n);
        }
        const behind = arena.bytes.subarray(vector + count * 16, vector + 128);
        assert.ok(behind.every((byte) => byte === 0xc5));
      }),
      { numRuns: 2_000 },
    );
  });
});
