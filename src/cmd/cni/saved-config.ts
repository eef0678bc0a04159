import {
  closeSync,
  fsyncSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { hasErrno } from '../../errno.ts';

/**
 * The delegate's configuration of each container, kept from ADD to DEL as `<dataDir>/<containerId>` with flannel's bytes:
 * what one of the two plugins added, the other can take down.
 */

/**
 * Writes the file (0600, its directory 0700). Who looks meanwhile sees the old file or the whole new one, and once this
 * returns, a crash of the host does not lose it: the delegate, which takes an address, is started only after that.
 *
 * @throws the error of the system call that failed; no half-written file is left then.
 */
export function saveConfig(dataDir: string, containerId: string, json: string): void {
  const temporary = temporaryPath(dataDir, containerId);
  const fd = openInDirectory(temporary, dataDir);
  try {
    writeFileSync(fd, json);
    renameSync(temporary, join(dataDir, containerId));
    // After the rename, so that one flush keeps the name as well. A crash between the two can leave an empty file, which
    // loses nothing: no delegate has run.
    fsyncSync(fd);
  } catch (error) {
    rmSync(temporary, { force: true });
    throw error;
  } finally {
    closeSync(fd);
  }
}

/** `undefined` when there is none. @throws the error of the system call when it cannot be read. */
export function readSavedConfig(dataDir: string, containerId: string): string | undefined {
  try {
    return readFileSync(join(dataDir, containerId), 'utf8');
  } catch (error) {
    if (hasErrno(error, 'ENOENT')) return undefined;
    throw error;
  }
}

/** Removes it, and what an ADD that was killed left beside it. */
export function removeSavedConfig(dataDir: string, containerId: string): void {
  rmSync(join(dataDir, containerId), { force: true });
  rmSync(temporaryPath(dataDir, containerId), { force: true });
}

/** The ids of all containers that something is saved for. */
export function savedContainerIds(dataDir: string): string[] {
  try {
    return readdirSync(dataDir, { withFileTypes: true })
      .filter((entry) => entry.isFile() && !entry.name.startsWith('.'))
      .map((entry) => entry.name)
      .sort();
  } catch (error) {
    if (hasErrno(error, 'ENOENT')) return [];
    throw error;
  }
}

/** No id of a container begins with a dot, and no two ADDs run at once for one container. */
function temporaryPath(dataDir: string, containerId: string): string {
  return join(dataDir, `.${containerId}`);
}

function openInDirectory(path: string, directory: string): number {
  try {
    return openSync(path, 'w', 0o600);
  } catch (error) {
    if (!hasErrno(error, 'ENOENT')) throw error;
    mkdirSync(directory, { recursive: true, mode: 0o700 });
    return openSync(path, 'w', 0o600);
  }
}
