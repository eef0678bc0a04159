import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { Socket } from 'node:net';

/** A client sends its few header bytes at once; what takes longer only holds a descriptor. */
const REQUEST_TIMEOUT_MS = 3_000;
/** How often Node looks for requests that took too long; its default is 30 s. Each look wakes an agent that has nothing else to do. */
const CHECK_MS = 5_000;
/**
 * A further one takes the place of the oldest: who holds connections open keeps nobody out, and the descriptors that the agent needs for
 * its work are left to it.
 */
const MAX_CONNECTIONS = 32;

/**
 * An HTTP server that strangers may reach beside the agent's work; does not listen yet.
 * @param idleMs after which a connection is closed on which nothing moves in either direction.
 */
export function createBoundedServer(
  idleMs: number,
  answer: (request: IncomingMessage, response: ServerResponse) => void,
): Server {
  const limits = {
    requestTimeout: REQUEST_TIMEOUT_MS,
    headersTimeout: REQUEST_TIMEOUT_MS,
    connectionsCheckingInterval: CHECK_MS,
    keepAliveTimeout: idleMs,
  };
  const server = createServer(limits, answer);
  server.setTimeout(idleMs, (socket) => socket.destroy());
  const connections = new Set<Socket>();
  server.on('connection', (socket) => {
    connections.add(socket);
    socket.once('close', () => connections.delete(socket));
    const [oldest] = connections;
    if (connections.size > MAX_CONNECTIONS) oldest?.destroy();
  });
  server.on('clientError', (_error, socket) => socket.destroy());
  return server;
}
