import { containsAddr, formatPrefix, type IpPrefix, isIpv4, isPrefix4, prefixOf } from '../../ip/address.ts';
import { mask4 } from '../../ip/prefix.ts';
import type { Op } from '../op.ts';
import { type ActualAddress, type ActualState, type Address, isLinkLocal6, type WantedState } from '../state.ts';
import type { LinkPlan } from './links.ts';

export interface AddressPlan {
  readonly ops: Op[];
  /** Links that may be without any IPv4 address for a moment, and so without IPv4 routes. */
  readonly flushed: ReadonlySet<string>;
  /** `<prefix> <link>` of the IPv4 connected routes that the kernel will make for new addresses. */
  readonly connected: ReadonlySet<string>;
  /** The same of those that go with their addresses. */
  readonly disconnected: ReadonlySet<string>;
}

/**
 * Stray addresses are those that flannel removes: of the families for which an address is wanted on that link, an IPv4
 * address inside the flannel networks, and any IPv6 address that is not link-local.
 */
export function planAddresses(
  wanted: Pick<WantedState, 'addresses' | 'networks'>,
  actual: Pick<ActualState, 'addresses'>,
  links: LinkPlan,
): AddressPlan {
  const ops: Op[] = [];
  const flushed = new Set<string>();
  const connected = new Set<string>();
  const disconnected = new Set<string>();
  const wantedOf = Map.groupBy(wanted.addresses, (address) => address.link);
  const actualOf = Map.groupBy(actual.addresses, (address) => address.link);
  for (const [link, mine] of wantedOf) {
    if (!links.present.has(link)) continue;
    const found = links.fresh.has(link) ? [] : (actualOf.get(link) ?? []);
    const strays = found.filter(
      (address) =>
        !mine.some((other) => sameAddress(other, address)) &&
        // A wanted address in another form (prefix length, scope) is in the way on any link.
        (mine.some((other) => other.addr === address.addr) ||
          (links.own.has(link) &&
            mine.some((other) => isIpv4(other.addr) === isIpv4(address.addr)) &&
            isStray(address, wanted))),
    );
    // New addresses come first where they can: an IPv4 link that is without any address for a moment loses its routes.
    const early: Address[] = [];
    const late: Address[] = [];
    for (const address of mine) {
      // One that is there counts as missing when it may be a secondary address of a stray, and go with it.
      if (strays.some((stray) => collide(address, stray))) late.push(address);
      else if (!found.some((other) => sameAddress(address, other))) early.push(address);
    }
    ops.push(...early.map((address): Op => ({ type: 'address-add', address })));
    ops.push(...strays.map((address): Op => ({ type: 'address-delete', address })));
    ops.push(...late.map((address): Op => ({ type: 'address-add', address })));

    const stays = found.filter(
      (address) => !strays.includes(address) && !strays.some((stray) => collide(address, stray)),
    );
    if (strays.some((stray) => isIpv4(stray.addr)) && ![...early, ...stays].some((kept) => isIpv4(kept.addr))) {
      flushed.add(link);
    }
    for (const address of strays) disconnected.add(connectedRoute(address));
    for (const address of [...early, ...late]) if (address.prefixRoute) connected.add(connectedRoute(address));
  }
  return { ops, flushed, connected, disconnected };
}

function connectedRoute({ link, addr, prefixLength }: Address): string {
  return `${formatPrefix(prefixOf(addr, prefixLength))} ${link}`;
}

/** The metric of the routes that the kernel makes from addresses (IP6_RT_PRIO_ADDRCONF for IPv6). */
export function connectedMetric(dst: IpPrefix): number {
  return isPrefix4(dst) ? 0 : 256;
}

function isStray(address: ActualAddress, wanted: Pick<WantedState, 'networks'>): boolean {
  return isIpv4(address.addr)
    ? wanted.networks.some((network) => containsAddr(network, address.addr))
    : !isLinkLocal6(address.addr);
}

function sameAddress(wanted: Address, actual: ActualAddress): boolean {
  return (
    wanted.addr === actual.addr &&
    wanted.prefixLength === actual.prefixLength &&
    actual.peer === undefined &&
    (!isIpv4(wanted.addr) || wanted.scope === actual.scope) &&
    (wanted.prefixRoute === actual.prefixRoute || prefixIsWhole(wanted))
  );
}

function prefixIsWhole(address: Address): boolean {
  return isIpv4(address.addr) && address.prefixLength === 32;
}

/**
 * Whether `stray` must go before `added` comes: IPv6 knows an address once per link, and an IPv4 address in the same
 * subnet as another becomes its secondary, which goes with the primary.
 */
function collide(added: Address, stray: ActualAddress): boolean {
  if (!isIpv4(added.addr) || !isIpv4(stray.addr)) return added.addr === stray.addr;
  const mask = mask4(added.prefixLength);
  const strayNet = stray.peer !== undefined && isIpv4(stray.peer) ? stray.peer : stray.addr;
  return added.prefixLength === stray.prefixLength && (added.addr & mask) === (strayNet & mask);
}
