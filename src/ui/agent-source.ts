/** How one agent is asked: through its Unix socket, or over the network with its token. Reading only. */

import type { ClientRequest, IncomingMessage, RequestOptions } from 'node:http';
import { request } from 'node:http';
import { request as secureRequest } from 'node:https';
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
}

/** More than 5,000 peers take. An answer without an end would take all memory. */
const MAX_ANSWER_BYTES = 64 * 1024 * 1024;

/** The agent of this machine, or of a lab's host. */
export function socketSource(name: string, socketPath: string): AgentSource {
  return {
    name,
    ask: (path, signal) =>
      ask((options) => request({ ...options, socketPath, path: `/api/v1${path}` }), socketPath, {}, signal),
  };
}

/** @param base `http://192.168.77.1:8086`; @param token what the agent was given. */
export function urlSource(name: string, base: URL, token: string): AgentSource {
  const start = base.protocol === 'https:' ? secureRequest : request;
  const headers = { authorization: `Bearer ${token}` };
  return {
    name,
    ask: (path, signal) =>
      ask((options) => start(new URL(`/api/v1${path}`, base), options), base.origin, headers, signal),
  };
}

async function ask(
  start: (options: RequestOptions) => ClientRequest,
  where: string,
  headers: Record<string, string>,
  signal: AbortSignal,
): Promise<AgentAnswer> {
  signal.throwIfAborted();
  try {
    const { promise, resolve, reject } = Promise.withResolvers<IncomingMessage>();
    const outgoing = start({ headers: { ...headers, accept: 'application/json' }, signal, agent: false });
    outgoing.on('response', resolve).on('error', reject).end();
    const incoming = await promise;
    const chunks: Buffer[] = [];
    let length = 0;
    for await (const chunk of incoming as AsyncIterable<Buffer>) {
      length += chunk.length;
      if (length > MAX_ANSWER_BYTES) throw new Error(`its answer is longer than ${MAX_ANSWER_BYTES} bytes`);
      chunks.push(chunk);
    }
    return {
      status: incoming.statusCode ?? 0,
      contentType: incoming.headers['content-type'] ?? '',
      body: Buffer.concat(chunks),
    };
  } catch (error) {
    signal.throwIfAborted();
    throw new WeftError('WEFT_UI_AGENT_AWAY', `could not ask the agent at ${where}: ${reasonOf(error)}`, {
      hint: 'Is flanneld running there, with its API? A socket can be read by root only.',
      cause: error,
    });
  }
}

/** Also of several addresses that were tried, whose error has no text of its own. */
function reasonOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  return error.message || ('code' in error ? String(error.code) : error.name);
}
