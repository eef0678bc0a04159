import type { LinkKind } from './link-kind.ts';

/** A WireGuard device (drivers/net/wireguard); what makes it a tunnel is set through its own interface. */
export const wireguard: LinkKind<'wireguard'> = {
  kind: 'wireguard',
  module: 'wireguard',
  madeBy: 'reconciler',
  // flannel makes a device of this name anew, whatever it was.
  replaces: true,
  knownBy: 'addresses',
  holdsNeighbours: false,
  takesFrames: false,
  isFlannelRoute: () => false,
  underlay: () => undefined,
  suits: () => true,
  create: () => [],
  read: () => ({ settings: undefined }),
};
