import { parseUdpBackendConfig } from '../../config/udp-backend-config.ts';
import type { PeerSlots } from '../../dataplane/peer-slots.ts';
import type { Peer, PeerTableContent, Slot } from '../../dataplane/peer-table.ts';
import { ENCAPSULATION_OVERHEAD } from '../../dataplane/wire.ts';
import type { WantedState } from '../../desired/state.ts';
import { WeftError } from '../../errors.ts';
import { formatIpv4, type Ipv4Addr } from '../../ip/ipv4.ts';
import { containsAddr4, formatPrefix4, type Ipv4Prefix } from '../../ip/prefix.ts';
import { type Lease, leaseKey } from '../../lease/lease.ts';
import type { Backend, BackendInput } from '../backend.ts';

/** flannel asks the kernel for `flannel%d`; one agent a host gets flannel0. */
export const UDP_TUN_NAME = 'flannel0';

/**
 * flannel's own route has no metric, and so goes before ours: a node that goes back to flannel without having been cleaned
 * is not cut off by what weft has left there.
 */
export const UDP_ROUTE_METRIC = 100;

/** Containers send at most what fits one datagram: the underlay's MTU less the outer IPv4 and UDP headers. */
export function udpMtuBytes(underlayMtuBytes: number): number {
  return underlayMtuBytes - ENCAPSULATION_OVERHEAD;
}

/**
 * Link, address and route of the udp mode, as flannel sets them: the subnet's base address as /32 on the TUN device and one
 * route for the whole network, whoever the peers are.
 */
export function udpWantedState(tun: string, own: Ipv4Addr, network: Ipv4Prefix, mtuBytes: number): WantedState {
  return {
    links: [{ kind: 'tun', name: tun, mtuBytes }],
    addresses: [{ link: tun, addr: own, prefixLength: 32, scope: 'global', prefixRoute: false }],
    routes: [
      {
        ...{ type: 'unicast', dst: network, dev: tun, via: undefined, onlink: false, scope: 'global' },
        metric: UDP_ROUTE_METRIC,
      },
    ],
    neighbours: [],
    fdb: [],
    networks: [network],
    staleRoutes: 'everywhere',
  };
}

export interface UdpBackendParts {
  readonly slots: PeerSlots;
  /** A slot goes to another peer: its counters start again. */
  readonly onSlotReused: (slot: Slot) => void;
}

/**
 * flannel's udp mode. Lease data is empty (the type too), and like flannel it does not look at the type of a peer's lease:
 * whoever has a public address is sent to.
 * @throws WeftError WEFT_CONFIG_INVALID, WEFT_INTERFACE_NOT_FOUND
 */
export function udpBackend({ config, external }: BackendInput, { slots, onSlotReused }: UdpBackendParts): Backend {
  const { port, mtuBytes: configuredMtu } = parseUdpBackendConfig(config);
  const { ipv4 } = config;
  if (ipv4 === undefined) {
    throw new WeftError('WEFT_CONFIG_INVALID', 'the udp backend carries IPv4, but EnableIPv4 is false', {
      hint: 'Enable IPv4 with a Network in net-conf.json, or choose another backend',
    });
  }
  const { address: listenAddress, publicIp } = external;
  if (listenAddress === undefined || publicIp === undefined) {
    throw new WeftError('WEFT_INTERFACE_NOT_FOUND', `the udp backend needs an IPv4 address on ${external.name}`);
  }
  const inside = [listenAddress, publicIp].find((address) => containsAddr4(ipv4.network, address));
  if (inside !== undefined) {
    // Replies of such a host would come from inside the network and yet from no subnet: refused as spoofed.
    throw new WeftError(
      'WEFT_CONFIG_INVALID',
      `the network ${formatPrefix4(ipv4.network)} overlaps the underlay: it contains ${formatIpv4(inside)}, the address of this host (${external.name})`,
      { hint: 'Give $.Network in net-conf.json a range that no host has an address in, for example 10.244.0.0/16' },
    );
  }
  const mtuBytes = udpMtuBytes(configuredMtu ?? external.mtuBytes);
  const ownSubnet = (own: Lease): Ipv4Prefix => {
    if (own.subnet === undefined) throw new TypeError(`lease ${leaseKey(own)} has no IPv4 subnet`);
    return own.subnet;
  };
  const peersOf = (leases: readonly Lease[]): Peer[] => {
    const usable = leases.filter((lease) => lease.subnet !== undefined && lease.attrs.publicIp !== undefined);
    const assigned = slots.assign(usable.map(leaseKey), onSlotReused);
    return usable.flatMap((lease, index): Peer[] => {
      const slot = assigned[index];
      const { subnet, attrs } = lease;
      if (slot === undefined || subnet === undefined || attrs.publicIp === undefined) return [];
      return [{ slot, subnet, publicIp: attrs.publicIp, port }];
    });
  };
  return {
    type: 'udp',
    leaseAttrs: {
      publicIp,
      publicIpv6: undefined,
      backendType: '',
      backendData: undefined,
      backendV6Data: undefined,
    },
    usesPeerData: false,
    mtuBytes,
    wantedState: (own) => udpWantedState(UDP_TUN_NAME, ownSubnet(own).addr, ipv4.network, mtuBytes),
    userSpace: {
      tunName: UDP_TUN_NAME,
      listenAddress,
      listenPort: port,
      ownAddress: (own) => ownSubnet(own).addr,
      peerTable: (own, leases): PeerTableContent => ({
        network: ipv4.network,
        own: ownSubnet(own),
        peers: peersOf(leases),
        mtu: mtuBytes,
      }),
    },
  };
}
