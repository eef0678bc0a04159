import { parseEnv } from 'node:util';
import type { NetworkConfig } from '../config/network-config.ts';
import { firstInvisible, showInvisible } from '../invisible.ts';
import type { PerFamily } from '../ip/family.ts';
import { formatIpv4, ipv4Of } from '../ip/ipv4.ts';
import { formatIpv6, ipv6Of } from '../ip/ipv6.ts';
import {
  formatPrefix4,
  formatPrefix6,
  type Ipv4Prefix,
  type Ipv6Prefix,
  parsePrefix4,
  parsePrefix6,
} from '../ip/prefix.ts';
import type { Subnets } from '../lease/subnets.ts';

/** What subnet.env says about this host. */
export interface SubnetEnvContent {
  readonly config: Pick<NetworkConfig, 'ipv4' | 'ipv6'>;
  readonly subnets: Subnets;
  /** For containers. */
  readonly mtuBytes: number;
  readonly ipMasq: boolean;
}

/**
 * The text of subnet.env as flannel writes it, to the byte; the CNI plugin, docker and scripts read it. The subnet is
 * given by its first host address. A family is there when it is enabled and leased.
 */
export function formatSubnetEnv({ config, subnets, mtuBytes, ipMasq }: SubnetEnvContent): string {
  const lines: string[] = [];
  if (config.ipv4 !== undefined && subnets.ipv4 !== undefined) {
    const { addr, length } = subnets.ipv4;
    lines.push(`FLANNEL_NETWORK=${formatPrefix4(config.ipv4.network)}`);
    lines.push(`FLANNEL_SUBNET=${formatIpv4(ipv4Of((addr + 1) >>> 0))}/${length}`);
  }
  if (config.ipv6 !== undefined && subnets.ipv6 !== undefined) {
    const { addr, length } = subnets.ipv6;
    lines.push(`FLANNEL_IPV6_NETWORK=${formatPrefix6(config.ipv6.network)}`);
    lines.push(`FLANNEL_IPV6_SUBNET=${formatIpv6(ipv6Of(BigInt.asUintN(128, addr + 1n)))}/${length}`);
  }
  lines.push(`FLANNEL_MTU=${mtuBytes}`, `FLANNEL_IPMASQ=${ipMasq}`);
  return `${lines.join('\n')}\n`;
}

/** The networks in a subnet.env, host bits masked off; `undefined` for a key that is missing or cannot be used. */
export interface SubnetEnvNetworks {
  readonly networks: PerFamily<Ipv4Prefix | undefined, Ipv6Prefix | undefined>;
  readonly subnets: Subnets;
}

export interface SubnetEnvReading extends SubnetEnvNetworks {
  /** What could not be used and why. A missing key is not among them. */
  readonly problems: readonly string[];
}

/**
 * Reads subnet.env as flanneld does at its start, in dotenv syntax: a value may be a list with commas, entries that are
 * no CIDR are skipped, and a list that leaves more than one network counts for nothing. Never throws.
 */
export function parseSubnetEnv(text: string, source: string): SubnetEnvReading {
  const variables = parseEnv(text);
  const problems: string[] = [];
  const odd = firstInvisible(text);
  if (odd !== undefined) problems.push(`${source}: ${odd}, which is part of a key or value for programs that read it`);
  const read = <P>(
    key: string,
    parse: (text: string) => P | undefined,
    format: (prefix: P) => string,
  ): P | undefined => {
    const prefixes = new Map<string, P>();
    for (const entry of (variables[key] ?? '').split(',')) {
      const trimmed = entry.trim();
      if (trimmed === '') continue;
      const prefix = parse(trimmed);
      // Parsing masks host bits off, so that two spellings of one network are one entry.
      if (prefix !== undefined) prefixes.set(format(prefix), prefix);
      else
        problems.push(`${key} in ${source}: ${showInvisible(JSON.stringify(trimmed))} is not a subnet of that family`);
    }
    if (prefixes.size < 2) return prefixes.values().next().value;
    problems.push(`${key} in ${source}: more than one entry`);
    return undefined;
  };
  return {
    networks: {
      ipv4: read('FLANNEL_NETWORK', parsePrefix4, formatPrefix4),
      ipv6: read('FLANNEL_IPV6_NETWORK', parsePrefix6, formatPrefix6),
    },
    subnets: {
      ipv4: read('FLANNEL_SUBNET', parsePrefix4, formatPrefix4),
      ipv6: read('FLANNEL_IPV6_SUBNET', parsePrefix6, formatPrefix6),
    },
    problems,
  };
}
