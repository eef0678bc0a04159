import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { it } from 'node:test';
import { realHost } from './doctor-host.ts';
import { impatient } from './test-host.ts';

it('an agent that hangs is not waited for as long as its checks may take', { timeout: 60_000 }, async () => {
  const hangs = createServer(() => {}).listen(0, '127.0.0.1');
  await once(hangs, 'listening');
  try {
    const { port } = hangs.address() as AddressInfo;
    const asked = impatient(realHost(), 50).get(port, '/refusals', new AbortController().signal);
    await assert.rejects(asked, { name: 'TimeoutError' });
  } finally {
    hangs.closeAllConnections();
    hangs.close();
  }
});
