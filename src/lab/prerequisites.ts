import { closeSync, mkdirSync, openSync } from 'node:fs';
import { describeError, WeftError } from '../errors.ts';
import { debianPackageOf, run } from '../linux/run.ts';
import { requireRoot } from './removal.ts';
import { kubernetesBinaries } from './servers/kube-build.ts';
import type { SubnetStoreKind } from './subnet-store.ts';

const TUN_DEVICE = '/dev/net/tun';

/** A command of each program and an argument that makes it say its version and nothing else. */
const COMMANDS: readonly (readonly [string, string])[] = [
  ['ip', '-V'],
  ['ping', '-V'],
  ['iperf3', '--version'],
  ['tcpdump', '--version'],
  ['socat', '-V'],
];

const ETCD: readonly (readonly [string, string])[] = [
  ['etcd', '--version'],
  ['etcdctl', 'version'],
];
/** Kubernetes keeps its objects in etcd; the locks and certificates of its servers are made with the others. */
const KUBERNETES: readonly (readonly [string, string])[] = [...ETCD, ['openssl', 'version'], ['flock', '--version']];

const STORE_COMMANDS: Readonly<Record<SubnetStoreKind, readonly (readonly [string, string])[]>> = {
  local: [],
  etcd: ETCD,
  kube: KUBERNETES,
};

/**
 * Whether this machine can hold a lab with that store, checked before anything is made. For `kube` its servers are built now if they never
 * were.
 *
 * @param tun whether a backend that needs the TUN driver is used.
 * @param notice told when /dev/net/tun had to be made, and what takes minutes.
 * @throws WeftError WEFT_NOT_ROOT, WEFT_COMMAND_MISSING (all missing commands at once; or Go, when the Kubernetes servers
 *   have to be built), WEFT_COMMAND_FAILED when they cannot be built, WEFT_TUN_MISSING, WEFT_TUN_DENIED.
 */
export async function checkPrerequisites(
  { store, tun }: { readonly store: SubnetStoreKind; readonly tun: boolean },
  notice: (text: string) => void,
  signal?: AbortSignal,
): Promise<void> {
  requireRoot();
  await requireCommands([...COMMANDS, ...STORE_COMMANDS[store]], signal);
  if (tun) await requireTun(notice, signal);
  if (store === 'kube') await kubernetesBinaries(notice, signal);
}

/** @throws WeftError WEFT_COMMAND_MISSING that names all that are missing and their Debian packages. */
export async function requireCommands(
  commands: readonly (readonly [string, string])[],
  signal?: AbortSignal,
): Promise<void> {
  const outcomes = await Promise.allSettled(commands.map((argv) => run([...argv], { okExitCodes: 'any', signal })));
  signal?.throwIfAborted();
  const missing: string[] = [];
  outcomes.forEach((outcome, i) => {
    if (outcome.status === 'fulfilled') return;
    const { reason } = outcome as { reason: unknown };
    if (!(reason instanceof WeftError && reason.code === 'WEFT_COMMAND_MISSING')) throw reason;
    missing.push(commands[i]![0]);
  });
  if (missing.length === 0) return;
  const packages = [...new Set(missing.map(debianPackageOf))];
  const message =
    missing.length === 1
      ? `could not run ${missing[0]}: there is no such program`
      : `could not run ${missing.join(', ')}: there are no such programs`;
  throw new WeftError('WEFT_COMMAND_MISSING', message, { hint: `On Debian: apt-get install ${packages.join(' ')}` });
}

async function requireTun(notice: (text: string) => void, signal: AbortSignal | undefined): Promise<void> {
  let problem = openProblem();
  if (problem === 'ENOENT') {
    try {
      mkdirSync('/dev/net', { recursive: true });
      await run(['mknod', '-m', '666', TUN_DEVICE, 'c', '10', '200'], { signal });
    } catch (error) {
      signal?.throwIfAborted();
      throw new WeftError(
        'WEFT_TUN_MISSING',
        `${TUN_DEVICE} is missing, and making it failed: ${describeError(error)}`,
        {
          hint: `On a host: modprobe tun. In a container: start it with --device ${TUN_DEVICE} --cap-add NET_ADMIN.`,
        },
      );
    }
    notice(`${TUN_DEVICE} was missing and has been created (mknod c 10 200)`);
    problem = openProblem();
  }
  if (problem === undefined) return;
  if (problem === 'EPERM' || problem === 'EACCES') {
    throw new WeftError('WEFT_TUN_DENIED', `could not open ${TUN_DEVICE}: ${problem}`, {
      hint: `The container may not use the device: start it with --device ${TUN_DEVICE} --cap-add NET_ADMIN.`,
    });
  }
  throw new WeftError('WEFT_TUN_MISSING', `could not open ${TUN_DEVICE}: ${problem}`, {
    hint: 'The kernel has no TUN driver loaded; on the host: modprobe tun',
  });
}

/** The errno of opening it; opening alone makes no device. */
function openProblem(): string | undefined {
  try {
    closeSync(openSync(TUN_DEVICE, 'r+'));
    return undefined;
  } catch (error) {
    return error instanceof Error && 'code' in error ? String(error.code) : String(error);
  }
}
