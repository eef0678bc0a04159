import { OUTER_FILTER_PREFIX, type OuterFilter, type OuterTraffic } from '../desired/outer-filter.ts';
import { formatAddr, type IpAddr, isIpv4 } from '../ip/address.ts';
import { isCommandMissing, run } from './run.ts';

export interface OuterFilterOptions {
  /** Name of a network namespace to work in. */
  readonly netns?: string | undefined;
}

const TIMEOUT_MS = 60_000;

/**
 * Filters of tunnelled packets by their outer source, as a table of nftables each; beside iptables rules as well, for both are asked.
 * What is dropped here reaches neither the tunnel device nor a socket.
 */
export class OuterFilters {
  readonly #netns: string | undefined;

  constructor(options: OuterFilterOptions = {}) {
    this.#netns = options.netns;
  }

  /** Makes it anew, in one transaction. @throws WeftError WEFT_COMMAND_…, for instance when there is no nft. */
  async replace({ name, traffic, sources }: OuterFilter, signal: AbortSignal): Promise<void> {
    const set = (family: 4 | 6): string => {
      const elements = sources.filter((source) => isIpv4(source) === (family === 4)).map(formatAddr);
      const list = elements.length === 0 ? '' : ` elements = { ${[...new Set(elements)].join(', ')} }`;
      return `  set peers${family} { type ipv${family}_addr;${list} }`;
    };
    await this.#nft(
      [
        `add table inet ${name}`,
        `delete table inet ${name}`,
        `table inet ${name} {`,
        set(4),
        set(6),
        '  chain input {',
        // Before the filters of others, so that none of theirs lets it in first.
        '    type filter hook input priority -10; policy accept;',
        ...traffic.flatMap(rulesFor).map((rule) => `    ${rule} counter drop`),
        '  }',
        '}',
      ],
      signal,
    );
  }

  /** @throws WeftError WEFT_COMMAND_FAILED when the table is not as it was left. */
  async change(name: string, added: readonly IpAddr[], removed: readonly IpAddr[], signal: AbortSignal): Promise<void> {
    const lines = (verb: string, addresses: readonly IpAddr[]): string[] =>
      addresses.map((addr) => `${verb} element inet ${name} peers${isIpv4(addr) ? 4 : 6} { ${formatAddr(addr)} }`);
    await this.#nft([...lines('add', added), ...lines('delete', removed)], signal);
  }

  /** Of all that there are; where there is no nft, nobody has made any. */
  async names(signal: AbortSignal): Promise<readonly string[]> {
    const stdout = await this.#list(signal);
    return [...stdout.matchAll(/^table inet (\S+)$/gm)].flatMap(([, name = '']) =>
      name.startsWith(OUTER_FILTER_PREFIX) ? name : [],
    );
  }

  async remove(name: string, signal: AbortSignal): Promise<void> {
    await this.#nft([`add table inet ${name}`, `delete table inet ${name}`], signal);
  }

  async #list(signal: AbortSignal): Promise<string> {
    try {
      return (await run(['nft', 'list', 'tables', 'inet'], this.#options(signal))).stdout;
    } catch (error) {
      if (isCommandMissing(error)) return '';
      throw error;
    }
  }

  async #nft(lines: readonly string[], signal: AbortSignal): Promise<void> {
    await run(['nft', '-f', '-'], { ...this.#options(signal), stdin: `${lines.join('\n')}\n` });
  }

  #options(signal: AbortSignal) {
    return { netns: this.#netns, timeoutMs: TIMEOUT_MS, signal };
  }
}

function rulesFor(traffic: OuterTraffic): readonly string[] {
  if (traffic.protocol === 'ipip') return ['ip protocol 4 ip saddr != @peers4'];
  const port = `udp dport ${traffic.port}`;
  return [`${port} ip saddr != @peers4`, `${port} ip6 saddr != @peers6`];
}
