import { WeftError } from '../errors.ts';
import { formatAddr, type IpAddr, isIpv4, parseAddr } from '../ip/address.ts';
import type { HostNetwork, InterfaceAddress, NetworkInterface, RouteLookup } from '../underlay/host-network.ts';
import { run } from './run.ts';

export interface ReadHostNetworkOptions {
  /** Name of the network namespace (`ip netns`); this process's own by default. */
  readonly netns?: string | undefined;
  /** Look up the route to it. */
  readonly canReach?: IpAddr | undefined;
}

const TIMEOUT_MS = 10_000;

export type JsonObject = { readonly [key: string]: unknown };

/**
 * What chooseInterface needs to know of this host, in the kernel's order.
 *
 * @throws WeftError WEFT_COMMAND_…, WEFT_KERNEL_STATE.
 */
export async function readHostNetwork(signal: AbortSignal, options: ReadHostNetworkOptions = {}): Promise<HostNetwork> {
  const ip = async (...args: string[]): Promise<JsonObject[]> => {
    const argv = ['ip', '-j', ...args];
    const { stdout } = await run(argv, { netns: options.netns, timeoutMs: TIMEOUT_MS, signal });
    return parseIpList(stdout, argv);
  };
  const [links, routes4, routes6, canReach] = await Promise.all([
    ip('-d', 'addr', 'show'),
    ip('-4', 'route', 'show', 'default', 'table', 'main'),
    ip('-6', 'route', 'show', 'default', 'table', 'main'),
    options.canReach === undefined ? undefined : lookUp(options.canReach, options.netns, signal),
  ]);
  return {
    interfaces: links.flatMap(interfaceOf),
    defaultDevices: { ipv4: routes4.flatMap(deviceOf), ipv6: routes6.flatMap(deviceOf) },
    canReach,
  };
}

/** All addresses of this host, those of interfaces that are down included. @throws as readHostNetwork. */
export async function readAddresses(signal: AbortSignal): Promise<readonly IpAddr[]> {
  const argv = ['ip', '-j', 'addr', 'show'];
  const { stdout } = await run(argv, { timeoutMs: TIMEOUT_MS, signal });
  return parseIpList(stdout, argv)
    .flatMap(interfaceOf)
    .flatMap(({ addresses }) => addresses.map(({ addr }) => addr));
}

/** Whether a program of XDP, of whomever, is attached to the device. @throws as readHostNetwork. */
export async function hasXdp(device: string, signal: AbortSignal): Promise<boolean> {
  const argv = ['ip', '-j', 'link', 'show', 'dev', device];
  const { stdout } = await run(argv, { timeoutMs: TIMEOUT_MS, signal, okExitCodes: 'any' });
  return parseIpList(stdout, argv).some(({ xdp }) => xdp !== undefined);
}

async function lookUp(target: IpAddr, netns: string | undefined, signal: AbortSignal): Promise<RouteLookup> {
  const argv = ['ip', '-j', isIpv4(target) ? '-4' : '-6', 'route', 'get', formatAddr(target)];
  const result = await run(argv, { netns, timeoutMs: TIMEOUT_MS, okExitCodes: 'any', signal });
  if (result.exitCode !== 0) return { ok: false, error: result.stderr.trim() || `exit code ${result.exitCode}` };
  const [route] = parseIpList(result.stdout, argv);
  const dev = route === undefined ? undefined : deviceOf(route)[0];
  if (route === undefined || dev === undefined || (route.type !== undefined && !usableType(route.type))) {
    return { ok: false, error: `the answer is ${result.stdout.trim()}` };
  }
  return { ok: true, dev, source: typeof route.prefsrc === 'string' ? parseAddr(route.prefsrc) : undefined };
}

/** Not blackhole, unreachable, …; `local` is an address of this host. */
function usableType(type: unknown): boolean {
  return type === 'unicast' || type === 'local';
}

/** @throws WeftError WEFT_KERNEL_STATE */
export function parseIpList(stdout: string, argv: readonly string[]): JsonObject[] {
  // Nothing at all is an empty list: `ip -j route get` of some versions, and `ip -6` without IPv6.
  if (stdout.trim() === '') return [];
  try {
    const list: unknown = JSON.parse(stdout);
    if (Array.isArray(list)) return list as JsonObject[];
  } catch {
    // Falls through to the same error.
  }
  throw new WeftError('WEFT_KERNEL_STATE', `reading ${argv.join(' ')}: no JSON list: ${stdout.slice(0, 200)}`, {
    hint: 'weft needs iproute2 5.0 or newer (ip -V).',
  });
}

function interfaceOf(item: JsonObject): NetworkInterface[] {
  if (typeof item.ifname !== 'string') return [];
  const addresses = ((item.addr_info ?? []) as JsonObject[]).flatMap((info): InterfaceAddress[] => {
    const addr = parseAddr(String(info.local));
    if (addr === undefined) return [];
    return [
      {
        addr,
        prefixLength: Number(info.prefixlen),
        dynamic: info.dynamic === true,
        temporary: info.temporary === true,
        deprecated: info.deprecated === true,
      },
    ];
  });
  return [
    {
      index: Number(item.ifindex),
      name: item.ifname,
      mtuBytes: Number(item.mtu),
      up: Array.isArray(item.flags) && item.flags.includes('UP'),
      addresses,
    },
  ];
}

/** The device, of several next hops the first. */
function deviceOf(route: JsonObject): string[] {
  if (typeof route.dev === 'string') return [route.dev];
  const hops = Array.isArray(route.nexthops) ? (route.nexthops as JsonObject[]) : [];
  return hops.flatMap((hop) => (typeof hop.dev === 'string' ? [hop.dev] : [])).slice(0, 1);
}
