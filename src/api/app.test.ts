import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import * as v from 'valibot';
import { FakeInspection } from '../../test/fakes/fake-inspection.ts';
import { eventually } from '../../test/netns/waiting.ts';
import { createApp } from './app.ts';
import { openApiDocument } from './openapi.ts';
import { PEER_PATHS } from './peer-path.ts';
import { API_ROOT } from './root.ts';
import { ANSWERS, type Endpoint, EventSchema, PeersChangeSchema, ProblemSchema, SelfSchema } from './schema.ts';

/** Unknown keys are mistakes here: what the schema does not name is no part of the contract. */
function strictly(schema: v.GenericSchema, value: unknown): void {
  const parsed = v.safeParse(schema, value);
  assert.ok(
    parsed.success,
    JSON.stringify(parsed.issues?.map(({ message, path }) => [message, path?.map((p) => p.key)])),
  );
  assert.deepEqual(parsed.output, value, 'the schema knows every field');
}

const live = new AbortController();
const open = (inspection = new FakeInspection()) => createApp({ inspection, signal: live.signal, streamIntervalMs: 1 });

interface Document {
  readonly openapi: string;
  readonly paths: Readonly<Record<string, { readonly get: { readonly responses: Readonly<Record<string, unknown>> } }>>;
}

describe('the contract of /api/v1', () => {
  for (const endpoint of Object.keys(ANSWERS) as Endpoint[]) {
    it(`${endpoint} answers as its schema says`, async () => {
      const inspection = new FakeInspection();
      inspection.events.add({
        kind: 'ready',
        severity: 'info',
        subject: 'node',
        text: 'ready',
        cause: 'why',
        revision: 3,
        operations: Array.from({ length: 30 }, (_, n) => `add route 10.${n}.0.0/24`),
      });
      const response = await open(inspection).request(`${API_ROOT}${endpoint}`);
      assert.equal(response.status, 200);
      assert.match(response.headers.get('content-type') ?? '', /^application\/json/);
      strictly(ANSWERS[endpoint], await response.json());
    });
  }

  it('has every route in the OpenAPI document, and no other', async () => {
    const app = open();
    const response = await app.request(`${API_ROOT}/openapi.json`);
    const document = (await response.json()) as Document;
    assert.equal(document.openapi, '3.1.0');
    const routes = app.routes.filter(({ method }) => method === 'GET').map(({ path }) => path);
    assert.deepEqual(Object.keys(document.paths).sort(), [...new Set(routes)].sort());
    assert.deepEqual(JSON.parse(JSON.stringify(openApiDocument())), document);
    for (const { get } of Object.values(document.paths)) assert.ok(get.responses['200'] !== undefined);
    assert.match(JSON.stringify(document.paths[`${API_ROOT}/peers`]), new RegExp(Object.keys(PEER_PATHS).join(', ')));
  });

  it('answers mistakes with an error, and cuts lists where that is asked for', async () => {
    const app = open();
    const lost = await app.request(`${API_ROOT}/nothing`);
    assert.equal(lost.status, 404);
    strictly(ProblemSchema, await lost.json());
    for (const method of ['POST', 'PUT', 'DELETE'])
      assert.equal((await app.request(`${API_ROOT}/self`, { method })).status, 404);
    const peers = (await (await app.request(`${API_ROOT}/peers?limit=1`)).json()) as {
      peers: unknown[];
      total: number;
    };
    assert.deepEqual([peers.peers.length, peers.total], [1, 3]);
    const all = (await (await app.request(`${API_ROOT}/peers?limit=nonsense`)).json()) as { peers: unknown[] };
    assert.equal(all.peers.length, 3);
  });

  it('says why something could not be read', async () => {
    const inspection = new FakeInspection();
    inspection.rules = () => Promise.reject(new Error('nft is not installed'));
    const response = await open(inspection).request(`${API_ROOT}/rules`);
    assert.equal(response.status, 500);
    assert.deepEqual(await response.json(), { error: 'nft is not installed' });
  });
});

interface Message {
  readonly event: string;
  readonly data: unknown;
  readonly id: string | undefined;
}

/** The messages of a stream, as they come. */
async function* messages(response: Response): AsyncGenerator<Message, void, void> {
  let text = '';
  for await (const chunk of response.body!.pipeThrough(new TextDecoderStream())) {
    text += chunk;
    const parts = text.split('\n\n');
    text = parts.pop() ?? '';
    for (const part of parts) {
      const field = (name: string) => new RegExp(`^${name}: (.*)$`, 'm').exec(part)?.[1];
      yield { event: field('event') ?? '', data: JSON.parse(field('data') ?? ''), id: field('id') };
    }
  }
}

describe('the stream', () => {
  it('sends the state, then what changes, and events after the last one that was read', async () => {
    const inspection = new FakeInspection();
    const say = (text: string) =>
      inspection.events.add({ kind: 'peer-added', severity: 'info', subject: 'peer', text });
    say('one');
    say('two');
    const response = await open(inspection).request(`${API_ROOT}/stream`, { headers: { 'Last-Event-ID': '1' } });
    const stream = messages(response);
    const next = async (): Promise<Message> => {
      const { value } = await stream.next();
      return value!;
    };
    const [event, self, peers] = [await next(), await next(), await next()];
    assert.deepEqual([event.event, event.id], ['event', '2']);
    strictly(EventSchema, event.data);
    strictly(SelfSchema, self.data);
    strictly(PeersChangeSchema, peers.data);
    assert.equal((peers.data as { isFull: boolean }).isFull, true);
    const [first, second] = inspection.list;
    inspection.list = [{ ...first!, lastSeenAtMs: 5 }, second!];
    const change = await next();
    strictly(PeersChangeSchema, change.data);
    const { isFull, peers: changed, removed } = change.data as v.InferOutput<typeof PeersChangeSchema>;
    assert.deepEqual([isFull, changed.map(({ id }) => id), removed], [false, [first!.id], ['10.244.4.0/24']]);
    inspection.own = { ...inspection.own, atMs: 6 };
    say('three');
    assert.equal((await next()).id, '3', 'the time alone is no change of self');
    await stream.return();
  });

  const next = async (stream: AsyncIterator<Message>): Promise<Message> => (await stream.next()).value as Message;
  const say = (inspection: FakeInspection, text: string) =>
    inspection.events.add({ kind: 'path-fault', severity: 'error', subject: '10.244.2.0/24', text });

  it('sends an event at once, however seldom it sends the state', { timeout: 60_000 }, async () => {
    const inspection = new FakeInspection();
    const app = createApp({ inspection, signal: live.signal, streamIntervalMs: 3_600_000 });
    const stream = messages(await app.request(`${API_ROOT}/stream`));
    assert.deepEqual([(await next(stream)).event, (await next(stream)).event], ['self', 'peers']);
    for (const text of ['one', 'two']) {
      say(inspection, text);
      const { event, data } = await next(stream);
      assert.deepEqual([event, (data as { text: string }).text], ['event', text]);
    }
    await stream.return();
  });

  it('sends events alone to who asks for those, and looks at nothing else for it', { timeout: 60_000 }, async () => {
    const inspection = new FakeInspection();
    inspection.peers = () => assert.fail('nobody has asked for peers');
    say(inspection, 'before');
    const stream = messages(await open(inspection).request(`${API_ROOT}/stream?only=event`));
    assert.deepEqual(await next(stream), { event: 'alive', data: {}, id: undefined });
    say(inspection, 'one');
    const { event, data, id } = await next(stream);
    assert.deepEqual([event, (data as { text: string }).text, id], ['event', 'one', '2']);
    inspection.events.hint();
    assert.deepEqual(await next(stream), { event: 'changed', data: {}, id: undefined });
    await stream.return();
  });

  it('ends with the agent', async () => {
    const agent = new AbortController();
    const app = createApp({ inspection: new FakeInspection(), signal: agent.signal, streamIntervalMs: 1 });
    const stream = messages(await app.request(`${API_ROOT}/stream`));
    await stream.next();
    agent.abort(new Error('told to'));
    for await (const _ of stream);
  });

  it('drops a reader that does not read, and lets the next one in', async () => {
    const inspection = new FakeInspection();
    let turn = 0;
    const self = inspection.self.bind(inspection);
    inspection.self = () => ({ ...self(), reason: `${turn++} ${'x'.repeat(100_000)}` });
    const app = createApp({ inspection, signal: live.signal, streamIntervalMs: 1, stalledMs: 20 });
    const open = async (): Promise<Response> => await app.request(`${API_ROOT}/stream`);
    const unread = await Promise.all(Array.from({ length: 8 }, open));
    assert.deepEqual([...new Set(unread.map(({ status }) => status))], [200]);
    assert.equal((await open()).status, 503, 'there are as many as there may be');
    await eventually('one of them is dropped', async () => {
      const response = await open();
      await response.body?.cancel();
      return response.status === 200;
    });
    assert.ok(turn > 0);
  });
});
