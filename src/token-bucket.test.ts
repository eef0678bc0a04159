import assert from 'node:assert/strict';
import { it } from 'node:test';
import { TokenBucket } from './token-bucket.ts';

it('gives so much at once, and one more for each interval from then on', () => {
  const bucket = new TokenBucket(2, 10);
  assert.ok(bucket.isFull(95));
  assert.deepEqual([bucket.take(100), bucket.take(100), bucket.take(100)], [true, true, false]);
  assert.equal(bucket.readyAtMs(104), 110);
  assert.equal(bucket.has(109), false);
  assert.deepEqual([bucket.take(111), bucket.take(111), bucket.readyAtMs(111)], [true, false, 120]);
  assert.equal(bucket.readyAtMs(125), 125);
  assert.equal(bucket.isFull(125), false);
  assert.equal(bucket.isFull(130), true);
  // However long nothing is taken.
  assert.deepEqual([bucket.take(9_000), bucket.take(9_000), bucket.take(9_000)], [true, true, false]);
});

it('earns nothing while the clock is behind, and loses nothing', () => {
  const bucket = new TokenBucket(2, 10);
  bucket.take(1_000);
  assert.equal(bucket.take(5), true);
  assert.equal(bucket.take(5), false);
  assert.equal(bucket.take(1_010), true);
});
