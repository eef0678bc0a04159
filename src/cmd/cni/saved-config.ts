import {
  closeSync,
  constants,
  copyFileSync,
  fsyncSync,
  linkSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import type { Attachment } from '../../cni/plugin-config.ts';
import { hasErrno } from '../../errno.ts';
import { openExclusiveSync } from '../../exclusive-file.ts';

/**
 * The delegate's configuration of each attachment, kept from ADD to DEL as `<dataDir>/<containerId>:<ifName>`. A container
 * may have several interfaces of one network, and each holds an address of its own.
 *
 * flannel's plugin knows `<dataDir>/<containerId>` alone. That file is there as well, with flannel's bytes, as long as the
 * container has an interface: what one of the two plugins added, the other can take down. No container id has a colon.
 */
const SEPARATOR = ':';

/**
 * Writes the file (0600, its directory 0700). Who looks meanwhile sees the old file or the whole new one, and once this
 * returns, a crash of the host does not lose it: the delegate, which takes an address, is started only after that.
 *
 * @throws the error of the system call that failed; no half-written file is left then.
 */
export function saveConfig(dataDir: string, attachment: Attachment, json: string): void {
  const temporary = temporaryPath(dataDir, attachment);
  const fd = openInDirectory(temporary, dataDir);
  try {
    writeFileSync(fd, json);
    renameSync(temporary, ownPath(dataDir, attachment));
    saveForFlannel(dataDir, attachment);
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

/** The first interface's configuration under flannel's name; of no use to us, so that a failure is none of the ADD. */
function saveForFlannel(dataDir: string, attachment: Attachment): void {
  const plain = join(dataDir, attachment.containerId);
  const own = ownPath(dataDir, attachment);
  const isFirst = interfacesOf(dataDir, attachment.containerId).length === 1;
  if (!isFirst) return;
  rmSync(plain, { force: true });
  try {
    linkSync(own, plain);
  } catch {
    copyFileSync(own, plain, constants.COPYFILE_EXCL); // a file system without hard links
  }
}

/** `undefined` when there is none for that interface. @throws the error of the system call when it cannot be read. */
export function readSavedConfig(dataDir: string, attachment: Attachment): string | undefined {
  const own = readIfThere(ownPath(dataDir, attachment));
  if (own !== undefined) return own;
  // Where any interface has a file of its own, this one has been taken down; else it may be one that flannel has added.
  if (interfacesOf(dataDir, attachment.containerId).length > 0) return undefined;
  return readIfThere(join(dataDir, attachment.containerId));
}

/** Removes it, what an ADD that was killed left beside it, and with the last interface flannel's file. */
export function removeSavedConfig(dataDir: string, attachment: Attachment): void {
  rmSync(ownPath(dataDir, attachment), { force: true });
  rmSync(temporaryPath(dataDir, attachment), { force: true });
  rmSync(join(dataDir, `.${attachment.containerId}`), { force: true });
  if (interfacesOf(dataDir, attachment.containerId).length > 0) return;
  rmSync(join(dataDir, attachment.containerId), { force: true });
}

/**
 * Everything that something is saved for. What flannel has added tells no interface: it is `eth0`, the name that every
 * runtime gives a container's first one.
 */
export function savedAttachments(dataDir: string): Attachment[] {
  const names = fileNames(dataDir);
  const own = names.flatMap((name) => attachmentOf(name) ?? []);
  const known = new Set(own.map(({ containerId }) => containerId));
  const others = names.filter((name) => !name.includes(SEPARATOR) && !known.has(name));
  return [...own, ...others.map((containerId) => ({ containerId, ifName: 'eth0' }))];
}

function interfacesOf(dataDir: string, containerId: string): string[] {
  return fileNames(dataDir).filter((name) => name.startsWith(`${containerId}${SEPARATOR}`));
}

function attachmentOf(name: string): Attachment | undefined {
  const at = name.indexOf(SEPARATOR);
  return at < 0 ? undefined : { containerId: name.slice(0, at), ifName: name.slice(at + 1) };
}

function fileNames(dataDir: string): string[] {
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

function readIfThere(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    if (hasErrno(error, 'ENOENT')) return undefined;
    throw error;
  }
}

function ownPath(dataDir: string, { containerId, ifName }: Attachment): string {
  return join(dataDir, `${containerId}${SEPARATOR}${ifName}`);
}

/** No id of a container begins with a dot, and no two ADDs run at once for one interface of a container. */
function temporaryPath(dataDir: string, { containerId, ifName }: Attachment): string {
  return join(dataDir, `.${containerId}${SEPARATOR}${ifName}`);
}

function openInDirectory(path: string, directory: string): number {
  try {
    return openExclusiveSync(path, 0o600);
  } catch (error) {
    if (!hasErrno(error, 'ENOENT')) throw error;
    mkdirSync(directory, { recursive: true, mode: 0o700 });
    return openExclusiveSync(path, 0o600);
  }
}
