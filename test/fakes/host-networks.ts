import assert from 'node:assert/strict';
import { parseAddr } from '../../src/ip/address.ts';
import type { Addresses } from '../../src/ip/family.ts';
import { parseIpv4 } from '../../src/ip/ipv4.ts';
import { parseIpv6 } from '../../src/ip/ipv6.ts';
import type { InterfaceAddress, NetworkInterface } from '../../src/underlay/host-network.ts';
import type { InterfaceRequest } from '../../src/underlay/interface-choice.ts';

/** `10.0.0.1`, with words behind it: `fd00::5 dynamic temporary deprecated`. */
export function interfaceAddress(text: string): InterfaceAddress {
  const [addr = '', ...flags] = text.split(' ');
  return {
    addr: parseAddr(addr) ?? assert.fail(text),
    prefixLength: addr.includes(':') ? 64 : 24,
    dynamic: flags.includes('dynamic'),
    temporary: flags.includes('temporary'),
    deprecated: flags.includes('deprecated'),
  };
}

/** One of each family at most. */
export function addresses(...texts: readonly string[]): Addresses {
  const [ipv4, ipv6] = [false, true].map((is6) => texts.find((text) => text.includes(':') === is6));
  return {
    ipv4: ipv4 === undefined ? undefined : (parseIpv4(ipv4) ?? assert.fail(ipv4)),
    ipv6: ipv6 === undefined ? undefined : (parseIpv6(ipv6) ?? assert.fail(ipv6)),
  };
}

export function networkInterface(
  name: string,
  addresses: readonly string[],
  change: Partial<NetworkInterface> = {},
): NetworkInterface {
  return { index: 2, name, mtuBytes: 1500, up: true, addresses: addresses.map(interfaceAddress), ...change };
}

/** Nothing named: the interface of the default route. */
export const NOTHING_ASKED: InterfaceRequest = {
  stack: 'ipv4',
  iface: [],
  ifaceRegex: [],
  ifaceCanReach: undefined,
  elseDefault: false,
  allowLoopback: false,
  nodeIps: undefined,
  publicAddresses: addresses(),
};
