import { readdir } from 'node:fs/promises';
import { hasErrno } from '../errno.ts';

/** What container runtimes take for a network configuration (libcni's ConfFiles). */
const EXTENSION = /\.(?:conf|conflist|json)$/;

/**
 * The configurations that hide the one called `name`: a runtime uses the first file of the folder by the order of their
 * bytes, which is not that of a locale. Empty when there is no such folder.
 *
 * @throws the error of the system call when the folder cannot be read.
 */
export async function confFilesBefore(folder: string, name: string): Promise<string[]> {
  const files = await readdir(folder, { withFileTypes: true }).catch((error: unknown) => {
    if (hasErrno(error, 'ENOENT')) return [];
    throw error;
  });
  return files
    .filter((file) => !file.isDirectory() && EXTENSION.test(file.name) && comesBefore(file.name, name))
    .map((file) => file.name)
    .sort((a, b) => (comesBefore(a, b) ? -1 : 1));
}

/** One sentence on each of them, and what to do. */
export function hiddenBy(folder: string, files: readonly string[], name: string): string {
  return (
    `${files.map((file) => `${folder}/${file}`).join(', ')} ${files.length === 1 ? 'sorts' : 'sort'} before ${name}, so the ` +
    `container runtime uses ${files.length === 1 ? 'it' : 'the first of them'} instead, and pods are not on this network. ` +
    `Move ${files.length === 1 ? 'it' : 'them'} away, unless a plugin such as Multus put it there on purpose.`
  );
}

function comesBefore(a: string, b: string): boolean {
  return Buffer.compare(Buffer.from(a), Buffer.from(b)) < 0;
}
