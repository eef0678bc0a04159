/** How one agent is asked: through its Unix socket, or over the network with its token. Reading only. */

import { agentClient, type News, type OpenAnswer, overAddress, overSocket } from '../api/client.ts';
import { API_ROOT } from '../api/root.ts';
import { type AgentAddress, agentRequest, bodyOf, responseTo } from '../api/transport.ts';
import { WeftError } from '../errors.ts';

export interface AgentAnswer {
  readonly status: number;
  readonly contentType: string;
  readonly body: Buffer;
}

export interface AgentSource {
  /** As the page names the host; unique among those of one page. */
  readonly name: string;
  /**
   * @param path below /api/v1, with its query: `/peers?limit=10`.
   * @throws WeftError WEFT_UI_AGENT_AWAY when it does not answer; the reason of `signal`.
   */
  ask(path: string, signal: AbortSignal): Promise<AgentAnswer>;
  /** What happens there from now on, until the agent ends or the signal fires. @throws WeftError WEFT_API_… */
  news?(signal: AbortSignal): AsyncIterable<News>;
}

/** More than 5,000 peers take. */
const MAX_ANSWER_BYTES = 64 * 1024 * 1024;

/** The agent of this machine, or of a lab's host. */
export function socketSource(name: string, socketPath: string): AgentSource {
  return {
    name,
    ask: (path, signal) => ask({ socketPath }, socketPath, path, signal),
    news: newsOver(name, overSocket(socketPath)),
  };
}

/** @param base `http://192.168.77.1:8086`; @param token what the agent was given. */
export function urlSource(name: string, base: URL, token: string): AgentSource {
  return {
    name,
    ask: (path, signal) => ask({ url: base, token }, base.origin, path, signal),
    news: newsOver(name, overAddress(base, token)),
  };
}

/** One that somebody else hands questions on to, such as the API server of its cluster. */
export function openSource(name: string, open: OpenAnswer): AgentSource {
  return {
    name,
    news: newsOver(name, open),
    ask: async (path, signal) => {
      signal.throwIfAborted();
      const url = new URL(`${API_ROOT}${path}`, 'http://agent');
      try {
        const body = await open(url.pathname, Object.fromEntries(url.searchParams), signal);
        return { status: 200, contentType: 'application/json', body: await bodyOf(body, MAX_ANSWER_BYTES) };
      } catch (error) {
        signal.throwIfAborted();
        throw away(name, error);
      }
    },
  };
}

function newsOver(name: string, open: OpenAnswer): NonNullable<AgentSource['news']> {
  return agentClient(name, open).news;
}

async function ask(to: AgentAddress, where: string, path: string, signal: AbortSignal): Promise<AgentAnswer> {
  signal.throwIfAborted();
  try {
    const request = agentRequest(to, `${API_ROOT}${path}`, signal, { accept: 'application/json' });
    const incoming = await responseTo(request);
    return {
      body: await bodyOf(incoming, MAX_ANSWER_BYTES),
      status: incoming.statusCode ?? 0,
      contentType: incoming.headers['content-type'] ?? '',
    };
  } catch (error) {
    signal.throwIfAborted();
    throw away(where, error);
  }
}

function away(where: string, error: unknown): WeftError {
  return new WeftError('WEFT_UI_AGENT_AWAY', `could not reach the agent at ${where}: ${reasonOf(error)}`, {
    hint: 'Check that flanneld runs there and serves its API. Only root can use its socket.',
    cause: error,
  });
}

/** Also of several addresses that were tried, whose error has no text of its own. */
function reasonOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  return error.message || ('code' in error ? String(error.code) : error.name);
}
