import { type FirewallText, suspectTables } from '../trafficmngr/forward-drops.ts';
import { run } from './run.ts';

const TIMEOUT_MS = 10_000;

/**
 * The firewall of this host, whoever made it. A program that is missing or fails says nothing. `iptables-legacy` and `ip6tables-legacy` are asked only where
 * the kernel has its tables: asking would make them.
 */
export async function readFirewall(
  readText: (path: string) => Promise<string | undefined>,
  signal: AbortSignal,
): Promise<FirewallText> {
  const legacy = async (program: string, tablesPath: string): Promise<string | undefined> => {
    const tables = await readText(tablesPath).catch(() => undefined);
    if (tables?.split('\n').includes('filter') !== true) return undefined;
    return await output([program, '-w', '5', '-S', 'FORWARD'], signal);
  };
  const [nft, ipv4, ipv6] = await Promise.all([
    nftTexts(signal),
    legacy('iptables-legacy', '/proc/net/ip_tables_names'),
    legacy('ip6tables-legacy', '/proc/net/ip6_tables_names'),
  ]);
  return { nft, legacyForward: { ipv4, ipv6 } };
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
