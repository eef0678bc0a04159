import type { IpAddr } from '../ip/address.ts';
import { type Addresses, FAMILIES, type Family, type FamilyKey } from '../ip/family.ts';
import type { NetworkInterface } from './host-network.ts';

/** The families of the network. */
export type IpStack = FamilyKey | 'dual';

/** IPv4 first. */
export function familiesOf(stack: IpStack): readonly Family[] {
  return FAMILIES.filter(({ key }) => stack === 'dual' || stack === key);
}

/** What was asked for: the flags of the same names. */
export interface InterfaceRequest {
  readonly stack: IpStack;
  /** Names or addresses. */
  readonly iface: readonly string[];
  readonly ifaceRegex: readonly RegExp[];
  readonly ifaceCanReach: IpAddr | undefined;
  /** What was named may be missing: then the interface of the default route will do. */
  readonly elseDefault: boolean;
  /** --iface-allow-loopback */
  readonly allowLoopback: boolean;
  /** The Node's InternalIPs for --iface-from-node-ip; `undefined` when that was not asked for. */
  readonly nodeIps: readonly IpAddr[] | undefined;
  readonly publicAddresses: Addresses;
}

export interface RejectedInterface {
  readonly name: string;
  /** Each address in text, for the table. */
  readonly addresses: readonly string[];
  readonly why: string;
}

export interface ChosenInterface {
  readonly found: true;
  /** It was found by the default route. */
  readonly byDefault: boolean;
  readonly interface: NetworkInterface;
  /** Own addresses on it: present for the families of the stack. */
  readonly addresses: Addresses;
  /** What the other nodes use: --public-ip and --public-ipv6, or the above. */
  readonly publicAddresses: Addresses;
  readonly why: string;
  /** What was tried before it in vain: flannel's `Could not find valid interface matching <what>: <error>`. */
  readonly failures: readonly { readonly what: string; readonly error: string }[];
  readonly rejected: readonly RejectedInterface[];
}

export interface NoInterface {
  readonly found: false;
  /** Flannel's sentence. */
  readonly reason: string;
  readonly failures: readonly { readonly what: string; readonly error: string }[];
  readonly rejected: readonly RejectedInterface[];
}

export type InterfaceChoice = ChosenInterface | NoInterface;
