import { Hono } from 'hono';
import { streamSSE } from 'hono/streaming';
import { describeError } from '../errors.ts';
import type { Inspection } from './inspection.ts';
import { API_ROOT } from './root.ts';
import type { Answer, Endpoint } from './schema.ts';
import { followAgent } from './stream.ts';

const MAX_EVENTS = 10_000;
const DEFAULT_EVENTS = 1_000;
const MAX_ENTRIES = 200_000;
const DEFAULT_ENTRIES = 5_000;
/** A reader that takes nothing for so long is dropped. */
const STALLED_MS = 10_000;
/** Further ones are refused: each may cost a look at all peers every second. */
const MAX_STREAMS = 8;

export interface AppOptions {
  readonly inspection: Inspection;
  /** Fires when the agent ends; streams end with it. */
  readonly signal: AbortSignal;
  readonly stalledMs?: number;
  readonly streamIntervalMs?: number;
}

/**
 * The routes of the API. Only GET: there is nothing that this API could change. Who may ask is settled by the server
 * (server.ts).
 */
export function createApp({ inspection, signal, stalledMs = STALLED_MS, streamIntervalMs }: AppOptions): Hono {
  const app = new Hono().basePath(API_ROOT);
  /** Answers are those of their schema: the type says so, and a test of the contract. */
  const route = <E extends Endpoint>(
    path: E,
    answer: (query: (name: string) => string | undefined, signal: AbortSignal) => Answer<E> | Promise<Answer<E>>,
  ): void => {
    app.get(path, async (c) => {
      const body = await answer((name) => c.req.query(name), AbortSignal.any([signal, c.req.raw.signal]));
      return c.json(body as object, 200, NO_STORE);
    });
  };
  route('/self', () => inspection.self());
  route('/peers', (query) => {
    const answer = inspection.peers();
    return { ...answer, peers: answer.peers.slice(0, numberOf(query('limit'), answer.total, answer.total)) };
  });
  route('/leases', () => inspection.leases());
  route('/readiness', () => inspection.readiness());
  route('/config', () => inspection.config());
  route('/state', (query, signal) => inspection.state(numberOf(query('limit'), DEFAULT_ENTRIES, MAX_ENTRIES), signal));
  route('/rules', (_, signal) => inspection.rules(signal));
  route('/doctor', () => inspection.doctor());
  route('/events', (query) => {
    const after = numberOf(query('after'), 0, Number.MAX_SAFE_INTEGER);
    const found = inspection.events.after(after, numberOf(query('limit'), DEFAULT_EVENTS, MAX_EVENTS));
    return { startedAtMs: inspection.startedAtMs, ...found, events: [...found.events] };
  });
  app.get('/openapi.json', async (c) => {
    // Loaded by who asks: most agents never are, and a schema library is memory on every node.
    const { openApiDocument } = await import('./openapi.ts');
    return c.json(openApiDocument(), 200, NO_STORE);
  });
  let streams = 0;
  app.get('/stream', (c) => {
    if (streams >= MAX_STREAMS)
      return c.json({ error: `there are ${MAX_STREAMS} readers of this stream already` }, 503);
    streams++;
    const last = c.req.query('after') ?? c.req.header('last-event-id');
    const after = last === undefined ? undefined : numberOf(last, 0, Number.MAX_SAFE_INTEGER);
    const over = new AbortController();
    const ended = AbortSignal.any([signal, c.req.raw.signal, over.signal]);
    return streamSSE(c, async (stream) => {
      stream.onAbort(() => over.abort());
      const send = async (message: Parameters<typeof stream.writeSSE>[0]): Promise<void> => {
        // Waits until the reader has room.
        const stalled = setTimeout(() => over.abort(new Error('the reader does not read')), stalledMs);
        const gone = Promise.withResolvers<never>();
        const leave = (): void => gone.reject(new Error('the stream ended'));
        ended.addEventListener('abort', leave, { once: true });
        gone.promise.catch(() => {});
        try {
          await Promise.race([stream.writeSSE(message), gone.promise]);
        } finally {
          clearTimeout(stalled);
          ended.removeEventListener('abort', leave);
        }
      };
      try {
        const interval = streamIntervalMs === undefined ? {} : { intervalMs: streamIntervalMs };
        const onlyEvents = c.req.query('only') === 'event';
        await followAgent(inspection, { after, onlyEvents, send, ...interval }, ended);
      } catch (error) {
        if (!ended.aborted) throw error;
      } finally {
        streams--;
        stream.abort();
      }
    });
  });
  app.notFound((c) =>
    c.json({ error: `there is no ${c.req.path} here; ${API_ROOT}/openapi.json lists what there is` }, 404),
  );
  app.onError((error, c) => c.json({ error: describeError(error) }, 500));
  return app;
}

const NO_STORE = { 'Cache-Control': 'no-store' } as const;

/** What cannot be read counts as not given: a reader with a typing error gets the usual, not a failure. */
function numberOf(text: string | undefined, fallback: number, most: number): number {
  const value = /^\d{1,15}$/.test(text ?? '') ? Number(text) : fallback;
  return Math.min(value, most);
}
