import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { IcmpLimits } from './icmp-limits.ts';

const SEED = 0x1234_5678;
const A = 0x0af4_0105;
const B = 0x0af4_0106;

/** How many of `tries` may leave at that moment. */
function taken(
  limits: IcmpLimits,
  source: number,
  isFragmentationNeeded: boolean,
  tries: number,
  nowMs: number,
): number {
  let count = 0;
  for (let index = 0; index < tries; index++) if (limits.take(source, isFragmentationNeeded, nowMs)) count++;
  return count;
}

describe('IcmpLimits', () => {
  it('one source has 10 at once and 100 a second, and the others still have theirs', () => {
    const limits = new IcmpLimits(SEED);
    assert.equal(taken(limits, A, false, 1_000, 0), 10);
    assert.equal(taken(limits, B, false, 1_000, 0), 10);
    assert.equal(taken(limits, A, false, 1_000, 50), 5);
    let later = 0;
    for (let now = 60; now <= 1_050; now += 10) later += taken(limits, A, false, 100, now);
    assert.equal(later, 100);
  });

  it('a source that has used up its errors is still told about fragmentation', () => {
    const limits = new IcmpLimits(SEED);
    taken(limits, A, false, 1_000, 0);
    assert.equal(taken(limits, A, true, 1_000, 0), 10);
  });

  it('all sources together have 50 at once and 1,000 a second; fragmentation needed has a reserve', () => {
    const limits = new IcmpLimits(SEED);
    let others = 0;
    for (let source = 1; source <= 500; source++) others += taken(limits, source, false, 1, 0);
    assert.equal(others, 50);
    let fragmentation = 0;
    for (let source = 1; source <= 500; source++) fragmentation += taken(limits, source, true, 1, 0);
    assert.equal(fragmentation, 25);
    assert.equal(taken(limits, 7_000, false, 1, 0), 0, 'the reserve is for nothing else');
  });

  it('a flood of forged sources leaves some for fragmentation needed, at any time', () => {
    const limits = new IcmpLimits(SEED);
    for (let now = 0; now < 2_000; now++) {
      for (let source = 0; source < 20; source++) limits.take((now * 31 + source) >>> 0, false, now);
      if (now % 100 === 99) assert.ok(limits.take(0xc0a8_0000 + now, true, now));
    }
  });

  it('never lets out more than its rates allow, whatever is asked (property)', () => {
    const asks = fc.record({
      source: fc.integer({ min: -(2 ** 31), max: 2 ** 32 - 1 }),
      fragments: fc.boolean(),
      wait: fc.nat(5),
    });
    fc.assert(
      fc.property(fc.integer(), fc.array(asks, { maxLength: 400 }), (seed, list) => {
        const limits = new IcmpLimits(seed);
        let now = 0;
        let all = 0;
        let others = 0;
        for (const { source, fragments, wait } of list) {
          now += wait;
          if (!limits.take(source, fragments, now)) continue;
          all++;
          if (!fragments) others++;
        }
        assert.ok(others <= 50 + now);
        assert.ok(all <= 75 + now * 1.25);
      }),
    );
  });
});
