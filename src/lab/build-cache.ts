import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { access, mkdir, readdir, rename, rm } from 'node:fs/promises';
import { homedir } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { WeftError } from '../errors.ts';
import { type RunOptions, type RunResult, run, start } from '../linux/run.ts';

/**
 * What labs and tests build once and keep: outside the tree, for a clone that is made anew has it then, and under names that say what
 * it is made of.
 */

/** A path in the cache: `$XDG_CACHE_HOME/weft`, or `~/.cache/weft`. */
export function cachePath(...names: readonly string[]): string {
  return join(process.env.XDG_CACHE_HOME || join(homedir(), '.cache'), 'weft', ...names);
}

/** Of the bytes given, short enough for a name. */
export function hashOf(...parts: readonly (string | Uint8Array)[]): string {
  const hash = createHash('sha256');
  for (const part of parts) hash.update(part);
  return hash.digest('hex').slice(0, 16);
}

export interface MadeOnceOptions {
  /** For people who wait. */
  readonly say?: ((line: string) => void) | undefined;
  readonly signal?: AbortSignal | undefined;
}

/**
 * Resolves when there is a file or folder at `path`. When it is not there, `make` makes it in the empty folder that it is given, and
 * returns where. One maker at a time; whoever comes second waits and finds the result. What a maker that was killed has left is
 * removed before.
 *
 * @throws WeftError WEFT_COMMAND_FAILED when the lock cannot be had; what `make` throws.
 */
export async function madeOnce(
  path: string,
  make: (dir: string) => Promise<string>,
  { say = () => {}, signal }: MadeOnceOptions = {},
): Promise<void> {
  if (await exists(path)) return;
  await mkdir(dirname(path), { recursive: true });
  await using _lock = await lock(`${path}.lock`, () => say(`waiting for another run that makes ${path}`), signal);
  if (await exists(path)) return;
  const marker = '.partial-';
  for (const name of await readdir(dirname(path))) {
    if (name.startsWith(`${basename(path)}${marker}`)) await removeAll(join(dirname(path), name));
  }
  const dir = `${path}${marker}${process.pid}`;
  await mkdir(dir);
  try {
    await rename(await make(dir), path);
  } finally {
    await removeAll(dir);
  }
}

/** Runs a command that builds something: the kernel ends it with this process, however that goes. */
export function runBuilder(argv: readonly string[], options: RunOptions = {}): Promise<RunResult> {
  return run(['setpriv', '--pdeathsig', 'KILL', '--', ...argv], options);
}

/**
 * An exclusive lock that the kernel releases when this process ends, however it ends: flock(1) holds it around a `cat`
 * that lives as long as our pipe to it, and whose echo tells that the lock has been granted.
 */
async function lock(path: string, onWait: () => void, signal: AbortSignal | undefined): Promise<AsyncDisposable> {
  const holder = await start(['flock', '--exclusive', path, 'cat'], { stdin: 'pipe', signal });
  const patience = setTimeout(onWait, 1_000);
  try {
    holder.stdin!.write('locked\n');
    const ended = holder.exited.then(() => {
      signal?.throwIfAborted();
      throw new WeftError('WEFT_COMMAND_FAILED', `flock ${path} ended without the lock: ${holder.tail().trim()}`);
    });
    await Promise.race([once(holder.stdout!, 'data'), ended]);
  } finally {
    clearTimeout(patience);
  }
  return {
    async [Symbol.asyncDispose]() {
      holder.stdin!.end();
      await holder.exited;
    },
  };
}

function removeAll(path: string): Promise<void> {
  return rm(path, { recursive: true, force: true });
}

async function exists(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  );
}
