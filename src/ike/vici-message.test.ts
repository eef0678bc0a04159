import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import {
  decodePacket,
  encodePacket,
  VICI_PACKETS,
  type ViciMessage,
  ViciPackets,
  type ViciValue,
  viciMessage,
} from './vici-message.ts';

const text = fc.string({ unit: 'binary', maxLength: 40 });
const name = fc.string({ unit: 'grapheme', maxLength: 20 }).filter((each) => Buffer.byteLength(each) <= 255);
const { message } = fc.letrec<{ message: ViciMessage; value: ViciValue }>((tie) => ({
  value: fc.oneof({ maxDepth: 3 }, text, fc.array(text, { maxLength: 3 }), tie('message')),
  message: fc.array(fc.tuple(name, tie('value')), { maxLength: 4 }).map((entries) => new Map(entries)),
}));

describe('VICI', () => {
  it('has the bytes that its documentation shows', () => {
    const section = viciMessage({
      key1: 'value1',
      section1: { 'sub-section': { key2: 'value2' }, list1: ['item1', 'item2'] },
    });
    assert.equal(
      Buffer.from(encodePacket(VICI_PACKETS.request, 'c', section)).toString('latin1'),
      '\0\0\0\x50\0\x01c' +
        '\x03\x04key1\0\x06value1' +
        '\x01\x08section1' +
        '\x01\x0bsub-section\x03\x04key2\0\x06value2\x02' +
        '\x04\x05list1\x05\0\x05item1\x05\0\x05item2\x06' +
        '\x02',
    );
  });

  it('reads every packet that it has written, however the stream is cut', () => {
    const packet = fc.record({ isEvent: fc.boolean(), name, message });
    const stream = fc.array(packet, { maxLength: 4 });
    fc.assert(
      fc.property(stream, fc.array(fc.nat(200), { maxLength: 6 }), (packets, cuts) => {
        const { event, response } = VICI_PACKETS;
        const wanted = packets.map((each) => ({
          type: each.isEvent ? event : response,
          name: each.isEvent ? each.name : undefined,
          message: each.message,
        }));
        const bytes = Buffer.concat(wanted.map((each) => encodePacket(each.type, each.name, each.message)));
        const reader = new ViciPackets();
        const at = [0, ...cuts.map((cut) => Math.min(cut, bytes.length)).sort((a, b) => a - b), bytes.length];
        const read = at.slice(1).flatMap((end, i) => reader.take(bytes.subarray(at[i], end)));
        assert.deepEqual(read, wanted);
      }),
    );
  });

  it('takes any bytes for a packet or for none, and nothing else comes of it', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 60 }), (bytes) => {
        try {
          decodePacket(bytes);
        } catch (error) {
          assert(error instanceof RangeError);
        }
      }),
      { numRuns: 1_000 },
    );
  });

  it('takes a damaged packet, or a part of one, for a packet or for none, and nothing else comes of it', () => {
    const edits = fc.array(fc.tuple(fc.nat(), fc.nat(255)), { maxLength: 3 });
    let read = 0;
    fc.assert(
      fc.property(message, edits, fc.option(fc.nat()), (section, damage, cut) => {
        const whole = encodePacket(VICI_PACKETS.event, 'list-sa', section).slice(4);
        for (const [at, value] of damage) whole[at % whole.length] = value;
        try {
          decodePacket(cut === null ? whole : whole.subarray(0, cut % whole.length));
          read++;
        } catch (error) {
          assert(error instanceof RangeError);
        }
      }),
      { numRuns: 2_000 },
    );
    assert(read > 100, `${read} were still packets`);
  });

  it('refuses sections without end, and what no packet can hold', () => {
    const deep = Buffer.concat([Buffer.of(VICI_PACKETS.response), Buffer.alloc(300_000, Buffer.of(1, 1, 0x61))]);
    assert.throws(() => decodePacket(deep), { name: 'RangeError', message: /without end/ });
    assert.throws(() => new ViciPackets().take(Buffer.of(0xff, 0, 0, 0)), { name: 'RangeError', message: /no packet/ });
    assert.throws(() => encodePacket(0, 'n'.repeat(256)), RangeError);
    // What is too long may be a key: it is not shown.
    const secret = 's'.repeat(70_000);
    const withSecret = viciMessage({ data: secret });
    assert.throws(
      () => encodePacket(0, 'load-shared', withSecret),
      (error: Error) => !error.message.includes('ss'),
    );
  });
});
