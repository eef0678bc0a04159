import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { isStall, worstPause } from './pauses.ts';

/** A line every 10 ms, without those that would come within these pauses. */
function linesBut(...pauses: readonly (readonly [number, number])[]): number[] {
  const all = Array.from({ length: 101 }, (_, index) => index * 10);
  return all.filter((atMs) => !pauses.some(([from, until]) => atMs > from && atMs < until));
}

describe('the worst pause of a connection', () => {
  it('is the longest when the other goes on', () => {
    assert.deepEqual(worstPause(linesBut([100, 180], [500, 560]), linesBut()), { ms: 80, besideMs: 10 });
  });

  it('is none of those that the other has too', () => {
    assert.deepEqual(worstPause(linesBut([100, 400], [500, 560]), linesBut([80, 390])), { ms: 60, besideMs: 10 });
  });

  it('is not excused by one that the other has before or after', () => {
    assert.deepEqual(worstPause(linesBut([300, 500]), linesBut([0, 290], [510, 900])), { ms: 200, besideMs: 10 });
  });

  it('is nothing when no line was late', () => {
    assert.deepEqual(worstPause(linesBut(), linesBut()), { ms: 0, besideMs: 0 });
    assert.deepEqual(worstPause(linesBut(), linesBut([100, 300])), { ms: 0, besideMs: 0 });
  });

  it('is a stall when the other was not stopped for nearly as long', () => {
    assert.deepEqual(
      [
        { ms: 60, besideMs: 10 },
        { ms: 61, besideMs: 10 },
        { ms: 200, besideMs: 100 },
        { ms: 201, besideMs: 100 },
      ].map(isStall),
      [false, true, false, true],
    );
  });
});
