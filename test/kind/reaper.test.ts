import assert from 'node:assert/strict';
import { existsSync, globSync } from 'node:fs';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { start } from '../../src/linux/run.ts';
import { nodesDir } from '../e2e/nodes/leftovers.ts';
import { eventually, LineFeed } from '../netns/waiting.ts';

const PATIENCE_MS = 300_000;

test('a run that is killed leaves nothing: its reaper removes daemon, containers, cgroups, namespaces and files', async () => {
  const script = fileURLToPath(new URL('abandoned-host.ts', import.meta.url));
  const child = await start([process.execPath, '--disable-warning=ExperimentalWarning', script]);
  const { text: id } = await new LineFeed(child.stdout!).find((line) => /^[a-z0-9]+$/.test(line), 0, PATIENCE_MS);
  const places = [`/sys/fs/cgroup/*/weft-${id}-*`, `/run/netns/weft-${id}-*`, `/run/weft-lab/${id}*`, nodesDir(id)];
  assert.ok(existsSync(nodesDir(id)));
  assert.ok(globSync(places).length > 3);
  child.kill('SIGKILL');
  await child.exited;
  // Nothing of ours looks after it, and no other run need come.
  await eventually('nothing of it is left', () => (globSync(places).length === 0 ? true : undefined), PATIENCE_MS);
});
