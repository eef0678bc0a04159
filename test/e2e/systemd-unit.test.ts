import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { it } from 'node:test';
import { ROOT } from '../../scripts/packaging/architecture.ts';
import { run } from '../../src/linux/run.ts';

it('systemd takes the unit without a word, and finds it well confined', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'weft-unit-'));
  try {
    const path = join(folder, 'weft-flanneld.service');
    const unit = readFileSync(join(ROOT, 'deploy/systemd/weft-flanneld.service'), 'utf8');
    // Where the program is on this machine; systemd looks whether it is there.
    writeFileSync(path, unit.replace('/usr/local/bin/flanneld', join(ROOT, 'bin/flanneld')));
    const verified = await run(['systemd-analyze', 'verify', path]);
    assert.deepEqual([verified.stdout, verified.stderr], ['', '']);
    const { stdout } = await run(['systemd-analyze', 'security', '--offline=true', '--no-pager', path]);
    const exposure = Number(/Overall exposure level for .*: (\d+\.\d)/.exec(stdout)?.[1]);
    // systemd's words: up to 4 is OK. An agent that is not confined has 9.6.
    assert.ok(exposure < 4, stdout);
  } finally {
    rmSync(folder, { recursive: true });
  }
});
