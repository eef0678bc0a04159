import { randomBytes } from 'node:crypto';
import { constants, type Stats } from 'node:fs';
import { access, copyFile, link, lstat, mkdir, open, rename, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { hasErrno } from '../errno.ts';
import { WeftError } from '../errors.ts';
import { PLUGIN_MARK } from './plugin-mark.ts';
import { pluginRemedy } from './plugin-remedy.ts';

export interface InstallRequest {
  /** Names of the programs that must be there. */
  readonly plugins: readonly string[];
  /** Where the container runtime looks for them. Made when it is missing. */
  readonly binDir: string;
  /** Folders to take missing ones from, in order. */
  readonly sources: readonly string[];
}

/** What became of one plugin. */
export type PluginOutcome =
  /** It was there and was left as it is. */
  | { readonly name: string; readonly status: 'present' }
  | { readonly name: string; readonly status: 'installed'; readonly from: string }
  /** Only `flannel`: an older one of weft's was replaced. */
  | { readonly name: string; readonly status: 'updated'; readonly from: string }
  /** There is none in any folder, or what is there cannot be run; `remedy` says what to do. */
  | { readonly name: string; readonly status: 'missing'; readonly remedy: string };

/**
 * Puts plugins that are missing into the runtime's folder. A file that is there is never overwritten, whoever made it and
 * whenever it comes; the one exception is `flannel`, when the file there is weft's. A runtime that looks meanwhile finds no
 * program or a whole one. Doing it twice changes nothing.
 *
 * @throws WeftError WEFT_OUTPUT_UNWRITABLE naming the folder and what the system said.
 */
export async function installPlugins({ plugins, binDir, sources }: InstallRequest): Promise<PluginOutcome[]> {
  const outcomes: PluginOutcome[] = [];
  for (const name of plugins) {
    const target = join(binDir, name);
    const source = await findSource(name, sources);
    try {
      if (await exists(target)) outcomes.push(await keepOrUpdate(name, target, source));
      else if (source === undefined) {
        outcomes.push({ name, status: 'missing', remedy: `${target} does not exist. ${pluginRemedy(name, [binDir])}` });
      } else {
        await mkdir(binDir, { recursive: true, mode: 0o755 });
        outcomes.push(
          (await copyAtomically(source, target, 'keep')) === 'done'
            ? { name, status: 'installed', from: source }
            : { name, status: 'present' },
        );
      }
    } catch (error) {
      throw unwritable(target, error);
    }
  }
  return outcomes;
}

async function keepOrUpdate(name: string, target: string, source: string | undefined): Promise<PluginOutcome> {
  const problem = await whyNotRunnable(target);
  if (problem !== undefined) return { name, status: 'missing', remedy: problem };
  if (name !== 'flannel' || source === undefined) return { name, status: 'present' };
  if (!(await contains(target, PLUGIN_MARK)) || (await sameContent(source, target))) return { name, status: 'present' };
  await copyAtomically(source, target, 'replace');
  return { name, status: 'updated', from: source };
}

async function findSource(name: string, sources: readonly string[]): Promise<string | undefined> {
  for (const folder of sources) {
    const path = join(folder, name);
    if ((await exists(path)) && (await whyNotRunnable(path)) === undefined) return path;
  }
  return undefined;
}

/** A link that leads nowhere counts: it is somebody's. */
async function exists(path: string): Promise<boolean> {
  return (await ifThere(lstat(path))) !== undefined;
}

/** Why a plugin that is there cannot be started, with what to do; `undefined` when it can. */
export async function whyNotRunnable(path: string): Promise<string | undefined> {
  const found = await ifThere(stat(path));
  if (found === undefined) return `${path} is a dangling symbolic link. Remove it.`;
  if (!found.isFile()) return `${path} is not a file. Remove it.`;
  const executable = await access(path, constants.X_OK).then(
    () => true,
    () => false,
  );
  if (!executable) return `${path} is not executable. chmod 755 ${path}`;
  return found.size === 0 ? `${path} is empty. Remove it.` : undefined;
}

/**
 * `keep` ends with 'kept' when a file of that name has come meanwhile: a hard link to the finished copy, unlike a rename,
 * fails then.
 */
async function copyAtomically(
  source: string,
  target: string,
  onConflict: 'keep' | 'replace',
): Promise<'done' | 'kept'> {
  const temporary = `${target}.weft-${randomBytes(4).toString('hex')}`;
  try {
    await copyFile(source, temporary, constants.COPYFILE_EXCL);
    {
      await using file = await open(temporary, 'r');
      await file.chmod(0o755);
      // A crash of the host must not leave an empty program under the final name: nothing would ever replace it.
      await file.sync();
    }
    if (onConflict === 'replace') {
      await rename(temporary, target);
      return 'done';
    }
    return await link(temporary, target).then(
      () => 'done' as const,
      (error: unknown) => {
        if (hasErrno(error, 'EEXIST')) return 'kept' as const;
        throw error;
      },
    );
  } finally {
    await rm(temporary, { force: true });
  }
}

const CHUNK_BYTES = 1 << 20;

/** Whether a file has the text somewhere; read in pieces, since a one-file program has a hundred megabytes. */
async function contains(path: string, text: string): Promise<boolean> {
  const needle = Buffer.from(text);
  await using file = await open(path, 'r');
  const buffer = Buffer.alloc(CHUNK_BYTES + needle.length);
  let kept = 0;
  for (;;) {
    const { bytesRead } = await file.read(buffer, kept, CHUNK_BYTES);
    if (bytesRead === 0) return false;
    const filled = kept + bytesRead;
    if (buffer.subarray(0, filled).includes(needle)) return true;
    // The end of this piece may be the start of the text.
    kept = Math.min(needle.length - 1, filled);
    buffer.copyWithin(0, filled - kept, filled);
  }
}

async function sameContent(a: string, b: string): Promise<boolean> {
  const [sizeA, sizeB] = [(await stat(a)).size, (await stat(b)).size];
  if (sizeA !== sizeB) return false;
  await using fileA = await open(a, 'r');
  await using fileB = await open(b, 'r');
  const [pieceA, pieceB] = [Buffer.alloc(CHUNK_BYTES), Buffer.alloc(CHUNK_BYTES)];
  for (let at = 0; at < sizeA; at += CHUNK_BYTES) {
    const length = Math.min(CHUNK_BYTES, sizeA - at);
    await fileA.read(pieceA, 0, length, at);
    await fileB.read(pieceB, 0, length, at);
    if (!pieceA.subarray(0, length).equals(pieceB.subarray(0, length))) return false;
  }
  return true;
}

async function ifThere(found: Promise<Stats>): Promise<Stats | undefined> {
  try {
    return await found;
  } catch (error) {
    if (hasErrno(error, 'ENOENT') || hasErrno(error, 'ENOTDIR')) return undefined;
    throw error;
  }
}

function unwritable(target: string, cause: unknown): WeftError {
  const detail = cause instanceof Error ? cause.message : String(cause);
  return new WeftError('WEFT_OUTPUT_UNWRITABLE', `could not install the CNI plugin ${target}: ${detail}`, {
    hint: "Run as root; in a pod, mount the host's folder of CNI plugins writable, or name another one with --bin-dir.",
    cause,
  });
}
