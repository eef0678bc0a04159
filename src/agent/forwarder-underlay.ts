import type { Ipv4Addr } from '../ip/ipv4.ts';

/** Between which device and which socket packets are forwarded. */
export interface ForwarderUnderlay {
  readonly tunName: string;
  readonly listenAddress: Ipv4Addr;
  readonly listenPort: number;
}
