import { homedir } from 'node:os';
import { delimiter, join } from 'node:path';

/**
 * An environment in which Go is found where its own installer puts it, and in which its compiler collects garbage less often:
 * it needs a sixth less processor time, and half a gigabyte.
 */
export function goEnvironment(): Record<string, string> {
  const PATH = [process.env.PATH ?? '', '/usr/local/go/bin', join(homedir(), 'go', 'bin')].join(delimiter);
  return { PATH, GOGC: '400' };
}

/**
 * `go build` of programs that nobody debugs, into the file or folder `out`: without debug information, which is a tenth of the
 * compiler's work, and without getting in the way of tests that run beside it. `ldflags` are more flags of the linker.
 */
export function goBuild(
  out: string,
  packages: readonly string[],
  { ldflags = '', flags = [] }: { readonly ldflags?: string; readonly flags?: readonly string[] } = {},
): string[] {
  const build = ['go', 'build', '-trimpath', '-buildvcs=false', '-gcflags=all=-dwarf=false'];
  return ['nice', '-n', '19', ...build, '-ldflags', `-s -w ${ldflags}`.trim(), ...flags, '-o', out, ...packages];
}

/**
 * Of a module that the text of a go.mod requires, e.g. `v1.36.3`.
 * @throws Error when it requires no such module.
 */
export function requiredVersion(goMod: string, path: string): string {
  for (const line of goMod.split('\n')) {
    const [name, version] = line
      .trim()
      .replace(/^require /, '')
      .split(' ');
    if (name === path && version !== undefined) return version;
  }
  throw new Error(`go.mod does not require ${path}`);
}
