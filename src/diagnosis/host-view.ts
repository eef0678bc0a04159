import type { BackendTraits } from '../config/backend-config.ts';
import { WeftError } from '../errors.ts';
import {
  containsAddr,
  formatAddr,
  formatPrefix,
  type IpAddr,
  type IpPrefix,
  nextAddr,
  parseAddr,
  singlePrefix,
} from '../ip/address.ts';
import { FAMILIES, present } from '../ip/family.ts';
import { type Lease, leaseKey } from '../lease/lease.ts';
import { type LastKnown, lastKnownPath, parseLastKnown } from '../node-files/last-known.ts';
import type { ProbeTarget } from '../probe/ports.ts';

/** What there is to read on this host. */
export interface ViewHost {
  /** `undefined` when there is no such file. */
  readonly readText: (path: string) => Promise<string | undefined>;
  readonly links: (signal: AbortSignal) => Promise<readonly ViewLink[]>;
}

export interface ViewLink {
  readonly name: string;
  readonly mtuBytes: number;
  /** With their length; those of IPv6 may be left out. */
  readonly addresses: readonly string[];
}

/** What must be known of a backend beside what the files need. */
export interface ViewBackend extends BackendTraits {
  /** Devices that it makes; each has the first address of the subnet. @param tuns names for those of forwarders. */
  owns(config: unknown, tuns: readonly string[]): readonly unknown[];
}

/** A peer in one family. */
export interface PeerView extends ProbeTarget {
  readonly lease: Lease;
  readonly subnet: IpPrefix;
}

/** This host and its peers, as the agent has left them on file: it need not run. */
export interface HostView {
  readonly known: LastKnown;
  readonly peers: readonly PeerView[];
  /** Longest packet of the overlay. */
  readonly mtuBytes: number;
}

/** @throws WeftError WEFT_NOT_READY: no agent was ever ready here, or its files cannot be read. */
export async function readHostView(
  host: ViewHost,
  subnetFile: string,
  backends: (type: string) => ViewBackend | undefined,
  signal: AbortSignal,
): Promise<HostView> {
  const path = lastKnownPath(subnetFile);
  const [knownText, envText] = await Promise.all([host.readText(path), host.readText(subnetFile)]);
  if (knownText === undefined) {
    throw new WeftError('WEFT_NOT_READY', `the peers of this host are not known: there is no ${path}`, {
      hint: 'No agent has been ready on this host since it was set up, or it has another --subnet-file. See weft doctor.',
    });
  }
  const read = parseLastKnown(knownText, undefined, backends);
  if (read.kind !== 'read') {
    const reason = read.kind === 'unusable' ? read.reason : 'it is empty';
    throw new WeftError('WEFT_NOT_READY', `the peers of this host are not known: ${path}: ${reason}`, {
      hint: 'A running agent rewrites the file when its peers change. Restart it.',
    });
  }
  const named = (lease: Lease): Lease => {
    const holder = read.holders.get(leaseKey(lease));
    return holder === undefined ? lease : { ...lease, origin: { holder } };
  };
  const known = { ...read.known, peers: read.known.peers.map(named) };
  const links = await host.links(signal);
  const external = links.find(({ name }) => name === known.external.name);
  const underlayMtuBytes = external?.mtuBytes ?? 1_500;
  const subnet = known.own.subnets.ipv4;
  const device = links.find(
    ({ addresses }) => subnet !== undefined && addresses.includes(`${formatAddr(subnet.addr)}/32`),
  );
  const mtuBytes = (envText === undefined ? undefined : mtuOf(envText)) ?? device?.mtuBytes ?? underlayMtuBytes;
  const mtus = { mtuBytes, underlayMtuBytes };
  const { type, settings } = known.config.backend;
  const hasDevice = (backends(type)?.owns(settings, ['tun']).length ?? 0) > 0;
  return { known, mtuBytes, peers: known.peers.flatMap((peer) => viewsOf(known.own, peer, hasDevice, links, mtus)) };
}

function viewsOf(
  own: Lease,
  peer: Lease,
  hasDevice: boolean,
  links: readonly ViewLink[],
  mtus: Pick<ProbeTarget, 'mtuBytes' | 'underlayMtuBytes'>,
): PeerView[] {
  return FAMILIES.flatMap(({ key }) => {
    const [ownSubnet, subnet] = [own.subnets[key], peer.subnets[key]];
    if (ownSubnet === undefined || subnet === undefined) return [];
    const underlay = peer.attrs.publicAddresses[key];
    const overlay = hasDevice || isOnDevice(ownSubnet, links) ? subnet.addr : gatewayOf(subnet);
    return { id: formatPrefix(subnet), lease: peer, subnet, overlay, underlay, ...mtus };
  });
}

/** Whether a device has the first address of the subnet, as while a roll-out to a backend without devices goes on. */
function isOnDevice(subnet: IpPrefix, links: readonly ViewLink[]): boolean {
  return links.some(({ addresses }) => addresses.some((one) => parseAddr(one.split('/')[0]!) === subnet.addr));
}

/** The address of the bridge, which is the first that a container could have. */
export function gatewayOf({ addr }: IpPrefix): IpAddr {
  return nextAddr(addr);
}

function mtuOf(text: string): number | undefined {
  const value = Number(/^FLANNEL_MTU=(\d+)$/m.exec(text)?.[1]);
  return Number.isInteger(value) && value >= 576 ? value : undefined;
}

interface Called {
  readonly holder: string | undefined;
  readonly subnets: readonly IpPrefix[];
  /** Of its host: between the hosts, and in the overlay. */
  readonly addresses: readonly IpAddr[];
}

/** What a peer is called in every command: a subnet of it, an address in one, an address of its host, or its node. */
function isCalled(word: string, { holder, subnets, addresses }: Called): boolean {
  const addr = parseAddr(word);
  if (holder === word || subnets.some((subnet) => formatPrefix(subnet) === word)) return true;
  return addr !== undefined && (addresses.includes(addr) || subnets.some((subnet) => containsAddr(subnet, addr)));
}

/** The peer that a word means, in the family that it says, of a node the first. @throws WeftError WEFT_USAGE. */
export function peerOf({ peers }: HostView, word: string): PeerView {
  const peer = peers.find(({ overlay, underlay, subnet, lease }) =>
    isCalled(word, {
      ...{ holder: lease.origin?.holder, subnets: [subnet] },
      addresses: [overlay, ...(underlay === undefined ? [] : [underlay])],
    }),
  );
  if (peer !== undefined) return peer;
  throw new WeftError('WEFT_USAGE', `${JSON.stringify(word)} is not a peer of this host`, {
    hint: `Name a subnet, or an address of a container or a host; this host knows ${peers.length} peers.`,
  });
}

/** All that a peer has, of both families: its subnets, and its addresses between the hosts. `undefined`: there is no such peer. */
export function prefixesOfPeer({ known }: HostView, word: string): readonly IpPrefix[] | undefined {
  const found = known.peers.flatMap((lease) => {
    const subnets = present(lease.subnets);
    const addresses = present(lease.attrs.publicAddresses);
    if (!isCalled(word, { holder: lease.origin?.holder, subnets, addresses })) return [];
    return [...subnets, ...addresses.map((addr) => singlePrefix(addr))];
  });
  return found.length === 0 ? undefined : found;
}

/** `10.244.2.0/24 on 192.168.77.2`. */
export function describePeer({ id, underlay }: Pick<PeerView, 'id' | 'underlay'>): string {
  return underlay === undefined ? id : `${id} on ${formatAddr(underlay)}`;
}
