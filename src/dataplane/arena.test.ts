import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { payloadOf, slowChecksum } from '../../test/fakes/packets.ts';
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
