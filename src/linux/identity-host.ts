import { randomBytes } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { hasErrno } from '../errno.ts';
import { runHostCommand } from './host-command.ts';

/** What a backend may ask of this host before a lease is taken. */
export const identityHost = {
  /** sysfs shows the links of the network namespace that it was mounted in: the agent's own. */
  async linkMac(name: string, signal: AbortSignal): Promise<string | undefined> {
    try {
      return (await readFile(`/sys/class/net/${name}/address`, { encoding: 'utf8', signal })).trim();
    } catch (error) {
      if (hasErrno(error, 'ENOENT')) return undefined;
      throw error;
    }
  },
  randomBytes: (count: number): Uint8Array => randomBytes(count),
  runCommand: runHostCommand,
};
