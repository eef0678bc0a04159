import type { IpFamily, IpPrefix } from '../../src/ip/address.ts';
import { compareRules, type FoundRule, partRules } from '../../src/trafficmngr/compare-rules.ts';
import {
  type FamilyRules,
  NO_RULES,
  networksNamed,
  ruleKey,
  rulesOf,
  type TrafficRules,
} from '../../src/trafficmngr/rules.ts';
import type { Removal, Repair, TrafficManager, TrafficManagerKind } from '../../src/trafficmngr/traffic-manager.ts';

export type ChainName = keyof FamilyRules;

/** The rules of one host: what several managers on it, one after another, share. */
export class FakeRuleStore {
  readonly chains = new Map<string, FoundRule[]>();

  chain(family: IpFamily, name: ChainName): FoundRule[] | undefined {
    return this.chains.get(`${family} ${name}`);
  }
}

const FAMILIES: readonly IpFamily[] = [4, 6];
const CHAIN_NAMES: readonly ChainName[] = ['masquerade', 'forward', 'untrackedIn', 'untrackedOut'];

/** A traffic manager on memory. `failWith`, when set, is what every operation throws. */
export class FakeTrafficManager implements TrafficManager {
  readonly kind: TrafficManagerKind;
  readonly #store: FakeRuleStore;
  failWith: Error | undefined;

  constructor(store: FakeRuleStore = new FakeRuleStore(), kind: TrafficManagerKind = 'iptables') {
    this.#store = store;
    this.kind = kind;
  }

  async probe(_families: readonly IpFamily[], signal?: AbortSignal): Promise<void> {
    this.#enter(signal);
  }

  async ensure(wanted: TrafficRules, signal?: AbortSignal): Promise<readonly Repair[]> {
    this.#enter(signal);
    const repairs: Repair[] = [];
    for (const family of FAMILIES) {
      for (const name of CHAIN_NAMES)
        repairs.push(...this.#ensureChain(family, name, rulesOf(wanted, family), wanted.networks));
    }
    return repairs;
  }

  async withdraw(networks: readonly IpPrefix[], signal?: AbortSignal): Promise<Removal> {
    this.#enter(signal);
    const places = FAMILIES.flatMap((family) => CHAIN_NAMES.map((name) => [family, name] as const));
    const repairs = places.flatMap((place) => this.#ensureChain(...place, NO_RULES, networks));
    return { removed: repairs.map(({ where, rule }) => `${where}: ${rule}`), unavailable: [] };
  }

  async remove(signal?: AbortSignal): Promise<Removal> {
    this.#enter(signal);
    const removed = this.#lines();
    this.#store.chains.clear();
    return { removed, unavailable: [] };
  }

  async read(signal?: AbortSignal): Promise<readonly string[]> {
    this.#enter(signal);
    return this.#lines();
  }

  #ensureChain(family: IpFamily, name: ChainName, rules: FamilyRules, networks: readonly IpPrefix[]): Repair[] {
    const where = `fake/${name}`;
    const key = `${family} ${name}`;
    const wanted = rules[name].map((rule): FoundRule => {
      return { key: ruleKey(rule), text: ruleKey(rule), named: networksNamed(rule) };
    });
    const actual = this.#store.chain(family, name);
    const { ours, theirs } = partRules(wanted, actual ?? [], networks);
    if (wanted.length === 0) {
      if (theirs.length === 0) this.#store.chains.delete(key);
      else this.#store.chains.set(key, [...theirs]);
      return ours.map(({ text }) => ({ problem: 'unexpected', family, where, rule: text }));
    }
    if (actual === undefined) {
      this.#store.chains.set(key, wanted);
      return [{ problem: 'missing', family, where, rule: undefined }];
    }
    const repairs = compareRules(wanted, ours).map(({ problem, text }) => ({ problem, family, where, rule: text }));
    if (repairs.length > 0) this.#store.chains.set(key, [...wanted, ...theirs]);
    return repairs;
  }

  #lines(): string[] {
    return [...this.#store.chains].flatMap(([chain, rules]) => rules.map(({ text }) => `${chain}: ${text}`));
  }

  #enter(signal: AbortSignal | undefined): void {
    signal?.throwIfAborted();
    if (this.failWith !== undefined) throw this.failWith;
  }
}
