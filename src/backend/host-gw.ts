import { type BackendKeyTable, MTU } from '../config/backend-keys.ts';
import type { BackendKind } from './backend.ts';
import {
  attrsOf,
  directRoute,
  hostState,
  joinParts,
  otherType,
  peerFamilies,
  requireFamilies,
  requireNoNat,
} from './shared.ts';

const KEYS = { MTU } as const satisfies BackendKeyTable;

interface HostGwConfig {
  /** Instead of the external interface's. */
  readonly mtuBytes: number | undefined;
}

/** No encapsulation: one route for each peer, by way of its address, which must be on this host's link (flannel's host-gw). */
export const hostGw: BackendKind<HostGwConfig, undefined, typeof KEYS> = {
  type: 'host-gw',
  families: ['ipv4', 'ipv6'],
  keys: KEYS,
  reachableAs: 'host-gw',
  owns: () => [],
  parse: (values) => ({ mtuBytes: values.MTU }),
  identify: async () => undefined,
  open({ mtuBytes = undefined }, _, network, external) {
    const families = requireFamilies(network, hostGw);
    requireNoNat(external, families, hostGw.type);
    return {
      attrs: attrsOf(hostGw.type, external, families, () => undefined),
      usesPeerData: false,
      mtuBytes: mtuBytes ?? external.mtuBytes,
      host: () => ({ kernel: hostState({ links: [{ kind: 'external', name: external.name }] }, network) }),
      peer(_own, peer) {
        const other = otherType(peer, hostGw.type);
        if (other !== undefined) return other;
        const reachable = peerFamilies(peer, families);
        if ('skipped' in reachable) return reachable;
        return joinParts(
          reachable.map((family) => {
            const route = directRoute(family, external);
            return 'skipped' in route ? route : { kernel: { routes: [route], neighbours: [], fdb: [] } };
          }),
        );
      },
    };
  },
};
