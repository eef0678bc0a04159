import {
  type ClientRequest,
  Agent as HttpAgent,
  request as httpRequest,
  type IncomingMessage,
  type OutgoingHttpHeaders,
} from 'node:http';
import { Agent as HttpsAgent, request as httpsRequest } from 'node:https';

/** Where an agent serves its API: on a socket of this host, or on an address with a token (`--api-listen`). */
export type AgentAddress = { readonly socketPath: string } | { readonly url: URL; readonly token: string };

/** Connections that nobody uses are kept for the next question: `weft ui` asks every agent once a second. None keeps the process alive. */
const HTTP = new HttpAgent({ keepAlive: true });
const HTTPS = new HttpsAgent({ keepAlive: true });

/** A request to that agent, as yet unsent. @param path from the root, with its query. */
export function agentRequest(
  to: AgentAddress,
  path: string,
  signal: AbortSignal,
  headers: OutgoingHttpHeaders = {},
): ClientRequest {
  if ('socketPath' in to) return httpRequest({ path, signal, agent: HTTP, headers, socketPath: to.socketPath });
  const { protocol, hostname, port } = to.url;
  const [request, agent] = protocol === 'https:' ? [httpsRequest, HTTPS] : [httpRequest, HTTP];
  return request({
    ...{ path, signal, agent, protocol, port, host: hostname.replace(/^\[|\]$/g, '') },
    headers: { ...headers, Authorization: `Bearer ${to.token}` },
  });
}

/** Sends it. @throws what went wrong on the way, or the reason of the request's signal. */
export async function responseTo(request: ClientRequest): Promise<IncomingMessage> {
  const { promise, resolve, reject } = Promise.withResolvers<IncomingMessage>();
  // A second error may follow the first.
  request.on('response', resolve).on('error', reject).end();
  return await promise;
}

/** An answer without an end would take all memory. @throws Error when it is longer than `most` bytes. */
export async function bodyOf(body: AsyncIterable<Uint8Array>, most: number): Promise<Buffer> {
  const parts: Uint8Array[] = [];
  let length = 0;
  for await (const part of body) {
    length += part.length;
    if (length > most) throw new Error(`the answer is longer than ${most} bytes`);
    parts.push(part);
  }
  return Buffer.concat(parts);
}
