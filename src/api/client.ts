import type { IncomingMessage } from 'node:http';
import { hasErrno } from '../errno.ts';
import { describeError, WeftError } from '../errors.ts';
import type { AgentEvent } from '../events/event.ts';
import { printableValue } from '../printable.ts';
import { API_ROOT } from './root.ts';
import { type Answer, type Endpoint, parseAnswer, parseEvent } from './schema.ts';
import { type AgentAddress, agentRequest, bodyOf, responseTo } from './transport.ts';

/** An agent answers within milliseconds; one on a loaded machine within seconds. */
const ANSWER_MS = 5_000;
/** A stream sends something every ten seconds. */
const SILENCE_MS = 30_000;
/** Of one answer: ten thousands of peers. */
const MAX_ANSWER = 256 << 20;
/** Of one event in a stream: its texts are cut by whoever makes it. */
const MAX_EVENT = 1 << 20;
const EVENT_HEAD = 'event: event\n';
const CHANGED_HEAD = 'event: changed\n';

export type News = AgentEvent | 'changed';

export type Query = Readonly<Record<string, string>>;

/** The way to one agent: the body of a 200. @throws WeftError WEFT_API_UNREACHABLE, WEFT_API_REFUSED; the signal's reason. */
export type OpenAnswer = (path: string, query: Query, signal: AbortSignal) => Promise<AsyncIterable<Uint8Array>>;

/** One agent, as its API shows it. It may be anybody's: its texts may stand on a terminal as they are (printable.ts). */
export interface AgentClient {
  /** For people: a socket, an address, a node. */
  readonly name: string;
  /** @throws WeftError WEFT_API_UNREACHABLE, WEFT_API_REFUSED; the signal's reason. */
  get<E extends Endpoint>(endpoint: E, signal: AbortSignal, query?: Query): Promise<Answer<E>>;
  /**
   * Events after that one (`undefined`: none) and those to come, until the agent ends or the signal fires. @throws as `get` does.
   */
  events(after: number | undefined, signal: AbortSignal): AsyncGenerator<AgentEvent, void, void>;
  /** Those to come, and `changed` for what is no event because there are too many. @throws as `get` does. */
  news(signal: AbortSignal): AsyncGenerator<News, void, void>;
}

/** @param answerMs how long an answer may take. */
export function agentClient(name: string, open: OpenAnswer, answerMs: number = ANSWER_MS): AgentClient {
  return {
    name,
    get: async (endpoint, signal, query = {}) => {
      const timeout = AbortSignal.timeout(answerMs);
      try {
        const text = await textOf(await open(`${API_ROOT}${endpoint}`, query, AbortSignal.any([signal, timeout])));
        return parseAnswer(endpoint, printableValue(JSON.parse(text)));
      } catch (error) {
        signal.throwIfAborted();
        throw timeout.aborted
          ? unreachable(name, `no answer within ${answerMs / 1_000} s`, error)
          : readable(name, error);
      }
    },
    async *events(after, signal) {
      for await (const news of newsOf(name, open, after, signal)) if (news !== 'changed') yield news;
    },
    news: (signal) => newsOf(name, open, undefined, signal),
  };
}

async function* newsOf(
  name: string,
  open: OpenAnswer,
  after: number | undefined,
  signal: AbortSignal,
): AsyncGenerator<News, void, void> {
  try {
    let text = '';
    const decoder = new TextDecoder();
    const query = { only: 'event', ...(after !== undefined && { after: String(after) }) };
    for await (const chunk of await open(`${API_ROOT}/stream`, query, signal)) {
      text += decoder.decode(chunk, { stream: true });
      const messages = text.split('\n\n');
      text = messages.pop() ?? '';
      for (const message of messages) {
        if (message.startsWith(CHANGED_HEAD)) yield 'changed';
        if (!message.startsWith(EVENT_HEAD)) continue;
        yield parseEvent(printableValue(JSON.parse(/^data: (.*)$/m.exec(message)?.[1] ?? '')));
      }
      if (text.length <= MAX_EVENT) continue;
      if (text.startsWith(EVENT_HEAD)) throw new TypeError(`an event is longer than ${MAX_EVENT} characters`);
      // Of what is not wanted, only whether its end has come.
      text = text.slice(-1);
    }
  } catch (error) {
    if (signal.aborted) return;
    throw readable(name, error);
  }
}

/** To the agent of this host. */
export function overSocket(socketPath: string): OpenAnswer {
  return (path, query, signal) => opened(socketPath, { socketPath }, withQuery(path, query), signal);
}

/** To `--api-listen` of an agent. */
export function overAddress(url: URL, token: string): OpenAnswer {
  return (path, query, signal) => opened(url.href, { url, token }, withQuery(path, query), signal);
}

function withQuery(path: string, query: Query): string {
  const text = new URLSearchParams(query).toString();
  return text === '' ? path : `${path}?${text}`;
}

async function opened(
  name: string,
  to: AgentAddress,
  path: string,
  signal: AbortSignal,
): Promise<AsyncIterable<Uint8Array>> {
  let response: IncomingMessage;
  try {
    const request = agentRequest(to, path, signal);
    request.setTimeout(SILENCE_MS, () =>
      request.destroy(new Error(`nothing was received for ${SILENCE_MS / 1_000} s`)),
    );
    response = await responseTo(request);
  } catch (error) {
    throw unreachable(name, reasonOf(error), error);
  }
  if (response.statusCode === 200) return response;
  throw refused(name, `${response.statusCode} ${errorOf(await textOf(response))}`);
}

function reasonOf(error: unknown): string {
  if (hasErrno(error, 'ENOENT') || hasErrno(error, 'ECONNREFUSED')) return 'nothing listens there';
  if (hasErrno(error, 'EACCES')) return 'permission denied: only root and the user of the agent may ask';
  return describeError(error);
}

function errorOf(body: string): string {
  try {
    const { error } = JSON.parse(body) as { readonly error?: unknown };
    return typeof error === 'string' ? error : '';
  } catch {
    return body.slice(0, 300);
  }
}

async function textOf(body: AsyncIterable<Uint8Array>): Promise<string> {
  return (await bodyOf(body, MAX_ANSWER)).toString('utf8');
}

function readable(name: string, error: unknown): WeftError {
  if (error instanceof WeftError) return error;
  // What came is no answer of this API: another program, or a version that is no v1.
  if (error instanceof SyntaxError || error instanceof TypeError || error instanceof RangeError)
    return refused(name, `the answer cannot be read (${error.message})`);
  return unreachable(name, reasonOf(error), error);
}

/** No answer came. */
export function unreachable(name: string, why: string, cause: unknown): WeftError {
  return new WeftError('WEFT_API_UNREACHABLE', `cannot reach the agent at ${name}: ${why}`, {
    hint: 'Is it running? Name its socket with --socket, or its address with --host and --token-file.',
    cause,
  });
}

/** An answer came, and it is no. */
export function refused(name: string, why: string): WeftError {
  return new WeftError('WEFT_API_REFUSED', `the agent at ${name} did not answer what was asked: ${why}`, {
    hint: 'As root, ask on the host itself; from elsewhere, give its token with --token-file.',
  });
}
