import type { ExternalInterface } from '../backend/backend.ts';
import type { NetworkConfig } from '../config/network-config.ts';
import { containsAddr, formatAddr, formatPrefix, type IpAddr } from '../ip/address.ts';
import { FAMILIES } from '../ip/family.ts';
import { isLeasable } from '../lease/gate-rules.ts';

/**
 * What an operator must keep in mind where this host's own address lies in the network, in words for the log: lease/gate-rules.ts
 * has the rule by which other hosts judge it. The udp backend does not start then.
 *
 * @param isPlanned whether weft cuts the network into subnets; Kubernetes does that by rules of its own.
 */
export function describeAddressesInNetwork(
  config: Pick<NetworkConfig, 'ipv4' | 'ipv6'>,
  { name, addresses, publicAddresses }: Pick<ExternalInterface, 'name' | 'addresses' | 'publicAddresses'>,
  isPlanned: boolean,
): string[] {
  return FAMILIES.flatMap(({ key, name: family }) => {
    const plan = config[key];
    if (plan === undefined) return [];
    const own = new Set<IpAddr | undefined>([addresses[key], publicAddresses[key]]);
    return [...own].flatMap((address) => {
      if (address === undefined || !containsAddr(plan.network, address)) return [];
      if (isPlanned && !isLeasable(plan, address)) return [];
      const what = `${formatAddr(address)}, the address of this host (${name}), lies in the ${family} network ${formatPrefix(plan.network)}`;
      return isPlanned
        ? `${what}, where another host may get the subnet around it. Other hosts refuse the lease of this one. Keep host addresses out of SubnetMin to SubnetMax`
        : `${what}. Other hosts believe it while they are on the same link and no Node has a pod CIDR around it. Keep it out of --cluster-cidr`;
    });
  });
}
