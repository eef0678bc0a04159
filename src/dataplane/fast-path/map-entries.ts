/** Keys and values of the maps of the fast path, as bytes. */
import { type IpAddr, isIpv4 } from '../../ip/address.ts';
import { putIpv6 } from '../../ip/ipv6.ts';
import { containsPrefix4, containsPrefix6, type Ipv4Prefix, type Ipv6Prefix, mask4, mask6 } from '../../ip/prefix.ts';
import type { Peer, PeerTableContent } from '../peer-table.ts';
import type { Slot } from '../peer-table-layout.ts';
import {
  COUNTER_KEY_BYTES,
  OWN_SUBNET,
  OWN_VALUE_BYTES,
  OWN_VALUE_BYTES_6,
  SUBNET_KEY_BYTES,
  SUBNET_KEY_BYTES_6,
} from './layout.ts';

/** A subnet in the map of its family; by its key, which families have of different lengths. */
export interface SubnetEntry {
  readonly map: 'subnets' | 'subnets6';
  readonly key: Uint8Array;
}

/** A key as text, by which entries are told apart. */
export const nameOf = (key: Uint8Array): string => Buffer.from(key).toString('hex');

function subnet4({ addr, length }: Ipv4Prefix): SubnetEntry {
  const key = new DataView(new ArrayBuffer(SUBNET_KEY_BYTES));
  key.setUint32(0, length, true);
  key.setUint32(4, addr);
  return { map: 'subnets', key: new Uint8Array(key.buffer) };
}

function subnet6({ addr, length }: Ipv6Prefix): SubnetEntry {
  const key = new DataView(new ArrayBuffer(SUBNET_KEY_BYTES_6));
  key.setUint32(0, length, true);
  putIpv6(key, 4, addr);
  return { map: 'subnets6', key: new Uint8Array(key.buffer) };
}

/** Value of the map that has this host's own subnet of IPv4: the subnet and its mask. */
export function own4({ addr, length }: Ipv4Prefix): Uint8Array {
  const view = new DataView(new ArrayBuffer(OWN_VALUE_BYTES));
  view.setUint32(OWN_SUBNET, addr);
  view.setUint32(OWN_VALUE_BYTES / 2, mask4(length));
  return new Uint8Array(view.buffer);
}

/** The same of IPv6. */
export function own6({ addr, length }: Ipv6Prefix): Uint8Array {
  const view = new DataView(new ArrayBuffer(OWN_VALUE_BYTES_6));
  putIpv6(view, OWN_SUBNET, addr);
  putIpv6(view, OWN_VALUE_BYTES_6 / 2, mask6(length));
  return new Uint8Array(view.buffer);
}

/** What of a peer's lies in the network, in each family. */
export function subnetsOf({ subnets: { ipv4, ipv6 } }: Peer, networks: PeerTableContent): SubnetEntry[] {
  const is4 = ipv4 !== undefined && networks.ipv4 !== undefined && containsPrefix4(networks.ipv4.network, ipv4);
  const is6 = ipv6 !== undefined && networks.ipv6 !== undefined && containsPrefix6(networks.ipv6.network, ipv6);
  return [...(is4 ? [subnet4(ipv4)] : []), ...(is6 ? [subnet6(ipv6)] : [])];
}

/** Key of the maps that have what is known of a host, and what is granted to it. */
export function hostKey(host: IpAddr): Uint8Array {
  const key = new DataView(new ArrayBuffer(isIpv4(host) ? 4 : 16));
  putHost(key, 0, host);
  return new Uint8Array(key.buffer);
}

/** Writes the address of a host into a value, in network order. */
export function putHost(view: DataView, offset: number, host: IpAddr): void {
  if (isIpv4(host)) view.setUint32(offset, host);
  else putIpv6(view, offset, host);
}

/** Key of the map that has what the programs have counted of a peer. */
export function counterKey(slot: Slot): Uint8Array {
  const key = new DataView(new ArrayBuffer(COUNTER_KEY_BYTES));
  key.setUint32(0, slot, true);
  return new Uint8Array(key.buffer);
}
