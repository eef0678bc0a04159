import { closeSync, mkdirSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { openExclusiveSync } from '../exclusive-file.ts';
import { printable } from '../printable.ts';

/**
 * `last-error` in the agent's state directory (where subnet.env is): why the agent on this host could not start, one line
 * of text. The CNI plugin repeats it, so that `kubectl describe pod` and the node's condition name the cause and not only
 * the missing subnet.env. Synchronous: the agent writes it on its way out, and the plugin does nothing else meanwhile.
 * Imports next to nothing of weft's, since the plugin is to start fast.
 */
const FILE_NAME = 'last-error';

/** Longer texts are cut: the reader puts them into a status message. */
const MAX_CHARACTERS = 2_000;

export interface StartupError {
  /** One line, not empty. */
  readonly text: string;
  /** When it was written. */
  readonly at: Date;
}

/** Where the reason of a failed start is kept, below the folder of subnet.env. */
export function startupErrorPath(stateDir: string): string {
  return join(stateDir, FILE_NAME);
}

/**
 * Keeps why the start failed; line breaks become spaces. The directory is made when missing. Never throws: this is a copy
 * of what the log has, and failing to keep it must not hide the error itself.
 */
export function recordStartupError(stateDir: string, text: string): void {
  const line = printable(text.replaceAll(/\s+/g, ' ').trim(), MAX_CHARACTERS);
  if (line === '') return;
  const temporary = join(stateDir, `.${FILE_NAME}.${process.pid}`);
  try {
    mkdirSync(stateDir, { recursive: true, mode: 0o755 });
    const fd = openExclusiveSync(temporary, 0o644);
    try {
      writeFileSync(fd, `${line}\n`);
    } finally {
      closeSync(fd);
    }
    renameSync(temporary, startupErrorPath(stateDir));
  } catch {
    removeQuietly(temporary);
  }
}

/** For a start that succeeded. Never throws. */
export function clearStartupError(stateDir: string): void {
  removeQuietly(startupErrorPath(stateDir));
}

/** `undefined` when the last start succeeded, none was tried, or the file cannot be read. Never throws. */
export function readStartupError(stateDir: string): StartupError | undefined {
  const path = startupErrorPath(stateDir);
  try {
    const text = readFileSync(path, 'utf8').trim();
    return text === '' ? undefined : { text: text.slice(0, MAX_CHARACTERS), at: statSync(path).mtime };
  } catch {
    return undefined;
  }
}

function removeQuietly(path: string): void {
  try {
    rmSync(path, { force: true });
  } catch {
    // A directory of that name, or a file system that is read-only: nothing that can be helped here.
  }
}
