import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { PcapReader } from './pcap.ts';

interface Frame {
  readonly seconds: number;
  readonly ticks: number;
  readonly bytes: Uint8Array;
}

function pcapFile(frames: readonly Frame[], magic: number, linkType: number, littleEndian: boolean): Uint8Array {
  const size = 24 + frames.reduce((sum, frame) => sum + 16 + frame.bytes.length, 0);
  const bytes = new Uint8Array(size);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, magic, littleEndian);
  view.setUint16(4, 2, littleEndian);
  view.setUint16(6, 4, littleEndian);
  view.setUint32(16, 262144, littleEndian);
  view.setUint32(20, linkType, littleEndian);
  let offset = 24;
  for (const frame of frames) {
    view.setUint32(offset, frame.seconds, littleEndian);
    view.setUint32(offset + 4, frame.ticks, littleEndian);
    view.setUint32(offset + 8, frame.bytes.length, littleEndian);
    view.setUint32(offset + 12, frame.bytes.length + 7, littleEndian);
    bytes.set(frame.bytes, offset + 16);
    offset += 16 + frame.bytes.length;
  }
  return bytes;
}

describe('PcapReader', () => {
  it('gives the same frames however the stream is cut', () => {
    const frame = fc.record({
      seconds: fc.nat(),
      ticks: fc.nat(999_999),
      bytes: fc.uint8Array({ maxLength: 80 }),
    });
    fc.assert(
      fc.property(
        fc.array(frame, { maxLength: 8 }),
        fc.array(fc.integer({ min: 1, max: 40 }), { minLength: 1, maxLength: 20 }),
        fc.boolean(),
        (frames, cuts, littleEndian) => {
          const file = pcapFile(frames, 0xa1b2c3d4, 1, littleEndian);
          const reader = new PcapReader();
          const got = [];
          for (let offset = 0, turn = 0; offset < file.length; turn++) {
            const end = offset + (cuts[turn % cuts.length] ?? 1);
            got.push(...reader.push(file.subarray(offset, end)));
            offset = end;
          }
          assert.equal(reader.started, true);
          assert.deepEqual(
            got,
            frames.map(({ seconds, ticks, bytes }) => ({
              linkType: 'ethernet',
              timeNs: BigInt(seconds) * 1_000_000_000n + BigInt(ticks) * 1000n,
              originalBytes: bytes.length + 7,
              bytes,
            })),
          );
        },
      ),
      { numRuns: 200 },
    );
  });

  it('reads nanosecond files, and link types of a TUN device', () => {
    for (const linkType of [12, 101, 228]) {
      const file = pcapFile([{ seconds: 5, ticks: 123_456_789, bytes: Uint8Array.of(1) }], 0xa1b23c4d, linkType, true);
      const [frame] = new PcapReader().push(file);
      assert.equal(frame?.timeNs, 5_123_456_789n);
      assert.equal(frame?.linkType, 'raw');
    }
  });

  it('has not started before the whole header is there', () => {
    const reader = new PcapReader();
    reader.push(pcapFile([], 0xa1b2c3d4, 1, true).subarray(0, 23));
    assert.equal(reader.started, false);
  });

  it('refuses what is not a capture, and a record that cannot be one', () => {
    assert.throws(() => new PcapReader().push(new Uint8Array(24)), { code: 'WEFT_LAB_FAILED', message: /0x00000000/ });
    const file = pcapFile([{ seconds: 0, ticks: 0, bytes: new Uint8Array(4) }], 0xa1b2c3d4, 1, true);
    new DataView(file.buffer).setUint32(24 + 8, 262_145, true);
    assert.throws(() => new PcapReader().push(file), { code: 'WEFT_LAB_FAILED', message: /262145/ });
  });
});
