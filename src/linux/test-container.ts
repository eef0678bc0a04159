import { randomBytes } from 'node:crypto';
import { existsSync, readdirSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { WeftError } from '../errors.ts';
import {
  formatAddr,
  formatPrefix,
  type IpAddr,
  type IpFamily,
  type IpPrefix,
  isIpv4,
  isPrefix4,
  nextAddr,
  parseAddr,
  versionOf,
} from '../ip/address.ts';
import { type PerFamily, present } from '../ip/family.ts';
import { ipv4Of } from '../ip/ipv4.ts';
import { ipv6Of } from '../ip/ipv6.ts';
import type { Ipv4Prefix, Ipv6Prefix } from '../ip/prefix.ts';
import { parseIpList } from './interfaces.ts';
import { holdNewNamespace, insideNamespace } from './network-namespaces.ts';
import { run } from './run.ts';

/** Where the IPAM plugin host-local keeps the addresses that it has given away, a file each. */
const IPAM_DIRECTORY = '/var/lib/cni/networks';
const TIMEOUT_MS = 5_000;
/** The kernel looks at links that have come up once a second (net/core/link_watch.c); a bridge without STP forwards then. */
const FORWARDING_MS = 3_000;
/** Each look starts a process. */
const LOOK_MS = 50;

/** A network namespace behind the bridge of the host's containers, as a container has it. */
export interface TestContainer extends AsyncDisposable {
  /** That it has an address of. */
  readonly families: readonly IpFamily[];
  /** Runs there, without waiting: sockets that it opens stay in the namespace. */
  inside<T>(work: () => T): T;
}

export interface TestContainerOptions {
  readonly bridge: string;
  /** The host's own; the first address of each that a container could have is the bridge's. */
  readonly subnets: PerFamily<Ipv4Prefix | undefined, Ipv6Prefix | undefined>;
  readonly mtuBytes: number;
}

/**
 * Made with the last address of each subnet that nobody has; of IPv6, where the bridge has its address as well, which the first
 * container with IPv6 gives it. Removed by disposal, and by the kernel when this process ends without.
 *
 * @throws WeftError WEFT_COMMAND_…, WEFT_KERNEL_STATE; what was made is removed then.
 */
export async function makeTestContainer(
  { bridge, subnets, mtuBytes }: TestContainerOptions,
  signal: AbortSignal,
): Promise<TestContainer> {
  const device = `wefttest${randomBytes(3).toString('hex')}`;
  await using stack = new AsyncDisposableStack();
  const ip = (script: string, netnsPath?: string): Promise<unknown> =>
    run(['ip', '-batch', '-'], { stdin: script, timeoutMs: TIMEOUT_MS, netnsPath, signal });
  const [{ isUp, own }, taken] = await Promise.all([stateOf(bridge, signal), takenOn(bridge, signal)]);
  const used = present(subnets).filter((subnet) => isPrefix4(subnet) || own.has(nextAddr(subnet.addr)));
  const addresses = used.map((subnet) => ({ subnet, address: freeAddress(subnet, taken) }));
  const { path } = stack.use(holdNewNamespace());
  await ip(
    `link add ${device} mtu ${mtuBytes} type veth peer name eth0 mtu ${mtuBytes} netns ${path}\n` +
      `link set ${device} master ${bridge} up\n`,
  );
  // A namespace that ends takes its devices along some time later.
  stack.defer(async () => {
    await run(['ip', 'link', 'delete', device], { okExitCodes: 'any', timeoutMs: TIMEOUT_MS });
  });
  const lines = addresses.flatMap(({ subnet, address }) => [
    `address add ${formatAddr(address)}/${subnet.length} dev eth0${isIpv4(address) ? '' : ' nodad'}`,
    `route add default via ${formatAddr(nextAddr(subnet.addr))} dev eth0`,
  ]);
  await ip(`${['link set lo up', 'link set eth0 up', ...lines].join('\n')}\n`, path);
  // One that is down forwards nothing, however long one waits.
  if (isUp) await forwarding(device, signal);
  const owned = stack.move();
  return {
    families: used.map(({ addr }) => versionOf(addr)),
    inside: (work) => insideNamespace(path, work),
    [Symbol.asyncDispose]: () => owned[Symbol.asyncDispose](),
  };
}

/** Until a bridge forwards what comes from its port, or would have long ago: whoever sends then finds out why it does not. */
async function forwarding(port: string, signal: AbortSignal): Promise<void> {
  for (const endsAt = performance.now() + FORWARDING_MS; performance.now() < endsAt; ) {
    const argv = ['ip', '-j', '-d', 'link', 'show', 'dev', port];
    const { stdout } = await run(argv, { timeoutMs: TIMEOUT_MS, signal });
    const [link] = parseIpList(stdout, argv) as readonly {
      readonly linkinfo?: { readonly info_slave_data?: { readonly state?: string } };
    }[];
    if (link?.linkinfo?.info_slave_data?.state === 'forwarding') return;
    await delay(LOOK_MS, undefined, { signal });
  }
}

/** From the end: IPAM plugins give addresses from the beginning. */
function freeAddress(subnet: IpPrefix, taken: ReadonlySet<IpAddr>): IpAddr {
  for (let at = (1n << BigInt((isPrefix4(subnet) ? 32 : 128) - subnet.length)) - 2n; at > 1n; at--) {
    const candidate = addressAt(subnet, at);
    if (!taken.has(candidate)) return candidate;
  }
  throw new WeftError('WEFT_KERNEL_STATE', `no address of ${formatPrefix(subnet)} is free for a test`, {
    hint: 'All of this host’s subnet is in use. Give hosts larger subnets (a smaller SubnetLen), or test with --host-only.',
  });
}

function addressAt(subnet: IpPrefix, at: bigint): IpAddr {
  return isPrefix4(subnet) ? ipv4Of(subnet.addr + Number(at)) : ipv6Of(subnet.addr + at);
}

/** Whether it is up, and its addresses. */
async function stateOf(
  device: string,
  signal: AbortSignal,
): Promise<{ readonly isUp: boolean; readonly own: ReadonlySet<IpAddr> }> {
  const argv = ['ip', '-j', 'address', 'show', 'dev', device];
  const { stdout } = await run(argv, { timeoutMs: TIMEOUT_MS, signal });
  const links = parseIpList(stdout, argv) as readonly {
    readonly flags?: readonly string[];
    readonly addr_info?: readonly { readonly local?: string }[];
  }[];
  return {
    isUp: links.some(({ flags = [] }) => flags.includes('UP')),
    own: new Set(links.flatMap(({ addr_info = [] }) => addr_info.flatMap(({ local = '' }) => parseAddr(local) ?? []))),
  };
}

/** By neighbours that the kernel knows, and by the IPAM plugin. */
async function takenOn(bridge: string, signal: AbortSignal): Promise<ReadonlySet<IpAddr>> {
  const taken = new Set<IpAddr>(reserved());
  const argv = ['ip', '-j', 'neighbour', 'show', 'dev', bridge];
  const { stdout } = await run(argv, { timeoutMs: TIMEOUT_MS, signal });
  for (const { dst, state } of parseIpList(stdout, argv) as {
    readonly dst: string;
    readonly state: readonly string[];
  }[]) {
    const known = parseAddr(dst);
    if (known !== undefined && !state.includes('FAILED')) taken.add(known);
  }
  return taken;
}

function reserved(): IpAddr[] {
  if (!existsSync(IPAM_DIRECTORY)) return [];
  return readdirSync(IPAM_DIRECTORY, { withFileTypes: true }).flatMap((entry) =>
    entry.isDirectory() ? readdirSync(`${IPAM_DIRECTORY}/${entry.name}`).flatMap((name) => parseAddr(name) ?? []) : [],
  );
}
