import type { IpAddr } from '../ip/address.ts';
import type { ProbeMessage } from './probe-packet.ts';

/** What a probe is, before it has left. */
export type ProbeRequest =
  /** ICMP echo, an IP packet of that size that nobody may fragment unless that is allowed. */
  | {
      readonly kind: 'echo';
      readonly to: IpAddr;
      readonly sequence: number;
      readonly totalBytes: number;
      readonly mayFragment?: boolean;
    }
  /** A small datagram to a port that nothing listens on, with the checksum that the device may compute or with none. */
  | { readonly kind: 'udp'; readonly to: IpAddr; readonly port: number; readonly checksum: boolean };

/** `errno` is negative: the kernel refused to send it. */
export type Sent = { readonly atMs: number } | { readonly errno: number };

export interface Arrival {
  readonly from: IpAddr;
  /** By the clock of {@link ProbeIo.send}. */
  readonly atMs: number;
  readonly message: ProbeMessage;
}

/** Sends probes and receives what comes of them. Never blocks, never throws. */
export interface ProbeIo extends Disposable {
  send(request: ProbeRequest): Sent;
  /** All that has come since the last call, in order. */
  receive(): readonly Arrival[];
}

/** A peer in one family, and how to look at the way to it. */
export interface ProbeTarget {
  /** The peer's subnet, CIDR. */
  readonly id: string;
  /** The address of its end of the overlay. */
  readonly overlay: IpAddr;
  /** Its address between the hosts; `undefined`: not known in this family. */
  readonly underlay: IpAddr | undefined;
  /** The longest packet that fits the overlay, by this host's configuration. */
  readonly mtuBytes: number;
  /** No datagrams, for a host whose sockets are elsewhere than its packets. */
  readonly onlyEcho?: boolean;
  /** That of the interface to the other hosts. */
  readonly underlayMtuBytes: number;
}
