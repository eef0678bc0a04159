import { backendKind } from '../backend/registry.ts';
import type { FlanneldOptions } from '../config/flanneld-options.ts';
import { readLastKnown } from '../node-files/last-known.ts';
import { explainInterface } from './external-interface.ts';
import type { AgentHost } from './ports.ts';
import { describeStore } from './store-name.ts';

/** --explain-iface does not wait for a configuration that is not there. */
const CONFIG_MS = 5_000;

/**
 * Which interface an agent with these options would take, and why not the others. Without a readable network configuration
 * IPv4 alone is assumed.
 */
export async function explainForHost(
  host: AgentHost,
  options: FlanneldOptions,
  signal: AbortSignal,
): Promise<{ readonly text: string; readonly found: boolean }> {
  const { manager, nodeAddresses } = await host.openStore(() => {}, signal);
  await using _ = manager;
  const config = await manager.networkConfig(AbortSignal.any([signal, AbortSignal.timeout(CONFIG_MS)])).catch(() => {
    signal.throwIfAborted();
    return { ipv4: undefined, ipv6: undefined };
  });
  const known = await readLastKnown(options.subnetFile, describeStore(options), backendKind);
  const inUse = known.kind === 'read' ? known.known.external : undefined;
  const keep = { inUse, isRunning: false };
  const node = await nodeAddresses?.(signal);
  return await explainInterface({ readNetwork: host.readNetwork, options, config, node, keep }, signal);
}
