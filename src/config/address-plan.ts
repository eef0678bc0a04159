import { formatIpv4, ipv4Of, parseIpv4 } from '../ip/ipv4.ts';
import { formatIpv6, ipv6Of, parseIpv6 } from '../ip/ipv6.ts';
import { parsePrefix4, parsePrefix6 } from '../ip/prefix.ts';

/** A network in either family, as a number of `family.bits` bits; host bits are zero. */
export interface NetworkNumber {
  readonly addr: bigint;
  readonly length: number;
}

/** The net-conf.json keys of one address family. */
export interface FamilyKeys {
  readonly network: 'Network' | 'IPv6Network';
  readonly length: 'SubnetLen' | 'IPv6SubnetLen';
  readonly min: 'SubnetMin' | 'IPv6SubnetMin';
  readonly max: 'SubnetMax' | 'IPv6SubnetMax';
}

/** What differs between IPv4 and IPv6 in the rules below; the rules themselves are flannel's and the same for both. */
export interface AddressFamily {
  readonly name: 'IPv4' | 'IPv6';
  readonly keys: FamilyKeys;
  readonly bits: number;
  /** The longest SubnetLen: room for a tunnel and a bridge address on each host. */
  readonly maxLength: number;
  /** SubnetLen when it is not given and the network has room for four of them. */
  readonly usualLength: number;
  readonly exampleNetwork: string;
  readonly parseNetwork: (text: string) => NetworkNumber | undefined;
  readonly parseAddr: (text: string) => bigint | undefined;
  readonly format: (addr: bigint) => string;
}

export const IPV4_FAMILY: AddressFamily = {
  name: 'IPv4',
  keys: { network: 'Network', length: 'SubnetLen', min: 'SubnetMin', max: 'SubnetMax' },
  bits: 32,
  maxLength: 30,
  usualLength: 24,
  exampleNetwork: '10.244.0.0/16',
  parseNetwork: (text) => {
    const prefix = parsePrefix4(text);
    return prefix && { addr: BigInt(prefix.addr), length: prefix.length };
  },
  parseAddr: (text) => {
    const addr = parseIpv4(text);
    return addr === undefined ? undefined : BigInt(addr);
  },
  format: (addr) => formatIpv4(ipv4Of(Number(addr))),
};

export const IPV6_FAMILY: AddressFamily = {
  name: 'IPv6',
  keys: { network: 'IPv6Network', length: 'IPv6SubnetLen', min: 'IPv6SubnetMin', max: 'IPv6SubnetMax' },
  bits: 128,
  maxLength: 126,
  usualLength: 64,
  exampleNetwork: 'fd00:10:244::/56',
  parseNetwork: parsePrefix6,
  parseAddr: parseIpv6,
  format: (addr) => formatIpv6(ipv6Of(addr)),
};

/** The values of one family's keys as written; 0 and `undefined` both mean "not given". */
export interface AddressPlanInput {
  readonly network: NetworkNumber;
  readonly length: number | undefined;
  readonly min: bigint | undefined;
  readonly max: bigint | undefined;
}

export interface AddressRange {
  readonly network: NetworkNumber;
  readonly subnetLength: number;
  readonly min: bigint;
  readonly max: bigint;
}

export interface PlanProblem {
  readonly key: FamilyKeys[keyof FamilyKeys];
  readonly message: string;
}

/** `range` is absent when a problem leaves nothing to compute with. */
export interface AddressPlanning {
  readonly range: AddressRange | undefined;
  readonly problems: readonly PlanProblem[];
}

/**
 * flannel's defaults and checks (CheckNetworkConfig) for the managers that hand out subnets themselves. Unlike flannel,
 * all that is wrong is reported, and a minimum above the maximum is wrong too.
 */
export function planAddresses(family: AddressFamily, input: AddressPlanInput): AddressPlanning {
  const { keys } = family;
  const { network } = input;
  const networkText = formatNetwork(family, network);
  if (network.length === 0) {
    const message = `please define a correct ${keys.network} parameter in the flannel config`;
    return { range: undefined, problems: [{ key: keys.network, message }] };
  }
  const problems: PlanProblem[] = [];
  const subnetLength = checkedLength(family, input, networkText, problems);
  const min = input.min === 0n ? undefined : input.min;
  const max = input.max === 0n ? undefined : input.max;
  const lengthProblems = problems.length;
  for (const [key, addr] of [
    [keys.min, min],
    [keys.max, max],
  ] as const) {
    if (addr === undefined) continue;
    const text = family.format(addr);
    if (maskOff(family, addr, network.length) !== network.addr) {
      const message = `${key} is not in the range of the ${keys.network} (${text} is outside ${networkText})`;
      problems.push({ key, message });
    }
    if (subnetLength !== undefined && maskOff(family, addr, subnetLength) !== addr) {
      problems.push({ key, message: `${key} is not on a SubnetLen boundary: ${text} (SubnetLen is ${subnetLength})` });
    }
  }
  if (subnetLength === undefined) return { range: undefined, problems };
  const usual = wholeRange(family, network, subnetLength);
  const range = { network, subnetLength, min: min ?? usual.min, max: max ?? usual.max };
  // Only between ends that are right by themselves; otherwise this would repeat the problem above in other words.
  if (problems.length === lengthProblems && range.min > range.max) {
    const [low, high] = [family.format(range.min), family.format(range.max)];
    const message = `${keys.min} ${low} is above ${keys.max} ${high}, so there is no subnet to hand out`;
    problems.push({ key: min === undefined ? keys.max : keys.min, message });
  }
  return { range, problems };
}

/**
 * The range for a network whose subnets Kubernetes hands out: any network will do and nothing is checked; the length is the
 * usual one, as far as the network has room for it, and any subnet may be given, the first one too.
 */
export function unplannedRange(family: AddressFamily, network: NetworkNumber): AddressRange {
  const subnetLength = Math.min(Math.max(family.usualLength, network.length + 2), family.bits);
  const { max } = wholeRange(family, network, subnetLength);
  return { network, subnetLength, min: network.addr, max };
}

export function formatNetwork(family: AddressFamily, network: NetworkNumber): string {
  return `${family.format(network.addr)}/${network.length}`;
}

function checkedLength(
  family: AddressFamily,
  { network, length }: AddressPlanInput,
  networkText: string,
  problems: PlanProblem[],
): number | undefined {
  const { keys, maxLength } = family;
  if (length === undefined || length === 0) {
    if (network.length <= maxLength - 2) return Math.max(family.usualLength, network.length + 2);
    // flannel: "network is too small", but "IPv6Network is too small".
    const subject = family.name === 'IPv4' ? 'network' : keys.network;
    const message = `${subject} is too small. Minimum useful network prefix is /${maxLength - 2} (is ${networkText})`;
    problems.push({ key: keys.network, message });
    return undefined;
  }
  if (length > maxLength) {
    problems.push({ key: keys.length, message: `SubnetLen must be less than /${maxLength + 1} (is ${length})` });
    return undefined;
  }
  if (length < network.length + 2) {
    const why = `${networkText} needs a ${keys.length} of ${network.length + 2} or more, not ${length}`;
    problems.push({ key: keys.length, message: `network must be able to accommodate at least four subnets (${why})` });
    return undefined;
  }
  return length;
}

/** From the second subnet (the first would put the network's own address on a device) to the last. */
function wholeRange(family: AddressFamily, network: NetworkNumber, subnetLength: number): { min: bigint; max: bigint } {
  const size = 1n << BigInt(family.bits - subnetLength);
  return {
    min: network.addr + size,
    max: network.addr + (1n << BigInt(family.bits - network.length)) - size,
  };
}

function maskOff(family: AddressFamily, addr: bigint, length: number): bigint {
  const hostBits = BigInt(family.bits - length);
  return (addr >> hostBits) << hostBits;
}
