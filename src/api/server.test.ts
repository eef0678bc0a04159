import assert from 'node:assert/strict';
import { mkdtemp, rm, stat, writeFile } from 'node:fs/promises';
import { createServer, request } from 'node:http';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { FakeInspection } from '../../test/fakes/fake-inspection.ts';
import { eventually } from '../../test/netns/waiting.ts';
import { run } from '../linux/run.ts';
import { API_ROOT } from './root.ts';
import { type ApiServer, type ApiServerOptions, startApiServer } from './server.ts';

const OWN_UID = 12_345;
const TOKEN = 'a-token-of-16-chars-or-more';

interface Answer {
  readonly status: number | undefined;
  readonly body: string;
}

function ask(
  to: { readonly socketPath: string } | { readonly port: number },
  headers: Readonly<Record<string, string>> = {},
  path = '/self',
): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const options = {
      ...to,
      ...('port' in to ? { host: '127.0.0.1' } : {}),
      path: `${API_ROOT}${path}`,
      headers,
      agent: false,
    };
    request(options, (response) => {
      let body = '';
      response.on('data', (chunk: Buffer) => (body += chunk.toString()));
      response.on('end', () => resolve({ status: response.statusCode, body }));
    })
      .on('error', reject)
      .end();
  });
}

class Place implements AsyncDisposable {
  readonly directory: string;
  readonly problems: string[] = [];
  uid: number | undefined = OWN_UID;
  readonly #stop = new AbortController();

  private constructor(directory: string) {
    this.directory = directory;
  }

  static async make(): Promise<Place> {
    return new Place(await mkdtemp(join(tmpdir(), 'weft-api-')));
  }

  path(name: string): string {
    return join(this.directory, name);
  }

  start(where: Partial<Pick<ApiServerOptions, 'socketPath' | 'listen'>>): Promise<ApiServer> {
    const options = {
      ...{ inspection: new FakeInspection(), socketPath: undefined, listen: undefined, ...where },
      ...{ peerUid: () => this.uid, ownUid: OWN_UID, onProblem: (text: string) => this.problems.push(text) },
    };
    return startApiServer(options, this.#stop.signal);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await rm(this.directory, { recursive: true });
  }
}

describe('the API on its socket', () => {
  it('answers root and the user of the agent, and nobody else', async () => {
    await using place = await Place.make();
    const socketPath = place.path('made/for/it/weft.sock');
    await using _ = await place.start({ socketPath });
    assert.equal((await stat(socketPath)).mode & 0o777, 0o600);
    assert.equal((await ask({ socketPath })).status, 200);
    place.uid = 0;
    assert.equal((await ask({ socketPath })).status, 200);
    place.uid = 1_000;
    const refused = await ask({ socketPath });
    assert.deepEqual(refused, {
      status: 403,
      body: '{"error":"only root and the user of the agent may ask here: user 1000 asks"}',
    });
    place.uid = undefined;
    assert.equal((await ask({ socketPath })).status, 403);
    assert.deepEqual(place.problems, []);
  });

  it('takes the place of a socket that nobody listens on, and leaves that of another agent alone', async () => {
    await using place = await Place.make();
    const socketPath = place.path('weft.sock');
    // Whoever is killed leaves its socket.
    const killed = createServer();
    await new Promise<void>((resolve) => killed.listen(socketPath, resolve));
    const inode = (await stat(socketPath)).ino;
    {
      await using _ = await place.start({ socketPath });
      assert.match(place.problems.pop() ?? '', /another process answers on .* \[WEFT_API_LISTEN\].*--api-socket/);
      assert.equal((await stat(socketPath)).ino, inode);
    }
    const path = place.path('file');
    await writeFile(path, 'mine');
    await using _file = await place.start({ socketPath: path });
    assert.match(place.problems.pop() ?? '', /is there and is no socket/);
    await new Promise((resolve) => killed.close(resolve));
    await using server = await place.start({ socketPath });
    assert.deepEqual(place.problems, []);
    assert.equal((await ask({ socketPath })).status, 200);
    await server[Symbol.asyncDispose]();
    await assert.rejects(stat(socketPath), { code: 'ENOENT' });
  });
});

describe('the API on an address', () => {
  it('answers whoever has the token, which may change meanwhile', async () => {
    await using place = await Place.make();
    const tokenFile = place.path('token');
    await using server = await place.start({ listen: { host: '127.0.0.1', port: 0, tokenFile } });
    const to = { port: server.port! };
    const bearer = (token: string) => ({ Authorization: `Bearer ${token}` });
    assert.equal((await ask(to, bearer(TOKEN))).status, 401, 'there is no token yet');
    assert.equal((await ask(to, bearer(TOKEN))).status, 401);
    assert.match(
      place.problems.join('|'),
      /^The API rejects all clients: cannot read the token: ENOENT[^|]*$/,
      'said once',
    );
    await writeFile(tokenFile, 'short\n');
    assert.match((await ask(to, bearer('short'))).body, /fewer than 16 characters/);
    await writeFile(tokenFile, `${TOKEN}\n`);
    assert.equal((await ask(to, bearer(TOKEN))).status, 200);
    assert.equal((await ask(to, { 'Weft-Api-Token': TOKEN })).status, 200, 'a proxy takes the other header away');
    assert.deepEqual(await ask(to), { status: 401, body: '{"error":"a token is needed"}' });
    for (const wrong of [`${TOKEN}x`, TOKEN.slice(1), ' ']) {
      assert.equal((await ask(to, { 'Weft-Api-Token': wrong })).status, 401);
    }
    await writeFile(tokenFile, `new-${TOKEN}\n`);
    assert.equal((await ask(to, bearer(TOKEN))).status, 401);
    assert.equal((await ask(to, bearer(`new-${TOKEN}`))).status, 200);
  });

  it('says that an address cannot be had, and leaves the agent to its work', async () => {
    await using place = await Place.make();
    const tokenFile = place.path('token');
    await using first = await place.start({ listen: { host: '127.0.0.1', port: 0, tokenFile } });
    await using second = await place.start({ listen: { host: '127.0.0.1', port: first.port!, tokenFile } });
    assert.equal(second.port, undefined);
    assert.match(place.problems.join(), /^The API is not served on 127\.0\.0\.1:\d+: listen EADDRINUSE/);
  });

  it('gives the place of the oldest connection to a further one', async () => {
    await using place = await Place.make();
    const socketPath = place.path('weft.sock');
    await using _ = await place.start({ socketPath });
    let gone = 0;
    const idle = await Promise.all(
      Array.from({ length: 40 }, async () => {
        const socket = connect(socketPath);
        socket.on('close', () => gone++);
        socket.on('error', () => {});
        await new Promise((resolve) => socket.once('connect', resolve));
        return socket;
      }),
    );
    assert.equal((await ask({ socketPath })).status, 200);
    await eventually('the oldest are gone', () => gone >= 9);
    for (const socket of idle) socket.destroy();
  });

  it('loads what answers when somebody asks, and not before', async () => {
    await using place = await Place.make();
    const program = `
      import { get } from 'node:http';
      import { registerHooks } from 'node:module';
      const loaded = new Set();
      const resolve = (name, context, next) => next(name, context, loaded.add(name));
      registerHooks({ resolve });
      const { FakeInspection } = await import(${JSON.stringify(new URL('../../test/fakes/fake-inspection.ts', import.meta.url))});
      const { startApiServer } = await import(${JSON.stringify(new URL('./server.ts', import.meta.url))});
      const socketPath = ${JSON.stringify(place.path('weft.sock'))};
      const options = { inspection: new FakeInspection(), socketPath, peerUid: () => 0, ownUid: 0, onProblem: console.error };
      const server = await startApiServer(options, new AbortController().signal);
      const before = loaded.has('hono');
      get({ socketPath, path: '${API_ROOT}/self' }, (response) => {
        response.resume().on('end', () => {
          console.log(response.statusCode, before, loaded.has('hono'));
          server[Symbol.asyncDispose]().then(() => process.exit());
        });
      });
    `;
    const argv = [process.execPath, '--disable-warning=ExperimentalWarning', '--input-type=module', '-e', program];
    assert.deepEqual((await run(argv, { timeoutMs: 60_000 })).stdout, '200 false true\n');
  });

  it('ends its streams with the agent', async () => {
    await using place = await Place.make();
    const socketPath = place.path('weft.sock');
    const server = await place.start({ socketPath });
    let read = '';
    let hasEnded = false;
    request({ socketPath, path: `${API_ROOT}/stream`, agent: false }, (stream) => {
      stream.on('data', (chunk: Buffer) => (read += chunk.toString()));
      stream.on('error', () => {});
      stream.on('close', () => (hasEnded = true));
    }).end();
    await eventually('a whole message', () => read.includes('\n\n'));
    assert.equal(hasEnded, false);
    await server[Symbol.asyncDispose]();
    await eventually('the stream ends', () => hasEnded);
  });
});
