import assert from 'node:assert/strict';
import type { IpFamily } from '../../src/ip/address.ts';
import { IptablesTrafficManager } from '../../src/linux/iptables.ts';
import { NftablesTrafficManager } from '../../src/linux/nftables.ts';
import { type RunResult, run } from '../../src/linux/run.ts';
import { type RulePlace, type TrafficManagerHarness, trafficManagerContract } from '../contract/traffic-manager.ts';
import { withNamespace } from './traffic-namespace.ts';

const IPTABLES_PLACES: Record<RulePlace['chain'], { readonly table: string; readonly chain: string }> = {
  masquerade: { table: 'nat', chain: 'FLANNEL-POSTRTG' },
  forward: { table: 'filter', chain: 'FLANNEL-FWD' },
  untrackedIn: { table: 'raw', chain: 'FLANNEL-UNTRACK-IN' },
  untrackedOut: { table: 'raw', chain: 'FLANNEL-UNTRACK-OUT' },
};

const NFT_CHAINS: Record<RulePlace['chain'], string> = {
  masquerade: 'postrtg',
  forward: 'forward',
  untrackedIn: 'untrack-in',
  untrackedOut: 'untrack-out',
};

async function iptablesHarness(): Promise<TrafficManagerHarness> {
  const namespace = await withNamespace();
  const iptables = ({ family, chain }: RulePlace, ...args: string[]): Promise<RunResult> => {
    const { table } = IPTABLES_PLACES[chain];
    return run([family === 4 ? 'iptables' : 'ip6tables', '-w', '-t', table, ...args], { netns: namespace.name });
  };
  const chainOf = ({ chain }: RulePlace) => IPTABLES_PLACES[chain].chain;
  const ruleAt = async (place: RulePlace, index: number): Promise<string[]> => {
    const { stdout } = await iptables(place, '-S', chainOf(place));
    const line = stdout.split('\n').filter((each) => each.startsWith('-A'))[index];
    assert.ok(line !== undefined);
    return line.match(/"[^"]*"|\S+/g)!.map((word) => word.replaceAll('"', ''));
  };
  return {
    manager: () => new IptablesTrafficManager({ netns: namespace.name }),
    deleteRule: async (place, index) => void (await iptables(place, '-D', chainOf(place), String(index + 1))),
    duplicateRule: async (place, index) => void (await iptables(place, ...(await ruleAt(place, index)))),
    moveToEnd: async (place, index) => {
      const rule = await ruleAt(place, index);
      await iptables(place, '-D', chainOf(place), String(index + 1));
      await iptables(place, ...rule);
    },
    insertForeignRule: async (place) =>
      void (await iptables(place, '-I', chainOf(place), '-p', 'tcp', '--dport', '80', '-j', 'RETURN')),
    wipe: async () => {
      for (const program of ['iptables', 'ip6tables']) {
        for (const table of ['nat', 'filter', 'raw']) {
          await run([program, '-w', '-t', table, '-F'], { netns: namespace.name });
          await run([program, '-w', '-t', table, '-X'], { netns: namespace.name });
        }
      }
    },
    [Symbol.asyncDispose]: () => namespace[Symbol.asyncDispose](),
  };
}

async function nftablesHarness(): Promise<TrafficManagerHarness> {
  const namespace = await withNamespace();
  const nft = (...args: string[]) => run(['nft', ...args], { netns: namespace.name });
  const nftFamily = (family: IpFamily) => (family === 4 ? 'ip' : 'ip6');
  const chainOf = ({ family, chain }: RulePlace) => [nftFamily(family), `flannel-ipv${family}`, NFT_CHAINS[chain]];
  const ruleAt = async (place: RulePlace, index: number): Promise<{ text: string; handle: string }> => {
    const { stdout } = await nft('-a', 'list', 'chain', ...chainOf(place));
    const rules = [...stdout.matchAll(/^\t\t(.*) # handle (\d+)$/gm)].filter(
      ([, text]) => !/^(type|comment)/.test(text!),
    );
    const [, text = '', handle = ''] = rules[index] ?? [];
    return { text, handle };
  };
  const deleteRule = async (place: RulePlace, index: number): Promise<string> => {
    const { text, handle } = await ruleAt(place, index);
    await nft('delete', 'rule', ...chainOf(place), 'handle', handle);
    return text;
  };
  return {
    manager: () => new NftablesTrafficManager({ netns: namespace.name }),
    deleteRule: async (place, index) => void (await deleteRule(place, index)),
    duplicateRule: async (place, index) =>
      void (await nft('add', 'rule', ...chainOf(place), (await ruleAt(place, index)).text)),
    moveToEnd: async (place, index) => {
      const text = await deleteRule(place, index);
      await nft('add', 'rule', ...chainOf(place), text);
    },
    insertForeignRule: async (place) => void (await nft('insert', 'rule', ...chainOf(place), 'tcp dport 80 return')),
    wipe: async () => void (await nft('flush', 'ruleset')),
    [Symbol.asyncDispose]: () => namespace[Symbol.asyncDispose](),
  };
}

trafficManagerContract('iptables', iptablesHarness);
trafficManagerContract('nftables', nftablesHarness);
