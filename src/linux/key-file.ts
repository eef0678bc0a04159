import { readFile } from 'node:fs/promises';
import { writeFileAtomically } from '../atomic-file.ts';
import { hasErrno } from '../errno.ts';
import { describeError, WeftError } from '../errors.ts';

/** The file with this host's private key, in flannel's place and form: base64 without an end of line, for its owner alone. */

/** @returns what it holds; `undefined` when there is none. @throws WeftError WEFT_KEY_FILE. */
export async function readKeyFile(path: string, signal?: AbortSignal): Promise<string | undefined> {
  try {
    return await readFile(path, { encoding: 'utf8', signal });
  } catch (error) {
    if (hasErrno(error, 'ENOENT')) return undefined;
    signal?.throwIfAborted();
    throw keyFileFailed('read', path, error);
  }
}

/** A reader sees the old key or the new one. The folder is made when it is missing. @throws WeftError WEFT_KEY_FILE. */
export async function writeKeyFile(path: string, text: string): Promise<void> {
  try {
    await writeFileAtomically(path, text, 0o400);
  } catch (error) {
    throw keyFileFailed('write', path, error);
  }
}

function keyFileFailed(what: 'read' | 'write', path: string, error: unknown): WeftError {
  return new WeftError('WEFT_KEY_FILE', `could not ${what} the private key in ${path}: ${describeError(error)}`, {
    hint: 'Check the folder and its permissions; WIREGUARD_KEY_FILE names another file.',
    cause: error,
  });
}
