import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { parsePrefix4 } from '../../ip/prefix.ts';
import { type TrafficRules, trafficRules } from '../rules.ts';
import { chainOf, lineKey } from './lines.ts';
import {
  type ActualChain,
  actualChain,
  CHAINS,
  type ChainSpec,
  parseSave,
  planChain,
  planRemoval,
  planWithdrawal,
  restorePayload,
  type SavedTable,
} from './plan.ts';

function rulesOf(network: string, subnet: string): TrafficRules {
  return trafficRules({
    ipv4: { network: parsePrefix4(network)!, subnet: parsePrefix4(subnet)! },
    ipv6: undefined,
    ipMasq: true,
    randomFully: true,
    forwardRules: true,
  });
}

const RULES = rulesOf('10.244.0.0/16', '10.244.1.0/24');
/** Of another agent on the same host. */
const OTHER = rulesOf('10.9.0.0/16', '10.9.7.0/24');

const [MASQ, FORWARD] = CHAINS as [ChainSpec, ChainSpec];
const KUBE = '-A POSTROUTING -m comment --comment "kubernetes postrouting rules" -j KUBE-POSTROUTING';
const JUMP = '-A POSTROUTING -m comment --comment "flanneld masq" -j FLANNEL-POSTRTG';
const FORWARD_JUMP = '-A FORWARD -m comment --comment "flanneld forward" -j FLANNEL-FWD';
const REJECT = '-A FORWARD -j REJECT --reject-with icmp-host-prohibited';

function plan(spec: ChainSpec, actual: ActualChain, { ipv4, networks } = RULES) {
  return planChain(spec, spec.rules(ipv4), networks, 4, actual);
}

function complete(spec: ChainSpec, rules = RULES): readonly string[] {
  return plan(spec, { rules: undefined, hookRules: [] }, rules).lines.filter((line) =>
    line.startsWith(`-A ${spec.chain} `),
  );
}

/** What `iptables-restore --noflush` does with our lines; an error, which undoes the commit, is an exception. */
function restore(spec: ChainSpec, before: ActualChain, lines: readonly string[]): ActualChain {
  let rules = before.rules === undefined ? undefined : [...before.rules];
  const hookRules = [...before.hookRules];
  for (const line of lines) {
    const [command, chain, number] = line.split(' ');
    const list = chain === spec.chain ? rules! : hookRules;
    if (command === `:${spec.chain}`) {
      rules = [];
    } else if (command === '-N') {
      assert.equal(rules, undefined, `Chain already exists: ${line}`);
      rules = [];
    } else if (command === '-A') {
      list.push(line);
    } else if (command === '-D') {
      const key = lineKey(`-A${line.slice(2)}`);
      const index = list.findIndex((each) => lineKey(each) === key);
      assert.ok(index >= 0, `Bad rule (does a matching rule exist in that chain?): ${line}`);
      list.splice(index, 1);
    } else if (command === '-I') {
      const position = Number(number);
      assert.ok(position >= 1 && position <= list.length + 1, `Index of insertion too big: ${line}`);
      list.splice(position - 1, 0, line.replace(/^-I (\S+) \d+/, '-A $1'));
    } else {
      assert.fail(line);
    }
  }
  return { rules, hookRules };
}

describe('planChain', () => {
  it('makes everything where there is nothing, the jump last', () => {
    const { lines, repairs } = plan(MASQ, { rules: undefined, hookRules: [KUBE] });
    assert.equal(lines[0], '-N FLANNEL-POSTRTG');
    assert.equal(lines.at(-1), JUMP);
    assert.equal(lines.length, 8);
    assert.deepEqual(
      repairs.map(({ problem, where, rule }) => [problem, where, rule]),
      [
        ['missing', 'nat/FLANNEL-POSTRTG', undefined],
        ['missing', 'nat/POSTROUTING', JUMP],
      ],
    );
  });

  it('does nothing when all is there', () => {
    assert.deepEqual(plan(MASQ, { rules: complete(MASQ), hookRules: [KUBE, JUMP] }), { lines: [], repairs: [] });
  });

  it('leaves the chain alone when only the jump is missing, and the other way round', () => {
    assert.deepEqual(plan(MASQ, { rules: complete(MASQ), hookRules: [KUBE] }).lines, [JUMP]);
    const { lines } = plan(MASQ, { rules: complete(MASQ).slice(1), hookRules: [JUMP, KUBE] });
    assert.deepEqual(lines, [':FLANNEL-POSTRTG - [0:0]', ...complete(MASQ)]);
  });

  it('puts the jump before a rule that would leave nothing for it', () => {
    const before = { rules: complete(FORWARD), hookRules: [KUBE.replace('POSTROUTING', 'FORWARD'), REJECT] };
    const { lines, repairs } = plan(FORWARD, before);
    assert.deepEqual(lines, [FORWARD_JUMP.replace('-A FORWARD', '-I FORWARD 2')]);
    assert.deepEqual(
      repairs.map(({ problem }) => problem),
      ['missing'],
    );
    const shadowed = plan(FORWARD, { ...before, hookRules: [REJECT, FORWARD_JUMP] });
    assert.deepEqual(
      shadowed.repairs.map(({ problem }) => problem),
      ['shadowed'],
    );
    assert.deepEqual(shadowed.lines, [
      FORWARD_JUMP.replace('-A', '-D'),
      FORWARD_JUMP.replace('-A FORWARD', '-I FORWARD 1'),
    ]);
  });

  it('does not mind an unconditional ACCEPT in FORWARD', () => {
    const hookRules = ['-A FORWARD -j ACCEPT', FORWARD_JUMP];
    assert.deepEqual(plan(FORWARD, { rules: complete(FORWARD), hookRules }).lines, []);
  });

  it('reaches the wanted state from any other in one step, and keeps everybody else’s rules in order', () => {
    for (const spec of CHAINS) {
      const jump = plan(spec, { rules: complete(spec), hookRules: [] }).lines[0]!;
      const foreign = [
        `-A ${spec.hook} -s 192.0.2.0/24 -j ACCEPT`,
        `-A ${spec.hook} -j KUBE`,
        `-A ${spec.hook} -j ${spec.table === 'nat' ? 'MASQUERADE' : 'DROP'}`,
        `-A ${spec.hook} -i eth0 -j DROP`,
      ];
      const hooks = fc.array(fc.constantFrom(jump, ...foreign), { maxLength: 8 });
      const inner = fc.array(fc.constantFrom(...complete(spec), `-A ${spec.chain} -j DROP`), { maxLength: 9 });
      fc.assert(
        fc.property(hooks, fc.option(inner, { nil: undefined }), (hookRules, rules) => {
          const after = restore(spec, { rules, hookRules }, plan(spec, { rules, hookRules }).lines);
          assert.deepEqual(after.rules, complete(spec));
          assert.deepEqual(plan(spec, after), { lines: [], repairs: [] });
          const others = (lines: readonly string[]) => lines.filter((line) => line !== jump);
          assert.deepEqual(others(after.hookRules), others(hookRules));
        }),
      );
    }
  });
});

describe('a chain that two agents share', () => {
  const both = (spec: ChainSpec): ActualChain => {
    const first = restore(
      spec,
      { rules: undefined, hookRules: [] },
      plan(spec, { rules: undefined, hookRules: [] }).lines,
    );
    return restore(spec, first, plan(spec, first, OTHER).lines);
  };

  it('satisfies both at once, and keeps the rule that both have once and first', () => {
    for (const spec of CHAINS.slice(0, 2)) {
      const actual = both(spec);
      for (const rules of [RULES, OTHER]) assert.deepEqual(plan(spec, actual, rules), { lines: [], repairs: [] });
      const keys = actual.rules!.map(lineKey);
      assert.equal(new Set(keys).size, keys.length);
      assert.equal(actual.hookRules.length, 1);
    }
    assert.match(both(MASQ).rules![0]!, /--mark 0x4000/);
    assert.equal(both(MASQ).rules!.length, 11);
  });

  it('satisfies both again after each has put right what somebody did to it, in any order', () => {
    for (const spec of CHAINS.slice(0, 2)) {
      const { rules: before = [], hookRules } = both(spec);
      const inner = fc.shuffledSubarray([...before, ...before.slice(0, 2), `-A ${spec.chain} -j DROP`]);
      fc.assert(
        fc.property(inner, fc.shuffledSubarray([RULES, OTHER], { minLength: 2 }), (rules, order) => {
          let actual: ActualChain = { rules, hookRules };
          for (const agent of order) actual = restore(spec, actual, plan(spec, actual, agent).lines);
          for (const agent of order) assert.deepEqual(plan(spec, actual, agent), { lines: [], repairs: [] });
        }),
      );
    }
  });

  it('keeps the rules of the other when one withdraws, and goes with the last of them', () => {
    for (const spec of CHAINS.slice(0, 2)) {
      const { rules = [], hookRules } = both(spec);
      const saved = (lines: readonly string[]) => ({ name: spec.table, chains: [spec.hook, spec.chain], rules: lines });
      const { lines, removed } = planWithdrawal(spec, saved([...hookRules, ...rules]), RULES.networks);
      const left = restore(spec, { rules, hookRules }, lines);
      assert.deepEqual(plan(spec, left, OTHER), { lines: [], repairs: [] });
      assert.doesNotMatch(left.rules!.join('\n'), /10\.244/);
      assert.match(removed.join('\n'), /10\.244\.0\.0\/16/);
      const last = planWithdrawal(spec, saved([...hookRules, ...left.rules!]), OTHER.networks);
      assert.equal(last.lines.at(-1), `-X ${spec.chain}`);
    }
  });

  it('takes a rule for an agent’s only when it looks like one', () => {
    const strange = `-A ${MASQ.chain} -s 10.9.0.0/16 -j RETURN`;
    const { rules = [], hookRules } = both(MASQ);
    const { lines } = plan(MASQ, { rules: [...rules, strange], hookRules });
    assert.ok(lines.includes(strange.replace('-A', '-D')));
  });
});

describe('planRemoval', () => {
  const saved: SavedTable = {
    name: 'nat',
    chains: ['POSTROUTING', 'FLANNEL-POSTRTG', 'MINE'],
    rules: [KUBE, JUMP, JUMP, '-A MINE -s 10.0.0.0/8 -j FLANNEL-POSTRTG', ...complete(MASQ)],
  };

  it('removes every jump to the chain, whoever made it, then the chain', () => {
    const { lines, removed } = planRemoval(MASQ, saved);
    assert.deepEqual(lines, [
      JUMP.replace('-A', '-D'),
      JUMP.replace('-A', '-D'),
      '-D MINE -s 10.0.0.0/8 -j FLANNEL-POSTRTG',
      '-F FLANNEL-POSTRTG',
      '-X FLANNEL-POSTRTG',
    ]);
    assert.equal(removed.length, 3 + complete(MASQ).length + 1);
  });

  it('does nothing without the chain', () => {
    assert.deepEqual(planRemoval(MASQ, undefined), { lines: [], removed: [] });
    assert.deepEqual(planRemoval(MASQ, { ...saved, chains: ['POSTROUTING'] }), { lines: [], removed: [] });
  });
});

describe('parseSave and restorePayload', () => {
  it('reads tables, chains and rules, with or without counters', () => {
    const tables = parseSave(
      [
        '# Generated by iptables-save',
        '*nat',
        ':POSTROUTING ACCEPT [3:180]',
        ':FLANNEL-POSTRTG - [0:0]',
        `[3:180] ${JUMP}`,
        ...complete(MASQ),
        'COMMIT',
        '*filter',
        ':FORWARD DROP [0:0]',
        'COMMIT',
        '',
      ].join('\n'),
    );
    assert.deepEqual(
      tables.map(({ name, chains }) => [name, chains]),
      [
        ['nat', ['POSTROUTING', 'FLANNEL-POSTRTG']],
        ['filter', ['FORWARD']],
      ],
    );
    const chain = actualChain(MASQ, tables[0]);
    assert.deepEqual(chain, { rules: complete(MASQ), hookRules: [JUMP] });
    assert.deepEqual(actualChain(FORWARD, tables[1]), { rules: undefined, hookRules: [] });
    assert.equal(chainOf(chain.hookRules[0]!), 'POSTROUTING');
  });

  it('reads what `iptables -S` prints for one chain after another', () => {
    const text = [`-N FLANNEL-POSTRTG`, ...complete(MASQ), '-P POSTROUTING ACCEPT', KUBE, JUMP, ''].join('\n');
    const chain = actualChain(MASQ, parseSave(text, 'nat')[0]);
    assert.deepEqual(chain, { rules: complete(MASQ), hookRules: [KUBE, JUMP] });
  });

  it('writes one block for each table that changes', () => {
    const payload = restorePayload([
      { table: 'nat', lines: [JUMP] },
      { table: 'filter', lines: [] },
    ]);
    assert.equal(payload, `*nat\n${JUMP}\nCOMMIT\n`);
    assert.equal(restorePayload([]), '');
  });
});
