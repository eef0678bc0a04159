import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer, type RequestListener, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { eventually } from '../../test/netns/waiting.ts';
import { WeftError } from '../errors.ts';
import { openSource, socketSource, urlSource } from './agent-source.ts';

const signal = AbortSignal.timeout(60_000);

/** On a Unix socket or, without one, on a port. */
async function serve(listener: RequestListener, path?: string): Promise<AsyncDisposable & { readonly server: Server }> {
  const server = createServer(listener);
  await new Promise<void>((resolve) =>
    path === undefined ? server.listen(0, '127.0.0.1', resolve) : server.listen(path, resolve),
  );
  return {
    server,
    [Symbol.asyncDispose]: () => {
      server.closeAllConnections();
      return new Promise((resolve) => server.close(() => resolve()));
    },
  };
}

describe('an agent', () => {
  it('is asked by its socket', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'weft-ui-'));
    try {
      const path = join(folder, 'weft.sock');
      await using _ = await serve((request, response) => response.end(JSON.stringify({ path: request.url })), path);
      const { status, body } = await socketSource('a', path).ask('/peers?limit=1', signal);
      assert.deepEqual([status, JSON.parse(body.toString())], [200, { path: '/api/v1/peers?limit=1' }]);
    } finally {
      rmSync(folder, { recursive: true });
    }
  });

  it('is asked over the network with its token', async () => {
    await using remote = await serve((request, response) => {
      response.statusCode = request.headers.authorization === 'Bearer secret' ? 200 : 401;
      response.end(request.url);
    });
    const base = new URL(`http://127.0.0.1:${(remote.server.address() as AddressInfo).port}`);
    const { status, body } = await urlSource('a', base, 'secret').ask('/self', signal);
    assert.deepEqual([status, body.toString()], [200, '/api/v1/self']);
    assert.equal((await urlSource('a', base, 'wrong').ask('/self', signal)).status, 401);
  });

  it('is asked again on the same connection, and on another when that is gone', async () => {
    await using remote = await serve((_, response) => response.end('{}'));
    let connections = 0;
    remote.server.on('connection', () => connections++);
    const base = new URL(`http://127.0.0.1:${(remote.server.address() as AddressInfo).port}`);
    const source = urlSource('a', base, 'secret');
    for (let question = 0; question < 3; question++) await source.ask('/peers', signal);
    assert.equal(connections, 1);
    remote.server.closeAllConnections();
    await eventually('it is asked on another', () => source.ask('/peers', signal).catch(() => undefined));
    assert.equal(connections, 2);
  });

  it('tells what happens from now on, by its socket, over the network and through somebody else', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'weft-ui-'));
    const asked: (string | undefined)[] = [];
    const event = { id: 7, atMs: 1, kind: 'path-fault', severity: 'error', subject: '10.1.0.0/24', text: 'broken' };
    const stream = `event: alive\ndata: {}\n\nevent: changed\ndata: {}\n\nevent: event\ndata: ${JSON.stringify(event)}\nid: 7\n\n`;
    const listener: RequestListener = (request, response) => {
      asked.push(request.url, request.headers.authorization);
      response.end(stream);
    };
    const proxied = openSource('a', async (path, query) => {
      asked.push(`${path}?${new URLSearchParams(query)}`, 'proxied');
      return ReadableStream.from([Buffer.from(stream)]);
    });
    try {
      const path = join(folder, 'weft.sock');
      await using _ = await serve(listener, path);
      await using remote = await serve(listener);
      const base = new URL(`http://127.0.0.1:${(remote.server.address() as AddressInfo).port}`);
      for (const source of [socketSource('a', path), urlSource('a', base, 'secret'), proxied]) {
        const kinds: string[] = [];
        for await (const news of source.news!(signal)) kinds.push(news === 'changed' ? news : news.kind);
        assert.deepEqual(kinds, ['changed', 'path-fault']);
      }
      const url = '/api/v1/stream?only=event';
      assert.deepEqual(asked, [url, undefined, url, 'Bearer secret', url, 'proxied']);
    } finally {
      rmSync(folder, { recursive: true });
    }
  });

  it('that is not there is named, with what came back', async () => {
    const missing = socketSource('a', '/nonexistent/weft.sock').ask('/self', signal);
    await assert.rejects(missing, (error: unknown) => {
      assert.ok(error instanceof WeftError && error.code === 'WEFT_UI_AGENT_AWAY');
      assert.match(error.message, /\/nonexistent\/weft\.sock: .*ENOENT/);
      return true;
    });
  });

  it('that hangs is given up with the signal', async () => {
    await using remote = await serve(() => undefined);
    const base = new URL(`http://127.0.0.1:${(remote.server.address() as AddressInfo).port}`);
    const stop = new AbortController();
    const asking = urlSource('a', base, 'x').ask('/self', stop.signal);
    stop.abort(new Error('enough'));
    await assert.rejects(asking, /enough/);
  });
});
