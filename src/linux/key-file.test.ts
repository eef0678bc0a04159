import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, it } from 'node:test';
import { identityHost } from './identity-host.ts';
import { readKeyFile, writeKeyFile } from './key-file.ts';
import { PacketDescriptors } from './packet-descriptors.ts';
import { TunHolder } from './tun-holder.ts';

const directory = mkdtempSync(join(tmpdir(), 'weft-key-file-'));
after(() => rmSync(directory, { recursive: true }));
const { signal } = new AbortController();

it('a key is made once, for its owner alone, in a folder that is made too', async () => {
  const path = join(directory, 'flannel', 'wgkey');
  const host = identityHost(path, new TunHolder(new PacketDescriptors(() => {})));
  assert.deepEqual(await host.keyFile(() => 'first', signal), { path, text: 'first' });
  assert.deepEqual(await host.keyFile(() => 'second', signal), { path, text: 'first' });
  assert.deepEqual([statSync(path).mode & 0o777, statSync(join(directory, 'flannel')).mode & 0o777], [0o400, 0o755]);
  await writeKeyFile(path, 'third');
  assert.deepEqual([await readKeyFile(path), statSync(path).mode & 0o777], ['third', 0o400]);
});

it('a key that cannot be kept or read is an error, with the place and without the key', async () => {
  const file = join(directory, 'file');
  writeFileSync(file, '');
  const path = join(file, 'wgkey');
  const failed = { code: 'WEFT_KEY_FILE', message: new RegExp(`in ${path}: `) };
  await assert.rejects(readKeyFile(path), failed);
  await assert.rejects(writeKeyFile(path, 'a secret'), (error: Error) => {
    assert.match(error.message, failed.message);
    return !error.message.includes('a secret');
  });
  // As flannel, whose variable may be empty.
  await assert.rejects(
    identityHost('', new TunHolder(new PacketDescriptors(() => {}))).keyFile(() => 'x', signal),
    { code: 'WEFT_KEY_FILE' },
  );
});
