import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { abandon, gone } from '../e2e/nodes/abandon.ts';

test('a run that is killed leaves nothing: its reaper removes daemon, nodes, cgroups, namespaces and files', async () => {
  // The images may have to be built, when it is not make that runs this. Nothing of ours looks after it then, and no other run need come.
  await gone(await abandon(fileURLToPath(new URL('abandoned-cluster.ts', import.meta.url)), { patienceMs: 1_400_000 }));
});
