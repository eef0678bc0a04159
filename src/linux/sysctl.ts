import { access, constants, readFile, writeFile } from 'node:fs/promises';
import { WeftError } from '../errors.ts';

/**
 * A kernel setting below /proc/sys, with slashes: `net/ipv4/ip_forward`, `net/ipv6/conf/flannel.1/accept_ra`. (The form
 * with dots cannot say the second one.)
 */
export type SysctlName = string;

export interface SysctlOptions {
  /** Default /proc/sys. It shows the network namespace of whoever reads it. */
  readonly root?: string | undefined;
}

/**
 * The value without the line end, or `undefined` when this kernel has no such setting (a module that is not loaded, IPv6
 * that is switched off, an interface that does not exist).
 *
 * @throws WeftError WEFT_SYSCTL_FAILED
 */
export async function readSysctl(name: SysctlName, options: SysctlOptions = {}): Promise<string | undefined> {
  const path = pathOf(name, options);
  try {
    return (await readFile(path, 'utf8')).trimEnd();
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return undefined;
    throw failure(`read ${path}`, path, error);
  }
}

/**
 * Sets it, unless it has that value already: a container may be allowed to read what it must not write.
 *
 * @returns whether it was changed.
 * @throws WeftError WEFT_SYSCTL_FAILED, also when there is no such setting.
 */
export async function setSysctl(name: SysctlName, value: string, options: SysctlOptions = {}): Promise<boolean> {
  if ((await readSysctl(name, options)) === value) return false;
  const path = pathOf(name, options);
  try {
    // No O_CREAT: /proc answers that with EACCES where ENOENT is meant.
    await writeFile(path, `${value}\n`, { flag: 'r+' });
  } catch (error) {
    throw failure(`set ${path} to ${JSON.stringify(value)}`, path, error);
  }
  return true;
}

/** Whether this process could set it, as far as can be told without doing so: /proc/sys is read-only in many containers. */
export async function isSysctlWritable(name: SysctlName, options: SysctlOptions = {}): Promise<boolean> {
  return await access(pathOf(name, options), constants.W_OK).then(
    () => true,
    () => false,
  );
}

function pathOf(name: SysctlName, { root = '/proc/sys' }: SysctlOptions): string {
  // An interface can have any name without white space and slashes.
  const parts = name.split('/');
  if (parts.length < 2 || parts.some((part) => /^$|^\.\.?$|\s/.test(part))) {
    throw new TypeError(`not the name of a kernel setting: ${name}`);
  }
  return `${root}/${name}`;
}

function failure(attempted: string, path: string, error: unknown): WeftError {
  const errno = errnoOf(error);
  return new WeftError('WEFT_SYSCTL_FAILED', `failed to ${attempted}: ${errno ?? String(error)}`, {
    hint: HINTS[errno ?? ''] ?? `Look at it by hand: cat ${path}`,
    cause: error,
  });
}

const HINTS: Readonly<Record<string, string>> = {
  EACCES: 'It needs root.',
  EPERM: 'It needs root in the host’s user namespace.',
  EROFS: '/proc/sys is read-only in this container: run it privileged, or set the value on the host with sysctl -w.',
  ENOENT: 'This kernel does not have this setting: load the module that provides it.',
  EINVAL: 'The kernel rejects this value.',
};

function errnoOf(error: unknown): string | undefined {
  return error instanceof Error && 'code' in error && typeof error.code === 'string' ? error.code : undefined;
}
