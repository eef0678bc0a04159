import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { parsePrefix4 } from '../../ip/prefix.ts';
import { trafficRules } from '../rules.ts';
import { chainOf, lineKey } from './lines.ts';
import {
  type ActualChain,
  actualChain,
  CHAINS,
  type ChainSpec,
  parseSave,
  planChain,
  planRemoval,
  restorePayload,
  type SavedTable,
} from './plan.ts';

const RULES = trafficRules({
  ipv4: { network: parsePrefix4('10.244.0.0/16')!, subnet: parsePrefix4('10.244.1.0/24')! },
  ipv6: undefined,
  ipMasq: true,
  randomFully: true,
  forwardRules: true,
}).ipv4;

const [MASQ, FORWARD] = CHAINS as [ChainSpec, ChainSpec];
const KUBE = '-A POSTROUTING -m comment --comment "kubernetes postrouting rules" -j KUBE-POSTROUTING';
const JUMP = '-A POSTROUTING -m comment --comment "flanneld masq" -j FLANNEL-POSTRTG';
const FORWARD_JUMP = '-A FORWARD -m comment --comment "flanneld forward" -j FLANNEL-FWD';
const REJECT = '-A FORWARD -j REJECT --reject-with icmp-host-prohibited';

function plan(spec: ChainSpec, actual: ActualChain) {
  return planChain(spec, spec.rules(RULES), 4, actual);
}

function complete(spec: ChainSpec): readonly string[] {
  return plan(spec, { rules: undefined, hookRules: [] }).lines.filter((line) => line.startsWith(`-A ${spec.chain} `));
}

/** What `iptables-restore --noflush` does with our lines; an error, which undoes the commit, is an exception. */
function restore(spec: ChainSpec, before: ActualChain, lines: readonly string[]): ActualChain {
  let rules = before.rules === undefined ? undefined : [...before.rules];
  const hookRules = [...before.hookRules];
  for (const line of lines) {
    const [command, chain, number] = line.split(' ');
    if (command === `:${spec.chain}`) {
      rules = [];
    } else if (command === '-A') {
      (chain === spec.chain ? rules! : hookRules).push(line);
    } else if (command === '-D') {
      const key = lineKey(`-A${line.slice(2)}`);
      const index = hookRules.findIndex((each) => lineKey(each) === key);
      assert.ok(index >= 0, `Bad rule (does a matching rule exist in that chain?): ${line}`);
      hookRules.splice(index, 1);
    } else if (command === '-I') {
      const position = Number(number);
      assert.ok(position >= 1 && position <= hookRules.length + 1, `Index of insertion too big: ${line}`);
      hookRules.splice(position - 1, 0, line.replace(/^-I (\S+) \d+/, '-A $1'));
    } else {
      assert.fail(line);
    }
  }
  return { rules, hookRules };
}

describe('planChain', () => {
  it('makes everything where there is nothing, the jump last', () => {
    const { lines, repairs } = plan(MASQ, { rules: undefined, hookRules: [KUBE] });
    assert.equal(lines[0], ':FLANNEL-POSTRTG - [0:0]');
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
