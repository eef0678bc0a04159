import { WeftError } from '../errors.ts';
import type { IpFamily, IpPrefix } from '../ip/address.ts';
import {
  type ActualNftTable,
  FULLY_RANDOM_PROBE,
  hasOthers,
  parseNftTable,
  planNftTable,
  tableName,
} from '../trafficmngr/nftables/plan.ts';
import { nftFamily } from '../trafficmngr/nftables/script.ts';
import {
  type FamilyRules,
  NO_RULES,
  rulesOf,
  type TrafficRule,
  type TrafficRules,
  withoutFullyRandom,
} from '../trafficmngr/rules.ts';
import type { Removal, Repair, TrafficManager } from '../trafficmngr/traffic-manager.ts';
import { RightRules, readNftGeneration } from './nft-generation.ts';
import { isCommandMissing, run } from './run.ts';

export interface NftablesOptions {
  /** Name of a network namespace to work in. */
  readonly netns?: string | undefined;
}

const FAMILIES: readonly IpFamily[] = [4, 6];

/** Agents that change the same table at the same time make a transaction fail; then we look again. */
const ATTEMPTS = 3;

/** No command takes that long; one that hangs must not end the checks for good. */
const COMMAND_TIMEOUT_MS = 60_000;

/**
 * Traffic rules as native nftables, in flannel's two tables. Needs nft 1.0.1 or later and no iptables program.
 * Each family is one transaction of `nft -f -`.
 */
export class NftablesTrafficManager implements TrafficManager {
  readonly kind = 'nftables';
  readonly #netns: string | undefined;
  #fullyRandom: boolean | undefined;
  readonly #rules = new RightRules<TrafficRules>();

  constructor(options: NftablesOptions = {}) {
    this.#netns = options.netns;
  }

  async probe(_families: readonly IpFamily[], signal?: AbortSignal): Promise<void> {
    await this.#nft(['-j', 'list', 'tables'], undefined, signal);
  }

  async ensure(wanted: TrafficRules, signal?: AbortSignal): Promise<readonly Repair[]> {
    const generation = this.#netns === undefined ? readNftGeneration() : undefined;
    return await this.#rules.unlessRight(wanted, generation, () => this.#ensureTables(wanted, signal));
  }

  async #ensureTables(wanted: TrafficRules, signal?: AbortSignal): Promise<readonly Repair[]> {
    const repairs: Repair[] = [];
    for (const family of FAMILIES) {
      const wantedRules = rulesOf(wanted, family);
      try {
        const rules = await this.#supported(wantedRules, signal);
        repairs.push(...(await this.#ensureTable(family, rules, wanted.networks, signal)));
      } catch (error) {
        // The empty table of a family not in use is there only because flannel has it; a kernel without that family
        // must not keep the other one from working.
        if (signal?.aborted || isCommandMissing(error) || !isEmpty(wantedRules)) throw error;
      }
    }
    return repairs;
  }

  async #ensureTable(
    family: IpFamily,
    rules: FamilyRules,
    networks: readonly IpPrefix[],
    signal?: AbortSignal,
  ): Promise<readonly Repair[]> {
    for (let attempt = 1; ; attempt++) {
      const { script, repairs } = planNftTable(family, rules, networks, await this.#list(family, signal));
      try {
        if (script !== '') await this.#nft(['-f', '-'], script, signal);
        return repairs;
      } catch (error) {
        if (attempt === ATTEMPTS || isCommandMissing(error) || signal?.aborted) throw error;
      }
    }
  }

  async withdraw(networks: readonly IpPrefix[], signal?: AbortSignal): Promise<Removal> {
    try {
      const tables = await Promise.all(FAMILIES.map((family) => this.#list(family, signal)));
      if (!tables.some((table) => table !== undefined && hasOthers(table, networks))) return await this.remove(signal);
      const removed: string[] = [];
      for (const [i, family] of FAMILIES.entries()) {
        if (tables[i] === undefined) continue;
        const repairs = await this.#ensureTable(family, NO_RULES, networks, signal);
        removed.push(...repairs.map(({ where, rule }) => (rule === undefined ? where : `${where} ${rule}`)));
      }
      return { removed, unavailable: [] };
    } catch (error) {
      if (isCommandMissing(error)) return { removed: [], unavailable: ['nft'] };
      throw error;
    }
  }

  async remove(signal?: AbortSignal): Promise<Removal> {
    const removed: string[] = [];
    try {
      for (const family of FAMILIES) {
        if ((await this.#list(family, signal)) === undefined) continue;
        const table = `${nftFamily(family)} ${tableName(family)}`;
        const text = await this.#nft(['list', 'table', nftFamily(family), tableName(family)], undefined, signal);
        // Adding first makes the deletion succeed when somebody else was faster.
        await this.#nft(['-f', '-'], `add table ${table}\ndelete table ${table}\n`, signal);
        removed.push(...textLines(text));
      }
    } catch (error) {
      if (isCommandMissing(error)) return { removed, unavailable: ['nft'] };
      throw error;
    }
    return { removed, unavailable: [] };
  }

  async read(signal?: AbortSignal): Promise<readonly string[]> {
    const lines: string[] = [];
    try {
      for (const family of FAMILIES) {
        if ((await this.#list(family, signal)) === undefined) continue;
        lines.push(
          ...textLines(await this.#nft(['list', 'table', nftFamily(family), tableName(family)], undefined, signal)),
        );
      }
    } catch (error) {
      if (!isCommandMissing(error)) throw error;
    }
    return lines;
  }

  async #supported(rules: FamilyRules, signal?: AbortSignal): Promise<FamilyRules> {
    if (!rules.masquerade.some(isFullyRandom) || (await this.#knowsFullyRandom(signal))) return rules;
    return { ...rules, masquerade: withoutFullyRandom(rules.masquerade) };
  }

  /** Asked once, for both families, as flannel does. */
  async #knowsFullyRandom(signal?: AbortSignal): Promise<boolean> {
    if (this.#fullyRandom === undefined) {
      const argv = ['nft', '--check', '-f', '-'];
      const { exitCode } = await run(argv, {
        stdin: FULLY_RANDOM_PROBE,
        okExitCodes: 'any',
        signal,
        timeoutMs: COMMAND_TIMEOUT_MS,
        netns: this.#netns,
      });
      this.#fullyRandom = exitCode === 0;
    }
    return this.#fullyRandom;
  }

  /** `undefined`: there is no such table. */
  async #list(family: IpFamily, signal?: AbortSignal): Promise<ActualNftTable | undefined> {
    const argv = ['nft', '-j', 'list', 'table', nftFamily(family), tableName(family)];
    const { stdout, stderr, exitCode } = await run(argv, {
      okExitCodes: 'any',
      signal,
      timeoutMs: COMMAND_TIMEOUT_MS,
      netns: this.#netns,
    });
    if (exitCode !== 0) {
      if (/No such file or directory/.test(stderr) && !/exec of "nft" failed/.test(stderr)) return undefined;
      // Again with errors as errors: this also recognises a program that is missing in the namespace.
      await this.#nft(argv.slice(1), undefined, signal);
    }
    const table = parseNftTable(parseJson(stdout));
    if (table !== undefined) return table;
    throw new WeftError('WEFT_TRAFFIC_RULES', `${argv.join(' ')}: cannot parse its output: ${stdout.slice(0, 200)}`, {
      hint: 'nft must be 1.0.1 or later and built with JSON support.',
    });
  }

  async #nft(args: readonly string[], stdin: string | undefined, signal?: AbortSignal): Promise<string> {
    try {
      return (await run(['nft', ...args], { stdin, signal, timeoutMs: COMMAND_TIMEOUT_MS, netns: this.#netns })).stdout;
    } catch (error) {
      if (!(error instanceof WeftError) || error.code !== 'WEFT_COMMAND_FAILED') throw error;
      throw new WeftError('WEFT_TRAFFIC_RULES', `traffic rules through nft: ${error.message}`, {
        hint: hintFor(error.message),
        cause: error,
      });
    }
  }
}

function isFullyRandom({ action }: TrafficRule): boolean {
  return action.type === 'masquerade' && action.fullyRandom;
}

function isEmpty(rules: FamilyRules): boolean {
  return Object.values(rules).every((chain) => chain.length === 0);
}

function textLines(text: string): readonly string[] {
  return text.split('\n').filter((line) => line !== '');
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

function hintFor(output: string): string {
  if (/Operation not permitted|must be root/.test(output)) {
    return 'The agent needs root, or the capability NET_ADMIN in its container.';
  }
  if (/Operation not supported|No such file or directory/.test(output)) {
    return (
      'The kernel lacks a module that the rules need: load nf_tables, nft_chain_nat and nft_masq, with --notrack-tunnel nft_ct too, or leave EnableNFTables ' +
      'unset to use iptables.'
    );
  }
  return 'nft 1.0.1 or later is required. `nft list ruleset` shows the current rules.';
}
