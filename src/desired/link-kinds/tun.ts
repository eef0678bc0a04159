import type { LinkKind } from './link-kind.ts';

/** The TUN device of a forwarder, which holds its descriptor. */
export const tun: LinkKind<'tun'> = {
  kind: 'tun',
  module: 'tun',
  madeBy: 'data plane',
  replaces: false,
  knownBy: 'alias',
  holdsNeighbours: false,
  takesFrames: false,
  isFlannelRoute: () => false,
  underlay: () => undefined,
  suits: () => true,
  create: () => [],
  // A TAP device is of the same kind, but carries frames.
  read: (data) => (data.type === 'tun' ? { settings: undefined } : undefined),
};
