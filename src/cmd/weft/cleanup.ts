import { dirname, join } from 'node:path';
import { Command } from 'commander';
import { ownLinksCalled } from '../../backend/registry.ts';
import { isTunName } from '../../backend/tun-name.ts';
import { CONF_FILE_NAME } from '../../cni/conf-list.ts';
import { isWrittenByWeft } from '../../cni/final-conf.ts';
import { apiSocketPath, handOverPath } from '../../config/agent-sockets.ts';
import { WeftError } from '../../errors.ts';
import { CAP_NET_ADMIN, hasCapability } from '../../linux/capabilities.ts';
import { hostInUse } from '../../linux/host-in-use.ts';
import { iproute2Kernel } from '../../linux/iproute2.ts';
import { type IptablesFlavour, IptablesTrafficManager } from '../../linux/iptables.ts';
import { NftablesTrafficManager } from '../../linux/nftables.ts';
import { OuterFilters } from '../../linux/outer-filters.ts';
import { isCommandMissing, run } from '../../linux/run.ts';
import { readLinkNames, readTunDevices } from '../../linux/tun-holder.ts';
import { startupErrorPath } from '../../node-files/last-error.ts';
import { lastKnownPath } from '../../node-files/last-known.ts';
import { printable } from '../../printable.ts';
import { untilStopped } from '../stop-signal.ts';
import {
  cleanUp,
  type Removable,
  removableFastPath,
  removableFiles,
  removableLinks,
  removableOuterFilters,
  removablePolicies,
  removableRoutes,
  removableRules,
} from './removable.ts';

interface CleanupArguments {
  readonly dryRun?: boolean;
  readonly subnetFile?: readonly string[];
  readonly cniConfDir: string;
  readonly fastPathDir: string;
}

const DEFAULT_SUBNET_FILE = '/run/flannel/subnet.env';
const FLAVOURS: readonly IptablesFlavour[] = ['nft', 'legacy'];

/** `weft cleanup`: takes from a host all that agents have made on it, weft's or a flanneld before it. */
export function cleanupCommand(): Command {
  return new Command('cleanup')
    .summary('remove what agents have set up on this host')
    .description(
      'An agent that stops leaves its state on the host so that a restart loses no packets. This command removes that state and ' +
        'prints what it removed: devices, the fast path in the kernel, routes, IPsec policies, firewall rules and files. It does not need ' +
        'the lease store, also removes what flanneld left under the same names, and refuses to run while an agent runs. ' +
        'It does not remove leases, which expire in the store, or CNI plugins, which the runtime needs to remove containers.',
    )
    .option('--dry-run', 'print what would be removed without removing it; allowed while an agent runs')
    .option(
      '--subnet-file <file>',
      `the agent's subnet file; repeat it for each network on this host (default: ${DEFAULT_SUBNET_FILE})`,
      (file: string, files: readonly string[] = []) => [...files, file],
    )
    .option('--cni-conf-dir <directory>', 'CNI configuration directory of the container runtime', '/etc/cni/net.d')
    .option('--fast-path-dir <directory>', "the agent's --fast-path-dir", '/sys/fs/bpf/weft')
    .action(runCleanup);
}

async function runCleanup({ dryRun = false, ...paths }: CleanupArguments): Promise<void> {
  using stopped = untilStopped();
  const { signal } = stopped;
  if (!hasCapability(CAP_NET_ADMIN)) {
    throw new WeftError('WEFT_NOT_ROOT', 'cannot clean up this host: the capability CAP_NET_ADMIN is missing', {
      hint: 'Run it as root, for instance with sudo.',
    });
  }
  if (!dryRun) await requireUnused(signal);
  const failures: string[] = [];
  let isClean = true;
  for await (const step of cleanUp(await removables(paths, signal), { dryRun }, signal)) {
    if (step.failure !== undefined) failures.push(`${step.what} (${step.failure})`);
    if (step.lines.length === 0) continue;
    isClean = false;
    const list = step.lines.map((line) => `  ${printable(line)}\n`).join('');
    process.stdout.write(`${dryRun ? 'would remove' : 'removed'} ${step.what}:\n${list}`);
  }
  if (failures.length > 0) {
    throw new WeftError('WEFT_CLEANUP_INCOMPLETE', `could not clean up everything: ${failures.join('; ')}`, {
      hint: 'Everything else was removed. Fix this and run it again.',
    });
  }
  if (isClean) process.stdout.write('there is nothing to remove on this host\n');
}

/** Of all networks on this host. */
function tunNames(): readonly string[] {
  return readTunDevices().flatMap(({ name }) => (isTunName(name) ? name : []));
}

/** @throws WeftError WEFT_AGENT_RUNNING */
async function requireUnused(signal: AbortSignal): Promise<void> {
  const users = await hostInUse(tunNames(), signal);
  if (users === undefined) return;
  throw new WeftError('WEFT_AGENT_RUNNING', `cannot clean up this host: an agent runs on it, ${users}`, {
    hint: 'Stop it first (systemctl stop, or delete its DaemonSet); otherwise it restores what is removed. --dry-run shows what would be removed.',
  });
}

/**
 * All that an agent ever makes on a host, in the order in which it goes: first what brings new containers, last what the
 * running ones use.
 */
async function removables(
  { subnetFile: subnetFiles = [DEFAULT_SUBNET_FILE], cniConfDir, fastPathDir }: Omit<CleanupArguments, 'dryRun'>,
  signal: AbortSignal,
): Promise<Removable[]> {
  await noteMissing('nft', signal);
  const kernel = iproute2Kernel({ onLost: note });
  return [
    removableFiles('CNI configuration', [join(cniConfDir, CONF_FILE_NAME)], isWrittenByWeft),
    removableFiles('files', [...new Set(subnetFiles.flatMap(filesBeside))]),
    removableFastPath(fastPathDir),
    ...(await iptablesRules(signal)),
    removableRules('nftables rules', new NftablesTrafficManager()),
    removableOuterFilters(new OuterFilters()),
    removableRoutes(kernel),
    removablePolicies(kernel),
    removableLinks(kernel, ownLinksCalled(readLinkNames(), tunNames())),
  ];
}

/** What an agent writes at that place and beside it. */
function filesBeside(subnetFile: string): string[] {
  return [
    subnetFile,
    lastKnownPath(subnetFile),
    handOverPath(subnetFile),
    apiSocketPath(subnetFile),
    startupErrorPath(dirname(subnetFile)),
  ];
}

/**
 * Of every flavour that is installed: an agent in a container may have used another one than this host does. Without
 * any, there may be an older iptables; failing that, `nft` sees the rules of one flavour.
 */
async function iptablesRules(signal: AbortSignal): Promise<Removable[]> {
  const rules = (what: string, flavour?: IptablesFlavour): Removable =>
    removableRules(what, new IptablesTrafficManager({ flavour }));
  const found: Removable[] = [];
  for (const flavour of FLAVOURS) {
    if (await isInstalled(`iptables-${flavour}`, signal)) found.push(rules(`iptables rules (${flavour})`, flavour));
  }
  if (found.length > 0) return found;
  await noteMissing('iptables', signal);
  return [rules('iptables rules')];
}

function note(text: string): void {
  process.stderr.write(`weft cleanup: ${text}\n`);
}

async function noteMissing(program: string, signal: AbortSignal): Promise<void> {
  if (await isInstalled(program, signal)) return;
  note(`${program} is not installed: rules made with it may not be found`);
}

async function isInstalled(program: string, signal: AbortSignal): Promise<boolean> {
  try {
    await run([program, '--version'], { okExitCodes: 'any', signal });
    return true;
  } catch (error) {
    if (isCommandMissing(error)) return false;
    throw error;
  }
}
