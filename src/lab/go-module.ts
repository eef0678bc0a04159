import { homedir } from 'node:os';
import { delimiter, join } from 'node:path';

/** An environment in which Go is found where its own installer puts it. */
export function goEnvironment(): Record<string, string> {
  return { PATH: [process.env.PATH ?? '', '/usr/local/go/bin', join(homedir(), 'go', 'bin')].join(delimiter) };
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
