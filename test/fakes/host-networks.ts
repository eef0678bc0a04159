import assert from 'node:assert/strict';
import type { InterfaceAddress, InterfaceRequest, NetworkInterface } from '../../src/config/choose-interface.ts';
import { parseAddr } from '../../src/ip/address.ts';

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
  publicIp: undefined,
  publicIpv6: undefined,
};
