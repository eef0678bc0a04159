import { existsSync, readFileSync } from 'node:fs';
import { WeftError } from '../../../src/errors.ts';
import { checkPrerequisites, requireCommands } from '../../../src/lab/prerequisites.ts';
import { requireControllers } from './cgroups.ts';

const COMMANDS = [
  ['containerd', '--version'],
  ['runc', '--version'],
  ['busybox', 'true'],
  ['curl', '--version'],
] as const;

/**
 * Whether this machine can hold nodes, checked before anything is made; Kubernetes is built now if it never was.
 * @throws WeftError that names what is missing and how to get it.
 */
export async function checkNodePrerequisites(say: (line: string) => void, signal: AbortSignal): Promise<void> {
  await requireCommands(COMMANDS, signal);
  requireControllers();
  for (const [module, isThere] of [
    ['overlay', /\toverlay$/m.test(readFileSync('/proc/filesystems', 'utf8'))],
    ['br_netfilter', existsSync('/proc/sys/net/bridge')],
  ] as const) {
    if (isThere) continue;
    throw new WeftError('WEFT_LAB_FAILED', `could not make Kubernetes nodes: the kernel has not loaded ${module}`, {
      hint: `Run: modprobe ${module}`,
    });
  }
  await checkPrerequisites({ store: 'kube', tun: true }, say, signal);
}
