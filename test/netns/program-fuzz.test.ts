import assert from 'node:assert/strict';
import { it } from 'node:test';
import { openProgramBench } from '../fuzz/program-bench.ts';
import { runProgramFuzz } from '../fuzz/program-fuzz-run.ts';

it('the inbound programs take nothing that host and forwarder would not, to the byte: 5,000 frames', async () => {
  await using bench = await openProgramBench();
  const { taken, takenAcknowledgements, left } = await runProgramFuzz(bench, { packets: 5_000, seed: 1 });
  // The frames reach what they are meant to reach.
  assert.ok(taken > 200 && takenAcknowledgements > 40 && left > 500, `${taken}, ${takenAcknowledgements}, ${left}`);
});
