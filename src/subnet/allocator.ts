import type { AddressPlan, NetworkConfig } from '../config/network-config.ts';
import { type Ipv4Addr, ipv4Of } from '../ip/ipv4.ts';
import { type Ipv6Addr, ipv6Of } from '../ip/ipv6.ts';
import { type Ipv4Prefix, type Ipv6Prefix, prefix4, prefix6 } from '../ip/prefix.ts';
import type { Subnets } from '../lease/subnets.ts';

/** flannel looks no further than this many free subnets and takes one of them at random. */
export const CANDIDATE_LIMIT = 100;

/**
 * A free subnet: one of the first hundred from `subnetMin` up that overlap none of `taken`, each as likely as the
 * others. `random` returns a number in [0, 1). `undefined` when every subnet is taken.
 */
export function pickSubnet4(
  plan: AddressPlan<Ipv4Prefix, Ipv4Addr>,
  taken: Iterable<Ipv4Prefix>,
  random: () => number,
): Ipv4Prefix | undefined {
  const range: Range = {
    min: BigInt(plan.subnetMin),
    max: BigInt(plan.subnetMax),
    size: 1n << BigInt(32 - plan.subnetLength),
  };
  const spans: Span[] = [];
  for (const { addr, length } of taken)
    spans.push({ start: BigInt(addr), end: BigInt(addr) + (1n << BigInt(32 - length)) });
  const start = pick(range, spans, random);
  return start === undefined ? undefined : prefix4(ipv4Of(Number(start)), plan.subnetLength);
}

/** The same for IPv6. */
export function pickSubnet6(
  plan: AddressPlan<Ipv6Prefix, Ipv6Addr>,
  taken: Iterable<Ipv6Prefix>,
  random: () => number,
): Ipv6Prefix | undefined {
  const range: Range = { min: plan.subnetMin, max: plan.subnetMax, size: 1n << BigInt(128 - plan.subnetLength) };
  const spans: Span[] = [];
  for (const { addr, length } of taken) spans.push({ start: addr, end: addr + (1n << BigInt(128 - length)) });
  const start = pick(range, spans, random);
  return start === undefined ? undefined : prefix6(ipv6Of(start), plan.subnetLength);
}

/** Addresses from `start` up to but not including `end`. */
interface Span {
  readonly start: bigint;
  readonly end: bigint;
}

interface Range {
  readonly min: bigint;
  readonly max: bigint;
  readonly size: bigint;
}

function pick(range: Range, taken: Span[], random: () => number): bigint | undefined {
  const free = firstFree(range, taken);
  return free[Math.min(Math.floor(random() * free.length), free.length - 1)];
}

/** Jumps over what is taken instead of trying every subnet, so that neither a big range nor many leases cost much. */
function firstFree({ min, max, size }: Range, taken: Span[]): bigint[] {
  taken.sort((a, b) => (a.start < b.start ? -1 : a.start > b.start ? 1 : 0));
  const free: bigint[] = [];
  let next = 0;
  let candidate = min;
  while (candidate <= max && free.length < CANDIDATE_LIMIT) {
    let span = taken[next];
    while (span !== undefined && span.end <= candidate) span = taken[++next];
    if (span === undefined || span.start >= candidate + size) {
      free.push(candidate);
      candidate += size;
    } else {
      // The first subnet that starts at or behind the end of what is in the way.
      candidate = min + ((span.end - min + size - 1n) / size) * size;
    }
  }
  return free;
}

/**
 * Whether the configuration could have given these subnets: per family there exactly when the family is enabled, of the
 * right length, and between the ends. flannel reuses a lease or an earlier subnet only then.
 */
export function isCompatible(subnets: Subnets, config: NetworkConfig): boolean {
  return isWithin(subnets.ipv4, config.ipv4) && isWithin(subnets.ipv6, config.ipv6);
}

function isWithin<A extends Ipv4Addr | Ipv6Addr>(
  subnet: { readonly addr: A; readonly length: number } | undefined,
  plan: Pick<AddressPlan<unknown, A>, 'subnetLength' | 'subnetMin' | 'subnetMax'> | undefined,
): boolean {
  if (subnet === undefined || plan === undefined) return (subnet === undefined) === (plan === undefined);
  return subnet.length === plan.subnetLength && subnet.addr >= plan.subnetMin && subnet.addr <= plan.subnetMax;
}
