import { mkdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { cachePath, hashOf, type MadeOnceOptions, madeOnce, runBuilder } from '../../src/lab/build-cache.ts';
import { goBuild, goEnvironment, requiredVersion } from '../../src/lab/go-module.ts';
import { run } from '../../src/linux/run.ts';

export interface GoToolsOptions extends MadeOnceOptions {
  /** What the name of the folder begins with; the versions of `modules` follow. */
  readonly name: string;
  /** The folder of the Go module that names versions. */
  readonly module: string;
  /** Those of its requirements whose versions are in the folder's name, a short name by each path. */
  readonly modules: Readonly<Record<string, string>>;
  /** To build. */
  readonly packages: readonly string[];
  /** More flags of `go build`. */
  readonly flags?: readonly string[];
}

export interface GoTools {
  /** The programs are in it. */
  readonly folder: string;
  /** The part of the folder's name that says which these are, e.g. `helm-v3.22.0-kustomize-v5.8.1`. */
  readonly versions: string;
}

/**
 * The programs of Go packages, kept in the cache under their versions and the hash of what they are made of.
 *
 * @throws WeftError WEFT_COMMAND_MISSING, WEFT_COMMAND_FAILED
 */
export async function goTools(options: GoToolsOptions): Promise<GoTools> {
  const { name, module, modules, packages, flags = [], ...waiting } = options;
  const [goMod, goSum] = await Promise.all(['go.mod', 'go.sum'].map((file) => readFile(join(module, file), 'utf8')));
  const named = Object.entries(modules).map(([path, short]) => `${short}-${requiredVersion(goMod!, path)}`);
  const versions = named.join('-');
  const folder = cachePath(`${name}-${versions}-${hashOf(goMod!, goSum!, ...flags)}`);
  const make = async (dir: string): Promise<string> => {
    const made = join(dir, 'programs');
    await mkdir(made);
    await runBuilder(goBuild(`${made}/`, packages, { flags }), {
      cwd: module,
      env: goEnvironment(),
      signal: waiting.signal,
    });
    return made;
  };
  await madeOnce(folder, make, waiting);
  return { folder, versions };
}

/** The folder of a module's sources, fetched if need be. */
export async function goModuleFolder(module: string, path: string): Promise<string> {
  const argv = ['go', 'list', '-m', '-f', '{{.Dir}}', path];
  await run(['go', 'mod', 'download', path], { cwd: module, env: goEnvironment() });
  return (await run(argv, { cwd: module, env: goEnvironment() })).stdout.trim();
}
