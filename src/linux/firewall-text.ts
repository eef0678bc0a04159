import { type FirewallText, suspectTables } from '../trafficmngr/forward-drops.ts';
import { readNftGeneration } from './nft-generation.ts';
import { run } from './run.ts';

const TIMEOUT_MS = 10_000;
/** By table, the chain that may drop what is for containers: Docker's raw one, from version 28 on, does. */
const LEGACY_CHAINS = [
  ['filter', 'FORWARD'],
  ['raw', 'PREROUTING'],
] as const;

/**
 * The firewall of this host, whoever made it. A program that is missing or fails says nothing. `iptables-legacy` and `ip6tables-legacy` are asked only where
 * the kernel has its tables: asking would make them.
 */
export class FirewallReader {
  readonly #readText: (path: string, signal: AbortSignal) => Promise<string | undefined>;
  /** What nf_tables had, and when. */
  #known: { readonly generation: number; readonly texts: readonly string[] } | undefined;

  constructor(readText: (path: string, signal: AbortSignal) => Promise<string | undefined>) {
    this.#readText = readText;
  }

  /** What nf_tables has is read once for each time that it has changed: programs are dear, and agents ask again and again. */
  async read(signal: AbortSignal): Promise<FirewallText> {
    const [nft, ipv4, ipv6] = await Promise.all([
      this.#nftTexts(signal),
      this.#legacy('iptables-legacy', '/proc/net/ip_tables_names', signal),
      this.#legacy('ip6tables-legacy', '/proc/net/ip6_tables_names', signal),
    ]);
    return { nft, legacy: { ipv4, ipv6 } };
  }

  async #legacy(program: string, tablesPath: string, signal: AbortSignal): Promise<string | undefined> {
    const tables = (await this.#readText(tablesPath, signal).catch(() => undefined))?.split('\n') ?? [];
    const texts: (string | undefined)[] = [];
    for (const [table, chain] of LEGACY_CHAINS) {
      if (tables.includes(table)) texts.push(await output([program, '-w', '5', '-t', table, '-S', chain], signal));
    }
    const known = texts.filter((text) => text !== undefined);
    return known.length === 0 ? undefined : known.join('\n');
  }

  async #nftTexts(signal: AbortSignal): Promise<readonly string[]> {
    // Before the reading: what changes meanwhile is read once more.
    const generation = readNftGeneration();
    if (generation !== undefined && generation === this.#known?.generation) return this.#known.texts;
    this.#known = undefined;
    const chains = await output(['nft', '-j', 'list', 'chains'], signal);
    if (chains === undefined) return [];
    const texts: (string | undefined)[] = [chains];
    for (const table of suspectTables(chains)) {
      texts.push(await output(['nft', '-j', 'list', 'table', ...table.split(' ')], signal));
    }
    const isWhole = generation !== undefined && !texts.includes(undefined);
    const said = texts.map((text) => text ?? '');
    if (isWhole) this.#known = { generation, texts: said };
    return said;
  }
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
