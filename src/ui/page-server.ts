/** Listens for the page, on loopback unless told otherwise. */
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { getRequestListener } from '@hono/node-server';
import type { Hono } from 'hono';
import { WeftError } from '../errors.ts';

export interface PageServer extends AsyncDisposable {
  readonly port: number;
}

/** A browser keeps six connections at most, and some readers have several windows. */
const MAX_CONNECTIONS = 128;

/**
 * @param port 0 lets the kernel choose.
 * @throws WeftError WEFT_UI_LISTEN
 */
export async function startPageServer(app: Hono, ip: string, port: number, signal: AbortSignal): Promise<PageServer> {
  signal.throwIfAborted();
  const server = createServer(getRequestListener(app.fetch));
  server.maxConnections = MAX_CONNECTIONS;
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  server.once('error', reject).listen({ host: ip, port }, resolve);
  try {
    await promise;
  } catch (error) {
    throw new WeftError('WEFT_UI_LISTEN', `could not serve the page on ${ip}:${port}: ${String(error)}`, {
      hint: 'Choose another port with --port, or 0 for any that is free.',
      cause: error,
    });
  }
  const stop = async (): Promise<void> => {
    if (!server.listening) return;
    const closed = new Promise<void>((done) => server.close(() => done()));
    server.closeAllConnections();
    await closed;
  };
  return { port: (server.address() as AddressInfo).port, [Symbol.asyncDispose]: stop };
}
