import assert from 'node:assert/strict';
import { it } from 'node:test';
import { runOutboundFuzz } from '../fuzz/outbound-fuzz-run.ts';
import { openProgramBench } from '../fuzz/program-bench.ts';
import { FUZZ_PEERS, runProgramFuzz } from '../fuzz/program-fuzz-run.ts';

it('the inbound programs take nothing that host and forwarder would not, to the byte: 5,000 frames', async () => {
  await using bench = await openProgramBench();
  const { taken, takenAcknowledgements, left } = await runProgramFuzz(bench, { packets: 5_000, seed: 1 });
  // The frames reach what they are meant to reach.
  assert.ok(taken > 100 && takenAcknowledgements > 30 && left > 500, `${taken}, ${takenAcknowledgements}, ${left}`);
});

it('the outbound programs send what the forwarder would send, to the byte: 5,000 packets', async () => {
  await using bench = await openProgramBench(FUZZ_PEERS.map(({ publicIp }) => publicIp));
  const { sent, leftAndSent } = runOutboundFuzz(bench, { packets: 5_000, seed: 1 });
  assert.ok(sent > 500 && leftAndSent > 200, `${sent}, ${leftAndSent}`);
});
