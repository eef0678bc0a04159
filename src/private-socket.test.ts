import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, statSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { it } from 'node:test';
import { isAdmitted, privately } from './private-socket.ts';

it('a socket is its user’s alone from its first moment on, whatever the umask, which stays', async () => {
  const directory = mkdtempSync(join(tmpdir(), 'weft-private-'));
  const before = process.umask(0);
  try {
    const path = join(directory, 'sock');
    const server = createServer();
    privately(() => server.listen({ path }));
    // It does not even listen yet.
    assert.equal(statSync(path).mode & 0o777, 0o600);
    assert.equal(process.umask(), 0);
    await new Promise((resolve) => server.once('listening', () => server.close(resolve)));
    assert.throws(() =>
      privately(() => {
        throw new Error('in use');
      }),
    );
    assert.equal(process.umask(), 0);
  } finally {
    process.umask(before);
    rmSync(directory, { recursive: true });
  }
});

it('root and the user of the agent are admitted, and nobody of whom the kernel does not say who he is', () => {
  assert.deepEqual(
    [0, 1000, 1001, undefined].map((user) => isAdmitted(user, 1000)),
    [true, true, false, false],
  );
  assert.deepEqual(
    [0, 1000, undefined].map((user) => isAdmitted(user, undefined)),
    [true, false, false],
  );
});
