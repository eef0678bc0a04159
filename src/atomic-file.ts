import { mkdir, rename, rm } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { openExclusive } from './exclusive-file.ts';

/**
 * Writes a file so that a reader sees the old one or the new one and nothing between, also after a crash of the host. The
 * directory is made when it is missing (0755); the file has `mode` whatever the umask: 0644 unless given, because programs
 * that are not root read most of them.
 *
 * @throws the error of the system call that failed; then the old file is still there, as it was.
 */
export async function writeFileAtomically(path: string, text: string, mode = 0o644): Promise<void> {
  // In the same directory, because a rename does not cross file systems; hidden, so that globs do not find it.
  const temporary = join(dirname(path), `.${basename(path)}.${process.pid}`);
  try {
    await mkdir(dirname(path), { recursive: true, mode: 0o755 });
    {
      await using file = await openExclusive(temporary, mode);
      await file.chmod(mode);
      await file.writeFile(text);
      // Otherwise a crash of the host can leave an empty file under the final name.
      await file.sync();
    }
    await rename(temporary, path);
  } catch (error) {
    await rm(temporary, { force: true }).catch(() => {});
    throw error;
  }
}
