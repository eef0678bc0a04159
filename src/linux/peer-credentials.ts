import type { Socket } from 'node:net';
import { SO_PEERCRED, SOL_SOCKET } from './constants.ts';
import { addressOf, getsockopt } from './ffi.ts';

/** struct ucred of socket(7): pid, uid, gid, four bytes each. */
const UCRED_BYTES = 12;
const UCRED_UID = 4;

/**
 * The user of the process that connected to a Unix socket, as the kernel noted it then; `undefined` for a connection of another
 * kind, or one that is closed.
 */
export function peerUid(socket: Socket): number | undefined {
  // Node.js has no name for the descriptor of a connection.
  const fd = (socket as { readonly _handle?: { readonly fd?: number } | null })._handle?.fd;
  if (fd === undefined || fd < 0) return undefined;
  const credentials = new DataView(new SharedArrayBuffer(UCRED_BYTES));
  const length = new Uint32Array(new SharedArrayBuffer(4));
  length[0] = UCRED_BYTES;
  const result = getsockopt(fd, SOL_SOCKET, SO_PEERCRED, addressOf(credentials), addressOf(length));
  if (result < 0 || length[0] !== UCRED_BYTES) return undefined;
  const uid = credentials.getUint32(UCRED_UID, true);
  // What the kernel says of a socket that has no peer of this kind.
  return uid === 0xffffffff ? undefined : uid;
}
