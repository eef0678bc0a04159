import assert from 'node:assert/strict';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { Agent, type ClientRequest, get, request } from 'node:http';
import { connect, type Socket } from 'node:net';
import { describe, it } from 'node:test';
import { eventually } from '../../test/netns/waiting.ts';
import { WeftError } from '../errors.ts';
import { type HealthServerOptions, type Readiness, startHealthServer } from './server.ts';

interface Answer {
  readonly status: number | undefined;
  readonly headers: Record<string, unknown>;
  readonly body: string;
}

function ask(
  port: number,
  path: string,
  options: { agent?: Agent; method?: string; host?: string } = {},
): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const outgoing: ClientRequest = request({ host: '127.0.0.1', port, path, ...options }, (response) => {
      let body = '';
      response.setEncoding('utf8');
      response.on('data', (chunk: string) => {
        body += chunk;
      });
      response.on('end', () => resolve({ status: response.statusCode, headers: response.headers, body }));
    });
    outgoing.on('error', reject);
    outgoing.end();
  });
}

function options(overrides: Partial<HealthServerOptions> = {}): HealthServerOptions {
  return { ip: '127.0.0.1', port: 0, readiness: () => ({ ready: true }), metrics: async () => 'up 1\n', ...overrides };
}

/** The bodies and headers that flanneld answered: one status line, headers, an empty line and the body per endpoint. */
function goldenAnswers(): { status: number; type: string; length: number; body: string }[] {
  const text = readFileSync(new URL('../../test/golden/udp/26-healthz-h1.txt', import.meta.url), 'utf8');
  return text
    .replaceAll('\r\n', '\n')
    .split(/(?=HTTP\/1\.1)/)
    .map((part) => {
      const [head = '', rest = ''] = part.split('\n\n');
      return {
        status: Number(/^HTTP\/1\.1 (\d+)/.exec(head)?.[1]),
        type: /Content-Type: (.*)/.exec(head)?.[1]?.trim() ?? '',
        length: Number(/Content-Length: (\d+)/.exec(head)?.[1]),
        body: rest.replace(/ rc 0\s*$/, ''),
      };
    });
}

describe('health server', () => {
  it('answers like flanneld when ready', async () => {
    const [healthz, readyz] = goldenAnswers();
    await using server = await startHealthServer(options(), new AbortController().signal);
    for (const [path, golden] of [
      ['/healthz', healthz],
      ['/readyz', readyz],
    ] as const) {
      const answer = await ask(server.port, path);
      assert.deepEqual(
        [answer.status, answer.body, answer.headers['content-type'], Number(answer.headers['content-length'])],
        [golden?.status, golden?.body, golden?.type, golden?.length],
      );
    }
  });

  it('listens on both families for 0.0.0.0, the default, as Go does', async () => {
    for (const ip of ['0.0.0.0', '', '::']) {
      await using server = await startHealthServer(options({ ip }), new AbortController().signal);
      for (const host of ['127.0.0.1', '::1']) assert.equal((await ask(server.port, '/healthz', { host })).status, 200);
    }
  });

  it('follows readiness both ways and gives the reason', async () => {
    let readiness: Readiness = { ready: false };
    await using server = await startHealthServer(options({ readiness: () => readiness }), new AbortController().signal);
    const before = await ask(server.port, '/readyz');
    assert.deepEqual([before.status, before.body], [503, 'flanneld is not ready yet']);
    readiness = { ready: true };
    assert.equal((await ask(server.port, '/readyz')).status, 200);
    readiness = { ready: false, reason: 'flannel0 is gone' };
    const broken = await ask(server.port, '/readyz');
    assert.deepEqual([broken.status, broken.body], [503, 'flanneld is not ready: flannel0 is gone']);
    assert.equal((await ask(server.port, '/healthz')).body, 'flanneld is running');
  });

  it('serves metrics, ignores a query, answers HEAD without a body and other paths with 404', async () => {
    await using server = await startHealthServer(options(), new AbortController().signal);
    const metrics = await ask(server.port, '/metrics?x=1');
    assert.equal(metrics.body, 'up 1\n');
    assert.equal(metrics.headers['content-type'], 'text/plain; version=0.0.4; charset=utf-8');
    const head = await ask(server.port, '/healthz', { method: 'HEAD' });
    assert.deepEqual([head.status, head.body, head.headers['content-length']], [200, '', '19']);
    assert.equal((await ask(server.port, '/')).status, 404);
  });

  it('serves lists, a line for each text, whatever is in it', async () => {
    const lists = new Map([
      ['/names', () => ['one', 'two\nthree']],
      ['/nothing', () => []],
    ]);
    await using server = await startHealthServer(options({ lists }), new AbortController().signal);
    const names = await ask(server.port, '/names?x=1');
    assert.deepEqual([names.status, names.body], [200, 'one\ntwo\\nthree\n']);
    const nothing = await ask(server.port, '/nothing');
    assert.deepEqual([nothing.status, nothing.body], [200, '']);
  });

  it('turns an exception into 500 and goes on', async () => {
    await using server = await startHealthServer(
      options({ metrics: () => Promise.reject(new Error('counters unreadable')) }),
      new AbortController().signal,
    );
    const answer = await ask(server.port, '/metrics');
    assert.deepEqual([answer.status, answer.body], [500, 'counters unreadable']);
    assert.equal((await ask(server.port, '/healthz')).status, 200);
  });

  it('answers a probe although somebody holds many connections open, half a request on each', async () => {
    await using server = await startHealthServer(options(), new AbortController().signal);
    const strangers: Socket[] = [];
    let closed = 0;
    for (let index = 0; index < 200; index++) {
      const socket = connect(
        server.port,
        '127.0.0.1',
        () => index % 2 === 0 && socket.write('GET /readyz HTTP/1.1\r\nX: '),
      );
      socket.on('error', () => undefined);
      socket.on('close', () => closed++);
      strangers.push(socket);
      await once(socket, 'connect');
    }
    assert.equal((await ask(server.port, '/readyz')).status, 200);
    // Those beyond the cap are gone at once, the others when they have used up their time.
    await eventually('all are closed', () => closed === 200);
    for (const socket of strangers) socket.destroy();
  });

  it('lets go of a client that does not read its answer', async () => {
    const metrics = async (): Promise<string> => 'x'.repeat(32 * 1024 * 1024);
    await using server = await startHealthServer(options({ metrics }), new AbortController().signal);
    const socket = connect(server.port, '127.0.0.1', () => socket.write('GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n'));
    socket.pause();
    await once(socket, 'connect');
    const sockets = (): number => process.getActiveResourcesInfo().filter((name) => name === 'TCPSocketWrap').length;
    await eventually('both ends are there', () => sockets() >= 2);
    // The server's end of it.
    await eventually('the server lets go', () => sockets() <= 1);
    socket.destroy();
  });

  it('survives bytes that are not HTTP', async () => {
    await using server = await startHealthServer(options(), new AbortController().signal);
    await new Promise<void>((resolve) => {
      const socket = connect(server.port, '127.0.0.1', () => socket.end('\0\x01\x02 nonsense\r\n\r\n'));
      socket.on('close', () => resolve());
      socket.on('error', () => undefined);
      socket.resume();
    });
    assert.equal((await ask(server.port, '/healthz')).status, 200);
  });

  it('names the address when the port is taken', async () => {
    await using first = await startHealthServer(options(), new AbortController().signal);
    await assert.rejects(
      startHealthServer(options({ port: first.port }), new AbortController().signal),
      (error: unknown) =>
        error instanceof WeftError &&
        error.code === 'WEFT_HEALTH_LISTEN' &&
        error.message.includes(`127.0.0.1:${first.port}`) &&
        error.message.includes('EADDRINUSE') &&
        (error.hint ?? '').includes('--healthz-port'),
    );
  });

  it('reports an address the host does not have and a port out of range', async () => {
    for (const bad of [{ ip: '192.0.2.1' }, { port: 70000 }]) {
      await assert.rejects(
        startHealthServer(options(bad), new AbortController().signal),
        (error: unknown) => error instanceof WeftError && error.code === 'WEFT_HEALTH_LISTEN',
      );
    }
  });

  it('stops on the signal: a request under way is answered, a kept-alive connection does not delay it', async () => {
    const controller = new AbortController();
    const { promise: body, resolve: release } = Promise.withResolvers<string>();
    const { promise: asked, resolve: sayAsked } = Promise.withResolvers<void>();
    const metrics = () => {
      sayAsked();
      return body;
    };
    const server = await startHealthServer(options({ metrics }), controller.signal);
    const agent = new Agent({ keepAlive: true });
    await ask(server.port, '/healthz', { agent });
    const pending = ask(server.port, '/metrics', { agent: new Agent({ keepAlive: true }) });
    await asked;
    controller.abort();
    release('late 1\n');
    assert.equal((await pending).body, 'late 1\n');
    await server.closed;
    await assert.rejects(ask(server.port, '/healthz'));
    agent.destroy();
  });

  it('cuts a connection that outlives the grace time', async (t) => {
    t.mock.timers.enable({ apis: ['setTimeout'] });
    const controller = new AbortController();
    const { promise: asked, resolve: sayAsked } = Promise.withResolvers<void>();
    const metrics = () => {
      sayAsked();
      return new Promise<string>(() => undefined);
    };
    const server = await startHealthServer(options({ metrics }), controller.signal);
    const cut = new Promise<Error>((resolve) => {
      get({ host: '127.0.0.1', port: server.port, path: '/metrics' }).on('error', resolve);
    });
    await asked;
    controller.abort();
    t.mock.timers.tick(3000);
    await server.closed;
    assert.match((await cut).message, /socket hang up|ECONNRESET/);
  });
});
