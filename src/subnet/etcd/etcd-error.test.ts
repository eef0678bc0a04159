import assert from 'node:assert/strict';
import { createServer } from 'node:net';
import { describe, it } from 'node:test';
import { status } from '@grpc/grpc-js';
import { EtcdClient } from './etcd-client.ts';
import { EtcdError, etcdError } from './etcd-error.ts';

const messageOf = (details: string): string =>
  etcdError('reading', 'http://h:2379', { code: status.UNAVAILABLE, details }).message;

/** A port of loopback on which nobody listens. */
async function closedPort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as { port: number };
  await new Promise((resolve) => server.close(resolve));
  return port;
}

describe('etcdError', () => {
  it('says what the library knows, and not the parts of its form that are empty', () => {
    const failure = 'No connection established. Last error: connect ECONNREFUSED 127.0.0.1:2379';
    assert.equal(
      messageOf('No connection established. Last error: Error: connect ECONNREFUSED 127.0.0.1:2379. Resolution note: '),
      `reading at http://h:2379: ${failure}`,
    );
    assert.equal(
      messageOf('No connection established. Last error: null. Resolution note: '),
      'reading at http://h:2379: No connection established',
    );
    assert.match(messageOf('No addresses resolved. Resolution note: ENOTFOUND h'), /Resolution note: ENOTFOUND h$/);
  });

  it('leaves no part of the form when nobody listens', async () => {
    using client = new EtcdClient({ endpoints: [`http://127.0.0.1:${await closedPort()}`] });
    const request = client.call('Range', { key: Buffer.from('a') }, 'reading', AbortSignal.timeout(20_000));
    await assert.rejects(request, (error) => {
      assert.ok(error instanceof EtcdError);
      assert.match(error.message, /ECONNREFUSED/);
      assert.doesNotMatch(error.message, /Resolution note|Error: |\.$/);
      return true;
    });
  });
});
