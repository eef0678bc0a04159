import type { NetworkConfig } from '../config/network-config.ts';
import { formatAddr, formatPrefix, type IpAddr, type IpPrefix } from '../ip/address.ts';
import type { JsonValue } from '../lease/lease.ts';

/** Texts of the Backend object that are not secret. A key that nobody knows may hold anything, and a command a password. */
const OPEN_TEXTS: ReadonlySet<string> = new Set(['type', 'mode']);
const HIDDEN = '[secret]';

/** The network configuration in the words of net-conf.json, after defaults, without what is secret in it. */
export function shownNetworkConfig({ ipv4, ipv6, enableNfTables, backend }: NetworkConfig): JsonValue {
  return {
    ...(ipv4 === undefined ? {} : planOf('', ipv4)),
    ...(ipv6 === undefined ? {} : planOf('IPv6', ipv6)),
    EnableNFTables: enableNfTables,
    Backend: { ...objectOf(backend.written), Type: backend.type },
  };
}

function planOf(
  prefix: string,
  plan: {
    readonly network: IpPrefix;
    readonly subnetLength: number;
    readonly subnetMin: IpAddr;
    readonly subnetMax: IpAddr;
  },
): { readonly [key: string]: JsonValue } {
  return {
    [`${prefix}Network`]: formatPrefix(plan.network),
    [`${prefix}SubnetLen`]: plan.subnetLength,
    [`${prefix}SubnetMin`]: formatAddr(plan.subnetMin),
    [`${prefix}SubnetMax`]: formatAddr(plan.subnetMax),
  };
}

function objectOf(written: NetworkConfig['backend']['written']): { readonly [key: string]: JsonValue } {
  const entries = Object.entries(written).filter(([key]) => key.toLowerCase() !== 'type');
  return Object.fromEntries(entries.map(([key, value]) => [key, shownValue(key, value)]));
}

function shownValue(key: string, value: JsonValue): JsonValue {
  if (value === null || typeof value === 'boolean' || typeof value === 'number') return value;
  return typeof value === 'string' && OPEN_TEXTS.has(key.toLowerCase()) ? value : HIDDEN;
}
