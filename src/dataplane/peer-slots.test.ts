import assert from 'node:assert/strict';
import { test } from 'node:test';
import { PeerSlots } from './peer-slots.ts';

const never = (): void => assert.fail('no slot may be reused yet');

test('a peer keeps its slot while others come and go', () => {
  const slots = new PeerSlots(10);
  const [a] = slots.assign(['a', 'b'], never);
  slots.assign(['a'], never);
  const [, againA] = slots.assign(['c', 'a', 'd'], never);
  assert.equal(againA, a);
});

test('a released slot is given away only when no fresh one is left, and the caller is told', () => {
  const slots = new PeerSlots(3); // slots 1 and 2
  assert.deepEqual(slots.assign(['a', 'b'], never), [1, 2]);
  const reused: number[] = [];
  assert.deepEqual(
    slots.assign(['b', 'c'], (slot) => reused.push(slot)),
    [2, 1],
  );
  assert.deepEqual(reused, [1]);
  assert.deepEqual(slots.assign(['b', 'c', 'd'], never), [2, 1, undefined]);
  assert.deepEqual(
    [...slots.entries()],
    [
      ['b', 2],
      ['c', 1],
    ],
  );
});
