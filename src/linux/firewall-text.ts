import { type FirewallText, suspectTables } from '../trafficmngr/forward-drops.ts';
import { run } from './run.ts';

const TIMEOUT_MS = 10_000;

/**
 * The firewall of this host, whoever made it. A program that is missing or fails says nothing. `iptables-legacy` is asked only where
 * the kernel has its tables: asking would make them.
 */
export async function readFirewall(
  readText: (path: string) => Promise<string | undefined>,
  signal: AbortSignal,
): Promise<FirewallText> {
  const tables = await readText('/proc/net/ip_tables_names').catch(() => undefined);
  const [nft, legacyForward] = await Promise.all([
    nftTexts(signal),
    tables?.split('\n').includes('filter')
      ? output(['iptables-legacy', '-w', '5', '-S', 'FORWARD'], signal)
      : undefined,
  ]);
  return { nft, legacyForward };
}

async function nftTexts(signal: AbortSignal): Promise<string[]> {
  const chains = await output(['nft', '-j', 'list', 'chains'], signal);
  if (chains === undefined) return [];
  const texts = [chains];
  for (const table of suspectTables(chains)) {
    texts.push((await output(['nft', '-j', 'list', 'table', ...table.split(' ')], signal)) ?? '');
  }
  return texts;
}

async function output(argv: readonly string[], signal: AbortSignal): Promise<string | undefined> {
  try {
    const { stdout, exitCode } = await run(argv, { timeoutMs: TIMEOUT_MS, okExitCodes: 'any', signal });
    return exitCode === 0 ? stdout : undefined;
  } catch {
    signal.throwIfAborted();
    return undefined;
  }
}
