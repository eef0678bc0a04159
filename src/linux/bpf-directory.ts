import {
  constants,
  type Dirent,
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  rmdirSync,
  statfsSync,
  statSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import { hasErrno } from '../errno.ts';
import { describeError, WeftError } from '../errors.ts';
import { endPinned } from './bpf.ts';
import { errnoName, mount } from './ffi.ts';

/** linux/magic.h */
const BPF_FS_MAGIC = 0xcafe4a11;
/** Where a host has its bpffs, as systemd mounts it. */
const HOST_BPFFS = '/sys/fs/bpf';
const { S_IFMT, S_IFDIR } = constants;
const OTHERS_WRITE = 0o022;
/** `PROC_PID_INIT_INO` (linux/proc_ns.h): the first pid namespace of a machine. */
const INIT_PID_NAMESPACE = 0xeffffffc;

/**
 * A directory for BPF objects that outlive this process, one for a network namespace and a device in it. Made when it is not there;
 * and so is the bpffs, where this process sees the files of its host.
 * Programs and maps that are found there are believed, so that nobody else may write to it.
 * @param root directory in a bpffs for all of them: /sys/fs/bpf/weft.
 * @throws WeftError WEFT_FAST_PATH when there is no bpffs, it may not be written to, or others may.
 */
export function openBpfDirectory(root: string, device: string): string {
  try {
    requireBpffs(dirname(root));
    const directory = bpfDirectory(root, device);
    for (const each of [root, directory]) {
      mkdirSync(each, { recursive: true, mode: 0o700 });
      requirePrivate(each);
    }
    return directory;
  } catch (error) {
    if (error instanceof WeftError) throw error;
    throw new WeftError('WEFT_FAST_PATH', describeError(error));
  }
}

/** Where {@link openBpfDirectory} makes it. Dots are reserved there. */
export function bpfDirectory(root: string, device: string): string {
  return join(root, `${namespacePrefix()}${device.replaceAll('.', '_')}`);
}

/** Those of this network namespace. @throws Error of the file system. */
export function bpfDirectories(root: string): string[] {
  try {
    if (statfsSync(root).type !== BPF_FS_MAGIC) return [];
    const prefix = namespacePrefix();
    return readdirSync(root)
      .filter((name) => name.startsWith(prefix))
      .map((name) => join(root, name));
  } catch (error) {
    if (hasErrno(error, 'ENOENT')) return [];
    throw error;
  }
}

/**
 * Removes such a directory, and ends what is attached by it: what is kept in its directories first, because the XDP program that is there
 * needs those outside behind it.
 * @throws Error of the file system.
 */
export function removeBpfDirectory(directory: string): void {
  if (!existsSync(directory)) return;
  const entries = readdirSync(directory, { withFileTypes: true });
  const pathsOf = (isWanted: (entry: Dirent) => boolean): string[] =>
    entries.filter(isWanted).map(({ name }) => join(directory, name));
  pathsOf((entry) => entry.isDirectory()).forEach(removeBpfDirectory);
  pathsOf((entry) => !entry.isDirectory()).forEach(endPinned);
  rmdirSync(directory);
}

/** Agents in two network namespaces of one machine may see one bpffs. */
function namespacePrefix(): string {
  return `netns-${statSync('/proc/self/ns/net').ino}-`;
}

/** A bpffs that is mounted without a mode is everybody's (1777, `bpf_fill_super` of the kernel), and who comes first has the name. */
function requirePrivate(path: string): void {
  const { uid, mode } = lstatSync(path);
  if (uid === process.getuid?.() && (mode & S_IFMT) === S_IFDIR && (mode & OTHERS_WRITE) === 0) return;
  const found = `user ${uid}, mode ${(mode & 0o7777).toString(8)}`;
  throw new WeftError('WEFT_FAST_PATH', `users other than this agent’s may write to ${path} (${found})`, {
    hint: 'Check what is in it, then remove it.',
  });
}

function requireBpffs(path: string): void {
  if (statfsSync(path).type === BPF_FS_MAGIC) return;
  if (path !== HOST_BPFFS || !isInHostsMountNamespace()) {
    throw new WeftError('WEFT_FAST_PATH', `no bpffs is mounted at ${path}`);
  }
  const result = mount('bpf', path, 'bpf', 0, 'mode=700');
  if (result < 0) throw new WeftError('WEFT_FAST_PATH', `failed to mount a bpffs at ${path}: ${errnoName(result)}`);
}

/** What is mounted in a container's own mount namespace is gone with the container. */
function isInHostsMountNamespace(): boolean {
  const inode = (path: string): number => statSync(path).ino;
  return inode('/proc/self/ns/pid') === INIT_PID_NAMESPACE && inode('/proc/self/ns/mnt') === inode('/proc/1/ns/mnt');
}
