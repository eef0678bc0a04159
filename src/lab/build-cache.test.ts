import assert from 'node:assert/strict';
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { madeOnce } from './build-cache.ts';

describe('madeOnce', () => {
  let folder: string;
  let path: string;
  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'weft-build-cache-'));
    path = join(folder, 'cache', 'tool-v1');
  });
  afterEach(() => rm(folder, { recursive: true, force: true }));

  const make = async (dir: string): Promise<string> => {
    const made = join(dir, 'made');
    await writeFile(made, 'whole');
    return made;
  };

  it('makes it once for all who want it at the same time, and not again', async () => {
    let made = 0;
    const counted = (dir: string): Promise<string> => {
      made += 1;
      return make(dir);
    };
    await Promise.all([madeOnce(path, counted), madeOnce(path, counted), madeOnce(path, counted)]);
    await madeOnce(path, counted);
    assert.equal(made, 1);
    assert.equal(await readFile(path, 'utf8'), 'whole');
  });

  it('leaves nothing of what could not be made, and makes it the next time', async () => {
    const failing = async (dir: string): Promise<string> => {
      await make(dir);
      throw new Error('no space left');
    };
    await assert.rejects(madeOnce(path, failing), /no space left/);
    assert.deepEqual(await readdir(join(folder, 'cache')), ['tool-v1.lock']);
    await madeOnce(path, make);
    assert.equal(await readFile(path, 'utf8'), 'whole');
  });

  it('removes what a maker that was killed has left, and nothing else', async () => {
    await mkdir(`${path}.partial-1234567/root`, { recursive: true });
    await mkdir(join(folder, 'cache', 'tool-v2.partial-1234567'));
    await madeOnce(path, make);
    assert.deepEqual((await readdir(join(folder, 'cache'))).sort(), [
      'tool-v1',
      'tool-v1.lock',
      'tool-v2.partial-1234567',
    ]);
  });
});
