/** The web server of the page: its files, the overview, and the agents' APIs for reading. No sockets here: hono's `fetch`. */
import { Hono } from 'hono';
import { describeError } from '../errors.ts';
import type { LabResult } from '../lab/lab-result.ts';
import type { Fleet } from './fleet.ts';
import type { PageAccess } from './page-access.ts';

/** The files of the page, by name: `index.html`, `page.js`. */
export interface PageFiles {
  /** `undefined` when there is none of that name. */
  read(name: string): Uint8Array | undefined;
}

export interface UiOptions {
  readonly fleet: Fleet;
  readonly files: PageFiles;
  /**
   * Names and addresses that a browser may reach the page by, without a port. A request with another `Host` is refused: a name
   * that an attacker's DNS server turns to this address would make his page ours (DNS rebinding).
   */
  readonly hostNames: readonly string[];
  readonly access: PageAccess;
  /** What a lab has measured, when the hosts are a lab's. */
  readonly lab?: (() => LabResult | undefined) | undefined;
}

/** Each screen's own address; /host/NAME as well. */
const SCREENS = ['/', '/map', '/matrix', '/walk', '/timeline', '/host'] as const;

const TYPES: Readonly<Record<string, string>> = {
  html: 'text/html; charset=utf-8',
  js: 'text/javascript; charset=utf-8',
  css: 'text/css; charset=utf-8',
  svg: 'image/svg+xml',
};

/** Pictures that a reader saves are made as blob: and drawn from data:; everything else is this server's. */
const POLICY = [
  "default-src 'none'",
  "script-src 'self'",
  "style-src 'self'",
  "connect-src 'self'",
  "img-src 'self' data: blob:",
  "base-uri 'none'",
  "form-action 'none'",
  "frame-ancestors 'none'",
].join('; ');

const HEADERS: Readonly<Record<string, string>> = {
  'content-security-policy': POLICY,
  'x-content-type-options': 'nosniff',
  'referrer-policy': 'no-referrer',
  'cross-origin-opener-policy': 'same-origin',
  'cross-origin-resource-policy': 'same-origin',
  'cache-control': 'no-store',
};

/** How long an agent may take for what its host's kernel has to be asked for. */
const ANSWER_MS = 10_000;

/** Answers GET and HEAD only, and tells of hosts only who has been let in. No header lets another origin read anything. */
export function uiApp({ fleet, files, hostNames, access, lab }: UiOptions): Hono {
  const app = new Hono();

  app.use(async (context, next) => {
    await next();
    for (const [name, value] of Object.entries(HEADERS)) context.res.headers.set(name, value);
  });
  app.use(async (context, next) => {
    const host = hostNameOf(context.req.header('host') ?? '');
    if (!hostNames.includes(host)) return context.text(`this page is not ${host}`, 421);
    if (!['GET', 'HEAD'].includes(context.req.method))
      return context.text('this page only reads', 405, { allow: 'GET' });
    return next();
  });

  // The page itself, the same for everybody: it says nothing of any host.
  for (const path of [...SCREENS, '/host/:name']) app.get(path, () => file('index.html'));
  app.get('/:name{[a-z]+\\.[a-z]+}', (context) => file(context.req.param('name')));

  app.use(access.admit);
  app.get('/hosts', (context) => context.json(fleet.sources.map(({ name }) => ({ name }))));
  app.get('/overview', async (context) => {
    const { signal } = context.req.raw;
    const seen = numberOf(context.req.query('after'));
    return context.json(await (seen === undefined ? fleet.overview(signal) : fleet.next(seen, signal)));
  });
  app.get('/events', async (context) =>
    context.json(await fleet.events(numberOf(context.req.query('after')) ?? 0, context.req.raw.signal)),
  );
  app.get('/lab', (context) => context.json(lab?.() ?? null));
  app.get('/hosts/:name/api/v1/*', async (context) => {
    const source = fleet.source(context.req.param('name'));
    if (source === undefined) return context.json({ error: 'the page asks no host of that name' }, 404);
    const url = new URL(context.req.url);
    const path = url.pathname.slice(url.pathname.indexOf('/api/v1') + '/api/v1'.length);
    // It does not end.
    if (path === '/stream') return context.json({ error: 'the page does not pass streams on' }, 404);
    const said = url.search === '' ? fleet.said(source.name, path) : undefined;
    if (said !== undefined) return context.json(said);
    const signal = AbortSignal.any([context.req.raw.signal, AbortSignal.timeout(ANSWER_MS)]);
    try {
      const answer = await source.ask(`${path}${url.search}`, signal);
      // As JSON, whatever the agent calls it: nothing that it says can become a page of this origin.
      return context.body(new Uint8Array(answer.body), answer.status as 200, { 'content-type': 'application/json' });
    } catch (error) {
      return context.json({ error: describeError(error) }, 502);
    }
  });
  app.notFound((context) => context.text('there is nothing here', 404));
  app.onError((error, context) => context.json({ error: describeError(error) }, 500));
  return app;

  function file(name: string): Response {
    const bytes = files.read(name);
    if (bytes === undefined) return new Response('there is nothing here', { status: 404 });
    const type = TYPES[name.slice(name.lastIndexOf('.') + 1)] ?? 'application/octet-stream';
    return new Response(new Uint8Array(bytes), { headers: { 'content-type': type } });
  }
}

function numberOf(text: string | undefined): number | undefined {
  return text !== undefined && /^\d{1,15}$/.test(text) ? Number(text) : undefined;
}

/** Of a `Host` header: without the port, and in lower case. */
export function hostNameOf(header: string): string {
  return header.toLowerCase().replace(/:\d*$/, '');
}
