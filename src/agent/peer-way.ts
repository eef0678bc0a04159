import type { PeerPath } from '../api/peer-path.ts';
import { isSkipped, type PeerPart, type SkippedPeer } from '../backend/backend.ts';
import type { WantedLink } from '../desired/state.ts';

/** How packets get to a peer, as far as it follows from what its backend wants. */
export interface PeerWay {
  readonly path: Exclude<PeerPath, 'fast-path'>;
  /** The link that the route to it leads to. */
  readonly device: string | undefined;
}

/** A cluster has thousands of peers and few ways. */
const WAYS = new Map<string, PeerWay>();

function wayOf(path: PeerWay['path'], device?: string): PeerWay {
  const key = `${path} ${device ?? ''}`;
  const known = WAYS.get(key);
  if (known !== undefined) return known;
  const way = { path, device };
  WAYS.set(key, way);
  return way;
}

/** @param links of this host, by name. */
export function peerWay(part: PeerPart | SkippedPeer, links: ReadonlyMap<string, WantedLink['kind']>): PeerWay {
  if (isSkipped(part)) return wayOf('skipped');
  const { kernel, forward, hook, connection } = part;
  if (connection !== undefined) return wayOf('ipsec');
  const [tunnelPeer] = kernel.wireguard ?? [];
  if (tunnelPeer !== undefined) return wayOf('wireguard', tunnelPeer.link);
  if (forward !== undefined) {
    return wayOf('forwarder', [...links].find(([, kind]) => kind === 'tun')?.[0]);
  }
  const route = kernel.routes.find(({ type }) => type === 'unicast');
  if (route?.type !== 'unicast') return wayOf(hook === undefined ? 'others' : 'command');
  const kind = links.get(route.dev);
  if (kind === 'vxlan' || kind === 'ipip' || kind === 'wireguard') return wayOf(kind, route.dev);
  return wayOf(kind === 'tun' ? 'forwarder' : 'direct', route.dev);
}
