import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { fileBytes } from './file-size.ts';

describe('the file that a lab sends', () => {
  it('is what some seconds can carry, and never none', () => {
    const mib = (gbps: number | undefined): number => fileBytes(gbps) / 1024 / 1024;
    assert.deepEqual([undefined, 7, 0.2].map(mib), [64, 64, 64]);
    assert.deepEqual([0.05, 0.01, 0.0001, 0].map(mib), [29, 5, 1, 1]);
  });
});
