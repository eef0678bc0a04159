import { randomBytes } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { hasErrno } from '../errno.ts';
import { runHostCommand } from './host-command.ts';
import { readKeyFile, writeKeyFile } from './key-file.ts';
import { readTunDevices, type TunHolder } from './tun-holder.ts';

/** What a backend may ask of this host before a lease is taken. */
export function identityHost(
  keyPath: string,
  tun: TunHolder,
): {
  linkMac(name: string, signal: AbortSignal): Promise<string | undefined>;
  randomBytes(count: number): Uint8Array;
  tunDevices(): Promise<ReturnType<typeof readTunDevices>>;
  takeTun(name: string): boolean;
  variable(name: string): string | undefined;
  keyFile(fresh: () => string, signal: AbortSignal): Promise<{ readonly path: string; readonly text: string }>;
  readonly runCommand: typeof runHostCommand;
} {
  return {
    linkMac,
    randomBytes: (count) => randomBytes(count),
    tunDevices: async () => readTunDevices(),
    takeTun: (name) => tun.take(name),
    runCommand: runHostCommand,
    variable: (name) => process.env[name] || undefined,
    async keyFile(fresh, signal) {
      const found = await readKeyFile(keyPath, signal);
      if (found !== undefined) return { path: keyPath, text: found };
      const text = fresh();
      await writeKeyFile(keyPath, text);
      return { path: keyPath, text };
    },
  };
}

/** sysfs shows the links of the network namespace that it was mounted in: the agent's own. */
async function linkMac(name: string, signal: AbortSignal): Promise<string | undefined> {
  try {
    return (await readFile(`/sys/class/net/${name}/address`, { encoding: 'utf8', signal })).trim();
  } catch (error) {
    if (hasErrno(error, 'ENOENT')) return undefined;
    throw error;
  }
}
