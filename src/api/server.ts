import { createHash, timingSafeEqual } from 'node:crypto';
import { lstat, mkdir, readFile, unlink } from 'node:fs/promises';
import type { IncomingMessage, Server, ServerResponse } from 'node:http';
import { type AddressInfo, connect, type Socket } from 'node:net';
import { dirname } from 'node:path';
import { createBoundedServer } from '../bounded-server.ts';
import { hasErrno } from '../errno.ts';
import { describeError, WeftError } from '../errors.ts';
import { isAdmitted, privately } from '../private-socket.ts';
import type { Inspection } from './inspection.ts';

/** Nothing moved in either direction; a stream sends something every ten seconds at least. */
const IDLE_MS = 60_000;
/** Requests under way may take so long once the agent ends; streams end at once. */
const GRACE_MS = 1_000;
/** Of a token: what is shorter can be guessed. */
const MIN_TOKEN = 16;

export interface ApiServerOptions {
  readonly inspection: Inspection;
  /** Absolute; `undefined`: no socket. */
  readonly socketPath: string | undefined;
  /** Where it listens with a token; `undefined`: nowhere. */
  readonly listen: { readonly host: string | undefined; readonly port: number; readonly tokenFile: string } | undefined;
  /** User of the process at the other end of a connection of a Unix socket; `undefined` when the kernel does not say. */
  readonly peerUid: (socket: Socket) => number | undefined;
  /** Users that may ask by the socket beside root. */
  readonly ownUid: number;
  readonly onProblem: (text: string) => void;
}

export interface ApiServer extends AsyncDisposable {
  /** In use, where it listens on an address. */
  readonly port: number | undefined;
}

/**
 * The API on its socket and, where that is wanted, on an address. What cannot be opened is told and left out: looking at an
 * agent must never keep it from its work. So this never rejects but for the signal.
 */
export async function startApiServer(options: ApiServerOptions, signal: AbortSignal): Promise<ApiServer> {
  signal.throwIfAborted();
  const { inspection, socketPath, listen, onProblem } = options;
  await using stack = new AsyncDisposableStack();
  const ending = new AbortController();
  const answer = answering(inspection, AbortSignal.any([signal, ending.signal]));
  const open = async (
    who: string,
    admit: Admission,
    bind: (server: Server) => Promise<void>,
  ): Promise<Server | undefined> => {
    const server = serverOf(admit, answer);
    try {
      await bind(server);
    } catch (error) {
      onProblem(`The API is not served on ${who}: ${describeError(error)}`);
      return undefined;
    }
    server.on('error', () => undefined);
    stack.defer(() => closed(server));
    return server;
  };
  if (socketPath !== undefined) {
    await open(socketPath, socketAdmission(options), (server) => listenOnSocket(server, socketPath));
  }
  let tcp: Server | undefined;
  if (listen !== undefined) {
    const { host, port, tokenFile } = listen;
    tcp = await open(`${host ?? ''}:${port}`, tokenAdmission(tokenFile, onProblem), (server) =>
      listening(server, () => server.listen({ port, ...(host === undefined ? {} : { host }) })),
    );
  }
  const held = stack.move();
  return {
    port: tcp && (tcp.address() as AddressInfo).port,
    async [Symbol.asyncDispose]() {
      ending.abort(new Error('the agent ended'));
      await held.disposeAsync();
    },
  };
}

type Answering = (request: IncomingMessage, response: ServerResponse) => Promise<void>;

/** Loads what answers when somebody asks: most agents nobody does, and each node would pay for the memory of its libraries. */
function answering(inspection: Inspection, signal: AbortSignal): Answering {
  const load = async (): Promise<(request: IncomingMessage, response: ServerResponse) => unknown> => {
    const [{ getRequestListener }, { createApp }] = await Promise.all([
      import('@hono/node-server'),
      import('./app.ts'),
    ]);
    return getRequestListener(createApp({ inspection, signal }).fetch, { overrideGlobalObjects: false });
  };
  let loading: ReturnType<typeof load> | undefined;
  return async (request, response) => {
    let answer: Awaited<ReturnType<typeof load>>;
    try {
      loading ??= load();
      answer = await loading;
    } catch (error) {
      refuse(response, { status: 500, error: describeError(error) });
      return;
    }
    answer(request, response);
  };
}

/** Why a request is refused. */
interface Refusal {
  readonly status: 401 | 403 | 500;
  readonly error: string;
}
type Admission = (request: IncomingMessage) => Refusal | undefined | Promise<Refusal | undefined>;

function serverOf(admit: Admission, answer: Answering): Server {
  return createBoundedServer(IDLE_MS, (request, response) => {
    response.on('error', () => undefined);
    void Promise.resolve(admit(request)).then(
      (refusal) => (refusal === undefined ? answer(request, response) : refuse(response, refusal)),
      (error: unknown) => refuse(response, { status: 403, error: describeError(error) }),
    );
  });
}

function refuse(response: ServerResponse, { status, error }: Refusal): void {
  const body = JSON.stringify({ error });
  response.writeHead(status, {
    'Content-Type': 'application/json',
    'Content-Length': Buffer.byteLength(body),
    Connection: 'close',
  });
  response.end(body);
}

/** The mode of the socket keeps others out already; this holds where somebody has changed it, or handed the socket on. */
function socketAdmission({ peerUid, ownUid }: ApiServerOptions): Admission {
  return ({ socket }) => {
    const uid = peerUid(socket);
    if (isAdmitted(uid, ownUid)) return undefined;
    const who = uid === undefined ? 'the kernel does not say who asks' : `user ${uid} asks`;
    return { status: 403, error: `only root and the user of the agent may ask here: ${who}` };
  };
}

/**
 * By `Authorization: Bearer …`, or by `Weft-Api-Token`: a proxy such as the Kubernetes API server takes the first away. The file
 * is read for each request, so that a token can be changed while the agent runs; without a usable one nobody is let in.
 */
function tokenAdmission(file: string, onProblem: (text: string) => void): Admission {
  let told = '';
  return async (request) => {
    const wanted = await readToken(file);
    const problem = 'problem' in wanted ? wanted.problem : '';
    if (problem !== told && problem !== '') onProblem(problem);
    told = problem;
    if ('problem' in wanted) return { status: 401, error: problem };
    const given = givenToken(request);
    if (given !== undefined && sameText(given, wanted.token)) return undefined;
    return { status: 401, error: given === undefined ? 'a token is needed' : 'the token is wrong' };
  };
}

function givenToken({ headers }: IncomingMessage): string | undefined {
  const own = headers['weft-api-token'];
  if (typeof own === 'string') return own;
  return /^Bearer (\S+)$/i.exec(headers.authorization ?? '')?.[1];
}

async function readToken(file: string): Promise<{ readonly token: string } | { readonly problem: string }> {
  try {
    const token = (await readFile(file, 'utf8')).trim();
    if (token.length >= MIN_TOKEN) return { token };
    return { problem: `The API rejects all clients: the token in ${file} has fewer than ${MIN_TOKEN} characters` };
  } catch (error) {
    return { problem: `The API rejects all clients: cannot read the token: ${describeError(error)}` };
  }
}

/** Takes as long whatever the texts are. */
function sameText(a: string, b: string): boolean {
  const digest = (text: string): Buffer => createHash('sha256').update(text).digest();
  return timingSafeEqual(digest(a), digest(b));
}

async function listenOnSocket(server: Server, path: string): Promise<void> {
  await mkdir(dirname(path), { recursive: true });
  await removeStale(path);
  await listening(server, () => void privately(() => server.listen({ path })));
}

/** That of an agent that was killed. One that answers is another agent's. */
async function removeStale(path: string): Promise<void> {
  const found = await lstat(path).catch((error: unknown) => {
    if (hasErrno(error, 'ENOENT')) return undefined;
    throw error;
  });
  if (found === undefined) return;
  if (!found.isSocket()) {
    throw new WeftError('WEFT_API_LISTEN', `${path} is there and is no socket`, {
      hint: 'Remove it, or name another path with --api-socket.',
    });
  }
  if (await answers(path)) {
    throw new WeftError('WEFT_API_LISTEN', `another process answers on ${path}`, {
      hint: 'Give each agent of a host a socket of its own with --api-socket.',
    });
  }
  await unlink(path);
}

function answers(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(path);
    socket.once('connect', () => {
      socket.destroy();
      resolve(true);
    });
    socket.once('error', () => resolve(false));
  });
}

async function listening(server: Server, listen: () => void): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  server.once('error', reject);
  server.once('listening', resolve);
  listen();
  try {
    await promise;
  } finally {
    server.removeListener('error', reject);
    server.removeListener('listening', resolve);
  }
}

async function closed(server: Server): Promise<void> {
  const timer = setTimeout(() => server.closeAllConnections(), GRACE_MS);
  await new Promise<void>((resolve) => {
    server.close(() => resolve());
    server.closeIdleConnections();
  });
  clearTimeout(timer);
}
