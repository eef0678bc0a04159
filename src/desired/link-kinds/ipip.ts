import { formatAddr, parseAddr } from '../../ip/address.ts';
import type { LinkKind } from './link-kind.ts';

/** An IP-in-IP device without a fixed remote end (RFC 2003, net/ipv4/ipip.c): the gateway of a route is the outer destination. */
export const ipip: LinkKind<'ipip'> = {
  kind: 'ipip',
  module: 'ipip',
  madeBy: 'reconciler',
  replaces: false,
  knownBy: 'addresses',
  holdsNeighbours: false,
  takesFrames: false,
  // By way of the peer's own address, which is not on that link.
  isFlannelRoute: ({ via, onlink }) => onlink && via !== undefined,
  underlay: () => undefined,
  suits: ({ settings: a }, b) => a.local === b.local && b.remote === undefined,
  // As flannel makes it: the inner TTL, and packets that are too long are cut although the inner one says otherwise.
  create: ({ settings }) => ['remote', 'any', 'local', formatAddr(settings.local), 'ttl', 'inherit', 'nopmtudisc'],
  read: (data) => ({ settings: { local: end(data.local), remote: end(data.remote) } }),
};

function end(text: unknown): ReturnType<typeof parseAddr> {
  return typeof text === 'string' && text !== 'any' && text !== '0.0.0.0' ? parseAddr(text) : undefined;
}
