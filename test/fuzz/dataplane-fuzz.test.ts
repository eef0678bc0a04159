import assert from 'node:assert/strict';
import { it } from 'node:test';
import { DROP_REASONS } from '../../src/dataplane/drop-reason.ts';
import { runFuzz } from './fuzz-run.ts';

it('200,000 random and mutated packets: no crash, no byte out of place, every packet counted once', () => {
  const { packets, sent, joined, drops } = runFuzz({ packets: 200_000, seed: 1 });
  assert.ok(packets >= 200_000);
  // The packets reach what they are meant to reach.
  assert.ok(sent > 10_000 && joined > 10_000, `${sent} sent, ${joined} put together`);
  assert.deepEqual(Object.keys(drops).sort(), DROP_REASONS.slice(1).sort());
});
