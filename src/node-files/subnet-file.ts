import { readFile } from 'node:fs/promises';
import { dirname } from 'node:path';
import { writeFileAtomically } from '../atomic-file.ts';
import type { NetworkConfig } from '../config/network-config.ts';
import { hasErrno } from '../errno.ts';
import { WeftError } from '../errors.ts';
import type { Subnets } from '../lease/subnets.ts';
import { formatSubnetEnv, parseSubnetEnv, type SubnetEnvContent, type SubnetEnvReading } from './subnet-env.ts';

/**
 * Writes subnet.env, atomically.
 *
 * @throws WeftError WEFT_SUBNET_FILE_UNWRITABLE; then the old file is still there, as it was.
 */
export async function writeSubnetFile(path: string, content: SubnetEnvContent, signal?: AbortSignal): Promise<void> {
  const text = formatSubnetEnv(content);
  signal?.throwIfAborted();
  try {
    await writeFileAtomically(path, text);
  } catch (error) {
    throw unwritable(path, error);
  }
}

const IS_DIRECTORY = 'it is a directory';

function unwritable(path: string, cause: unknown): WeftError {
  const detail = hasErrno(cause, 'EISDIR') ? IS_DIRECTORY : cause instanceof Error ? cause.message : String(cause);
  const hint = hasErrno(cause, 'EISDIR')
    ? `Remove it (rmdir ${path}): container runtimes make a directory of what is to be mounted as a file and is missing. Or choose another place with --subnet-file.`
    : hasErrno(cause, 'EBUSY')
      ? `If ${path} is itself a mount, mount its directory instead: the file is replaced, not rewritten.`
      : hasErrno(cause, 'ENOSPC') || hasErrno(cause, 'EDQUOT')
        ? `Free some space in ${dirname(path)}, or choose another place with --subnet-file.`
        : `Run as a user who may write to ${dirname(path)}, or choose another place with --subnet-file.`;
  return new WeftError('WEFT_SUBNET_FILE_UNWRITABLE', `cannot write the subnet file ${path}: ${detail}`, {
    hint,
    cause,
  });
}

export type SubnetFileResult =
  | { readonly kind: 'read'; readonly reading: SubnetEnvReading }
  /** There is none: the first start on this host. */
  | { readonly kind: 'absent' }
  | { readonly kind: 'unreadable'; readonly error: Error };

/** Reads what an earlier run wrote. Rejects only when the signal fires. */
export async function readSubnetFile(path: string, signal?: AbortSignal): Promise<SubnetFileResult> {
  try {
    const text = await readFile(path, { encoding: 'utf8', ...(signal === undefined ? {} : { signal }) });
    return { kind: 'read', reading: parseSubnetEnv(text, path) };
  } catch (error) {
    signal?.throwIfAborted();
    if (hasErrno(error, 'ENOENT')) return { kind: 'absent' };
    if (hasErrno(error, 'EISDIR')) return { kind: 'unreadable', error: new Error(IS_DIRECTORY, { cause: error }) };
    return { kind: 'unreadable', error: error instanceof Error ? error : new Error(String(error)) };
  }
}

/** The part of a log that telling of a subnet file needs. */
export interface SubnetFileLog {
  warn(message: string): void;
}

/**
 * The subnets that an earlier run held, of the families that are enabled now, to ask for them again; `undefined` when
 * there are none. What is wrong with the file goes to the log and stops nothing.
 * @param file what {@link readSubnetFile} has found at `path`.
 */
export function previousSubnets(
  file: SubnetFileResult,
  path: string,
  config: Pick<NetworkConfig, 'ipv4' | 'ipv6'>,
  log: SubnetFileLog,
): Subnets | undefined {
  if (file.kind === 'absent') return undefined;
  if (file.kind === 'unreadable') {
    log.warn(`cannot read the previous subnet from ${path}: ${file.error.message}`);
    return undefined;
  }
  const { reading } = file;
  for (const problem of reading.problems) log.warn(problem);
  const ipv4 = config.ipv4 && reading.subnets.ipv4;
  const ipv6 = config.ipv6 && reading.subnets.ipv6;
  if (config.ipv4 !== undefined && ipv4 === undefined) log.warn(noSubnet('FLANNEL_SUBNET', path));
  if (config.ipv6 !== undefined && ipv6 === undefined) log.warn(noSubnet('FLANNEL_IPV6_SUBNET', path));
  return ipv4 === undefined && ipv6 === undefined ? undefined : { ipv4, ipv6 };
}

function noSubnet(key: string, path: string): string {
  return `no subnet found for key: ${key} in file: ${path}`;
}
