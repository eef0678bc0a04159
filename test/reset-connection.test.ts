import assert from 'node:assert/strict';
import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';
import { describe, it } from 'node:test';
import { resetConnection } from './reset-connection.ts';

/** Hands both ends of a connection of the loopback to `use`, and returns what the other end has seen of its end. */
async function seenByPeer(use: (socket: Socket) => void): Promise<string> {
  const server = createServer({ allowHalfOpen: true });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const peer = connect((server.address() as AddressInfo).port, '127.0.0.1').resume();
  let seen = 'end';
  peer.on('error', ({ code }: NodeJS.ErrnoException) => {
    seen = String(code);
  });
  const connected = once(peer, 'connect');
  const [socket] = (await once(server, 'connection')) as [Socket];
  await connected;
  server.close();
  const closed = new Promise((resolve) => peer.once('close', resolve));
  use(socket);
  await Promise.all([once(socket, 'close'), closed]);
  return seen;
}

describe('resetConnection', () => {
  it('resets a connection', async () => {
    assert.equal(await seenByPeer((socket) => resetConnection(socket)), 'ECONNRESET');
  });

  it('closes one that is shutting down, for a reset would leave it open for good', async () => {
    const seen = await seenByPeer((socket) => {
      socket.end();
      resetConnection(socket);
    });
    assert.equal(seen, 'end');
  });
});
