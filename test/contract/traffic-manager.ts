import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { IpFamily } from '../../src/ip/address.ts';
import { ipv4Of } from '../../src/ip/ipv4.ts';
import { type Ipv4Prefix, type Ipv6Prefix, parsePrefix4, parsePrefix6 } from '../../src/ip/prefix.ts';
import { type FamilyRules, type TrafficOptions, trafficRules } from '../../src/trafficmngr/rules.ts';
import type { Repair, RepairProblem, TrafficManager } from '../../src/trafficmngr/traffic-manager.ts';

export interface RulePlace {
  readonly family: IpFamily;
  readonly chain: keyof FamilyRules;
}

/** One host, managers on it, and the hands that change its rules behind their backs. Positions count from 0. */
export interface TrafficManagerHarness extends AsyncDisposable {
  /** A manager without memory of what an earlier one did. */
  manager(): TrafficManager;
  deleteRule(place: RulePlace, index: number): Promise<void>;
  /** Puts a copy of the rule behind the last one. */
  duplicateRule(place: RulePlace, index: number): Promise<void>;
  /** Moves the rule behind the last one. */
  moveToEnd(place: RulePlace, index: number): Promise<void>;
  /** Puts a rule that is none of ours in front. */
  insertForeignRule(place: RulePlace): Promise<void>;
  /** Removes all rules of all tables, whoever made them. */
  wipe(): Promise<void>;
}

export function v4(text: string): Ipv4Prefix {
  const prefix = parsePrefix4(text);
  assert.ok(prefix !== undefined, text);
  return prefix;
}

export function v6(text: string): Ipv6Prefix {
  const prefix = parsePrefix6(text);
  assert.ok(prefix !== undefined, text);
  return prefix;
}

const IPV4 = { network: v4('10.244.0.0/16'), subnet: v4('10.244.1.0/24') };
const IPV6 = { network: v6('fd00:10:244::/48'), subnet: v6('fd00:10:244:1::/64') };

export const DUAL: TrafficOptions = { ipv4: IPV4, ipv6: IPV6, ipMasq: true, randomFully: true, forwardRules: true };

function problems(repairs: readonly Repair[]): RepairProblem[] {
  return [...new Set(repairs.map(({ problem }) => problem))].sort();
}

const PLACES: readonly RulePlace[] = [
  { family: 4, chain: 'masquerade' },
  { family: 4, chain: 'forward' },
  { family: 6, chain: 'masquerade' },
  { family: 6, chain: 'forward' },
];

/** What every traffic manager does, the fake one included. */
export function trafficManagerContract(name: string, makeHarness: () => Promise<TrafficManagerHarness>): void {
  describe(`traffic manager contract: ${name}`, () => {
    it('installs what is missing, then has nothing to do, also after a restart', async () => {
      await using harness = await makeHarness();
      const manager = harness.manager();
      const wanted = trafficRules(DUAL);
      assert.deepEqual(problems(await manager.ensure(wanted)), ['missing']);
      const installed = await manager.read();
      assert.notDeepEqual(installed, []);
      assert.deepEqual(await manager.ensure(wanted), []);
      assert.deepEqual(await harness.manager().ensure(wanted), []);
      assert.deepEqual(await harness.manager().read(), installed);
    });

    const tampering: readonly {
      readonly what: string;
      readonly problem: RepairProblem;
      readonly tamper: (harness: TrafficManagerHarness, place: RulePlace) => Promise<void>;
    }[] = [
      { what: 'a deleted rule', problem: 'missing', tamper: (harness, place) => harness.deleteRule(place, 1) },
      { what: 'a duplicate', problem: 'duplicate', tamper: (harness, place) => harness.duplicateRule(place, 0) },
      { what: 'another order', problem: 'order', tamper: (harness, place) => harness.moveToEnd(place, 0) },
      { what: 'a foreign rule', problem: 'unexpected', tamper: (harness, place) => harness.insertForeignRule(place) },
    ];
    for (const { what, problem, tamper } of tampering) {
      it(`finds and repairs ${what}, in each chain of each family`, async () => {
        await using harness = await makeHarness();
        const manager = harness.manager();
        const wanted = trafficRules(DUAL);
        await manager.ensure(wanted);
        const installed = await manager.read();
        for (const place of PLACES) {
          await tamper(harness, place);
          const repairs = await manager.ensure(wanted);
          assert.deepEqual(problems(repairs), [problem], JSON.stringify(place));
          assert.deepEqual([...new Set(repairs.map(({ family }) => family))], [place.family]);
          assert.ok(repairs.every(({ rule }) => rule !== undefined && rule !== ''));
          assert.deepEqual(await manager.read(), installed);
          assert.deepEqual(await manager.ensure(wanted), []);
        }
      });
    }

    it('has rules for the tunnel’s datagrams only while it is told so, and repairs them as the others', async () => {
      await using harness = await makeHarness();
      const manager = harness.manager();
      await manager.ensure(trafficRules(DUAL));
      const tracked = await manager.read();
      assert.doesNotMatch(tracked.join('\n'), /notrack|untrack/i);
      const wanted = trafficRules({ ...DUAL, untracked: { listenAddress: ipv4Of(0xc0a84d01), listenPort: 8285 } });
      assert.deepEqual(problems(await manager.ensure(wanted)), ['missing']);
      assert.deepEqual(await harness.manager().ensure(wanted), []);
      const installed = await manager.read();
      assert.equal(installed.join('\n').match(/192\.168\.77\.1/g)?.length, 2);
      for (const chain of ['untrackedIn', 'untrackedOut'] as const) {
        const place: RulePlace = { family: 4, chain };
        await harness.deleteRule(place, 0);
        assert.deepEqual(problems(await manager.ensure(wanted)), ['missing'], chain);
        await harness.insertForeignRule(place);
        assert.deepEqual(problems(await manager.ensure(wanted)), ['unexpected'], chain);
        assert.deepEqual(await manager.read(), installed);
      }
      const moved = trafficRules({ ...DUAL, untracked: { listenAddress: ipv4Of(0xc0a84d02), listenPort: 8286 } });
      assert.deepEqual(problems(await manager.ensure(moved)), ['missing', 'unexpected']);
      assert.doesNotMatch((await manager.read()).join('\n'), /8285|192\.168\.77\.1\b/);
      // Another agent, started without the option.
      assert.deepEqual(problems(await harness.manager().ensure(trafficRules(DUAL))), ['unexpected']);
      assert.deepEqual(await manager.read(), tracked);
      await manager.ensure(wanted);
      await harness.manager().remove();
      assert.deepEqual(await harness.manager().read(), []);
    });

    it('puts everything back after somebody removed all rules', async () => {
      await using harness = await makeHarness();
      const manager = harness.manager();
      const wanted = trafficRules(DUAL);
      await manager.ensure(wanted);
      const installed = await manager.read();
      await harness.wipe();
      assert.deepEqual(problems(await manager.ensure(wanted)), ['missing']);
      assert.deepEqual(await manager.read(), installed);
    });

    it('replaces the rules of a previous network and subnet', async () => {
      const next: TrafficOptions = {
        ...DUAL,
        ipv4: { network: v4('10.99.0.0/16'), subnet: v4('10.99.7.0/24') },
        ipv6: { network: v6('fd00:99::/48'), subnet: v6('fd00:99:0:7::/64') },
      };
      const before = [IPV4.network, IPV6.network];
      await using fresh = await makeHarness();
      await fresh.manager().ensure(trafficRules(next));
      await using harness = await makeHarness();
      await harness.manager().ensure(trafficRules(DUAL));
      const repairs = await harness.manager().ensure(trafficRules({ ...next, formerNetworks: before }));
      assert.deepEqual(problems(repairs), ['missing', 'unexpected']);
      assert.deepEqual(await harness.manager().read(), await fresh.manager().read());
    });

    it('leaves the rules of another network alone, and has its own put right beside them', async () => {
      await using harness = await makeHarness();
      const socket = (port: number) => ({ listenAddress: ipv4Of(0xc0a84d01), listenPort: port });
      const one = trafficRules({ ...DUAL, untracked: socket(8285) });
      const other = trafficRules({
        ...DUAL,
        ipv4: { network: v4('10.99.0.0/16'), subnet: v4('10.99.7.0/24') },
        ipv6: { network: v6('fd00:99::/48'), subnet: v6('fd00:99:0:7::/64') },
        untracked: socket(8286),
      });
      const [first, second] = [harness.manager(), harness.manager()];
      const settled = async () => {
        assert.deepEqual(await first.ensure(one), []);
        assert.deepEqual(await second.ensure(other), []);
      };
      await first.ensure(one);
      assert.deepEqual(problems(await second.ensure(other)), ['missing']);
      await settled();
      const marks = (await first.read()).filter((line) => /0x0*4000/.test(line));
      assert.equal(marks.length, 2, 'one of each family, for both');
      for (const place of PLACES) {
        for (const index of [0, 1]) await harness.deleteRule(place, index);
        await harness.insertForeignRule(place);
        await first.ensure(one);
        await second.ensure(other);
        await settled();
      }
      const moved = trafficRules({ ...DUAL, untracked: socket(8287) });
      await first.ensure(moved);
      assert.deepEqual(await second.ensure(other), []);
      const text = (await harness.manager().read()).join('\n');
      assert.doesNotMatch(text, /8285/);
      assert.match(text, /8286/);

      const { removed } = await harness.manager().withdraw(one.networks);
      assert.match(removed.join('\n'), /10\.244\.0\.0\/16/);
      assert.deepEqual(await second.ensure(other), []);
      assert.doesNotMatch((await second.read()).join('\n'), /10\.244|fd00:10/);
      await harness.manager().withdraw(other.networks);
      assert.deepEqual(await harness.manager().read(), []);
    });

    it('removes chains and families that are no longer wanted, and brings them back', async () => {
      await using harness = await makeHarness();
      const manager = harness.manager();
      await manager.ensure(trafficRules(DUAL));
      const all = await manager.read();
      const forwardOnly = trafficRules({
        ...DUAL,
        ipMasq: false,
        ipv6: undefined,
        formerNetworks: [IPV6.network],
      });
      assert.deepEqual(problems(await manager.ensure(forwardOnly)), ['unexpected']);
      const left = (await manager.read()).join('\n');
      assert.doesNotMatch(left, /masquerade|fd00/i);
      assert.match(left, /10\.244\.0\.0\/16/);
      assert.deepEqual(await manager.ensure(forwardOnly), []);
      assert.deepEqual(problems(await manager.ensure(trafficRules(DUAL))), ['missing']);
      assert.deepEqual((await manager.read()).toSorted(), all.toSorted());
      assert.deepEqual(await manager.ensure(trafficRules(DUAL)), []);
    });

    it('leaves fully-random out when it is switched off', async () => {
      await using harness = await makeHarness();
      const manager = harness.manager();
      await manager.ensure(trafficRules(DUAL));
      assert.match((await manager.read()).join('\n'), /fully/);
      const plain = trafficRules({ ...DUAL, randomFully: false });
      assert.deepEqual(problems(await manager.ensure(plain)), ['missing', 'unexpected']);
      assert.doesNotMatch((await manager.read()).join('\n'), /fully/);
      assert.deepEqual(await manager.ensure(plain), []);
    });

    it('removes all it made and says what, and nothing the second time', async () => {
      await using harness = await makeHarness();
      await harness.manager().ensure(trafficRules(DUAL));
      const { removed, unavailable } = await harness.manager().remove();
      assert.match(removed.join('\n'), /10\.244\.1\.0\/24[\s\S]*fd00:10:244:1::\/64/);
      assert.deepEqual(unavailable, []);
      assert.deepEqual(await harness.manager().read(), []);
      assert.deepEqual(await harness.manager().remove(), { removed: [], unavailable: [] });
    });

    it('handles a network that is one subnet, and one that is every address', async () => {
      await using harness = await makeHarness();
      const manager = harness.manager();
      for (const network of ['10.244.1.0/24', '0.0.0.0/0', '10.244.1.7/32']) {
        const wanted = trafficRules({
          ...DUAL,
          ipv4: { network: v4(network), subnet: v4('10.244.1.0/24') },
          ipv6: undefined,
        });
        await manager.ensure(wanted);
        assert.deepEqual(await manager.ensure(wanted), [], network);
      }
    });

    it('stops with the reason of the signal', async () => {
      await using harness = await makeHarness();
      const signal = AbortSignal.abort(new Error('enough'));
      await assert.rejects(harness.manager().ensure(trafficRules(DUAL), signal), /enough/);
      await assert.rejects(harness.manager().remove(signal), /enough/);
      assert.deepEqual(await harness.manager().read(), []);
    });
  });
}
