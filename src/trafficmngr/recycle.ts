import { formatPrefix, type IpFamily, type IpPrefix, isPrefix4 } from '../ip/address.ts';

/** Network and subnet of one family, as subnet.env has them; `undefined` where it has none. */
export interface FamilyState {
  readonly network: IpPrefix | undefined;
  readonly subnet: IpPrefix | undefined;
}

/**
 * flannel's log line for a node whose network or subnet is another one than before, or that has none from before;
 * `undefined` when nothing changed. Nothing else hangs on it: `TrafficManager.ensure` replaces the content of our chains
 * as a whole, so rules of an earlier network go without being known.
 */
export function recycleMessage(family: IpFamily, current: FamilyState, previous: FamilyState): string | undefined {
  const [now, before] = [pair(family, current), pair(family, previous)];
  if (now === before) return undefined;
  return `Current network or subnet (${now}) is not equal to previous one (${before}), trying to recycle old iptables rules`;
}

function pair(family: IpFamily, { network, subnet }: FamilyState): string {
  return [network, subnet].map((prefix) => text(family, prefix)).join(', ');
}

function text(family: IpFamily, prefix: IpPrefix | undefined): string {
  if (prefix === undefined || isPrefix4(prefix) !== (family === 4)) return family === 4 ? '0.0.0.0/0' : '::/0';
  return formatPrefix(prefix);
}
