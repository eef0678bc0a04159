import { randomBytes } from 'node:crypto';
import { existsSync, readdirSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { WeftError } from '../errors.ts';
import { formatIpv4, type Ipv4Addr, ipv4Of, parseIpv4 } from '../ip/ipv4.ts';
import type { Ipv4Prefix } from '../ip/prefix.ts';
import { parseIpList } from './interfaces.ts';
import { insideNamespace } from './network-namespaces.ts';
import { run } from './run.ts';

/** Where the IPAM plugin host-local keeps the addresses that it has given away, a file each. */
const IPAM_DIRECTORY = '/var/lib/cni/networks';
const TIMEOUT_MS = 5_000;
/** The kernel looks at links that have come up once a second (net/core/link_watch.c); a bridge without STP forwards then. */
const FORWARDING_MS = 3_000;
const LOOK_MS = 20;

/** A network namespace behind the bridge of the host's containers, as a container has it. */
export interface TestContainer extends AsyncDisposable {
  readonly address: Ipv4Addr;
  /** Runs there, without waiting: sockets that it opens stay in the namespace. */
  inside<T>(work: () => T): T;
}

export interface TestContainerOptions {
  readonly bridge: string;
  /** The host's own subnet; its first address is the bridge's. */
  readonly subnet: Ipv4Prefix;
  readonly mtuBytes: number;
}

/**
 * Made with the last address of the subnet that nobody has; removed by disposal.
 *
 * @throws WeftError WEFT_COMMAND_…, WEFT_KERNEL_STATE; what was made is removed then.
 */
export async function makeTestContainer(
  { bridge, subnet, mtuBytes }: TestContainerOptions,
  signal: AbortSignal,
): Promise<TestContainer> {
  const id = randomBytes(3).toString('hex');
  const [namespace, device] = [`weft-test-${id}`, `wefttest${id}`];
  await using stack = new AsyncDisposableStack();
  const ip = (script: string, netns?: string): Promise<unknown> =>
    run(['ip', ...(netns === undefined ? [] : ['-n', netns]), '-batch', '-'], {
      stdin: script,
      timeoutMs: TIMEOUT_MS,
      signal,
    });
  const address = await freeAddress(subnet, bridge, signal);
  await ip(`netns add ${namespace}\n`);
  stack.defer(async () => {
    await run(['ip', 'netns', 'delete', namespace], { okExitCodes: 'any', timeoutMs: TIMEOUT_MS });
  });
  await ip(
    `link add ${device} mtu ${mtuBytes} type veth peer name eth0 mtu ${mtuBytes} netns ${namespace}\n` +
      `link set ${device} master ${bridge} up\n`,
  );
  // A namespace that ends takes its devices along some time later.
  stack.defer(async () => {
    await run(['ip', 'link', 'delete', device], { okExitCodes: 'any', timeoutMs: TIMEOUT_MS });
  });
  await ip(
    `link set lo up\naddress add ${formatIpv4(address)}/${subnet.length} dev eth0\nlink set eth0 up\n` +
      `route add default via ${formatIpv4(ipv4Of(subnet.addr + 1))} dev eth0\n`,
    namespace,
  );
  await forwarding(device, signal);
  const owned = stack.move();
  return {
    address,
    inside: (work) => insideNamespace(`/run/netns/${namespace}`, work),
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
async function freeAddress(subnet: Ipv4Prefix, bridge: string, signal: AbortSignal): Promise<Ipv4Addr> {
  const taken = new Set<number>(reserved());
  const argv = ['ip', '-j', 'neighbour', 'show', 'dev', bridge];
  const { stdout } = await run(argv, { timeoutMs: TIMEOUT_MS, signal });
  for (const { dst, state } of parseIpList(stdout, argv) as {
    readonly dst: string;
    readonly state: readonly string[];
  }[]) {
    const known = parseIpv4(dst);
    if (known !== undefined && !state.includes('FAILED')) taken.add(known);
  }
  const last = subnet.addr + 2 ** (32 - subnet.length) - 2;
  for (let candidate = last; candidate > subnet.addr + 1; candidate--) {
    if (!taken.has(candidate)) return ipv4Of(candidate);
  }
  throw new WeftError(
    'WEFT_KERNEL_STATE',
    `no address of ${formatIpv4(subnet.addr)}/${subnet.length} is free for a test`,
    {
      hint: 'All are given to containers. Give hosts a larger SubnetLen.',
    },
  );
}

function reserved(): Ipv4Addr[] {
  if (!existsSync(IPAM_DIRECTORY)) return [];
  return readdirSync(IPAM_DIRECTORY, { withFileTypes: true }).flatMap((entry) =>
    entry.isDirectory() ? readdirSync(`${IPAM_DIRECTORY}/${entry.name}`).flatMap((name) => parseIpv4(name) ?? []) : [],
  );
}
