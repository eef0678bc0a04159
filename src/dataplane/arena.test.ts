import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { address, payloadOf, slowChecksum, tcpPacket, udpPacket } from '../../test/fakes/packets.ts';
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

describe('copyHeader', () => {
  it('copies so many bytes, and none behind the next multiple of 16', () => {
    const arena = createArena();
    arena.bytes.set(payloadOf(200), 1_026);
    for (let length = 0; length <= 120; length += 4) {
      arena.bytes.fill(0, 4_096, 4_400);
      arena.copyHeader(4_096, 1_026, length);
      assert.deepEqual(arena.bytes.slice(4_096, 4_096 + length), arena.bytes.slice(1_026, 1_026 + length));
      const end = 4_096 + Math.ceil(length / 16) * 16;
      assert.ok(arena.bytes.subarray(end, 4_400).every((byte) => byte === 0));
    }
  });
});
