import { type BackendKind, NO_PEER_STATE } from './backend.ts';
import { attrsOf, hostState, requireFamilies } from './shared.ts';

/** A subnet for this host and nothing else: somebody else carries the packets (flannel's alloc). */
export const alloc: BackendKind<undefined, undefined, Record<never, never>> = {
  type: 'alloc',
  families: ['ipv4'],
  keys: {},
  ignoresPeers: true,
  isCarriedByOthers: true,
  isUnnamed: true,
  owns: () => [],
  parse: () => undefined,
  identify: async () => undefined,
  open(_config, _identity, network, external) {
    const families = requireFamilies(network, alloc);
    return {
      attrs: attrsOf('', external, families, () => undefined),
      usesPeerData: false,
      mtuBytes: external.mtuBytes,
      host: () => ({ kernel: hostState({}, network) }),
      peer: () => ({ kernel: NO_PEER_STATE }),
    };
  },
};
