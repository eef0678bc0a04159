import { formatAddr, type IpAddr, isIpv4 } from '../ip/address.ts';
import type { PerFamily } from '../ip/family.ts';

/** One address of an interface, as far as its choice depends on it. */
export interface InterfaceAddress {
  readonly addr: IpAddr;
  /** Of the prefix that is on its link. */
  readonly prefixLength: number;
  /** Leased (DHCP, router advertisement), not set for good. */
  readonly dynamic: boolean;
  /** RFC 8981. */
  readonly temporary: boolean;
  readonly deprecated: boolean;
}

export interface NetworkInterface {
  readonly index: number;
  readonly name: string;
  readonly mtuBytes: number;
  readonly up: boolean;
  /** In the kernel's order. */
  readonly addresses: readonly InterfaceAddress[];
}

/** The kernel's answer to "how does a packet to this address leave?". */
export type RouteLookup =
  | { readonly ok: true; readonly dev: string; readonly source: IpAddr | undefined }
  | { readonly ok: false; readonly error: string };

/** What linux/interfaces.ts reads. */
export interface HostNetwork {
  /** In the kernel's order. */
  readonly interfaces: readonly NetworkInterface[];
  /** Device names of the default routes, in the kernel's order. */
  readonly defaultDevices: PerFamily<readonly string[]>;
  /** For `ifaceCanReach`, when that was asked for. */
  readonly canReach: RouteLookup | undefined;
}

/** What an interface may be used with: global and link-local unicast addresses in the order of preference. */
export function usableAddresses(candidate: NetworkInterface): InterfaceAddress[] {
  // Stable: equals stay in the kernel's order.
  return candidate.addresses
    .filter((address) => !address.deprecated && scopeRank(address.addr) !== undefined)
    .sort(
      (a, b) =>
        scopeRank(a.addr)! - scopeRank(b.addr)! ||
        Number(a.dynamic) - Number(b.dynamic) ||
        Number(a.temporary) - Number(b.temporary),
    );
}

/** Global unicast as Go's net.IP.IsGlobalUnicast has it (private addresses are global): 0, link-local: 1. */
function scopeRank(addr: IpAddr): 0 | 1 | undefined {
  if (isIpv4(addr)) {
    const first = addr >>> 24;
    if (addr === 0 || addr === 0xffffffff || first === 127 || (first >= 224 && first <= 239)) return undefined;
    return addr >>> 16 === 0xa9fe ? 1 : 0;
  }
  if (addr <= 1n || addr >> 120n === 0xffn) return undefined;
  return addr >> 118n === 0x3fan ? 1 : 0;
}

/** Any address of it, whatever its scope. */
export function owns(candidate: NetworkInterface, addr: IpAddr): boolean {
  return candidate.addresses.some((address) => address.addr === addr);
}

/** In the kernel's order. */
export function addressTexts(candidate: NetworkInterface): string[] {
  return candidate.addresses.map((address) => formatAddr(address.addr));
}
