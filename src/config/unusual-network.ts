import {
  type AddressFamily,
  type AddressRange,
  formatNetwork,
  IPV4_FAMILY,
  IPV6_FAMILY,
  type NetworkNumber,
} from './address-plan.ts';
import type { ConfigProblem } from './config-problem.ts';
import type { NetworkConfig } from './network-config.ts';

interface Special {
  readonly range: string;
  /** Why no network of containers works there. */
  readonly what: string;
}

/** RFC 6890 and RFC 4291: what hosts do not route, or do not take for the address of a container. */
const SPECIAL: Readonly<Record<AddressFamily['name'], readonly Special[]>> = {
  IPv4: [
    { range: '0.0.0.0/8', what: '"this network", which hosts do not send to' },
    { range: '127.0.0.0/8', what: 'loopback: such packets never leave a host' },
    { range: '169.254.0.0/16', what: 'link-local, where clouds have their metadata service' },
    { range: '224.0.0.0/4', what: 'multicast, which no container can have as its address' },
    { range: '240.0.0.0/4', what: 'reserved, and many hosts and routers drop such packets' },
  ],
  IPv6: [
    { range: '::/96', what: 'unspecified, loopback and IPv4-compatible addresses' },
    { range: 'fe80::/10', what: 'link-local, which is not routed' },
    { range: 'ff00::/8', what: 'multicast, which no container can have as its address' },
  ],
};
/** Shorter prefixes take in what does not belong to one network: the largest private one is a /8, IPv6 has fc00::/7. */
const SHORTEST: Readonly<Record<AddressFamily['name'], number>> = { IPv4: 8, IPv6: 16 };
/** Below these a network is called tiny. flannel's own minimum is four subnets, of which one is not used. */
const FEW = { hosts: 4n, containers: 8n, addresses: 256n };

/**
 * What works by flannel's rules and is hardly meant: a Network in special ranges, one that takes in half of the Internet,
 * one with room for next to nobody.
 *
 * @param isPlanned whether weft cuts it into subnets; Kubernetes does that by rules of its own.
 */
export function unusualNetwork(family: AddressFamily, range: AddressRange, isPlanned: boolean): ConfigProblem[] {
  const { network } = range;
  if (network.length === 0) return []; // Missing, of which more is said elsewhere.
  const path = `$.${family.keys.network}`;
  const text = formatNetwork(family, network);
  const say: string[] = SPECIAL[family.name]
    .filter((special) => overlaps(family, network, family.parseNetwork(special.range)!))
    .map((special) => `has addresses of ${special.range}, ${special.what}`);
  if (network.length < SHORTEST[family.name]) {
    say.push('is huge: containers cannot reach hosts outside the network that have one of its addresses');
  }
  const tiny = describeTiny(family, range, isPlanned);
  if (tiny !== undefined) say.push(`is tiny: ${tiny}`);
  return say.map((words) => ({ path, message: `${text} ${words}` }));
}

function describeTiny(
  family: AddressFamily,
  { network, subnetLength, min, max }: AddressRange,
  isPlanned: boolean,
): string | undefined {
  if (!isPlanned) {
    const addresses = 1n << BigInt(family.bits - network.length);
    return addresses < FEW.addresses ? `all hosts together have ${addresses} addresses for containers` : undefined;
  }
  const size = 1n << BigInt(family.bits - subnetLength);
  const hosts = max < min ? 0n : (max - min) / size + 1n;
  // Without the network's own address, the bridge's and the broadcast address.
  const containers = size > 3n ? size - 3n : 0n;
  if (hosts >= FEW.hosts && containers >= FEW.containers) return undefined;
  return `it has room for ${hosts} ${hosts === 1n ? 'host' : 'hosts'} with up to ${containers} containers each (/${subnetLength})`;
}

/** The same for a configuration that is in use, in words for the log. */
export function describeUnusualNetworks(
  { ipv4, ipv6 }: Pick<NetworkConfig, 'ipv4' | 'ipv6'>,
  isPlanned: boolean,
): string[] {
  const problems: ConfigProblem[] = [];
  for (const [family, plan] of [
    [IPV4_FAMILY, ipv4],
    [IPV6_FAMILY, ipv6],
  ] as const) {
    if (plan === undefined) continue;
    const { network, subnetLength, subnetMin, subnetMax } = plan;
    const number = { addr: BigInt(network.addr), length: network.length };
    const range = { network: number, subnetLength, min: BigInt(subnetMin), max: BigInt(subnetMax) };
    problems.push(...unusualNetwork(family, range, isPlanned));
  }
  return problems.map(({ path, message }) => `${path} in the network configuration: ${message}`);
}

function overlaps(family: AddressFamily, a: NetworkNumber, b: NetworkNumber): boolean {
  const hostBits = BigInt(family.bits - Math.min(a.length, b.length));
  return a.addr >> hostBits === b.addr >> hostBits;
}
