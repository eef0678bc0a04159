import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { slowChecksum } from '../../test/fakes/packets.ts';
import { internetChecksum } from './internet-checksum.ts';

const viewOf = (bytes: Uint8Array): DataView => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);

describe('internetChecksum', () => {
  it('is that of the example of RFC 1071', () => {
    const bytes = Uint8Array.of(0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7);
    assert.equal(internetChecksum(viewOf(bytes), bytes.length), ~0xddf2 & 0xffff);
  });

  it('takes any number of bytes, odd ones and carries too (property)', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 3_000 }), (bytes) => {
        assert.equal(internetChecksum(viewOf(bytes), bytes.length), slowChecksum(bytes));
      }),
    );
    const ones = new Uint8Array(65_535).fill(0xff);
    assert.equal(internetChecksum(viewOf(ones), ones.length), slowChecksum(ones));
  });

  it('leaves what is behind the length alone', () => {
    assert.equal(internetChecksum(viewOf(Uint8Array.of(1, 2, 3, 4)), 2), ~0x0102 & 0xffff);
  });
});
