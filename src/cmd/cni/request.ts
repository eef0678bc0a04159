import { statSync } from 'node:fs';
import { CNI_CODES, CniError } from '../../cni/cni-error.ts';

/** The variables of the environment that CNI hands over, '' when not set. */
export interface Request {
  readonly command: string;
  readonly containerId: string;
  /** Path of the container's network namespace. */
  readonly netns: string;
  readonly ifName: string;
  /** The folders in which plugins are looked for. */
  readonly path: readonly string[];
  /** The runtime insists on the plugin's own network namespace as the container's. */
  readonly netnsOverride: boolean;
}

export type Environment = Readonly<Record<string, string | undefined>>;

const ATTACHMENT_COMMANDS = ['ADD', 'CHECK', 'DEL'];

/** Which commands cannot do without a variable, in the order in which missing ones are listed. */
const REQUIRED_BY: readonly (readonly [variable: string, commands: readonly string[]])[] = [
  ['CNI_CONTAINERID', ATTACHMENT_COMMANDS],
  ['CNI_NETNS', ['ADD', 'CHECK']],
  ['CNI_IFNAME', ATTACHMENT_COMMANDS],
  ['CNI_PATH', [...ATTACHMENT_COMMANDS, 'GC', 'STATUS']],
];

/**
 * Reads and checks the environment for a command.
 *
 * @throws CniError (4) naming the variables that are missing, or the one with a value that cannot be used.
 */
export function readRequest(command: string, env: Environment): Request {
  const value = (name: string): string => env[name] ?? '';
  const required = REQUIRED_BY.filter(([, commands]) => commands.includes(command)).map(([name]) => name);
  const [containerId, ifName] = [value('CNI_CONTAINERID'), value('CNI_IFNAME')];
  if (required.includes('CNI_CONTAINERID') && containerId !== '') checkContainerId(containerId);
  if (required.includes('CNI_IFNAME') && ifName !== '') checkInterfaceName(ifName);
  const missing = required.filter((name) => value(name) === '');
  if (missing.length > 0) throw invalid(`required env variables [${missing.join(',')}] missing`);
  const override = value('CNI_NETNS_OVERRIDE');
  return {
    command,
    containerId,
    ifName,
    netns: value('CNI_NETNS'),
    path: value('CNI_PATH') === '' ? [] : value('CNI_PATH').split(':'),
    netnsOverride: override === '1' || override.toUpperCase() === 'TRUE',
  };
}

/** Of container ids and network names. */
const NAME = /^[a-zA-Z0-9][a-zA-Z0-9_.-]*$/;

/** The id becomes a file name. @throws CniError (4) */
function checkContainerId(id: string): void {
  if (!NAME.test(id)) throw invalid('invalid characters in containerID', id);
}

/** @throws CniError (7) */
export function checkNetworkName(name: string): void {
  if (name === '') throw new CniError(CNI_CODES.invalidNetworkConfig, 'missing network name');
  if (!NAME.test(name)) {
    throw new CniError(CNI_CODES.invalidNetworkConfig, 'invalid characters found in network name', name);
  }
}

/** The kernel's rules (dev_valid_name in net/core/dev.c). @throws CniError (4) */
function checkInterfaceName(name: string): void {
  if (Buffer.byteLength(name) > 15) {
    throw invalid('interface name is too long', 'interface name should be less than 16 characters');
  }
  if (name === '.' || name === '..') throw invalid('interface name is . or ..');
  if (/[/:\s]/.test(name)) throw invalid('interface name contains / or : or whitespace characters');
}

/**
 * Refuses the plugin's own namespace as the container's, before anything is done: the delegate would set up, or take
 * down, the host's interfaces. A path that leads nowhere is none (DEL comes after the namespace is gone as well).
 *
 * @throws CniError (8)
 */
export function checkNotOwnNetns(request: Request): void {
  if (request.netnsOverride || request.netns === '') return;
  const own = statSync('/proc/self/ns/net', { bigint: true });
  const container = statSync(request.netns, { bigint: true, throwIfNoEntry: false });
  if (container !== undefined && container.dev === own.dev && container.ino === own.ino) {
    throw new CniError(
      CNI_CODES.invalidNetns,
      "plugin's netns and netns from CNI_NETNS should not be the same",
      `CNI_NETNS=${request.netns}`,
    );
  }
}

function invalid(message: string, details = ''): CniError {
  return new CniError(CNI_CODES.invalidEnvironment, message, details);
}
