import type { DestinationCheck } from './destination-check.ts';
import type { SourceCheck } from './source-check.ts';

/** What a forwarder worker is started with. Descriptors are shared by all threads of the process. */
export interface WorkerInput {
  readonly direction: 'tx' | 'rx';
  readonly tunFd: number;
  readonly socketFd: number;
  /** Version of IP between the hosts. */
  readonly underlay: 4 | 6;
  /** Raw sockets for ICMP errors, below 0 when there is none. */
  readonly icmpFd: number;
  readonly icmp6Fd: number;
  readonly stopFd: number;
  readonly table: SharedArrayBuffer;
  readonly tableCapacity: number;
  readonly counters: SharedArrayBuffer;
  /** Buffer of a SignalQueue; undefined without a fast path. */
  readonly signals: SharedArrayBuffer | undefined;
  /** Int32 word: not 0 means stop, for a worker that is too busy to wait. */
  readonly stop: SharedArrayBuffer;
  /** Two Int32 words, see BusyPoll. */
  readonly lastStep: SharedArrayBuffer;
  /** Source of ICMP errors: the base address of this node's subnet; 0 sends none. */
  readonly ownAddress: number;
  /** The same of IPv6, in 16 bytes. */
  readonly ownAddress6: Uint8Array | undefined;
  readonly sourceCheck: SourceCheck;
  readonly destinationCheck: DestinationCheck;
  /** See LocalAddresses. */
  readonly localAddresses: SharedArrayBuffer;
  /** See LocalAddresses6. */
  readonly localAddresses6: SharedArrayBuffer;
  /** See RefusedSenders. */
  readonly refusedSenders: SharedArrayBuffer;
  readonly udpSegmentation: boolean;
}

/** What a worker tells its supervisor; packets and counters never go this way. */
export type WorkerMessage =
  | { readonly type: 'ready' }
  /** A descriptor is no longer usable: the TUN device was deleted. */
  | { readonly type: 'lost'; readonly what: 'tun' | 'socket' };
