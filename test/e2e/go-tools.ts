import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, readFile, rename, rm } from 'node:fs/promises';
import { homedir } from 'node:os';
import { delimiter, join } from 'node:path';
import { run } from '../../src/linux/run.ts';

/** Everything here that is made once and kept: outside the tree, under names that say what it is made of. */
export function cacheFolder(name: string): string {
  return join(process.env.XDG_CACHE_HOME || join(homedir(), '.cache'), 'weft', name);
}

/** Of the bytes given, short enough for a name. */
export function hashOf(...parts: readonly (string | Uint8Array)[]): string {
  const hash = createHash('sha256');
  for (const part of parts) hash.update(part);
  return hash.digest('hex').slice(0, 16);
}

/**
 * A folder with the programs of Go packages, built from the module in `module` and kept under `name` and the hash of what they are
 * made of. Two builders at once are harmless: whoever is first wins.
 *
 * @throws WeftError WEFT_COMMAND_MISSING, WEFT_COMMAND_FAILED
 */
export async function goTools(
  name: string,
  module: string,
  packages: readonly string[],
  flags: readonly string[] = [],
): Promise<string> {
  const sources = await Promise.all(['go.mod', 'go.sum'].map((file) => readFile(join(module, file))));
  const folder = cacheFolder(`${name}-${hashOf(...sources, ...flags)}`);
  if (existsSync(folder)) return folder;
  await mkdir(cacheFolder(''), { recursive: true });
  const partial = await mkdtemp(`${folder}.`);
  try {
    const build = ['go', 'build', '-trimpath', '-buildvcs=false', '-ldflags', '-s -w', ...flags, '-o', `${partial}/`];
    await run(['nice', '-n', '19', ...build, ...packages], { cwd: module, env: goEnvironment() });
    await rename(partial, folder).catch((error: unknown) => {
      if (!existsSync(folder)) throw error;
    });
  } finally {
    await rm(partial, { recursive: true, force: true });
  }
  return folder;
}

/** The folder of a module's sources, fetched if need be. */
export async function goModuleFolder(module: string, path: string): Promise<string> {
  const argv = ['go', 'list', '-m', '-f', '{{.Dir}}', path];
  await run(['go', 'mod', 'download', path], { cwd: module, env: goEnvironment() });
  return (await run(argv, { cwd: module, env: goEnvironment() })).stdout.trim();
}

function goEnvironment(): Record<string, string> {
  return { PATH: [process.env.PATH ?? '', '/usr/local/go/bin'].join(delimiter) };
}
