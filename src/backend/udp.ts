import { type BackendKeyTable, integer, MTU } from '../config/backend-keys.ts';
import type { AddressPlan } from '../config/network-config.ts';
import type { WantedLink, WantedState } from '../desired/state.ts';
import { WeftError } from '../errors.ts';
import type { PerFamily } from '../ip/family.ts';
import { formatIpv4, type Ipv4Addr, ipv4Of } from '../ip/ipv4.ts';
import { formatPrefix4, type Ipv4Prefix } from '../ip/prefix.ts';
import { type Lease, leaseKey } from '../lease/lease.ts';
import { isLeasable } from '../lease/lease-gate.ts';
import { type BackendKind, NO_PEER_STATE } from './backend.ts';
import { attrsOf, hostAddress, hostState, requireAddress, requireFamilies, unicast } from './shared.ts';
import { takeTun, tunMark } from './tun-name.ts';

/** `MTU` is weft's own addition: flannel always takes the interface's. */
const KEYS = { Port: integer(1, 65_535), MTU } as const satisfies BackendKeyTable;

interface UdpConfig {
  /** UDP port to listen on and to send to, 1 … 65535. */
  readonly port: number;
  /** MTU of the network between the hosts, instead of the external interface's; the tunnel's is 28 bytes less. */
  readonly mtuBytes: number | undefined;
}

/** Known before a lease is taken, and as long as the agent runs. */
interface UdpIdentity {
  readonly tunName: string;
}

type TunLink = Extract<WantedLink, { kind: 'tun' }>;

/** flannel's port; a peer sends to its own configured port, so all nodes of a network must agree on it. */
const UDP_DEFAULT_PORT = 8285;
/**
 * flannel's own route has no metric, and so goes before ours: a node that goes back to flannel without having been cleaned
 * is not cut off by what weft has left there.
 */
const ROUTE_METRIC = 100;
/** IP and UDP headers of the encapsulating datagram. */
const OVERHEAD_BYTES: PerFamily<number> = { ipv4: 20 + 8, ipv6: 40 + 8 };

/** Longest packet that fits a datagram on the underlay: that one's MTU less the outer IPv4 and UDP headers. */
function udpMtuBytes(underlayMtuBytes: number): number {
  return underlayMtuBytes - OVERHEAD_BYTES.ipv4;
}

/**
 * Link, address and route of the udp mode, as flannel sets them: the subnet's base address as /32 on the TUN device and one
 * route for the whole network, whoever the peers are.
 */
export function udpHostState(
  tun: Pick<TunLink, 'name' | 'alias' | 'mtuBytes'>,
  own: Ipv4Prefix,
  network: Ipv4Prefix,
): WantedState {
  return {
    ...hostState({ links: [{ kind: 'tun', ...tun }] }, { ipv4: undefined, ipv6: undefined }),
    addresses: [hostAddress(tun.name, own)],
    routes: [unicast({ dst: network, dev: tun.name, metric: ROUTE_METRIC })],
    networks: [network],
  };
}

/**
 * flannel's udp mode: a forwarder in user space, one raw IP packet a datagram. Lease data is empty (the type too), and like
 * flannel it does not look at the type of a peer's lease: whoever has a public address is sent to.
 */
export const udp: BackendKind<UdpConfig, UdpIdentity, typeof KEYS> = {
  type: 'udp',
  families: ['ipv4'],
  keys: KEYS,
  routesWholeNetwork: true,
  reachableAs: '',
  ignoresPeerType: true,
  owns: (_config, tuns) => tuns.map((name) => ({ name, kind: 'tun' })),
  udpPorts: ({ port }) => [port],
  overheadBytes: OVERHEAD_BYTES,
  parse: (values) => ({
    port: values.Port ?? UDP_DEFAULT_PORT,
    mtuBytes: values.MTU,
  }),
  identify: async (_config, network, past, host, signal) => ({
    tunName: await takeTun(host, network.ipv4?.network, past.networks, signal),
  }),
  open({ port, mtuBytes: configuredMtu }, { tunName }, network, external) {
    const families = requireFamilies(network, udp);
    const [family] = families;
    const { ipv4 } = network;
    if (family === undefined || ipv4 === undefined) throw new TypeError('unreachable: requireFamilies() found none');
    const listenAddress = requireAddress(external.address, family, external, udp.type);
    const publicIp = requireAddress(external.publicIp, family, external, udp.type);
    refuseOverlap(ipv4, [listenAddress, publicIp], external.name);
    const mtuBytes = udpMtuBytes(configuredMtu ?? external.mtuBytes);
    return {
      attrs: attrsOf('', external, families, () => undefined),
      usesPeerData: false,
      mtuBytes,
      underlay: { tunName, listenAddress, listenPort: port },
      host: (own) => {
        const subnet = subnet4(own);
        return {
          kernel: udpHostState({ name: tunName, alias: tunMark(ipv4.network), mtuBytes }, subnet, ipv4.network),
          forwarder: { ownAddress: subnet.addr, subnet, network: ipv4.network, mtuBytes },
        };
      },
      peer: (_own, { subnet, attrs }) =>
        subnet === undefined || attrs.publicIp === undefined
          ? { skipped: 'it has no IPv4 subnet with a public address' }
          : { kernel: NO_PEER_STATE, forward: { subnet, publicIp: attrs.publicIp, port } },
    };
  },
};

function subnet4(own: Lease): Ipv4Prefix {
  if (own.subnet === undefined) throw new TypeError(`lease ${leaseKey(own)} has no IPv4 subnet`);
  return own.subnet;
}

/** Another host may get the subnet that such an address lies in, and this one would be unreachable or refused as spoofed. */
function refuseOverlap(plan: AddressPlan<Ipv4Prefix, Ipv4Addr>, addresses: readonly Ipv4Addr[], link: string): void {
  const inside = addresses.find((address) => isLeasable(plan, address));
  if (inside === undefined) return;
  const last = ipv4Of(plan.subnetMax + 2 ** (32 - plan.subnetLength) - 1);
  const range = `${formatIpv4(plan.subnetMin)} to ${formatIpv4(last)}`;
  throw new WeftError(
    'WEFT_CONFIG_INVALID',
    `the network ${formatPrefix4(plan.network)} overlaps the underlay: subnets are given out from ${range}, and ${formatIpv4(inside)} in it is the address of this host (${link})`,
    {
      hint: 'Set $.Network in net-conf.json to a range without host addresses, for example 10.244.0.0/16, or keep host addresses out of SubnetMin to SubnetMax',
    },
  );
}
