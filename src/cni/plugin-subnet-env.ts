import { firstInvisible, showInvisible } from '../invisible.ts';
import type { PerFamily } from '../ip/family.ts';
import { type Cidr, formatCidr, networkOf, parseCidr } from './ip-text.ts';

/** What the plugin takes from subnet.env. At least one network and one subnet are there. */
export interface PluginSubnetEnv {
  /** Host bits zero, each once. */
  readonly networks: PerFamily<readonly Cidr[]>;
  /** Host bits zero. */
  readonly subnets: PerFamily<Cidr | undefined>;
  readonly mtuBytes: number;
  /** Whether flanneld masquerades; if not, the delegate shall. */
  readonly ipMasq: boolean;
}

/**
 * Reads subnet.env as flannel's CNI plugin does, which is not how flanneld reads it (src/node-files/subnet-env.ts): a line is
 * split at its first `=`, without quotes or trimming; unknown keys are ignored; the last of a repeated key counts.
 *
 * @throws Error that names `source` and every key that is missing, or the line that cannot be used.
 */
export function parsePluginSubnetEnv(text: string, source: string): PluginSubnetEnv {
  const values = new Map<string, string>();
  for (const line of text.split(/\r?\n/)) {
    const at = line.indexOf('=');
    const key = at === -1 ? line : line.slice(0, at);
    if (!KEYS.has(key)) continue;
    if (at === -1) throw new Error(`${source}: ${key} has no value`);
    values.set(key, line.slice(at + 1));
  }
  checkComplete(values, source, firstInvisible(text));
  const cidr = (key: string): Cidr | undefined => {
    const value = values.get(key);
    return value === undefined ? undefined : parseNetwork(value, key, source);
  };
  const list = (key: string): Cidr[] => {
    const networks = (values.get(key)?.split(',') ?? []).map((entry) => parseNetwork(entry, key, source));
    // Two spellings of one network, as 10.244.0.0/16 and 10.244.5.0/16, must not become two routes.
    return [...new Map(networks.map((network) => [formatCidr(network), network])).values()];
  };
  return {
    networks: { ipv4: list('FLANNEL_NETWORK'), ipv6: list('FLANNEL_IPV6_NETWORK') },
    subnets: { ipv4: cidr('FLANNEL_SUBNET'), ipv6: cidr('FLANNEL_IPV6_SUBNET') },
    mtuBytes: parseMtu(values.get('FLANNEL_MTU')!, source),
    ipMasq: values.get('FLANNEL_IPMASQ') === 'true',
  };
}

const KEYS: ReadonlySet<string> = new Set([
  'FLANNEL_NETWORK',
  'FLANNEL_IPV6_NETWORK',
  'FLANNEL_SUBNET',
  'FLANNEL_IPV6_SUBNET',
  'FLANNEL_MTU',
  'FLANNEL_IPMASQ',
]);

/** Either family will do: a pair is missing when both are. */
const REQUIRED: readonly (readonly string[])[] = [
  ['FLANNEL_NETWORK', 'FLANNEL_IPV6_NETWORK'],
  ['FLANNEL_SUBNET', 'FLANNEL_IPV6_SUBNET'],
  ['FLANNEL_MTU'],
  ['FLANNEL_IPMASQ'],
];

function checkComplete(values: ReadonlyMap<string, string>, source: string, odd: string | undefined): void {
  const missing = REQUIRED.filter((keys) => !keys.some((key) => values.has(key))).flat();
  if (missing.length > 0) {
    throw new Error(`${source} is missing ${missing.join(', ')}${odd === undefined ? '' : ` (${odd})`}`);
  }
}

function parseNetwork(text: string, key: string, source: string): Cidr {
  const cidr = parseCidr(text);
  if (cidr === undefined) throw new Error(`${source}: ${key}: invalid CIDR address: ${showInvisible(text)}`);
  return networkOf(cidr);
}

function parseMtu(text: string, source: string): number {
  const mtu = /^\d{1,12}$/.test(text) ? Number(text) : Number.NaN;
  if (!(mtu < 2 ** 32))
    throw new Error(`${source}: FLANNEL_MTU: want a number below 2^32, got ${JSON.stringify(text)}`);
  return mtu;
}
