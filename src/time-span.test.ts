import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { shortSpan, spanText } from './time-span.ts';

describe('a span of time', () => {
  const SPANS = [-5, 0, 119_999, 120_000, 7_199_999, 7_200_000, 172_799_999, 172_800_000, 1e9];

  it('is told in one unit, of which there are two or more', () => {
    assert.deepEqual(SPANS.map(spanText), [
      ...['0 s', '0 s', '119 s', '2 min', '119 min', '2 h', '47 h', '2 d', '11 d'],
    ]);
  });

  it('is shorter in a column', () => {
    assert.deepEqual(SPANS.map(shortSpan), ['0s', '0s', '119s', '2m', '119m', '2h', '47h', '2d', '11d']);
  });
});
