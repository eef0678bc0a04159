import { type BackendKeyTable, BOOLEAN, MTU } from '../config/backend-keys.ts';
import { WeftError } from '../errors.ts';
import type { BackendKind } from './backend.ts';
import {
  attrsOf,
  directRoute,
  hostAddress,
  hostState,
  otherType,
  ownSubnet,
  peerFamilies,
  requireAddress,
  requireIpv4,
  unicast,
} from './shared.ts';

const KEYS = { DirectRouting: BOOLEAN, MTU } as const satisfies BackendKeyTable;

interface IpipConfig {
  readonly directRouting: boolean;
  /** MTU of the network between the hosts, instead of the external interface's. */
  readonly mtuBytes: number | undefined;
}

const IPIP_DEVICE = 'flannel.ipip';
/** The outer IPv4 header (RFC 2003). */
const OVERHEAD_BYTES = 20;

/** IPv4 in IPv4 through one device without a remote end; the gateway of each peer's route is the outer destination. */
export const ipip: BackendKind<IpipConfig, undefined, typeof KEYS> = {
  type: 'ipip',
  families: ['ipv4'],
  keys: KEYS,
  owns: () => [{ name: IPIP_DEVICE, kind: 'ipip' }],
  overheadBytes: { ipv4: OVERHEAD_BYTES, ipv6: OVERHEAD_BYTES },
  parse: (values) => ({
    directRouting: values.DirectRouting === true,
    mtuBytes: values.MTU,
  }),
  identify: async () => undefined,
  open({ directRouting, mtuBytes }, _, network, external) {
    const { families, family } = requireIpv4(network, ipip);
    const local = requireAddress(external.addresses.ipv4, family, external, ipip.type);
    const underlayMtu = mtuBytes ?? external.mtuBytes;
    const mtu = underlayMtu - OVERHEAD_BYTES;
    if (mtu <= 0) {
      throw new WeftError(
        'WEFT_CONFIG_INVALID',
        `MTU ${underlayMtu} of iface ${external.name} is too small for ipip mode to work`,
        {
          hint: `Give ${external.name} an MTU that leaves room for packets in addition to ${OVERHEAD_BYTES} bytes of headers.`,
        },
      );
    }
    return {
      attrs: attrsOf(ipip.type, external, families, () => undefined),
      usesPeerData: false,
      mtuBytes: mtu,
      host: (own) => ({
        outer: { traffic: [{ protocol: 'ipip' }], from: 'loose' },
        kernel: hostState(
          {
            links: [
              { kind: 'external', name: external.name },
              { kind: 'ipip', name: IPIP_DEVICE, mtuBytes: mtu, settings: { local } },
            ],
            addresses: [hostAddress(IPIP_DEVICE, ownSubnet(own, 'ipv4'))],
          },
          network,
        ),
      }),
      peer(_own, peer) {
        const other = otherType(peer, ipip.type);
        if (other !== undefined) return other;
        const reachable = peerFamilies(peer, families);
        if ('skipped' in reachable) return reachable;
        const routes = reachable.map((one) => {
          const direct = directRouting ? directRoute(one, external) : undefined;
          if (direct !== undefined && !('skipped' in direct)) return direct;
          return unicast({ dst: one.subnet, dev: IPIP_DEVICE, via: one.publicAddress, onlink: true });
        });
        return { kernel: { routes, neighbours: [], fdb: [] } };
      },
    };
  },
};
