import { once } from 'node:events';
import { createReadStream, createWriteStream } from 'node:fs';
import { readFile, realpath, stat } from 'node:fs/promises';
import { dirname } from 'node:path';
import { run } from '../../../src/linux/run.ts';

/** One thing in the first file system of a guest, by its path there without the leading slash. */
export type InitramfsEntry =
  | { readonly file: string; readonly mode: number; readonly from: string }
  | { readonly file: string; readonly mode: number; readonly text: string }
  | { readonly link: string; readonly to: string };

/** Programs of this machine with the libraries they are linked against, where they are here. */
export async function programs(...paths: readonly string[]): Promise<InitramfsEntry[]> {
  const files = new Set<string>();
  for (const path of paths) {
    files.add(path);
    // Of a program that is linked against nothing it says so, with exit code 1.
    const { stdout } = await run(['ldd', await realpath(path)], { okExitCodes: [0, 1] });
    for (const [library] of stdout.matchAll(/(?<=\s)\/\S+/g)) files.add(library);
  }
  return [...files].map((path) => ({ file: path.slice(1), mode: 0o755, from: path }));
}

/** A cpio archive in the form that the kernel unpacks ("newc", Documentation/driver-api/early-userspace/buffer-format.rst). */
export async function writeInitramfs(path: string, entries: readonly InitramfsEntry[]): Promise<void> {
  const out = createWriteStream(path);
  const write = async (bytes: string | Buffer): Promise<void> => {
    if (!out.write(bytes)) await once(out, 'drain');
  };
  let inode = 1;
  const member = async (name: string, mode: number, size: number): Promise<void> => {
    const fields = [inode++, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, name.length + 1, 0];
    const head = `070701${fields.map((value) => value.toString(16).padStart(8, '0')).join('')}${name}\0`;
    await write(head.padEnd(aligned(head.length), '\0'));
  };
  const directories = new Set<string>();
  const makeDirectory = async (directory: string): Promise<void> => {
    if (directory === '.' || directories.has(directory)) return;
    await makeDirectory(dirname(directory));
    directories.add(directory);
    await member(directory, 0o040755, 0);
  };
  for (const entry of entries) {
    const name = 'link' in entry ? entry.link : entry.file;
    await makeDirectory(dirname(name));
    if ('from' in entry) {
      const { size } = await stat(entry.from);
      await member(name, 0o100000 | entry.mode, size);
      for await (const chunk of createReadStream(entry.from)) await write(chunk as Buffer);
      await write(Buffer.alloc(aligned(size) - size));
    } else {
      const content = Buffer.from('link' in entry ? entry.to : entry.text);
      await member(name, 'link' in entry ? 0o120777 : 0o100000 | entry.mode, content.length);
      await write(Buffer.concat([content, Buffer.alloc(aligned(content.length) - content.length)]));
    }
  }
  await member('TRAILER!!!', 0, 0);
  out.end();
  await once(out, 'close');
}

function aligned(length: number): number {
  return Math.ceil(length / 4) * 4;
}

/** The text of a file that is made beside the test. */
export function textOf(name: string): Promise<string> {
  return readFile(new URL(name, import.meta.url), 'utf8');
}
