import type { NetworkConfig } from '../config/network-config.ts';
import type { PeerTableContent } from '../dataplane/peer-table.ts';
import type { WantedState } from '../desired/state.ts';
import type { Ipv4Addr } from '../ip/ipv4.ts';
import type { Ipv6Addr } from '../ip/ipv6.ts';
import type { Lease, LeaseAttrs } from '../lease/lease.ts';

/** The interface that leads to the other nodes, and the addresses they use for this one. */
export interface ExternalInterface {
  readonly name: string;
  readonly mtuBytes: number;
  /** Own addresses on that interface. */
  readonly address: Ipv4Addr | undefined;
  readonly addressV6: Ipv6Addr | undefined;
  /** What is published: --public-ip, or the interface's own address. */
  readonly publicIp: Ipv4Addr | undefined;
  readonly publicIpv6: Ipv6Addr | undefined;
}

export interface BackendInput {
  readonly config: NetworkConfig;
  readonly external: ExternalInterface;
}

/**
 * How packets reach the other hosts. A backend is pure: it says what it wants, the reconciler makes it so and the
 * forwarder, for backends that carry packets in user space, is given its table.
 */
export interface Backend {
  readonly type: string;
  /** What is published with the lease. */
  readonly leaseAttrs: LeaseAttrs;
  /** Whether it looks at what the peers publish for it (backendData, backendV6Data); if not, that is not kept. */
  readonly usesPeerData: boolean;
  /** Longest packet a container may send, for subnet.env. */
  readonly mtuBytes: number;
  /** The kernel state for an own lease and the peers known now. */
  wantedState(own: Lease, peers: readonly Lease[]): WantedState;
  /** Present when packets pass through the forwarder. */
  readonly userSpace: UserSpaceBackend | undefined;
}

export interface UserSpaceBackend {
  readonly tunName: string;
  /** Own side of the underlay: the socket is bound to it. */
  readonly listenAddress: Ipv4Addr;
  readonly listenPort: number;
  /** The TUN device's address, and the source of ICMP errors. */
  ownAddress(own: Lease): Ipv4Addr;
  peerTable(own: Lease, peers: readonly Lease[]): PeerTableContent;
}
