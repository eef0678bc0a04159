import type { OuterTraffic } from '../desired/outer-filter.ts';
import { containsAddr, formatPrefix, type IpAddr, type IpPrefix, prefixOf } from '../ip/address.ts';
import { carriedBy, type Flow, flowOf } from './flow.ts';
import type { PacketFilter } from './packet-filter.ts';

/** What a device is to the overlay: its own device, the bridge of containers, or the way to other hosts. */
export type CaptureRole = 'overlay' | 'containers' | 'underlay';

export interface CapturePeer {
  /** For people: its node, or its address between the hosts. */
  readonly name: string;
  readonly subnets: readonly IpPrefix[];
  /** Between the hosts. */
  readonly addresses: readonly IpAddr[];
}

export interface SelectionParts {
  readonly networks: readonly IpPrefix[];
  /** This host's. */
  readonly subnets: readonly IpPrefix[];
  readonly peers: readonly CapturePeer[];
  /** What of the underlay belongs to the tunnel. */
  readonly tunnel: readonly OuterTraffic[];
  /** Packets of the overlay also pass between the hosts without a tunnel. */
  readonly isDirect: boolean;
  /** A program in the driver takes the tunnel's headers off, of some packets, before the underlay's device shows them. */
  readonly isUnwrapped: boolean;
  readonly filter: PacketFilter | undefined;
}

/** `comment` names the peer, where it is known. */
export interface Selected {
  readonly comment: string | undefined;
}

const UNWRAPPED = 'XDP has removed the tunnel’s headers';
const UDP = 17;
const IP_IN_IP: readonly number[] = [4, 41];

/** Which frames of a host belong to its overlay, and to which peer. */
export class Selection {
  readonly #parts: SelectionParts;
  readonly #byAddress = new Map<IpAddr, CapturePeer>();
  /** By length, then by the prefix's address: thousands of peers are not looked through for each packet. */
  readonly #bySubnet = new Map<number, Map<IpAddr, CapturePeer>>();

  constructor(parts: SelectionParts) {
    this.#parts = parts;
    for (const peer of parts.peers) {
      for (const address of peer.addresses) this.#byAddress.set(address, peer);
      for (const { addr, length } of peer.subnets) {
        const ofLength = this.#bySubnet.get(length) ?? new Map<IpAddr, CapturePeer>();
        this.#bySubnet.set(length, ofLength.set(addr, peer));
      }
    }
  }

  /** `undefined` when the frame is none of the overlay's, or the filter does not want it. */
  select(role: CaptureRole, linkType: 'ethernet' | 'raw', bytes: Uint8Array): Selected | undefined {
    const { filter } = this.#parts;
    const flow = flowOf(linkType, bytes);
    // Such as ARP on a VXLAN device: it is the overlay's, and no filter has a word for it.
    if (flow === undefined) return role === 'overlay' && filter === undefined ? { comment: undefined } : undefined;
    if (role === 'underlay' && this.#isTunnel(flow)) {
      if (filter?.(carriedBy(flow) ?? flow) === false) return undefined;
      return { comment: describe(flow, (addr) => this.#byAddress.get(addr)) ?? 'no known peer' };
    }
    const { isDirect, isUnwrapped } = this.#parts;
    if (role === 'underlay' && !isDirect && !isUnwrapped) return undefined;
    if ((role !== 'overlay' && !this.#isOverlay(flow)) || filter?.(flow) === false) return undefined;
    const comment = describe(flow, (addr) => this.#peerOf(addr));
    if (role !== 'underlay' || isDirect) return { comment };
    return { comment: [comment ?? 'no known peer', UNWRAPPED].join('; ') };
  }

  #isTunnel({ protocol, ports, isFragment, source, destination }: Flow): boolean {
    return this.#parts.tunnel.some((traffic) => {
      if (traffic.protocol === 'ipip') return IP_IN_IP.includes(protocol);
      if (protocol !== UDP) return false;
      // A later fragment has no ports: those between this host and a peer are most likely the tunnel's.
      if (isFragment) return this.#byAddress.has(source) || this.#byAddress.has(destination);
      return ports?.source === traffic.port || ports?.destination === traffic.port;
    });
  }

  /** Between two hosts: what stays among the containers of this one is not. */
  #isOverlay({ source, destination }: Flow): boolean {
    const { networks, subnets } = this.#parts;
    const isInside = (addr: IpAddr): boolean => networks.some((prefix) => containsAddr(prefix, addr));
    const isOwn = (addr: IpAddr): boolean => subnets.some((prefix) => containsAddr(prefix, addr));
    return (isInside(source) && !isOwn(source)) || (isInside(destination) && !isOwn(destination));
  }

  #peerOf(addr: IpAddr): CapturePeer | undefined {
    for (const [length, peers] of this.#bySubnet) {
      if (typeof addr === 'number' && length > 32) continue;
      const peer = peers.get(prefixOf(addr, length).addr);
      if (peer !== undefined) return peer;
    }
    return undefined;
  }
}

function describe(
  { source, destination }: Flow,
  peerOf: (addr: IpAddr) => CapturePeer | undefined,
): string | undefined {
  const to = peerOf(destination);
  if (to !== undefined) return `to ${describePeer(to)}`;
  const from = peerOf(source);
  return from && `from ${describePeer(from)}`;
}

function describePeer({ name, subnets }: CapturePeer): string {
  return `${name} (${subnets.map(formatPrefix).join(' ')})`;
}
