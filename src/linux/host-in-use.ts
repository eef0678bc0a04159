import { describeHolders, nodeAgents, tunHolders } from './proc-net.ts';
import { run } from './run.ts';

const TIMEOUT_MS = 10_000;

/**
 * Who uses what agents make on this host: the agents in this network namespace, and what is attached to TUN devices
 * of these names; `undefined` when nobody does. An agent in a pid namespace that cannot be seen from here shows in its device.
 */
export async function hostInUse(tunNames: readonly string[], signal: AbortSignal): Promise<string | undefined> {
  const known = [...nodeAgents(), ...tunNames.flatMap(tunHolders)];
  const attached = await Promise.all(tunNames.map((name) => isAttached(name, signal)));
  if (known.length === 0 && !attached.includes(true)) return undefined;
  return describeHolders(known);
}

/** A TUN device that is up has a carrier while a process is attached to it (tun_attach in drivers/net/tun.c). */
async function isAttached(tunName: string, signal: AbortSignal): Promise<boolean> {
  const { stdout } = await run(['ip', '-o', 'link', 'show', 'dev', tunName], {
    okExitCodes: 'any',
    timeoutMs: TIMEOUT_MS,
    signal,
  });
  return /<[^>]*\bLOWER_UP\b[^>]*>/.test(stdout);
}
