import assert from 'node:assert/strict';
import { once } from 'node:events';
import { Agent, createServer as createHttpServer, get } from 'node:http';
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { Connections } from './connections.ts';

const BOTH = new Set(['127.0.0.1', '127.0.0.2']);
const ONE = new Set(['127.0.0.1']);

async function listening(server: Server): Promise<number> {
  server.listen(0, '0.0.0.0');
  await once(server, 'listening');
  return (server.address() as AddressInfo).port;
}

describe('connections of this process', () => {
  let connections: Connections;
  let server: Server;
  let port: number;
  const sockets: Socket[] = [];
  beforeEach(async () => {
    connections = new Connections();
    server = createServer((socket) => sockets.push(socket.on('error', () => {})));
    port = await listening(server);
  });
  afterEach(() => {
    connections[Symbol.dispose]();
    for (const socket of sockets.splice(0)) socket.destroy();
    server.close();
  });

  async function connected(localAddress: string): Promise<Socket> {
    const socket = connect({ port, host: '127.0.0.1', localAddress });
    sockets.push(socket);
    await once(socket, 'connect');
    return socket;
  }

  it('of an address that has gone are closed, with the reason; others live', async () => {
    connections.keepOnly(BOTH);
    const stays = await connected('127.0.0.1');
    const goes = await connected('127.0.0.2');
    assert.deepEqual([...connections.keepOnly(BOTH)], []);
    const ended = once(goes, 'error');
    assert.deepEqual([...connections.keepOnly(ONE)], [['127.0.0.2', 1]]);
    assert.match(String((await ended)[0]), /127\.0\.0\.2.* is gone from this host/);
    assert.equal(stays.destroyed, false);
    assert.deepEqual([...connections.keepOnly(ONE)], []);
  });

  it('of an address that was never known to be one of this host are nobody’s to judge', async () => {
    connections.keepOnly(ONE);
    const socket = await connected('127.0.0.2');
    connections.keepOnly(ONE);
    connections.keepOnly(ONE);
    assert.equal(socket.destroyed, false);
  });

  it('that are under way when an address goes are closed as well', async () => {
    connections.keepOnly(BOTH);
    const pending = connect({ port: 9, host: 'never.invalid', lookup: () => {} });
    const failed = once(pending, 'error');
    connections.keepOnly(ONE);
    assert.match(String((await failed)[0]), /is gone from this host/);
  });

  it('of an HTTP client that keeps them open are among them, and those that were accepted', async () => {
    const http = createHttpServer((_, response) => response.end('x'));
    const httpPort = await listening(http);
    connections.keepOnly(BOTH);
    const agent = new Agent({ keepAlive: true });
    const request = get({ port: httpPort, host: '127.0.0.2', localAddress: '127.0.0.2', agent });
    const [response] = (await once(request, 'response')) as [NodeJS.ReadableStream];
    response.resume();
    await once(response, 'end');
    await new Promise(setImmediate);
    assert.equal(Object.values(agent.freeSockets).flat().length, 1);
    // Its both ends are here.
    assert.deepEqual([...connections.keepOnly(ONE)], [['127.0.0.2', 2]]);
    await new Promise(setImmediate);
    assert.equal(Object.values(agent.freeSockets).flat().length, 0);
    agent.destroy();
    http.close();
  });

  it('are forgotten when they end', async () => {
    connections.keepOnly(BOTH);
    const socket = await connected('127.0.0.2');
    socket.destroy();
    await once(socket, 'close');
    for (const other of sockets) other.destroy();
    await new Promise(setImmediate);
    assert.deepEqual([...connections.keepOnly(ONE)], []);
  });
});
