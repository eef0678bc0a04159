import type { IpAddr } from '../ip/address.ts';

/** Between which device and which socket the forwarder carries packets; known before there is a lease. */
export interface ForwarderUnderlay {
  readonly tunName: string;
  /** Own side of the underlay: the socket is bound to it, and is of its family. */
  readonly listenAddress: IpAddr;
  readonly listenPort: number;
  /** Whether it also carries packets of IPv6. */
  readonly carriesIpv6: boolean;
}
