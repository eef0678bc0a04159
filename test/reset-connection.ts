import type { Socket } from 'node:net';

/**
 * Ends a connection at once and, where the kind of socket can, with a reset.
 *
 * libuv resets no connection whose `shutdown` is under way (uv_tcp_close_reset answers EINVAL, for SO_LINGER and shutdown(2) do not
 * go together), and Node.js then forgets the handle without closing it: the process spins when it should end. Such a connection is
 * closed without a reset.
 */
export function resetConnection(socket: Socket): void {
  const isShuttingDown = socket.writableEnded && !socket.writableFinished;
  if (socket.remoteAddress === undefined || isShuttingDown) socket.destroy();
  else socket.resetAndDestroy();
}
