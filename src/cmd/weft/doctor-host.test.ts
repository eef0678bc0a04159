import assert from 'node:assert/strict';
import { chmod, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { realHost } from './doctor-host.ts';

const { signal } = new AbortController();
const name = 'weft-doctor-test-program';

describe('the version of a program', () => {
  let folder: string;
  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'weft-doctor-host-'));
    await writeFile(join(folder, name), '#!/bin/sh\necho "$1 is asked for"\necho more\n');
  });
  afterEach(() => rm(folder, { recursive: true }));

  it('is the first line that it prints, also outside the folders of PATH', async () => {
    await chmod(join(folder, name), 0o755);
    const folders = ['/nonexistent', folder];
    assert.equal(await realHost().versionOf({ name, folders }, signal), '--version is asked for');
  });

  it('is unknown where it is in no folder of PATH nor in those named, or may not be run', async () => {
    assert.equal(await realHost().versionOf({ name, folders: [folder] }, signal), undefined);
    await chmod(join(folder, name), 0o755);
    assert.equal(await realHost().versionOf({ name }, signal), undefined);
  });
});
