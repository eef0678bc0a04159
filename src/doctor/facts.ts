import { type AnyBackendKind, backendKind, backendKinds } from '../backend/registry.ts';
import { FIRST_TUN_NAME, ownTuns } from '../backend/tun-name.ts';
import { type Cidr, formatCidr } from '../cni/ip-text.ts';
import { type PluginSubnetEnv, parsePluginSubnetEnv } from '../cni/plugin-subnet-env.ts';
import { inspectNetConf, type NetConfInspection } from '../config/net-conf.ts';
import type { OwnLink } from '../desired/state.ts';
import { formatAddr, type IpPrefix, nextAddr, parsePrefix } from '../ip/address.ts';
import { FAMILIES, type Family, familiesIn, type PerFamily, perFamily, present } from '../ip/family.ts';
import type { DoctorHost, DoctorPaths, HostLink } from './host.ts';

/** So many are named. */
const MOST_NAMED = 4;

/** What several checks start from. A check that needs one which is not there leaves it to the check of that one to say so. */
export async function readNetConf(
  host: Pick<DoctorHost, 'readText'>,
  paths: Pick<DoctorPaths, 'netConfigPath'>,
): Promise<NetConfInspection | undefined> {
  const text = await host.readText(paths.netConfigPath);
  return text === undefined ? undefined : inspectNetConf(text, { validation: 'kube', backends: backendKind });
}

/** How packets of this host reach others. */
export interface HostBackend {
  readonly kind: AnyBackendKind;
  /** What `kind` has made of its part of the configuration. */
  readonly config: unknown;
  /** The devices that it has here. */
  readonly links: readonly OwnLink[];
}

/** That of net-conf.json; without one, that whose device is on this host; `undefined` when nothing says. */
export async function readBackend(
  host: DoctorHost,
  paths: DoctorPaths,
  signal: AbortSignal,
): Promise<HostBackend | undefined> {
  const network = (await readNetConf(host, paths))?.config;
  const devices = await host.links(signal);
  const tuns = await tunsOf(host, paths, devices);
  if (network !== undefined) {
    const kind = backendKind(network.backend.type);
    const config = network.backend.settings;
    const links = kind
      ?.owns(config, tuns)
      .filter(({ family }) => family === undefined || network[family] !== undefined);
    return kind && { kind, config, links: links ?? [] };
  }
  const names = new Set(devices.map(({ name }) => name));
  for (const kind of backendKinds()) {
    const config = kind.parse({});
    const links = kind.owns(config, tuns).filter(({ name }) => names.has(name));
    if (links.length > 0) return { kind, config, links };
  }
  return undefined;
}

/** The TUN device of the network in subnet.env; where none bears it, the first of flannel's pattern. */
async function tunsOf(host: DoctorHost, paths: DoctorPaths, devices: readonly HostLink[]): Promise<readonly string[]> {
  const env = await readSubnetEnv(host, paths);
  const tuns = devices.map(({ name, alias }) => ({ name, alias }));
  const networks = env === undefined ? [] : present(env.networks).flat();
  const own = ownTuns(tuns, prefixesOf(networks));
  return [own[0] ?? FIRST_TUN_NAME];
}

/** What subnet.env says, as prefixes. */
export function prefixesOf(cidrs: readonly Cidr[]): IpPrefix[] {
  return cidrs.flatMap((cidr) => parsePrefix(formatCidr(cidr)) ?? []);
}

/** Whether packets pass through the agent itself. So does the default backend, when nothing else is known. */
export function hasForwarder(backend: HostBackend | undefined): boolean {
  return backend === undefined || backend.links.some(({ kind }) => kind === 'tun');
}

/** `undefined` also when it cannot be used. */
export async function readSubnetEnv(
  host: Pick<DoctorHost, 'readText'>,
  paths: Pick<DoctorPaths, 'subnetFile'>,
): Promise<PluginSubnetEnv | undefined> {
  const text = await host.readText(paths.subnetFile);
  if (text === undefined) return undefined;
  try {
    return parsePluginSubnetEnv(text, paths.subnetFile);
  } catch {
    return undefined;
  }
}

/** Those of the network: by subnet.env, else by net-conf.json; IPv4 when neither says. */
export async function familiesHere(
  host: Pick<DoctorHost, 'readText'>,
  paths: Pick<DoctorPaths, 'subnetFile' | 'netConfigPath'>,
): Promise<readonly Family[]> {
  const env = await readSubnetEnv(host, paths);
  const config = env === undefined ? (await readNetConf(host, paths))?.config : undefined;
  const has: PerFamily<unknown> = env?.subnets ?? { ipv4: config?.ipv4, ipv6: config?.ipv6 };
  const families = familiesIn(has);
  return families.length === 0 ? FAMILIES.filter(({ version }) => version === 4) : families;
}

/** Of the bridge of containers, with the length of the subnet. */
export function gatewaysOf({ subnets }: PluginSubnetEnv): PerFamily<string | undefined> {
  return perFamily((key) => {
    const subnet = subnets[key];
    return subnet && `${formatAddr(nextAddr(subnet.ip))}/${subnet.length}`;
  });
}

/** An address that a device should have, and what it has instead. */
export interface LackedAddress {
  readonly family: Family;
  readonly address: string;
  /** Of the same family. */
  readonly others: readonly string[];
  /** `cni0 has no IPv6 address`. */
  readonly text: string;
  /** That gives it the address. */
  readonly command: string;
}

/** Which of these addresses, with or without their length, the device does not have. */
export function lackedAddresses(
  { name, addresses }: Pick<HostLink, 'name' | 'addresses'>,
  wanted: PerFamily<string | undefined>,
): readonly LackedAddress[] {
  return FAMILIES.flatMap((family): readonly LackedAddress[] => {
    const address = wanted[family.key];
    const others = addresses.filter((one) => one.includes(':') === (family.version === 6));
    if (address === undefined || others.some((one) => one === address || one.split('/')[0] === address)) return [];
    const text = `${name} has ${others.join(', ') || `no ${family.name} address`}`;
    return [{ family, address, others, text, command: `ip address replace ${address} dev ${name}` }];
  });
}

/** The first of what a check has found, and how many more there are. */
export function named(texts: readonly string[]): string {
  const more = texts.length - MOST_NAMED;
  return `${texts.slice(0, MOST_NAMED).join('; ')}${more > 0 ? `; and ${more} more` : ''}`;
}

export const NOTHING_TO_COMPARE = 'nothing to compare: there is no subnet.env yet (see subnet-env)';
