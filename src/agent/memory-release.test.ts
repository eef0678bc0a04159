import assert from 'node:assert/strict';
import { mock, test } from 'node:test';
import { MemoryRelease } from './memory-release.ts';

test('memory is given back after a burst, once more when all is compiled, and then from time to time', () => {
  mock.timers.enable({ apis: ['setTimeout'] });
  try {
    let releases = 0;
    let heapMiB = 20;
    const after = (seconds: number): number => {
      mock.timers.tick(seconds * 1_000);
      return releases;
    };
    const memory = new MemoryRelease(
      () => releases++,
      () => heapMiB * 1_048_576,
    );
    assert.equal(after(3_600), 0);
    memory.afterBurst();
    assert.equal(after(1), 0);
    memory.afterBurst();
    assert.equal(after(1), 0);
    assert.equal(after(1), 1);
    assert.equal(after(59), 1);
    assert.equal(after(1), 2);
    assert.equal(after(599), 2);
    assert.equal(after(1), 3);
    for (let times = 4; times < 8; times++) assert.equal(after(600), times);
    // With thousands of peers, only after a burst.
    heapMiB = 100;
    assert.equal(after(600), 7);
    memory.afterBurst();
    assert.equal(after(2), 8);
    assert.equal(after(60), 8);
    heapMiB = 60;
    assert.equal(after(600), 9);
    memory[Symbol.dispose]();
    assert.equal(after(3_600), 9);
  } finally {
    mock.timers.reset();
  }
});
