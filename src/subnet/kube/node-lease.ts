import type { NetworkConfig } from '../../config/network-config.ts';
import { WeftError } from '../../errors.ts';
import { containsPrefix, formatPrefix, parseAddr } from '../../ip/address.ts';
import { type Addresses, FAMILIES, type PerFamily, perFamily, present } from '../../ip/family.ts';
import { parseIpv4 } from '../../ip/ipv4.ts';
import { parseIpv6 } from '../../ip/ipv6.ts';
import { type Ipv4Prefix, type Ipv6Prefix, parsePrefix4, parsePrefix6 } from '../../ip/prefix.ts';
import { ENTRY_BOUNDS, jsonValueOf, parseGoJson } from '../../lease/go-json.ts';
import type { JsonValue, Lease, LeaseOrigin } from '../../lease/lease.ts';
import { agree, type Subnets } from '../../lease/subnets.ts';
import { shown } from '../report.ts';
import type { AnnotationKeys } from './annotations.ts';
import type { NodeRecord } from './node-record.ts';

/** Which families leases have. */
export type LeaseFamilies = PerFamily<boolean>;

/**
 * The families of the leases of a network: those that are configured, without IPv6 for the backends that have none.
 * (flannel forces only its own lease of such a backend to IPv4 and then ignores all peers for their lack of an IPv6
 * address.)
 */
export function leaseFamilies(config: NetworkConfig): LeaseFamilies {
  const ipv6 = config.ipv6 !== undefined && config.backend.families.includes('ipv6');
  return { ipv4: config.ipv4 !== undefined, ipv6 };
}

/** The first pod CIDR of each family. @throws Error when one is no CIDR, or there are more than two. */
function podSubnets(node: NodeRecord): Subnets {
  if (node.podCidrs.length > 2) throw new Error(`node "${node.name}" pod cidrs should be IPv4/IPv6 only or dualstack`);
  let ipv4: Ipv4Prefix | undefined;
  let ipv6: Ipv6Prefix | undefined;
  for (const cidr of node.podCidrs) {
    const v4 = parsePrefix4(cidr);
    const v6 = v4 === undefined ? parsePrefix6(cidr) : undefined;
    if (v4 === undefined && v6 === undefined)
      throw new Error(`node "${node.name}" pod cidr ${shown(cidr)} is not a CIDR`);
    ipv4 ??= v4;
    ipv6 ??= v6;
  }
  return { ipv4, ipv6 };
}

/**
 * The subnets that Kubernetes gave the own node; `undefined` while it has not given any.
 *
 * @throws WeftError WEFT_KUBE_NODE when they do not fit the network configuration, with flannel's messages.
 */
export function ownSubnets(node: NodeRecord, config: NetworkConfig): Subnets | undefined {
  if (node.podCidrs.length === 0) return undefined;
  const hint =
    'The Network of net-conf.json and the --cluster-cidr of kube-controller-manager must agree. The pod CIDR of a node cannot be changed: correct the configuration, or delete the Node object so that it registers again.';
  const unfit = (message: string): WeftError => new WeftError('WEFT_KUBE_NODE', message, { hint });
  let pod: Subnets;
  try {
    pod = podSubnets(node);
  } catch (error) {
    throw unfit((error as Error).message);
  }
  for (const { key } of FAMILIES) {
    const [plan, subnet] = [config[key], pod[key]];
    if (plan === undefined || subnet === undefined || containsPrefix(plan.network, subnet)) continue;
    throw unfit(
      `subnet "${formatPrefix(plan.network)}" specified in the flannel net config doesn't contain "${formatPrefix(subnet)}"${key === 'ipv6' ? ' IPv6' : ''} PodCIDR of the "${node.name}" node`,
    );
  }
  const families = leaseFamilies(config);
  if (!families.ipv4 && !families.ipv6) {
    throw unfit(`the backend "${config.backend.type}" has no IPv6, and IPv4 is switched off in the flannel net config`);
  }
  const missing = FAMILIES.find(({ key }) => families[key] && pod[key] === undefined);
  if (missing !== undefined) {
    throw unfit(
      `node "${node.name}" has no ${missing.name} pod cidr, only ${node.podCidrs.join(', ')}, but the flannel net config enables ${missing.name}`,
    );
  }
  return { ipv4: families.ipv4 ? pod.ipv4 : undefined, ipv6: families.ipv6 ? pod.ipv6 : undefined };
}

/** The pod subnets of a node in the families that a lease has; `undefined` when it has none that can be read. */
export function subnetsLike(lease: Lease, node: NodeRecord): Subnets | undefined {
  try {
    const { ipv4, ipv6 } = podSubnets(node);
    const like = { ipv4: lease.subnets.ipv4 && ipv4, ipv6: lease.subnets.ipv6 && ipv6 };
    return present<unknown>(like).length === 0 ? undefined : like;
  } catch {
    return undefined;
  }
}

/** Whether a lease has exactly these subnets. */
export function hasSubnets(lease: Lease, subnets: Subnets): boolean {
  return agree(lease.subnets, subnets) && agree(subnets, lease.subnets);
}

/**
 * The lease that a node publishes; `undefined` when it publishes none (no flannel there, or no pod CIDR yet). With both
 * families on, a node that has only one complete gives a lease of that one. (flannel ignores such a node.) `data: false`
 * leaves the backend's data out, for a reader that has no use for it.
 *
 * @throws Error saying what cannot be read; a known lease of that node is then best kept.
 */
export function nodeLease(
  node: NodeRecord,
  families: LeaseFamilies,
  keys: AnnotationKeys,
  { data: keepData = true } = {},
): Lease | undefined {
  if (!node.managed || node.podCidrs.length === 0) return undefined;
  const pod = podSubnets(node);
  const written = node.publicAddresses;
  const ipv4 = families.ipv4 ? addressOf(written.ipv4, parseIpv4, keys.publicAddresses.ipv4) : undefined;
  const ipv6 = families.ipv6 ? addressOf(written.ipv6, parseIpv6, keys.publicAddresses.ipv6) : undefined;
  const v4 = ipv4 !== undefined && pod.ipv4 !== undefined;
  const v6 = ipv6 !== undefined && pod.ipv6 !== undefined;
  if (!v4 && !v6) throw new Error(lackOf({ ipv4, ipv6 }, node, families, keys));
  return {
    subnets: { ipv4: v4 ? pod.ipv4 : undefined, ipv6: v6 ? pod.ipv6 : undefined },
    attrs: {
      publicAddresses: { ipv4: v4 ? ipv4 : undefined, ipv6: v6 ? ipv6 : undefined },
      backendType: node.backendType ?? '',
      backendData: perFamily((family) =>
        keepData ? dataOf(node.backendData[family], keys.backendData[family]) : undefined,
      ),
    },
    expiresAtMs: undefined,
    origin: nodeOrigin(node),
  };
}

/** Why a node has no lease, in flannel's words. */
function lackOf(addresses: Addresses, node: NodeRecord, families: LeaseFamilies, keys: AnnotationKeys): string {
  const half = FAMILIES.find(({ key }) => addresses[key] !== undefined);
  if (half !== undefined) return `missing ${half.name} address on n.Spec.PodCIDRs: [${node.podCidrs.join(' ')}]`;
  return `the annotation ${keys.publicAddresses[families.ipv4 ? 'ipv4' : 'ipv6']} is missing`;
}

/** What Kubernetes says of the lease of a node: its creation is the API server's to date, and a pod CIDR is given once. */
export function nodeOrigin({ name, createdAtMs, addresses }: NodeRecord): LeaseOrigin {
  return {
    holder: name,
    since: createdAtMs,
    ...(addresses === undefined
      ? {}
      : { addresses: addresses.map(parseAddr).filter((address) => address !== undefined) }),
  };
}

function addressOf<A extends number | bigint>(
  text: string | undefined,
  parse: (text: string) => A | undefined,
  key: string,
): A | undefined {
  if (text === undefined || text === '') return undefined;
  const address = parse(text);
  if (address === undefined) throw new Error(`the annotation ${key} is not an address: ${shown(text)}`);
  // That is how Go writes an address that is not set.
  return address === 0 || address === 0n ? undefined : address;
}

function dataOf(text: string | undefined, key: string): JsonValue | undefined {
  // `null` is how the absence of data is written.
  if (text === undefined || text === '' || text === 'null') return undefined;
  const parsed = parseGoJson(text, ENTRY_BOUNDS);
  if (!parsed.ok) throw new Error(`the annotation ${key} is not JSON (${parsed.message}): ${shown(text)}`);
  return jsonValueOf(parsed.node);
}
