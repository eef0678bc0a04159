import assert from 'node:assert/strict';
import { it } from 'node:test';
import { HighestCounts, RisingCount, RisingCounts } from './rising-count.ts';

it('a rising count goes on when what is counted is made anew', () => {
  const count = new RisingCount();
  // Deleted and there again, made anew between two looks, and made anew without a drop.
  const kernel = [undefined, 10, 12, undefined, undefined, 4, 5, 1, 3, 0, 2];
  assert.deepEqual(
    kernel.map((now) => count.total(now)),
    [undefined, 10, 12, 12, 12, 16, 17, 18, 20, 20, 22],
  );
});

it('the sum of rising counts counts nothing twice when one of them is made anew, goes, or is left out for a while', () => {
  const counts = new RisingCounts();
  const looks: readonly Readonly<Record<string, number | undefined>>[] = [
    ...[{}, { one: 10 }, { one: 10, other: 5 }],
    // The other is made anew, goes, and is there again.
    ...[{ one: 11, other: 1 }, { one: 11, other: undefined }, { one: 12 }, { one: 12, other: 2 }],
    // Nobody asks for any.
    ...[{}, { one: 12, other: 3 }],
  ];
  assert.deepEqual(
    looks.map((kernel) => counts.total(Object.keys(kernel), (name) => kernel[name])),
    [undefined, 10, 15, 17, 17, 18, 20, 20, 21],
  );
});

it('the highest of counts that seem to go back is what counts, each by its name', () => {
  const counts = new HighestCounts();
  const looks = [{ in: 1 }, { in: 0, out: 2 }, { out: 1 }, { in: 3, out: 1 }];
  assert.deepEqual(
    looks.map((now) => counts.take(now)),
    [{ in: 1 }, { in: 1, out: 2 }, { in: 1, out: 2 }, { in: 3, out: 2 }],
  );
});
