import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { Dots, FLIGHT_MS, MAX_DOTS, packetsPerDot } from './dots.ts';

/** Frames of a second after one look; returns how many dots set out. */
function dotsOf(packets: number, perDot: number, seconds = 1): number {
  const dots = new Dots();
  dots.advance(0);
  dots.feed(new Map([['a', { packets }]]), perDot);
  let born = 0;
  let before = 0;
  for (let frame = 1; frame <= seconds * 60; frame++) {
    const nowMs = (frame * 1000) / 60;
    dots.advance(nowMs);
    const now = [...dots.along('a', nowMs)].filter((share) => share * FLIGHT_MS <= (nowMs - before) / 2).length;
    born += now;
    before = nowMs;
  }
  return born;
}

describe('dots on a link', () => {
  it('are as many as packets were counted', () => {
    for (const packets of [0, 1, 5, 17]) assert.ok(Math.abs(dotsOf(packets, 1) - packets) <= 1, `${packets}`);
    assert.ok(Math.abs(dotsOf(170, 10) - 17) <= 1);
  });

  it('move from one end to the other, and are gone', () => {
    const dots = new Dots();
    dots.advance(0);
    dots.feed(new Map([['a', { packets: 4 }]]), 1);
    for (let ms = 50; ms <= 1000; ms += 50) dots.advance(ms);
    const shares = [...dots.along('a', 1000)];
    assert.ok(shares.length >= 3 && shares.every((share, i) => i === 0 || share < shares[i - 1]!));
    dots.feed(new Map(), 1);
    for (let ms = 1050; ms <= 3000; ms += 50) dots.advance(ms);
    assert.deepEqual([...dots.along('a', 3000)], []);
    assert.deepEqual([...dots.links], []);
  });

  it('of a page that was in the background are not all sent at once', () => {
    const dots = new Dots();
    dots.advance(0);
    dots.feed(new Map([['a', { packets: 10 }]]), 1);
    dots.advance(3_600_000);
    assert.ok([...dots.along('a', 3_600_000)].length <= 3);
  });

  it('stand for more packets when there are more, and are never too many', () => {
    assert.equal(packetsPerDot([]), 1);
    assert.equal(packetsPerDot([5, 15]), 1);
    assert.equal(packetsPerDot([5, 150]), 10);
    assert.equal(packetsPerDot([237_000]), 100_000);
    const many = Array.from({ length: 5000 }, () => 10);
    assert.ok((many.length * 10 * FLIGHT_MS) / 1000 / packetsPerDot(many) <= MAX_DOTS);
  });
});
