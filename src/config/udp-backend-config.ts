import { readBackendKeys, UDP_KEYS } from './backend-keys.ts';
import { configInvalid } from './config-problem.ts';
import type { NetworkConfig } from './network-config.ts';

/** flannel's port; a peer sends to its own configured port, so all nodes of a network must agree on it. */
export const UDP_DEFAULT_PORT = 8285;

export interface UdpBackendConfig {
  /** UDP port to listen on and to send to, 1 … 65535. */
  readonly port: number;
  /** MTU of the network between the hosts, instead of the external interface's; the tunnel's is 28 bytes less. */
  readonly mtuBytes: number | undefined;
}

/**
 * The udp backend's part of net-conf.json: `Port` (flannel) and `MTU` (weft).
 *
 * @throws WeftError WEFT_CONFIG_INVALID with every wrong key. flannel takes port 0 and then listens on a port nobody
 * sends to; here it is refused.
 */
export function parseUdpBackendConfig(
  config: Pick<NetworkConfig, 'backend'>,
  source = 'the network configuration',
): UdpBackendConfig {
  const { values, problems } = readBackendKeys(config.backend, UDP_KEYS);
  if (problems.length > 0) throw configInvalid(source, problems);
  return Object.freeze({ port: values.Port ?? UDP_DEFAULT_PORT, mtuBytes: values.MTU });
}
