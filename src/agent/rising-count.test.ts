import assert from 'node:assert/strict';
import { it } from 'node:test';
import { RisingCount } from './rising-count.ts';

it('a rising count goes on when what is counted is made anew', () => {
  const count = new RisingCount();
  // Deleted and there again, made anew between two looks, and made anew without a drop.
  const kernel = [undefined, 10, 12, undefined, undefined, 4, 5, 1, 3, 0, 2];
  assert.deepEqual(
    kernel.map((now) => count.total(now)),
    [undefined, 10, 12, 12, 12, 16, 17, 18, 20, 20, 22],
  );
});
