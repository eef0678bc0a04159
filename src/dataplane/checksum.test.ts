import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import {
  address,
  aged,
  payloadOf,
  slowChecksum,
  tcpPacket,
  transportChecksum,
  udpPacket,
} from '../../test/fakes/packets.ts';
import { createArena } from './arena.ts';
import { decrementTtl, fold, pseudoSum4, putIpv4Checksum, swap16 } from './checksum.ts';

const arena = createArena();
const AT = 4_096;
const ip = { source: address('10.244.1.2'), destination: address('10.244.2.3') };

interface Recipe {
  readonly isTcp: boolean;
  readonly payload: Uint8Array;
  readonly id: number;
  readonly ttl: number;
  readonly tos: number;
  readonly options: Uint8Array;
}

const packets: fc.Arbitrary<Recipe> = fc.record({
  isTcp: fc.boolean(),
  payload: fc.uint8Array({ maxLength: 200 }),
  id: fc.nat(0xffff),
  ttl: fc.integer({ min: 1, max: 255 }),
  tos: fc.nat(255),
  options: fc.constantFrom(new Uint8Array(0), payloadOf(4), payloadOf(40)),
});

function build({ isTcp, payload, options, ...rest }: Recipe): Uint8Array {
  const fields = { ip: { ...ip, ...rest, options }, sourcePort: 1, destinationPort: 2, payload };
  return isTcp ? tcpPacket(fields) : udpPacket(fields);
}

describe('fold and swap16', () => {
  it('fold keeps the value modulo 65,535 and in 16 bits', () => {
    fc.assert(
      fc.property(fc.nat(0xffff_fffe), (sum) => {
        const folded = fold(sum);
        assert.ok(folded <= 0xffff);
        assert.equal(folded % 0xffff, sum % 0xffff);
        assert.equal(folded === 0, sum === 0);
      }),
    );
  });

  it('swap16 exchanges the bytes', () => {
    assert.equal(swap16(0x1234), 0x3412);
    assert.equal(swap16(0x00ff), 0xff00);
  });
});

describe('pseudoSum4', () => {
  it('is the sum of the pseudo header of RFC 9293', () => {
    const packet = tcpPacket({ ip, sourcePort: 1, destinationPort: 2, payload: payloadOf(31) });
    arena.bytes.set(packet, AT);
    const segment = packet.slice(20);
    segment.fill(0);
    const sum = swap16(fold(pseudoSum4(arena, AT, 6, segment.length)));
    assert.equal(0xffff - sum, transportChecksum(ip.source, ip.destination, 6, segment));
  });
});

describe('putIpv4Checksum', () => {
  it('writes what the slow way computes, whatever was there', () => {
    fc.assert(
      fc.property(packets, fc.nat(0xffff), (recipe, before) => {
        const packet = build(recipe);
        arena.bytes.set(packet, AT);
        arena.view.setUint16(AT + 10, before);
        putIpv4Checksum(arena, AT, 20 + recipe.options.length);
        assert.deepEqual(arena.bytes.slice(AT, AT + packet.length), packet);
      }),
    );
  });
});

describe('decrementTtl', () => {
  it('gives the header that a fresh checksum gives', () => {
    fc.assert(
      fc.property(packets, (recipe) => {
        const packet = build({ ...recipe, ttl: Math.max(2, recipe.ttl) });
        arena.bytes.set(packet, AT);
        assert.equal(decrementTtl(arena.view, AT), Math.max(2, recipe.ttl) - 1);
        assert.deepEqual(arena.bytes.slice(AT, AT + packet.length), aged(packet, 1));
      }),
    );
  });

  it('agrees with a fresh checksum for every value of the field', () => {
    const header = tcpPacket({ ip: { ...ip, ttl: 9 }, sourcePort: 1, destinationPort: 2 }).slice(0, 20);
    for (let id = 0; id <= 0xffff; id++) {
      header.set([id >>> 8, id & 255], 4);
      header.set([0, 0], 10);
      const checksum = slowChecksum(header);
      header.set([checksum >>> 8, checksum & 255], 10);
      arena.bytes.set(header, AT);
      decrementTtl(arena.view, AT);
      const after = arena.view.getUint16(AT + 10);
      arena.view.setUint16(AT + 10, 0);
      assert.equal(after, slowChecksum(arena.bytes.subarray(AT, AT + 20)), `id ${id}`);
    }
  });

  it('keeps a wrong checksum wrong', () => {
    fc.assert(
      fc.property(packets, fc.integer({ min: 1, max: 0xffff }), (recipe, error) => {
        const packet = build({ ...recipe, ttl: Math.max(2, recipe.ttl) });
        arena.bytes.set(packet, AT);
        arena.view.setUint16(AT + 10, arena.view.getUint16(AT + 10) ^ error);
        const header = arena.bytes.subarray(AT, AT + 20 + recipe.options.length);
        const wasRight = slowChecksum(header) === 0; // 0 and 0xffff are the same sum
        decrementTtl(arena.view, AT);
        assert.equal(slowChecksum(header) === 0, wasRight);
      }),
    );
  });

  it('leaves TTL 0 and 1 alone', () => {
    for (const ttl of [0, 1]) {
      const packet = tcpPacket({ ip: { ...ip, ttl }, sourcePort: 1, destinationPort: 2 });
      arena.bytes.set(packet, AT);
      assert.equal(decrementTtl(arena.view, AT), 0);
      assert.deepEqual(arena.bytes.slice(AT, AT + packet.length), packet);
    }
  });
});
