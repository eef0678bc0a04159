import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { clearStartupError, readStartupError, recordStartupError } from './last-error.ts';

describe("the agent's last start-up error", () => {
  let folder: string;
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'weft-last-error-'));
  });
  afterEach(() => rmSync(folder, { recursive: true }));

  it('is read back, with its time, until it is cleared', () => {
    const before = Date.now();
    recordStartupError(folder, 'no /dev/net/tun [WEFT_TUN_MISSING]');
    const found = readStartupError(folder);
    assert.equal(found?.text, 'no /dev/net/tun [WEFT_TUN_MISSING]');
    assert.ok(Math.abs(found.at.getTime() - before) < 60_000);
    clearStartupError(folder);
    assert.equal(readStartupError(folder), undefined);
    clearStartupError(folder);
  });

  it('is one line that everybody may read, the newest, in a directory that is made', () => {
    const missing = join(folder, 'a', 'b');
    recordStartupError(missing, 'first');
    recordStartupError(missing, ' second:\n  two lines\r\n\tand a tab ');
    assert.equal(readFileSync(join(missing, 'last-error'), 'utf8'), 'second: two lines and a tab\n');
    assert.equal(statSync(join(missing, 'last-error')).mode & 0o444, 0o444);
    assert.deepEqual(readdirSync(missing), ['last-error'], 'no temporary file is left');
  });

  it('is cut when it is endless, and not written when there is nothing to say', () => {
    recordStartupError(folder, ' \n ');
    assert.deepEqual(readdirSync(folder), []);
    recordStartupError(folder, 'x'.repeat(100_000));
    assert.equal(readStartupError(folder)?.text, 'x'.repeat(2_000));
  });

  it('never throws', () => {
    const file = join(folder, 'file');
    writeFileSync(file, '');
    for (const impossible of [file, join(file, 'below')]) {
      recordStartupError(impossible, 'text');
      assert.equal(readStartupError(impossible), undefined);
      clearStartupError(impossible);
    }
    mkdirSync(join(folder, 'last-error'));
    recordStartupError(folder, 'text');
    assert.equal(readStartupError(folder), undefined);
    clearStartupError(folder);
    assert.deepEqual(readdirSync(folder).sort(), ['file', 'last-error']);
  });
});
