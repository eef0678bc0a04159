import type { IncomingMessage, Server, ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { createBoundedServer } from '../bounded-server.ts';
import { describeError, WeftError } from '../errors.ts';
import { printable, printableLines } from '../printable.ts';

/**
 * What /readyz says. Not ready without a reason means that start-up has not finished; with one, that the node has been
 * ready and its data path is broken now, or why start-up hangs.
 */
export type Readiness = { readonly ready: true } | { readonly ready: false; readonly reason?: string };

export interface HealthServerOptions {
  /**
   * Address to listen on: a literal of either family. Empty, 0.0.0.0 and :: all mean every address of both families, as in
   * Go: a node with IPv6 alone is probed under the default of --healthz-ip, too.
   */
  readonly ip: string;
  /** 0 lets the kernel choose. That flannel's `--healthz-port=0` means "off" is the caller's business. */
  readonly port: number;
  /** Called once per request to /readyz; must not block. */
  readonly readiness: () => Readiness;
  /** The body of /metrics in Prometheus' text format 0.0.4. */
  readonly metrics: () => Promise<string>;
  /** What `weft doctor` asks for beside these, by path: texts of one line each. */
  readonly lists?: ReadonlyMap<string, () => readonly string[]>;
}

export interface HealthServer extends AsyncDisposable {
  /** The port in use; differs from the wanted one only when that was 0. */
  readonly port: number;
  /** Resolves once the server has stopped, by the signal or by disposal. */
  readonly closed: Promise<void>;
}

/** How long requests under way may take once the server is told to stop; flannel's figure. */
const GRACE_MS = 3000;
/** Nothing moved in either direction: the client does not read its answer, or keeps a connection that it does not use. */
const IDLE_MS = 5_000;

/** The list of all interfaces can be a reason. */
const MAX_REASON = 10_000;

const TEXT = 'text/plain; charset=utf-8';
const PROMETHEUS_TEXT = 'text/plain; version=0.0.4; charset=utf-8';

interface Answer {
  readonly status: number;
  readonly body: string;
  readonly type: string;
}

/**
 * The agent's HTTP endpoints, all on one port: `/healthz` (200 as long as the process turns), `/readyz` (200 or 503) and
 * `/metrics`; the lists are for `weft doctor`. The bodies of the first two are flannel's to the byte, without a final newline; a
 * reason follows `flanneld is not ready: `. Any method is answered, as flannel does.
 *
 * Stops when `signal` aborts or the result is disposed: no new connections, requests under way get up to 3 s.
 *
 * @throws WeftError WEFT_HEALTH_LISTEN when the address cannot be listened on.
 */
export async function startHealthServer(options: HealthServerOptions, signal: AbortSignal): Promise<HealthServer> {
  signal.throwIfAborted();
  let stopping = false;
  const server = createBoundedServer(IDLE_MS, (request, response) => {
    void respond(options, request, response, () => stopping);
  });
  await listen(server, options);
  // From here on an accept error (EMFILE) is the client's bad luck and must not end the agent.
  server.on('error', () => undefined);

  const closed = new Promise<void>((resolve) => server.once('close', resolve));
  const stop = () => {
    if (stopping) return;
    stopping = true;
    server.close();
    const timer = setTimeout(() => server.closeAllConnections(), GRACE_MS);
    timer.unref();
    void closed.then(() => clearTimeout(timer));
  };
  signal.addEventListener('abort', stop, { once: true });
  if (signal.aborted) stop();
  return {
    port: (server.address() as AddressInfo).port,
    closed,
    async [Symbol.asyncDispose]() {
      signal.removeEventListener('abort', stop);
      stop();
      await closed;
    },
  };
}

async function listen(server: Server, { ip, port }: HealthServerOptions): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  server.once('error', reject);
  try {
    server.listen({ port, ...(['', '0.0.0.0', '::'].includes(ip) ? {} : { host: ip }) }, resolve);
    await promise;
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    throw new WeftError(
      'WEFT_HEALTH_LISTEN',
      `listening for health checks on ${at(ip, port)}: ${describeError(error)}`,
      {
        hint:
          code === 'EADDRINUSE'
            ? 'Another process has this port, perhaps another agent: stop it, or choose a free port with --healthz-port.'
            : 'Check --healthz-ip and --healthz-port: the address must be one of this host’s; a port below 1024 needs root.',
        cause: error,
      },
    );
  } finally {
    server.removeListener('error', reject);
  }
}

function at(ip: string, port: number): string {
  return ip.includes(':') ? `[${ip}]:${port}` : `${ip}:${port}`;
}

async function respond(
  options: HealthServerOptions,
  request: IncomingMessage,
  response: ServerResponse,
  stopping: () => boolean,
): Promise<void> {
  let answer: Answer;
  try {
    answer = await answerFor(options, request.url ?? '/');
  } catch (error) {
    answer = { status: 500, body: describeError(error), type: TEXT };
  }
  response.on('error', () => undefined);
  response.writeHead(answer.status, {
    'Content-Type': answer.type,
    'Content-Length': Buffer.byteLength(answer.body),
    // A connection kept alive would hold the server open for the whole grace time.
    ...(stopping() ? { Connection: 'close' } : {}),
  });
  response.end(answer.body);
}

async function answerFor(options: HealthServerOptions, url: string): Promise<Answer> {
  const path = url.split('?', 1)[0] ?? '';
  switch (path) {
    case '/healthz':
      return { status: 200, body: 'flanneld is running', type: TEXT };
    case '/readyz':
      return readyAnswer(options.readiness());
    case '/metrics':
      return { status: 200, body: await options.metrics(), type: PROMETHEUS_TEXT };
    default:
      return listAnswer(options.lists?.get(path)?.());
  }
}

function listAnswer(list: readonly string[] | undefined): Answer {
  if (list === undefined) return { status: 404, body: '404 page not found\n', type: TEXT };
  return { status: 200, body: list.map((line) => `${printable(line)}\n`).join(''), type: TEXT };
}

function readyAnswer(readiness: Readiness): Answer {
  if (readiness.ready) return { status: 200, body: 'flanneld is ready', type: TEXT };
  const body =
    readiness.reason === undefined
      ? 'flanneld is not ready yet'
      : `flanneld is not ready: ${printableLines(readiness.reason, MAX_REASON)}`;
  return { status: 503, body, type: TEXT };
}
