import type { BackendTraits } from '../config/backend-config.ts';
import type { BackendKeyTable, BackendValues } from '../config/backend-keys.ts';
import type { HostCommand, RunHostCommand } from '../config/host-command.ts';
import type { NetworkConfig } from '../config/network-config.ts';
import type { ForwarderUnderlay } from '../dataplane/forwarder-underlay.ts';
import type { ForwardTo } from '../dataplane/forwarding-table.ts';
import type { PeerTableContent } from '../dataplane/peer-table.ts';
import type { OuterTraffic } from '../desired/outer-filter.ts';
import type { OwnLink, PeerState, WantedState } from '../desired/state.ts';
import type { IkeConnection, IkeSettings } from '../ike/ike.ts';
import type { IpPrefix } from '../ip/address.ts';
import type { Addresses, PerFamily } from '../ip/family.ts';
import type { Ipv4Addr } from '../ip/ipv4.ts';
import type { Ipv4Prefix } from '../ip/prefix.ts';
import type { JsonValue, Lease, LeaseAttrs } from '../lease/lease.ts';
import type { Secret } from '../secret.ts';
import type { TunHost } from './tun-name.ts';

/** The interface that leads to the other nodes, and the addresses they use for this one. */
export interface ExternalInterface {
  readonly name: string;
  readonly mtuBytes: number;
  /** Own addresses on that interface. */
  readonly addresses: Addresses;
  /** What is published: --public-ip and --public-ipv6, or the interface's own addresses. */
  readonly publicAddresses: Addresses;
  /** Prefixes of its own addresses: hosts inside them are reached without a gateway. */
  readonly onLink: readonly IpPrefix[];
}

/** The flannel networks, as configured. */
export type Network = Pick<NetworkConfig, 'ipv4' | 'ipv6'>;

/** What an agent was before this start. */
export interface NodePast {
  /** What this node has published for its backend, for each family. */
  readonly published: PerFamily<JsonValue | undefined>;
  /** The networks of earlier runs with the same subnet.env. */
  readonly networks: readonly IpPrefix[];
}

/** A program that a backend works with. It says its version when it is started with `--version`. */
export interface NeededProgram {
  readonly name: string;
  /** Where it is, when it is in none of the folders of PATH. */
  readonly folders?: readonly string[];
  /** Debian's, as `apt-get install` takes them. */
  readonly packages: string;
}

/** The little that a backend may ask of the host before a lease is taken. */
export interface IdentityHost extends TunHost {
  /** The MAC address of a link that is there. */
  linkMac(name: string, signal: AbortSignal): Promise<string | undefined>;
  randomBytes(count: number): Uint8Array;
  readonly runCommand: RunHostCommand;
  /** A variable of the agent's environment; `undefined` when it is not set, or empty. */
  variable(name: string): string | undefined;
  /** The file with this node's private key; `fresh` makes its text when there is none. @throws WeftError WEFT_KEY_FILE. */
  keyFile(fresh: () => string, signal: AbortSignal): Promise<KeyFile>;
}

export interface KeyFile {
  readonly path: string;
  readonly text: string;
}

/**
 * How packets reach the other hosts: one constant a file, listed in registry.ts. Nothing else names a backend; who needs to
 * know what one carries, owns or publishes asks here.
 *
 * `C` is its part of net-conf.json, parsed; `I` is what makes this node known to its peers (a MAC address, a key).
 */
export interface BackendKind<C, I, T extends BackendKeyTable = BackendKeyTable> extends BackendTraits {
  readonly keys: T;
  /**
   * Links that it makes with this configuration, in networks that have all of its families.
   * @param tuns names of the TUN devices that forwarders on the host have, or have had.
   */
  owns(config: C, tuns: readonly string[]): readonly OwnLink[];
  /** The link that it makes by that name with some other configuration; left out where the names are always those of the default one. */
  linkCalled?(name: string): OwnLink | undefined;
  /** Somebody else, or a program of the user's, makes the way for packets: by itself it leads nowhere. */
  readonly isCarriedByOthers?: boolean;
  /**
   * The type in the leases of its hosts, where these take packets of a host that uses another backend: what they need to know of
   * that one is its address. While a roll-out goes on, they are reached in this way from hosts that are ahead.
   */
  readonly reachableAs?: string;
  /** Leases of its hosts name no backend: flannel leaves it empty. */
  readonly isUnnamed?: boolean;
  /** It needs a daemon that has its files and ports for itself: hosts that share a file system, as those of a lab do, cannot all use it. */
  readonly hasDaemon?: boolean;
  /** It sends to every host that has an address, whatever backend that one says it has. */
  readonly ignoresPeerType?: boolean;
  /** What it works with beside the programs that every backend does. */
  readonly programs?: readonly NeededProgram[];
  /** UDP ports on which packets of other hosts come. */
  udpPorts?(config: C): readonly number[];
  /** What it puts before each packet, in bytes, by the family of the network between the hosts. */
  readonly overheadBytes?: PerFamily<number>;
  /** From values that `keys` has accepted. */
  parse(values: BackendValues<T>): C;
  /** What `identify` finds may be replaced while the agent runs: it is asked again and again, and makes nothing then. */
  readonly followsIdentity?: boolean;
  /** The only step that is not pure, before a lease is taken. */
  identify(config: C, network: Network, past: NodePast, host: IdentityHost, signal: AbortSignal): Promise<I>;
  /**
   * What `identify` found, as far as this node's lease shows it, where `identify` reads a secret or runs a program: for commands that
   * compare the kernel with leases. Secrets in it are empty.
   */
  identityIn?(published: PerFamily<JsonValue | undefined>): I;
  /** @throws WeftError WEFT_CONFIG_INVALID, WEFT_INTERFACE_NOT_FOUND: it cannot work with this network or interface. */
  open(config: C, identity: I, network: Network, external: ExternalInterface): Backend;
}

/** A backend of one network on one interface. Pure: the same question has the same answer. */
export interface Backend {
  /** What is published with the lease. */
  readonly attrs: LeaseAttrs;
  /** Whether it looks at what the peers publish for it (backendData); if not, that is not kept. */
  readonly usesPeerData: boolean;
  /** Longest packet that a container may send, for subnet.env. */
  readonly mtuBytes: number;
  /** Present when packets pass through the forwarder. */
  readonly underlay?: ForwarderUnderlay;
  /** Present when an IKE daemon agrees with the peers on the keys of their tunnels. */
  readonly ike?: IkeSettings;
  /** What the host needs, whoever the peers are. */
  host(own: Lease): HostPart;
  /** What one peer needs; independent of all others. */
  peer(own: Lease, peer: Lease): PeerPart | SkippedPeer;
}

export interface HostPart {
  readonly kernel: WantedState;
  /** Present when packets pass through the forwarder. */
  readonly forwarder?: ForwarderPart;
  /** What this host's kernel unwraps whoever has sent it; the agent lets in only what peers send. */
  readonly outer?: {
    readonly traffic: readonly OuterTraffic[];
    /** The `--source-check` from which on. flannel lets everything in. */
    readonly from: 'loose' | 'strict';
  };
  /** Links whose checksums may be spoiled on the way, unless this host computes them: peers are asked whether they are. */
  readonly probeChecksums?: readonly string[];
  /** Run once for this lease before anything else is done for it, and must succeed. */
  readonly hook?: HostCommand;
  /** Set likewise. */
  readonly cloudRoute?: CloudRoute;
}

/** In the route table of a cloud's network: packets to the subnet go to this host. */
export interface CloudRoute {
  readonly subnet: Ipv4Prefix;
  /** This host's address in the cloud's network. */
  readonly gateway: Ipv4Addr;
  /** The whole flannel network: this host has no other subnet of it. */
  readonly network: Ipv4Prefix;
  readonly credentials: CloudCredentials;
}

export interface CloudCredentials {
  readonly id: Secret;
  readonly secret: Secret;
}

export interface PeerPart {
  readonly kernel: PeerState;
  /** Where the forwarder sends packets for that peer. */
  readonly forward?: ForwardTo;
  readonly hook?: PeerHook;
  /** What the IKE daemon agrees on with that peer. */
  readonly connection?: IkeConnection;
  /** Why it is reached in one family only, although it has both; as {@link SkippedPeer.skipped}. */
  readonly lacks?: string;
}

/** What is run when a peer comes or what is said of it changes, and when it goes. */
export interface PeerHook {
  readonly add: HostCommand | undefined;
  readonly remove: HostCommand | undefined;
}

/** A peer that this host cannot reach, with what a person needs to know about it. */
export interface SkippedPeer {
  readonly skipped: string;
}

/** What of the forwarder depends on the own lease. */
export interface ForwarderPart {
  /** The TUN device's addresses, and the sources of ICMP errors. */
  readonly addresses: Addresses;
  /** All of its table but the peers. */
  readonly table: Omit<PeerTableContent, 'peers'>;
}

export const NO_PEER_STATE: PeerState = { routes: [], neighbours: [], fdb: [] };

export function isSkipped(part: PeerPart | SkippedPeer): part is SkippedPeer {
  return 'skipped' in part;
}
