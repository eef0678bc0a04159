import { type BackendKeyTable, integer, MTU } from '../config/backend-keys.ts';
import type { AddressPlan } from '../config/network-config.ts';
import { IPV6_MIN_MTU } from '../dataplane/wire.ts';
import type { WantedLink, WantedState } from '../desired/state.ts';
import { WeftError } from '../errors.ts';
import { formatAddr, formatPrefix, type IpAddr, type IpPrefix, isPrefix4 } from '../ip/address.ts';
import type { Family, FamilyKey, PerFamily } from '../ip/family.ts';
import { ipv4Of } from '../ip/ipv4.ts';
import { ipv6Of } from '../ip/ipv6.ts';
import type { Ipv4Prefix, Ipv6Prefix } from '../ip/prefix.ts';
import { isLeasable } from '../lease/gate-rules.ts';
import type { JsonValue, Lease, LeaseAttrs } from '../lease/lease.ts';
import { type BackendKind, type Network, NO_PEER_STATE, type PeerPart, type SkippedPeer } from './backend.ts';
import { attrsOf, hostAddress, hostState, ownSubnet, requireAddress, requireFamilies, unicast } from './shared.ts';
import { takeTun, tunMark } from './tun-name.ts';

/** `MTU` is weft's own addition: flannel always takes the interface's. */
const KEYS = { Port: integer(1, 65_535), MTU } as const satisfies BackendKeyTable;

interface UdpConfig {
  /** UDP port to listen on and to send to, 1 … 65535. */
  readonly port: number;
  /** MTU of the network between the hosts, instead of the external interface's; the tunnel's is 28 bytes less, with IPv6 48. */
  readonly mtuBytes: number | undefined;
}

/** Known before a lease is taken, and as long as the agent runs. */
interface UdpIdentity {
  readonly tunName: string;
}

/**
 * The kernel's default for TUN devices, 500, is two milliseconds of small packets at full rate: less than a packet worker may have to
 * wait for a processor. Streams keep it short by themselves; but with this many packets of 64 KB, a queue that nobody reads holds
 * 128 MB (docs/PERFORMANCE.md).
 */
const TUN_QUEUE_PACKETS = 2_000;

type TunLink = Extract<WantedLink, { kind: 'tun' }>;

/** Of its hosts, as flannel writes it. */
const LEASE_TYPE = '';
/** flannel's port; a peer sends to its own configured port, so all nodes of a network must agree on it. */
const UDP_DEFAULT_PORT = 8285;
/**
 * flannel's own route has no metric, and so goes before ours: a node that goes back to flannel without having been cleaned
 * is not cut off by what weft has left there.
 */
const ROUTE_METRIC = 100;
/** IP and UDP headers of the encapsulating datagram. */
const OVERHEAD_BYTES: PerFamily<number> = { ipv4: 20 + 8, ipv6: 40 + 8 };

/**
 * What a host publishes, for each family that it has, if it takes IPv6 packets in datagrams: the versions of IP, by which payloads are told
 * apart. Without IPv6 it publishes nothing, as flannel.
 */
const PAYLOADS = { PayloadVersions: [4, 6] } as const;

/** One family of what a host has on the overlay. */
export interface UdpFamily {
  /** Its own part of the network; the base address is the TUN device's. */
  readonly own: IpPrefix;
  readonly network: IpPrefix;
}

/**
 * Link, addresses and routes of the udp mode, as flannel sets them: the subnet's base address alone on the TUN device and one
 * route for the whole network, whoever the peers are; the same for each family.
 */
export function udpHostState(
  tun: Pick<TunLink, 'name' | 'alias' | 'mtuBytes'>,
  families: readonly UdpFamily[],
): WantedState {
  return {
    ...hostState(
      { links: [{ kind: 'tun', ...tun, queuePackets: TUN_QUEUE_PACKETS }] },
      { ipv4: undefined, ipv6: undefined },
    ),
    addresses: families.map(({ own }) => hostAddress(tun.name, own)),
    // No other agent makes one of IPv6.
    routes: families.map(({ network }) =>
      unicast({ dst: network, dev: tun.name, metric: isPrefix4(network) ? ROUTE_METRIC : undefined }),
    ),
    networks: families.map(({ network }) => network),
  };
}

/**
 * flannel's udp mode: a forwarder in user space, one raw IP packet a datagram. The type in the lease is empty, and like flannel it does
 * not look at the type of a peer's lease: whoever has a public address is sent to. A network with IPv4 has it between the hosts too.
 *
 * flannel takes IPv4 packets alone and publishes no data. So IPv6 packets go only to hosts that say they take them, or whose backend is
 * another one (docs/adr/0019).
 */
export const udp: BackendKind<UdpConfig, UdpIdentity, typeof KEYS> = {
  type: 'udp',
  families: ['ipv4', 'ipv6'],
  keys: KEYS,
  routesWholeNetwork: true,
  reachableAs: LEASE_TYPE,
  isUnnamed: true,
  ignoresPeerType: true,
  owns: (_config, tuns) => tuns.map((name) => ({ name, kind: 'tun' })),
  udpPorts: ({ port }) => [port],
  overheadBytes: OVERHEAD_BYTES,
  parse: (values) => ({
    port: values.Port ?? UDP_DEFAULT_PORT,
    mtuBytes: values.MTU,
  }),
  identify: async (_config, network, past, host, signal) => ({
    tunName: await takeTun(host, (network.ipv4 ?? network.ipv6)?.network, past.networks, signal),
  }),
  open({ port, mtuBytes: configuredMtu }, { tunName }, network, external) {
    const families = requireFamilies(network, udp);
    const [underlay] = families;
    const mark = (network.ipv4 ?? network.ipv6)?.network;
    if (underlay === undefined || mark === undefined) throw new TypeError('unreachable: requireFamilies() found none');
    const listenAddress = requireAddress(external.addresses[underlay.key], underlay, external, udp.type);
    requireAddress(external.publicAddresses[underlay.key], underlay, external, udp.type);
    for (const family of families) {
      const addresses = [external.addresses[family.key], external.publicAddresses[family.key]];
      refuseOverlap(
        network[family.key],
        addresses.filter((address) => address !== undefined),
        external.name,
      );
    }
    const mtuBytes = (configuredMtu ?? external.mtuBytes) - OVERHEAD_BYTES[underlay.key];
    if (network.ipv6 !== undefined) requireIpv6Mtu(mtuBytes, OVERHEAD_BYTES[underlay.key]);
    return {
      attrs: attrsOf(LEASE_TYPE, external, families, () => (network.ipv6 === undefined ? undefined : PAYLOADS)),
      usesPeerData: network.ipv6 !== undefined,
      mtuBytes,
      underlay: { tunName, listenAddress, listenPort: port, carriesIpv6: network.ipv6 !== undefined },
      host: (own) => {
        const ipv4 = network.ipv4 && { network: network.ipv4.network, own: subnet4(own) };
        const ipv6 = network.ipv6 && { network: network.ipv6.network, own: subnet6(own) };
        const parts = families.map(({ key }) => ({ own: ownSubnet(own, key), network: planOf(network, key).network }));
        return {
          kernel: udpHostState({ name: tunName, alias: tunMark(mark), mtuBytes }, parts),
          forwarder: {
            addresses: { ipv4: ipv4?.own.addr, ipv6: ipv6?.own.addr },
            table: { ipv4, ipv6, mtu: mtuBytes },
          },
        };
      },
      peer: (_own, peer) => peerPart(peer, families, underlay, port),
    };
  },
};

/** Where packets for a peer go, in the families in which it takes them. */
function peerPart(
  { subnets, attrs }: Lease,
  families: readonly Family[],
  underlay: Family,
  port: number,
): PeerPart | SkippedPeer {
  const { publicAddresses } = attrs;
  if (publicAddresses[underlay.key] === undefined) {
    return { skipped: `it has no public ${underlay.name} address, and that is what the udp backend sends to here` };
  }
  const lacks = families.flatMap(({ key, name }) => {
    if (subnets[key] === undefined) return `it has no ${name} subnet`;
    return key === 'ipv6' && !takesIpv6(attrs)
      ? 'no IPv6 packet is sent to it: nothing in its lease says that its udp backend takes them, and flannel’s and that of earlier versions of weft do not'
      : [];
  });
  if (lacks.length === families.length) return { skipped: lacks.join('; ') };
  const has = (key: FamilyKey): boolean => families.some((family) => family.key === key);
  return {
    kernel: NO_PEER_STATE,
    forward: {
      subnets: {
        ipv4: has('ipv4') ? subnets.ipv4 : undefined,
        ipv6: has('ipv6') && takesIpv6(attrs) ? subnets.ipv6 : undefined,
      },
      publicAddresses: {
        ipv4: underlay.key === 'ipv4' ? publicAddresses.ipv4 : undefined,
        ipv6: has('ipv6') ? publicAddresses.ipv6 : undefined,
      },
      port,
    },
    ...(lacks.length === 0 ? {} : { lacks: lacks.join('; ') }),
  };
}

/**
 * Whether a host has published that it takes IPv6 packets; whatever else it says is not looked at. One with another backend has data of
 * that one. It is no flannel in udp mode, which IPv6 packets must not reach: either it has a forwarder beside its backend, which
 * takes both families, or nobody listens there.
 */
function takesIpv6({ backendType, backendData: { ipv6: data } }: LeaseAttrs): boolean {
  if (backendType !== LEASE_TYPE && backendType !== udp.type) return true;
  if (typeof data !== 'object' || data === null || Array.isArray(data)) return false;
  const versions = (data as { readonly [key: string]: JsonValue }).PayloadVersions;
  return Array.isArray(versions) && versions.includes(6);
}

function planOf(network: Network, key: FamilyKey): AddressPlan<IpPrefix, IpAddr> {
  const plan = network[key];
  if (plan === undefined) throw new TypeError(`the network has no ${key}`);
  return plan;
}

function subnet4(own: Lease): Ipv4Prefix {
  const subnet = ownSubnet(own, 'ipv4');
  if (!isPrefix4(subnet)) throw new TypeError('unreachable: of IPv4');
  return subnet;
}

function subnet6(own: Lease): Ipv6Prefix {
  const subnet = ownSubnet(own, 'ipv6');
  if (isPrefix4(subnet)) throw new TypeError('unreachable: of IPv6');
  return subnet;
}

/** The kernel has no IPv6 on a link of less (RFC 8200 §5). */
function requireIpv6Mtu(mtuBytes: number, overhead: number): void {
  if (mtuBytes >= IPV6_MIN_MTU) return;
  throw new WeftError(
    'WEFT_CONFIG_INVALID',
    `the udp backend cannot carry IPv6: packets could have ${mtuBytes} bytes, and IPv6 needs ${IPV6_MIN_MTU}`,
    {
      hint: `Give the network between the hosts an MTU of ${IPV6_MIN_MTU + overhead} or more (and Backend.MTU, if set), or turn EnableIPv6 off`,
    },
  );
}

/** Another host may get the subnet that such an address lies in, and this one would be unreachable or refused as spoofed. */
function refuseOverlap(plan: Network[FamilyKey], addresses: readonly IpAddr[], link: string): void {
  const inside = addresses.find((address) => plan !== undefined && isLeasable(plan, address));
  if (inside === undefined || plan === undefined) return;
  const { network, subnetMin, subnetMax, subnetLength } = plan;
  const isIpv6 = typeof subnetMax === 'bigint';
  const last = isIpv6
    ? ipv6Of(subnetMax + (1n << BigInt(128 - subnetLength)) - 1n)
    : ipv4Of(subnetMax + 2 ** (32 - subnetLength) - 1);
  const range = `${formatAddr(subnetMin)} to ${formatAddr(last)}`;
  const [key, example] = isIpv6 ? ['IPv6', 'fd00:10:244::/56'] : ['', '10.244.0.0/16'];
  throw new WeftError(
    'WEFT_CONFIG_INVALID',
    `the network ${formatPrefix(network)} overlaps the underlay: subnets are given out from ${range}, and ${formatAddr(inside)} in it is the address of this host (${link})`,
    {
      hint: `Set $.${key}Network in net-conf.json to a range without host addresses, for example ${example}, or keep host addresses out of ${key}SubnetMin to ${key}SubnetMax`,
    },
  );
}
