import { formatAddr, formatPrefix, type IpAddr, type IpPrefix } from '../ip/address.ts';
import type { Secret } from '../secret.ts';

/** What an IKE daemon on this host agrees on with the peers, as plain data, and the daemon itself as a port. Nothing here does I/O. */

/** Where distributions put charon, after the folders of PATH; flannel's list. */
export const CHARON_FOLDERS: readonly string[] = [
  '/usr/lib/strongswan',
  '/usr/lib/ipsec',
  '/usr/libexec/strongswan',
  '/usr/libexec/ipsec',
];

/** The same for all peers. */
export interface IkeSettings {
  readonly presharedKey: Secret;
  /** Algorithms of the tunnels, as strongSwan writes them. */
  readonly espProposal: string;
  /** ESP in UDP always, and not only where there is address translation between the hosts. */
  readonly udpEncap: boolean;
}

/** The tunnel to one peer. */
export interface IkeConnection {
  /** Of no other peer of this host; see {@link connectionName}. */
  readonly name: string;
  readonly local: IpAddr;
  readonly remote: IpAddr;
  readonly localSubnet: IpPrefix;
  readonly remoteSubnet: IpPrefix;
}

/** A tunnel as the daemon has it. */
export interface IkeTunnel {
  /** There are keys for both directions. */
  readonly isUp: boolean;
  /** Nothing is agreed on, and nobody is about to. */
  readonly isIdle: boolean;
  /** With the keys that are in use now. */
  readonly receivedBytes: number;
  readonly sentBytes: number;
}

/** Of a connection of which the daemon has nothing. */
export const NO_TUNNEL: IkeTunnel = { isUp: false, isIdle: true, receivedBytes: 0, sentBytes: 0 };

/** The IKE daemon of this host, run by the agent. */
export interface IkeDaemon {
  /** Looks whether there is one to be run. @throws WeftError WEFT_CHARON_MISSING. */
  find(signal: AbortSignal): Promise<void>;
  /** Starts it and waits until it answers. @throws WeftError WEFT_CHARON_MISSING, WEFT_CHARON_FAILED. */
  start(signal: AbortSignal): Promise<IkeSession>;
}

/** A daemon that runs. Disposing ends it, and its tunnels with it. Everything rejects with WeftError WEFT_CHARON_FAILED. */
export interface IkeSession extends AsyncDisposable {
  /** Settles when it has ended or answers no more, with why; never rejects. */
  readonly ended: Promise<string>;
  /** The key that it shows, and asks for, with every connection. */
  loadKey(key: Secret, signal: AbortSignal): Promise<void>;
  /** Begins to agree on keys at once, and takes the peer's offers. */
  load(connection: IkeConnection, settings: IkeSettings, signal: AbortSignal): Promise<void>;
  /** Its tunnel ends as well. */
  unload(name: string, signal: AbortSignal): Promise<void>;
  /** Tries again; returns at once. */
  initiate(connection: IkeConnection, signal: AbortSignal): Promise<void>;
  /** By the names of the connections. */
  tunnels(signal: AbortSignal): Promise<ReadonlyMap<string, IkeTunnel>>;
}

/** As flannel names it: `192.168.0.1-10.244.1.0/24-10.244.2.0/24-192.168.0.2`. */
export function connectionName({ local, remote, localSubnet, remoteSubnet }: Omit<IkeConnection, 'name'>): string {
  return [formatAddr(local), formatPrefix(localSubnet), formatPrefix(remoteSubnet), formatAddr(remote)].join('-');
}
