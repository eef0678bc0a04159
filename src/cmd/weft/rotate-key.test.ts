import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { keyPairOf } from '../../backend/wireguard-key.ts';
import { run } from '../../linux/run.ts';

const MAIN = fileURLToPath(new URL('./main.ts', import.meta.url));
const directory = mkdtempSync(join(tmpdir(), 'weft-rotate-key-'));
after(() => rmSync(directory, { recursive: true }));

it('weft rotate-key writes another key each time, for its owner alone, and prints what is public of it', async () => {
  const path = join(directory, 'flannel', 'wgkey');
  const argv = [process.execPath, '--disable-warning=ExperimentalWarning', MAIN, 'rotate-key'];
  const made = new Set<string>();
  for (const by of [
    { flags: ['--key-file', path], env: {} },
    { flags: [], env: { WIREGUARD_KEY_FILE: path } },
  ]) {
    const { stdout, stderr } = await run([...argv, ...by.flags], { env: by.env });
    const text = readFileSync(path, 'utf8');
    assert.equal(stdout, `${keyPairOf({ path, text }).publicKey}\n`);
    assert.match(stderr, /has a new key\. A running agent uses and publishes it/);
    assert(!`${stdout}${stderr}`.includes(text));
    assert.equal(statSync(path).mode & 0o777, 0o400);
    made.add(text);
  }
  assert.equal(made.size, 2);
});
