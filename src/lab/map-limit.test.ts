import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { setImmediate } from 'node:timers/promises';
import { mapLimit } from './map-limit.ts';

describe('mapLimit', () => {
  it('keeps the order and never exceeds the limit', async () => {
    let running = 0;
    let most = 0;
    const results = await mapLimit([5, 1, 4, 2, 3], 2, async (turns, index) => {
      most = Math.max(most, ++running);
      for (let i = 0; i < turns; i++) await setImmediate();
      running--;
      return `${index}:${turns}`;
    });
    assert.deepEqual(results, ['0:5', '1:1', '2:4', '3:2', '4:3']);
    assert.equal(most, 2);
  });

  it('starts nothing after a failure and waits for what runs', async () => {
    const started: number[] = [];
    let finished = 0;
    const mapping = mapLimit([0, 1, 2, 3], 2, async (item) => {
      started.push(item);
      if (item === 0) throw new Error('first');
      for (let i = 0; i < 5; i++) await setImmediate();
      finished++;
      return item;
    });
    await assert.rejects(mapping, /first/);
    assert.deepEqual(started, [0, 1]);
    assert.equal(finished, 1);
  });

  it('maps nothing to nothing', async () => {
    assert.deepEqual(await mapLimit([], 3, async () => 1), []);
  });
});
