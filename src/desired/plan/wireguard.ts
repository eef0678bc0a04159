import { formatPrefix } from '../../ip/address.ts';
import type { Actual } from '../actual.ts';
import type { Op } from '../op.ts';
import type { ActualWireguardPeer, WantedState, WireguardPeer } from '../state.ts';
import type { Wanted } from '../wanted.ts';
import type { LinkPlan } from './links.ts';

/** Keys and ports of the WireGuard devices. */
export function planWireguardSettings(
  wanted: Pick<WantedState, 'links'>,
  actual: Actual,
  links: LinkPlan,
): readonly Op[] {
  return wanted.links.flatMap((link): Op[] => {
    if (link.kind !== 'wireguard' || !links.own.has(link.name)) return [];
    const found = links.fresh.has(link.name) ? undefined : actual.wireguard.get(link.name);
    const { publicKey, listenPort } = link.settings;
    if (found?.publicKey === publicKey && found.listenPort === listenPort) return [];
    return [{ type: 'wireguard-set', link: link.name, settings: link.settings }];
  });
}

/**
 * What to do about the peers with these keys; `undefined` is all of them. Additions come before deletions: what a peer allows
 * goes to it from the one that had it, so that a host with a new key is not cut off in between.
 *
 * WireGuard follows a peer to wherever its packets come from, so the endpoint is set when another one is wanted, and not
 * because the kernel has another one.
 */
export function planWireguardPeers(
  wanted: Wanted,
  actual: Actual,
  links: LinkPlan,
  keys: Iterable<string> | undefined,
): readonly Op[] {
  const own = new Set(wanted.host.links.flatMap(({ kind, name }) => (kind === 'wireguard' ? name : [])));
  const changes: Op[] = [];
  const deletions: Op[] = [];
  for (const key of keys ?? new Set([...wanted.wireguard.keys(), ...actual.wireguardPeers.keys()])) {
    const peer = wanted.wireguard.get(key);
    const entry = actual.wireguardPeers.get(key);
    const there = entry === undefined || links.fresh.has(entry.link) ? undefined : entry;
    if (peer !== undefined && links.own.has(peer.link)) {
      const isAsWanted = there !== undefined && suits(peer, there, wanted.changed.wireguard.has(key));
      if (!isAsWanted) changes.push({ type: 'wireguard-peer-set', peer });
    } else if (there !== undefined && own.has(there.link) && wanted.host.isPartial !== true) {
      deletions.push({ type: 'wireguard-peer-delete', link: there.link, publicKey: there.publicKey });
    }
  }
  return [...changes, ...deletions];
}

function suits(wanted: WireguardPeer, found: ActualWireguardPeer, withEndpoint: boolean): boolean {
  const { endpoint, presharedKey: secret } = found;
  if (endpoint === undefined) return false;
  if (withEndpoint && (endpoint.addr !== wanted.endpoint.addr || endpoint.port !== wanted.endpoint.port)) return false;
  const sameSecret =
    wanted.presharedKey === undefined || secret === undefined
      ? wanted.presharedKey === secret
      : wanted.presharedKey.equals(secret);
  return sameSecret && wanted.keepaliveSeconds === found.keepaliveSeconds && allowed(wanted) === allowed(found);
}

function allowed({ allowedIps }: Pick<WireguardPeer, 'allowedIps'>): string {
  return allowedIps.map(formatPrefix).sort().join();
}
