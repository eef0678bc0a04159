import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { it } from 'node:test';
import { realHost } from './doctor-host.ts';
import { askedOnce, impatient } from './test-host.ts';

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

it('what several checks look at is read once', async () => {
  let reads = 0;
  const links = async () => {
    reads++;
    return [];
  };
  const { signal } = new AbortController();
  const host = askedOnce({ ...realHost(), links, routes: links }, signal);
  await Promise.all([1, 2, 3].flatMap(() => [host.links(signal), host.routes(signal)]));
  assert.equal(reads, 2);
});
