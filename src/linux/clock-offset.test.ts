import assert from 'node:assert/strict';
import { test } from 'node:test';
import { clockOffset } from './clock-offset.ts';

const AHEAD_MS = 5_000;

/** Two clocks, one ahead of the other; each reading of one of them is followed by one of the pauses. */
function clocks(pauses: readonly number[]): { from: () => number; to: () => number; readings: () => number } {
  let now = 1_000;
  let readings = 0;
  const read = (ahead: number): number => {
    const time = now + ahead;
    now += pauses[readings++] ?? 0;
    return time;
  };
  return { from: () => read(0), to: () => read(AHEAD_MS), readings: () => readings };
}

test('a pause between the readings of two clocks does not come into their offset', () => {
  for (const pauses of [
    [30, 0.001],
    [0.001, 30],
    [30, 30, 0, 7, 7],
  ]) {
    const { from, to } = clocks(pauses);
    assert.ok(Math.abs(clockOffset(from, to) - AHEAD_MS) < 0.01);
  }
});

test('a machine that always pauses is not asked for ever, and the shortest pause counts', () => {
  const { from, to, readings } = clocks([8, 8, 8, 8, 8, 8, 2, 2, 8, 8, 8, 8, 8, 8, 8]);
  assert.ok(Math.abs(clockOffset(from, to) - AHEAD_MS) <= 2);
  assert.equal(readings(), 15);
});
