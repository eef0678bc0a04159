import assert from 'node:assert/strict';
import { test } from 'node:test';
import { unguessable } from './unguessable.ts';

test('bytes that nobody can guess are given out once each, also across portions', () => {
  const drawn = Array.from({ length: 300 }, () => unguessable(8));
  assert.ok(drawn.every((bytes) => bytes.length === 8 && bytes.buffer.byteLength === 8));
  assert.equal(new Set(drawn.map((bytes) => bytes.join(' '))).size, 300);
  // What is taken later changes nothing of what was taken before.
  const first = unguessable(4);
  const before = first.join(' ');
  for (let count = 0; count < 300; count++) unguessable(7);
  assert.equal(first.join(' '), before);
});
