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
    await next.catch((error: Error) => assert.match(error.message, /cannot reach the agent/));
  });

  it('says that nobody is there, and that another program is', async () => {
    const { path, client } = at('other.sock');
    await assert.rejects(client.get('/self', signal), {
      code: 'WEFT_API_UNREACHABLE',
      message: `cannot reach the agent at ${path}: nothing listens there`,
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
      message: `cannot reach the agent at ${path}: no answer within 0.02 s`,
    });
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  });

  it('takes what a later version has added', async () => {
    const { path, client } = at('later.sock');
    const now = new FakeInspection().peers();
    const later = { ...now, peers: [{ ...now.peers[0], path: 'teleport', colour: 'blue' }], mood: 'good' };
    const server = createServer((_, response) => response.end(JSON.stringify(later)));
    await new Promise<void>((resolve) => server.listen(path, resolve));
    assert.equal((await client.get('/peers', signal)).peers[0]?.path, 'teleport');
    await new Promise((resolve) => server.close(resolve));
  });

  it('makes every text one that a terminal may show, for the agent may be anybody’s', async () => {
    const { path, client } = at('hostile.sock');
    const hostile = (value: unknown): unknown => {
      if (typeof value === 'string') return `${value}\x1b]0;owned\x07\r\n\x9b2J\u202e`;
      if (typeof value !== 'object' || value === null) return value;
      if (Array.isArray(value)) return value.map(hostile);
      return Object.fromEntries(Object.entries(value).map(([name, each]) => [name, hostile(each)]));
    };
    const event = {
      id: 1,
      atMs: 1,
      severity: 'info',
      ...(hostile({ kind: 'ready', subject: 's', text: 't' }) as object),
    };
    const texts: Readonly<Record<string, string>> = {
      '/api/v1/peers': JSON.stringify(hostile(new FakeInspection().peers())),
      '/api/v1/leases': JSON.stringify(hostile(new FakeInspection().leases())),
      '/api/v1/stream': `event: event\ndata: ${JSON.stringify(event)}\n\n`,
    };
    const server = createServer(({ url = '' }, response) => response.end(texts[url.split('?')[0]!]));
    await new Promise<void>((resolve) => server.listen(path, resolve));
    const answers: unknown[] = [await client.get('/peers', signal), await client.get('/leases', signal)];
    for await (const told of client.events(0, signal)) answers.push(told);
    assert.equal(answers.length, 3);
    JSON.parse(JSON.stringify(answers), (_, value: unknown) => {
      if (typeof value === 'string') assert.doesNotMatch(value, /[\p{Cc}\p{Cf}]/u);
      return value;
    });
    await new Promise((resolve) => server.close(resolve));
  });

  it('passes over long messages of a stream, and takes no event without end', async () => {
    const { path, client } = at('long.sock');
    const event = { id: 1, atMs: 1, kind: 'ready', severity: 'info', subject: 's', text: 'after all the peers' };
    const server = createServer((_, response) => {
      response.write(`event: peers\ndata: ${'x'.repeat(3 << 20)}\n\n`);
      response.write(`event: event\ndata: ${JSON.stringify(event)}\n\n`);
      response.write(`event: event\ndata: ${'x'.repeat(2 << 20)}`);
    });
    await new Promise<void>((resolve) => server.listen(path, resolve));
    const events = client.events(0, signal);
    const first = await events.next();
    assert.equal(first.done === true ? '' : first.value.text, 'after all the peers');
    await assert.rejects(events.next(), {
      code: 'WEFT_API_REFUSED',
      message: /an event is longer than \d+ characters/,
    });
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  });
});
