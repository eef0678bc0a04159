import { WeftError } from '../errors.ts';
import type { IpFamily, IpPrefix } from '../ip/address.ts';
import { type IptablesCapabilities, iptablesCapabilities } from '../trafficmngr/iptables/capabilities.ts';
import {
  type ActualChain,
  actualChain,
  CHAINS,
  type ChainSpec,
  parseSave,
  planChain,
  planRemoval,
  planWithdrawal,
  type RemovalPlan,
  restorePayload,
  type SavedTable,
} from '../trafficmngr/iptables/plan.ts';
import { field, type Json, nftFamily } from '../trafficmngr/nftables/script.ts';
import { rulesOf, type TrafficRules, withoutFullyRandom } from '../trafficmngr/rules.ts';
import type { Removal, Repair, TrafficManager } from '../trafficmngr/traffic-manager.ts';
import { RightRules, readNftGeneration } from './nft-generation.ts';
import { isCommandMissing, run } from './run.ts';

export interface IptablesOptions {
  /** Name of a network namespace to work in. */
  readonly netns?: string | undefined;
  /** Whose rules; those of the host's `iptables` by default. */
  readonly flavour?: IptablesFlavour | undefined;
}

/** The two worlds of iptables rules (iptables 1.8 and later). Neither sees the other's. */
export type IptablesFlavour = 'nft' | 'legacy';

type PlanRemoval = (spec: ChainSpec, saved: SavedTable | undefined) => RemovalPlan;

const FAMILIES: readonly IpFamily[] = [4, 6];

/** How long to wait for the lock that the legacy flavour takes; kube-proxy holds it for seconds in large clusters. */
const LOCK_WAIT_SECONDS = 30;

/** Programs that change rules at the same time make a commit fail; then we look again. */
const ATTEMPTS = 3;

/** No command takes that long; one that hangs must not end the checks for good. */
const COMMAND_TIMEOUT_MS = 60_000;

/**
 * Traffic rules through the iptables programs, in whichever flavour (nft or legacy) the host's `iptables` is.
 *
 * Checking reads flannel's chains and the two built-in ones (`iptables -S CHAIN`): with 20,000 rules of kube-proxy that
 * takes 5 ms where `iptables-save` takes 200. Changes go through `iptables-restore --noflush`.
 */
export class IptablesTrafficManager implements TrafficManager {
  readonly kind = 'iptables';
  readonly #netns: string | undefined;
  readonly #suffix: string;
  #capabilities: IptablesCapabilities | undefined;
  readonly #rules = new RightRules<TrafficRules>();
  /** Chains known to have nothing of ours; unwanted ones are looked for once and not on every check. */
  readonly #absent = new Set<string>();

  constructor(options: IptablesOptions = {}) {
    this.#netns = options.netns;
    this.#suffix = options.flavour === undefined ? '' : `-${options.flavour}`;
  }

  async probe(families: readonly IpFamily[], signal?: AbortSignal): Promise<void> {
    for (const family of families) await this.#save(family, signal);
  }

  async ensure(wanted: TrafficRules, signal?: AbortSignal): Promise<readonly Repair[]> {
    const { isNft } = await this.#detect(signal);
    const generation = isNft && this.#netns === undefined ? readNftGeneration() : undefined;
    return await this.#rules.unlessRight(wanted, generation, async () => {
      const repairs: Repair[] = [];
      for (const family of FAMILIES) repairs.push(...(await this.#ensureFamily(family, wanted, signal)));
      return repairs;
    });
  }

  async remove(signal?: AbortSignal): Promise<Removal> {
    return await this.#removeAll(planRemoval, signal);
  }

  /** Without iptables, the rules of one agent cannot be told from another's: all go, and who wants some sets them again. */
  async withdraw(networks: readonly IpPrefix[], signal?: AbortSignal): Promise<Removal> {
    return await this.#removeAll((spec, saved) => planWithdrawal(spec, saved, networks), signal);
  }

  async #removeAll(plan: PlanRemoval, signal?: AbortSignal): Promise<Removal> {
    const removed: string[] = [];
    const unavailable: string[] = [];
    for (const family of FAMILIES) {
      try {
        removed.push(...(await this.#removeChains(family, CHAINS, plan, signal)));
      } catch (error) {
        if (!isCommandMissing(error)) throw error;
        unavailable.push(this.#program(family));
        // Rules of the nft flavour are nft's as well: an agent in nftables mode finds them without any iptables.
        try {
          removed.push(...(await this.#removeWithNft(family, signal)));
        } catch (nftError) {
          if (!isCommandMissing(nftError)) throw nftError;
        }
      }
    }
    return { removed, unavailable };
  }

  async read(signal?: AbortSignal): Promise<readonly string[]> {
    const lines: string[] = [];
    for (const family of FAMILIES) {
      try {
        const tables = await this.#save(family, signal);
        for (const spec of CHAINS) {
          const { removed } = planRemoval(spec, tableOf(tables, spec));
          lines.push(...removed.map((line) => `${this.#program(family)} -t ${spec.table} ${line}`));
        }
      } catch (error) {
        if (!isCommandMissing(error)) throw error;
        lines.push(...(await this.#readWithNft(family, signal)));
      }
    }
    return lines;
  }

  async #ensureFamily(family: IpFamily, all: TrafficRules, signal?: AbortSignal): Promise<readonly Repair[]> {
    const { networks } = all;
    const rules = rulesOf(all, family);
    const wanted = CHAINS.filter((spec) => spec.rules(rules).length > 0);
    const capabilities = wanted.length > 0 ? await this.#detect(signal) : undefined;
    const repairs: Repair[] = [];
    const unwanted = CHAINS.filter((spec) => !wanted.includes(spec) && !this.#absent.has(absentKey(family, spec)));
    if (unwanted.length > 0) {
      try {
        for (const line of await this.#removeChains(
          family,
          unwanted,
          (spec, saved) => planWithdrawal(spec, saved, networks),
          signal,
        )) {
          repairs.push({ problem: 'unexpected', family, where: this.#program(family), rule: line });
        }
      } catch (error) {
        // A family that is not in use must not keep the other one from working: a host without IPv6 often has neither
        // the program nor the kernel's part for it.
        if (signal?.aborted || wanted.length > 0) throw error;
        for (const spec of unwanted) this.#absent.add(absentKey(family, spec));
      }
    }
    if (capabilities === undefined) return repairs;
    for (const spec of wanted) this.#absent.delete(absentKey(family, spec));
    for (let attempt = 1; ; attempt++) {
      const blocks = [];
      const found: Repair[] = [];
      for (const spec of wanted) {
        const specRules = spec.rules(rules);
        const lines = capabilities.since162 ? specRules : withoutFullyRandom(specRules);
        const plan = planChain(spec, lines, networks, family, await this.#readChain(family, spec, signal));
        blocks.push({ table: spec.table, lines: plan.lines });
        found.push(...plan.repairs);
      }
      const payload = restorePayload(blocks);
      if (payload === '') return [...repairs, ...found];
      try {
        await this.#restore(family, payload, signal);
        return [...repairs, ...found];
      } catch (error) {
        if (attempt === ATTEMPTS || isCommandMissing(error) || signal?.aborted) throw error;
      }
    }
  }

  async #removeChains(
    family: IpFamily,
    specs: readonly ChainSpec[],
    plan: PlanRemoval,
    signal?: AbortSignal,
  ): Promise<readonly string[]> {
    for (let attempt = 1; ; attempt++) {
      const tables = await this.#save(family, signal);
      const plans = specs.map((spec) => ({ table: spec.table, ...plan(spec, tableOf(tables, spec)) }));
      const payload = restorePayload(plans);
      try {
        if (payload !== '') await this.#restore(family, payload, signal);
        for (const spec of specs) this.#absent.add(absentKey(family, spec));
        return plans.flatMap(({ removed }) => removed);
      } catch (error) {
        if (attempt === ATTEMPTS || isCommandMissing(error) || signal?.aborted) throw error;
      }
    }
  }

  /** Rules are deleted by handle, which nft can do even with those whose conditions only iptables understands. */
  async #removeWithNft(family: IpFamily, signal?: AbortSignal): Promise<readonly string[]> {
    const removed: string[] = [];
    for (const { at, hook, chain, jumps } of await this.#chainsInNft(family, signal)) {
      const script = [
        ...jumps.map((handle) => `delete rule ${at} ${hook} handle ${handle}`),
        `flush chain ${at} ${chain}`,
        `delete chain ${at} ${chain}`,
        '',
      ];
      await this.#run(['nft', '-f', '-'], { signal, stdin: script.join('\n') });
      removed.push(...nftLines({ at, hook, chain, jumps }));
    }
    return removed;
  }

  async #readWithNft(family: IpFamily, signal?: AbortSignal): Promise<readonly string[]> {
    try {
      return (await this.#chainsInNft(family, signal)).flatMap(nftLines);
    } catch (error) {
      if (!isCommandMissing(error)) throw error;
      return [];
    }
  }

  /** Our chains as nft sees those of the nft flavour. */
  async #chainsInNft(family: IpFamily, signal?: AbortSignal): Promise<readonly NftChain[]> {
    const found: NftChain[] = [];
    for (const { table, hook, chain } of CHAINS) {
      const place = [nftFamily(family), table];
      const listed = await this.#run(['nft', '-j', 'list', 'chain', ...place, hook], { signal, okExitCodes: 'any' });
      const own = await this.#run(['nft', 'list', 'chain', ...place, chain], { signal, okExitCodes: 'any' });
      if (own.exitCode !== 0) continue;
      const jumps = listed.exitCode === 0 ? jumpHandles(listed.stdout, chain) : [];
      found.push({ at: place.join(' '), hook, chain, jumps });
    }
    return found;
  }

  async #readChain(family: IpFamily, spec: ChainSpec, signal?: AbortSignal): Promise<ActualChain> {
    const listings: string[] = [];
    for (const chain of [spec.chain, spec.hook]) {
      const argv = [this.#program(family), '-w', String(LOCK_WAIT_SECONDS), '-t', spec.table, '-S', chain];
      const { stdout, exitCode } = await this.#run(argv, { signal, okExitCodes: 'any' });
      // A missing chain and a real failure have the same exit code in some versions; the full listing tells them apart.
      if (exitCode !== 0) return actualChain(spec, tableOf(await this.#save(family, signal), spec));
      listings.push(stdout);
    }
    return actualChain(spec, parseSave(listings.join('\n'), spec.table)[0]);
  }

  /** Without `-t`, so that tables that nobody uses are not made by looking at them. */
  async #save(family: IpFamily, signal?: AbortSignal): Promise<readonly SavedTable[]> {
    const { stdout } = await this.#run([`${this.#program(family)}-save`], { signal });
    return parseSave(stdout);
  }

  async #restore(family: IpFamily, payload: string, signal?: AbortSignal): Promise<void> {
    const wait = (await this.#detect(signal)).since162 ? [`--wait=${LOCK_WAIT_SECONDS}`] : [];
    await this.#run([`${this.#program(family)}-restore`, '--noflush', ...wait], { signal, stdin: payload });
  }

  async #detect(signal?: AbortSignal): Promise<IptablesCapabilities> {
    this.#capabilities ??= iptablesCapabilities((await this.#run([this.#program(4), '--version'], { signal })).stdout);
    return this.#capabilities;
  }

  #program(family: IpFamily): string {
    return `${family === 4 ? 'iptables' : 'ip6tables'}${this.#suffix}`;
  }

  async #run(argv: readonly string[], options: Parameters<typeof run>[1]) {
    try {
      return await run(argv, { ...options, timeoutMs: COMMAND_TIMEOUT_MS, netns: this.#netns });
    } catch (error) {
      if (!(error instanceof WeftError) || error.code !== 'WEFT_COMMAND_FAILED') throw error;
      throw new WeftError('WEFT_TRAFFIC_RULES', `traffic rules through iptables: ${error.message}`, {
        hint: hintFor(error.message),
        cause: error,
      });
    }
  }
}

function absentKey(family: IpFamily, spec: ChainSpec): string {
  return `${family} ${spec.chain}`;
}

function tableOf(tables: readonly SavedTable[], spec: ChainSpec): SavedTable | undefined {
  return tables.find(({ name }) => name === spec.table);
}

interface NftChain {
  /** Family and table. */
  readonly at: string;
  readonly hook: string;
  readonly chain: string;
  /** Handles of the rules that jump to it. */
  readonly jumps: readonly number[];
}

function nftLines({ at, hook, chain, jumps }: NftChain): string[] {
  return [...jumps.map(() => `${at} ${hook} jump ${chain}`), `${at} ${chain}`];
}

/** Handles of the rules that jump to `target`, in the output of `nft -j list chain`. */
function jumpHandles(json: string, target: string): readonly number[] {
  const items = field(JSON.parse(json), 'nftables');
  if (!Array.isArray(items)) return [];
  return (items as Json[]).flatMap((item) => {
    const rule = field(item, 'rule');
    const expressions = field(rule, 'expr');
    const handle = field(rule, 'handle');
    const jumps =
      Array.isArray(expressions) &&
      (expressions as Json[]).some((each) =>
        ['jump', 'goto'].some((verdict) => field(field(each, verdict), 'target') === target),
      );
    return jumps && typeof handle === 'number' ? [handle] : [];
  });
}

function hintFor(output: string): string {
  if (/Permission denied|must be root|Operation not permitted/.test(output)) {
    return 'The agent needs root, or the capability NET_ADMIN in its container.';
  }
  if (/Table does not exist|can't initialize|modprobe/i.test(output)) {
    return (
      'The kernel does not have this iptables table: load iptable_nat and iptable_filter, with --notrack-tunnel iptable_raw and xt_CT too (or nf_tables), use the other ' +
      'iptables flavour (update-alternatives --config iptables), or set EnableNFTables in net-conf.json.'
    );
  }
  return 'Run the same command by hand for details. `iptables-save` shows the current rules.';
}
