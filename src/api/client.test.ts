import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { createServer } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { FakeInspection } from '../../test/fakes/fake-inspection.ts';
import { agentClient, overSocket } from './client.ts';
import { startApiServer } from './server.ts';

const signal = new AbortController().signal;

describe('asking an agent', () => {
  let directory: string;
  before(async () => {
    directory = await mkdtemp(join(tmpdir(), 'weft-client-'));
  });
  after(() => rm(directory, { recursive: true }));

  const at = (name: string) => {
    const path = join(directory, name);
    return { path, client: agentClient(path, overSocket(path)) };
  };

  it('gives its answers, and its events as they come until it ends', async () => {
    const { path, client } = at('agent.sock');
    const inspection = new FakeInspection();
    const say = (text: string) => inspection.events.add({ kind: 'peer-added', severity: 'info', subject: 'p', text });
    const options = { inspection, socketPath: path, listen: undefined, peerUid: () => 0, ownUid: 0 };
    const server = await startApiServer({ ...options, onProblem: assert.fail }, signal);
    assert.deepEqual(await client.get('/self', signal), inspection.self());
    assert.equal((await client.get('/peers', signal, { limit: '1' })).peers.length, 1);
    say('one');
    say('two');
    const heard: string[] = [];
    for await (const { text } of client.events(1, signal)) {
      heard.push(text);
      if (heard.length === 1) say('three');
      else break;
    }
    assert.deepEqual(heard, ['two', 'three']);
    const rest = client.events(3, signal);
    const next = rest.next();
    await client.get('/self', signal);
    await server[Symbol.asyncDispose]();
    await next.catch((error: Error) => assert.match(error.message, /cannot ask the agent/));
  });

  it('says that nobody is there, and that another program is', async () => {
    const { path, client } = at('other.sock');
    await assert.rejects(client.get('/self', signal), {
      code: 'WEFT_API_UNREACHABLE',
      message: `cannot ask the agent at ${path}: nothing listens there`,
    });
    let body = 'not json';
    let status = 200;
    const other = createServer((_, response) => response.writeHead(status).end(body));
    await new Promise<void>((resolve) => other.listen(path, resolve));
    const refused = (message: RegExp) =>
      assert.rejects(client.get('/peers', signal), { code: 'WEFT_API_REFUSED', message });
    await refused(/the answer cannot be read/);
    body = '{"atMs": 1, "total": 1, "peers": [{"id": 7}]}';
    await refused(/peers\.0\.id/);
    body = '{"error": "only root may ask"}';
    status = 403;
    await refused(/403 only root may ask$/);
    await new Promise((resolve) => other.close(resolve));
  });

  it('waits no longer than it is told', async () => {
    const { path } = at('silent.sock');
    const server = createServer(() => {});
    await new Promise<void>((resolve) => server.listen(path, resolve));
    const client = agentClient(path, overSocket(path), 20);
    await assert.rejects(client.get('/self', signal), {
      code: 'WEFT_API_UNREACHABLE',
      message: `cannot ask the agent at ${path}: no answer within 0.02 s`,
    });
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  });

  it('takes what a later version has added', async () => {
    const { path, client } = at('later.sock');
    const { peers } = new FakeInspection().peers();
    const later = { atMs: 1, total: 1, peers: [{ ...peers[0], path: 'teleport', colour: 'blue' }], mood: 'good' };
    const server = createServer((_, response) => response.end(JSON.stringify(later)));
    await new Promise<void>((resolve) => server.listen(path, resolve));
    assert.equal((await client.get('/peers', signal)).peers[0]?.path, 'teleport');
    await new Promise((resolve) => server.close(resolve));
  });
});
