import type { IpAddr } from '../ip/address.ts';

/** One datagram over a link of ours, for linux/checksum-probe.ts. */
export interface ChecksumProbe {
  readonly from: IpAddr;
  readonly to: IpAddr;
  /** Who computes the checksum: the device, if it says that it does, or this host's kernel beforehand. */
  readonly by: 'device' | 'kernel';
  readonly timeoutMs: number;
}
