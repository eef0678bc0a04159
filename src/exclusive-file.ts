import { constants, openSync, rmSync } from 'node:fs';
import { type FileHandle, open, rm } from 'node:fs/promises';
import { hasErrno } from './errno.ts';

/** A new file, or nothing: never one that somebody else has put there, and never what a link leads to. */
const FLAGS = constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW;

/**
 * Makes a temporary file under a name that may be guessed. Whatever lies there, a file of a process that was killed or a link
 * that somebody has put there to have another file overwritten, is removed first and never written to.
 *
 * @throws the error of the system call that failed; EEXIST when somebody puts something there again and again.
 */
export async function openExclusive(path: string, mode: number): Promise<FileHandle> {
  try {
    return await open(path, FLAGS, mode);
  } catch (error) {
    if (!hasErrno(error, 'EEXIST')) throw error;
    await rm(path, { force: true });
    return await open(path, FLAGS, mode);
  }
}

/** The same at once, for what cannot wait. Returns the descriptor. */
export function openExclusiveSync(path: string, mode: number): number {
  try {
    return openSync(path, FLAGS, mode);
  } catch (error) {
    if (!hasErrno(error, 'EEXIST')) throw error;
    rmSync(path, { force: true });
    return openSync(path, FLAGS, mode);
  }
}
