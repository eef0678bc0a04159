import assert from 'node:assert/strict';
import { globSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { after, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { eventually } from '../netns/waiting.ts';
import { abandon, gone, startAbandoned } from './nodes/abandon.ts';
import { removeLeftovers, tracesOf } from './nodes/leftovers.ts';

/** Machines with disks leave nothing behind, however their maker ends: they are in the tests' own reach, not in that of `weft lab down`. */

const REAL_NODES = fileURLToPath(new URL('nodes/abandoned-cluster.ts', import.meta.url));
const DOCKER_HOSTS = fileURLToPath(new URL('docker/abandoned-network.ts', import.meta.url));
const BEDS = { 'real nodes': REAL_NODES, 'Docker hosts': DOCKER_HOSTS };

/** Other tests that run meanwhile look for leftovers as well, but not here. */
const folder = mkdtempSync(join(tmpdir(), 'weft-reaper-'));
process.env.TMPDIR = folder;
// Empty, unless something was left.
after(() => rmSync(folder, { recursive: true }));

for (const [bed, program] of Object.entries(BEDS)) {
  test(`${bed}: a run that is killed leaves nothing, for its reaper removes it`, async () => {
    // No other run need come.
    await gone(await abandon(program));
  });
}

test('a run that is killed as it starts leaves nothing', async () => {
  const maker = await startAbandoned(DOCKER_HOSTS);
  const [dir] = await eventually('it has begun', () => {
    const found = globSync(join(tmpdir(), `weft-bed-*-${maker.pid}-*`));
    return found.length > 0 ? found : undefined;
  });
  maker.kill('SIGKILL');
  await maker.exited;
  await gone(basename(dir!).split('-')[2]!);
});

test('what a run and its reaper leave, both killed, the next run removes', async () => {
  const id = await abandon(DOCKER_HOSTS, { alsoReaper: true });
  assert.ok(tracesOf(id).length > 3);
  await removeLeftovers();
  await gone(id);
});
