import { access, constants } from 'node:fs/promises';
import { join } from 'node:path';

/** The files that a program could be, in order: in the folders of PATH, then in those. */
export function programPaths(name: string, folders: readonly string[]): string[] {
  const all = [...(process.env.PATH ?? '').split(':'), ...folders];
  return all.filter((folder) => folder !== '').map((folder) => join(folder, name));
}

/** The first of these files that this process may run; `undefined` when there is none. */
export async function findProgram(paths: readonly string[]): Promise<string | undefined> {
  for (const path of paths) {
    const isThere = await access(path, constants.X_OK).then(
      () => true,
      () => false,
    );
    if (isThere) return path;
  }
  return undefined;
}
