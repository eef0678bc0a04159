import type { LinkKind } from './link-kind.ts';

export const bridge: LinkKind<'bridge'> = {
  kind: 'bridge',
  module: 'bridge',
  madeBy: 'reconciler',
  replaces: false,
  knownBy: undefined,
  holdsNeighbours: false,
  takesFrames: true,
  isFlannelRoute: () => false,
  underlay: () => undefined,
  suits: () => true,
  create: () => [],
  read: () => ({ settings: undefined }),
};
