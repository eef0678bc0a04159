import assert from 'node:assert/strict';
import { it } from 'node:test';
import { PeerSlots } from '../dataplane/peer-slots.ts';
import { AgentFigures } from './agent-figures.ts';
import { NodeReadiness } from './readiness.ts';

it('what the metrics say of drops of the host does not go back where the kernel’s counters seem to', () => {
  const looks = [3, 1, 4];
  const host = {
    version: 'test',
    hostDrops: () => ({ 'filtered-in': looks[0]! }),
    hostDrops6: () => ({ 'filtered-in': 10 * looks.shift()! }),
    deviceDrops: () => undefined,
  };
  const figures = new AgentFigures(new PeerSlots(1), new NodeReadiness(), 'local', { droppedLines: 0 }, host);
  const seen = Array.from({ length: 3 }, () => {
    const { hostDrops, hostDrops6 } = figures.snapshot();
    return [hostDrops?.['filtered-in'], hostDrops6?.['filtered-in']];
  });
  assert.deepEqual(seen, [
    [3, 30],
    [3, 30],
    [4, 40],
  ]);
});
