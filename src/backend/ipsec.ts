import { type BackendKeyTable, BOOLEAN, checked, STRING } from '../config/backend-keys.ts';
import type { IpsecPolicy, PolicyDirection, PolicyVerdict } from '../desired/state.ts';
import { WeftError } from '../errors.ts';
import { CHARON_FOLDERS, connectionName } from '../ike/ike.ts';
import type { IpPrefix } from '../ip/address.ts';
import { Secret } from '../secret.ts';
import { type BackendKind, NO_PEER_STATE } from './backend.ts';
import {
  attrsOf,
  hostState,
  otherType,
  ownSubnet,
  peerFamilies,
  requireAddress,
  requireIpv4,
  unicast,
} from './shared.ts';

const SHORTEST_KEY = 96;
/** flannel's words, and what it means by them. */
const TOO_SHORT = `config error, password is too short: the PSK of the ipsec backend has ${SHORTEST_KEY} characters or more`;

const KEYS = {
  UDPEncap: BOOLEAN,
  ESPProposal: STRING,
  PSK: checked((value) => (value.length < SHORTEST_KEY ? TOO_SHORT : undefined)),
} as const satisfies BackendKeyTable;

interface IpsecConfig {
  readonly udpEncap: boolean;
  readonly espProposal: string;
  /** `undefined`: not given, which `open` refuses. */
  readonly presharedKey: Secret | undefined;
}

const DEFAULT_PROPOSAL = 'aes128gcm16-sha256-prfsha256-ecp256';
/** What flannel takes: outer IPv4 header, ESP header, the longest initialisation vector, padding and tag. */
const OVERHEAD_BYTES = 77;
const UDP_HEADER_BYTES = 8;
const IKE_PORT = 500;
const IKE_PORT_NAT = 4_500;
const DIRECTIONS: readonly PolicyDirection[] = ['out', 'in', 'fwd'];

/** ESP tunnels of the kernel, one to each other host, whose keys strongSwan's charon agrees on with the peers. */
export const ipsec: BackendKind<IpsecConfig, undefined, typeof KEYS> = {
  type: 'ipsec',
  families: ['ipv4'],
  keys: KEYS,
  routesWholeNetwork: true,
  hasDaemon: true,
  owns: () => [],
  udpPorts: () => [IKE_PORT, IKE_PORT_NAT],
  overheadBytes: { ipv4: OVERHEAD_BYTES, ipv6: OVERHEAD_BYTES },
  programs: [
    {
      name: 'charon',
      folders: CHARON_FOLDERS,
      packages: 'strongswan-charon strongswan-swanctl libstrongswan-standard-plugins',
    },
  ],

  parse: (values) => ({
    udpEncap: values.UDPEncap === true,
    espProposal: values.ESPProposal || DEFAULT_PROPOSAL,
    presharedKey: values.PSK === undefined ? undefined : new Secret(values.PSK),
  }),

  identify: async () => undefined,

  open({ udpEncap, espProposal, presharedKey }, _, network, external) {
    const { families, family, whole } = requireIpv4(network, ipsec);
    const local = requireAddress(external.addresses.ipv4, family, external, ipsec.type);
    if (presharedKey === undefined) {
      throw new WeftError('WEFT_CONFIG_INVALID', TOO_SHORT, {
        hint: 'Set PSK in the Backend object of net-conf.json, the same on all hosts: openssl rand -hex 48',
      });
    }
    return {
      attrs: attrsOf(ipsec.type, external, families, () => undefined),
      usesPeerData: false,
      mtuBytes: external.mtuBytes - OVERHEAD_BYTES - (udpEncap ? UDP_HEADER_BYTES : 0),
      ike: { presharedKey, espProposal, udpEncap },
      host: (own) => {
        const subnet = ownSubnet(own, 'ipv4');
        return {
          kernel: hostState(
            {
              links: [{ kind: 'external', name: external.name }],
              // A policy is asked about packets that have a route. Those that have a tunnel follow it, whatever the route; those that
              // have none, the host's own, find nobody who answers for their destination.
              routes: [unicast({ dst: whole, dev: external.name, scope: 'link' })],
              policies: DIRECTIONS.flatMap((way) => [
                // Whatever becomes of the policies of a peer, nothing leaves, or comes in, in clear.
                way === 'out'
                  ? policy(way, subnet, whole, { kind: 'block' })
                  : policy(way, whole, subnet, { kind: 'block' }),
                // What stays on this host.
                policy(way, subnet, subnet, { kind: 'allow' }),
              ]),
            },
            network,
          ),
        };
      },
      peer(own, peer) {
        const other = otherType(peer, ipsec.type);
        if (other !== undefined) return other;
        const reachable = peerFamilies(peer, families);
        if ('skipped' in reachable) return reachable;
        const [{ subnet: remoteSubnet, publicAddress: remote }] = reachable as [(typeof reachable)[number]];
        const localSubnet = ownSubnet(own, 'ipv4');
        const connection = { local, remote, localSubnet, remoteSubnet };
        const inwards: PolicyVerdict = { kind: 'tunnel', from: remote, to: local };
        const policies = [
          policy('out', localSubnet, remoteSubnet, { kind: 'tunnel', from: local, to: remote }),
          policy('in', remoteSubnet, localSubnet, inwards),
          policy('fwd', remoteSubnet, localSubnet, inwards),
        ];
        return {
          kernel: { ...NO_PEER_STATE, policies },
          connection: { ...connection, name: connectionName(connection) },
        };
      },
    };
  },
};

function policy(direction: PolicyDirection, src: IpPrefix, dst: IpPrefix, verdict: PolicyVerdict): IpsecPolicy {
  return { direction, src, dst, verdict };
}
