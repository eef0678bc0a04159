import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { ipv4Of } from '../../ip/ipv4.ts';
import { ipv6Of } from '../../ip/ipv6.ts';
import { parsePrefix4, prefix4, prefix6 } from '../../ip/prefix.ts';
import { NO_RULES, type PrefixMatch, ruleKey, type TrafficRule, trafficRules } from '../rules.ts';
import { parseNftTable, planNftTable } from './plan.ts';
import { nftRule, parseNftRule } from './script.ts';

const RULES = trafficRules({
  ipv4: { network: parsePrefix4('10.244.0.0/16')!, subnet: parsePrefix4('10.244.1.0/24')! },
  ipv6: undefined,
  ipMasq: true,
  randomFully: true,
  forwardRules: true,
}).ipv4;
const NETWORKS = [parsePrefix4('10.244.0.0/16')!];

type Json = Record<string, unknown>;

/** A rule as `nft -j list` shows it (nft 1.0.6, seen). */
function nftJson({ mark, source, destination, udp, action }: TrafficRule): Json[] {
  const expr: Json[] = [];
  if (mark !== undefined) {
    expr.push({ match: { op: '==', left: { '&': [{ meta: { key: 'mark' } }, mark.mask] }, right: mark.value } });
  }
  const matches: [string, PrefixMatch | undefined][] = [
    ['saddr', source],
    ['daddr', destination],
  ];
  for (const [field, match] of matches) {
    if (match === undefined) continue;
    const v4 = typeof match.prefix.addr === 'number';
    const [addr] = nftRule({
      ...{ mark: undefined, source: match, destination: undefined, udp: undefined },
      action: { type: 'accept' },
    })
      .replace(/^ip6? saddr (!= )?/, '')
      .split(/[/ ]/);
    const whole = match.prefix.length === (v4 ? 32 : 128);
    expr.push({
      match: {
        op: match.negated ? '!=' : '==',
        left: { payload: { protocol: v4 ? 'ip' : 'ip6', field } },
        right: whole ? addr : { prefix: { addr, len: match.prefix.length } },
      },
    });
  }
  if (udp !== undefined) {
    const left = { payload: { protocol: 'udp', field: udp.end === 'source' ? 'sport' : 'dport' } };
    expr.push({ match: { op: '==', left, right: udp.port } });
  }
  if (action.type === 'masquerade') expr.push({ masquerade: action.fullyRandom ? { flags: 'fully-random' } : null });
  else expr.push({ [action.type]: null });
  return expr;
}

const POSTRTG = { name: 'postrtg', type: 'nat', hook: 'postrouting', prio: 100, policy: 'accept' };
const FORWARD = { name: 'forward', type: 'filter', hook: 'forward', prio: 0, policy: 'accept' };

function listing(
  chains: readonly (readonly [Json, readonly (readonly Json[])[]])[],
  table: Json = { family: 'ip', name: 'flannel-ipv4', handle: 1 },
): Json {
  return {
    nftables: [
      { metainfo: { version: '1.0.6', json_schema_version: 1 } },
      { table },
      ...chains.map(([chain]) => ({ chain: { family: 'ip', table: 'flannel-ipv4', ...chain } })),
      ...chains.flatMap(([chain, rules]) =>
        rules.map((expr) => ({ rule: { family: 'ip', table: 'flannel-ipv4', chain: chain.name, handle: 9, expr } })),
      ),
    ],
  };
}

const MASQ = RULES.masquerade.map(nftJson);
const FWD = RULES.forward.map(nftJson);

function plan(json: Json | undefined, rules = RULES) {
  const { script, repairs } = planNftTable(4, rules, NETWORKS, json && parseNftTable(json));
  return {
    lines: script.split('\n').slice(0, -1),
    problems: repairs.map(({ problem, where }) => `${problem} ${where}`),
  };
}

describe('planNftTable', () => {
  it('makes both chains in a table of flannel’s name and comments', () => {
    const { lines, problems } = plan(undefined);
    assert.deepEqual(lines.slice(0, 3), [
      'add table ip flannel-ipv4 { comment "rules for flannel-ipv4"; }',
      'create chain ip flannel-ipv4 postrtg { type nat hook postrouting priority srcnat; policy accept; comment "chain to manage traffic masquerading by flannel"; }',
      'add rule ip flannel-ipv4 postrtg meta mark & 0x00004000 == 0x00004000 return',
    ]);
    assert.equal(lines.length, 11);
    assert.deepEqual(problems, [
      'missing ip flannel-ipv4',
      'missing ip flannel-ipv4 postrtg',
      'missing ip flannel-ipv4 forward',
    ]);
  });

  it('has an empty table for a family that is not in use', () => {
    const { script } = planNftTable(6, NO_RULES, [], undefined);
    assert.equal(script, 'add table ip6 flannel-ipv6 { comment "rules for flannel-ipv6"; }\n');
    assert.deepEqual(plan(listing([]), NO_RULES), { lines: [], problems: [] });
  });

  it('does nothing when all is there', () => {
    assert.deepEqual(
      plan(
        listing([
          [POSTRTG, MASQ],
          [FORWARD, FWD],
        ]),
      ),
      { lines: [], problems: [] },
    );
  });

  it('empties and fills only the chain that differs', () => {
    const { lines, problems } = plan(
      listing([
        [POSTRTG, MASQ],
        [FORWARD, FWD.toReversed()],
      ]),
    );
    assert.deepEqual(lines, [
      'flush chain ip flannel-ipv4 forward',
      'add rule ip flannel-ipv4 forward ip saddr 10.244.0.0/16 accept',
      'add rule ip flannel-ipv4 forward ip daddr 10.244.0.0/16 accept',
    ]);
    assert.deepEqual(problems, ['order ip flannel-ipv4 forward']);
  });

  it('makes a chain with other properties anew', () => {
    for (const change of [
      { prio: 50 },
      { policy: 'drop' },
      { hook: 'input' },
      { type: 'filter' },
      { type: undefined },
    ]) {
      const { lines, problems } = plan(
        listing([
          [{ ...POSTRTG, ...change }, MASQ],
          [FORWARD, FWD],
        ]),
      );
      assert.deepEqual(problems, ['altered ip flannel-ipv4 postrtg'], JSON.stringify(change));
      assert.deepEqual(lines.slice(0, 2), [
        'flush chain ip flannel-ipv4 postrtg',
        'delete chain ip flannel-ipv4 postrtg',
      ]);
      assert.equal(lines.length, 3 + MASQ.length);
    }
  });

  it('wakes a table that was made dormant', () => {
    for (const flags of ['dormant', ['dormant']]) {
      const table = { family: 'ip', name: 'flannel-ipv4', flags };
      const { lines, problems } = plan(
        listing(
          [
            [POSTRTG, MASQ],
            [FORWARD, FWD],
          ],
          table,
        ),
      );
      assert.deepEqual(problems, ['altered ip flannel-ipv4']);
      assert.match(lines.join(), /^add table ip flannel-ipv4 /);
    }
  });

  it('removes chains that are not wanted and leaves strangers’ chains alone', () => {
    const mine = { name: 'mine', type: 'filter', hook: 'input', prio: 0, policy: 'accept' };
    const { lines } = plan(
      listing([
        [POSTRTG, MASQ],
        [FORWARD, FWD],
        [mine, FWD],
      ]),
      { ...RULES, masquerade: [] },
    );
    assert.deepEqual(lines, ['flush chain ip flannel-ipv4 postrtg', 'delete chain ip flannel-ipv4 postrtg']);
  });
});

describe('parseNftTable', () => {
  it('does not take anything else for a listing', () => {
    for (const json of [
      undefined,
      null,
      7,
      'x',
      {},
      { nftables: 1 },
      { nftables: [] },
      { nftables: [{ chain: {} }] },
    ]) {
      assert.equal(parseNftTable(json), undefined);
    }
  });

  it('survives any JSON', () => {
    fc.assert(
      fc.property(fc.jsonValue(), (json) => void parseNftTable({ nftables: [{ table: json }, { rule: json }] })),
    );
    fc.assert(fc.property(fc.jsonValue(), (json) => void parseNftRule(json)));
    fc.assert(fc.property(fc.array(fc.jsonValue()), (json) => void parseNftRule(json)));
  });
});

describe('parseNftRule', () => {
  const match4 = fc.record(
    {
      prefix: fc
        .tuple(fc.nat(0xffffffff), fc.integer({ min: 1, max: 32 }))
        .map(([addr, length]) => prefix4(ipv4Of(addr), length)),
      negated: fc.boolean(),
    },
    { noNullPrototype: true },
  );
  const match6 = fc.record(
    {
      prefix: fc
        .tuple(fc.bigInt(0n, (1n << 128n) - 1n), fc.integer({ min: 1, max: 128 }))
        .map(([addr, length]) => prefix6(ipv6Of(addr), length)),
      negated: fc.boolean(),
    },
    { noNullPrototype: true },
  );
  const action = fc.constantFrom<TrafficRule['action'][]>(
    { type: 'return' },
    { type: 'accept' },
    { type: 'notrack' },
    { type: 'masquerade', fullyRandom: true },
    { type: 'masquerade', fullyRandom: false },
  );
  const mark = fc.option(
    fc.record({ value: fc.nat(0xffffffff), mask: fc.nat(0xffffffff) }, { noNullPrototype: true }),
    { nil: undefined },
  );
  const udp = fc.option(
    fc.record(
      { end: fc.constantFrom('source' as const, 'destination' as const), port: fc.nat(65_535) },
      { noNullPrototype: true },
    ),
    { nil: undefined },
  );
  const plain = { noNullPrototype: true };
  const rule = fc.oneof(
    ...[match4, match6].map((match: fc.Arbitrary<PrefixMatch>) => {
      const optional = fc.option(match, { nil: undefined });
      return fc.record({ mark, source: optional, destination: optional, udp, action }, plain);
    }),
  );

  it('reads back every rule that can be written', () => {
    fc.assert(fc.property(rule, (each) => assert.deepEqual(parseNftRule(nftJson(each)), each)));
    fc.assert(fc.property(rule, rule, (a, b) => assert.equal(ruleKey(a) === ruleKey(b), nftRule(a) === nftRule(b))));
  });

  it('reads flags as a list, and a mark compared as a whole', () => {
    assert.deepEqual(parseNftRule([{ masquerade: { flags: ['fully-random'] } }])?.action, {
      type: 'masquerade',
      fullyRandom: true,
    });
    const whole = [{ match: { op: '==', left: { meta: { key: 'mark' } }, right: 16384 } }, { return: null }];
    assert.deepEqual(parseNftRule(whole)?.mark, { value: 16384, mask: 0xffffffff });
  });

  it('knows what is none of ours', () => {
    const saddr = { payload: { protocol: 'ip', field: 'saddr' } };
    const foreign: Json[][] = [
      [],
      [{ accept: null }, { accept: null }],
      [{ counter: { packets: 0, bytes: 0 } }, { accept: null }],
      [{ masquerade: { flags: ['fully-random', 'persistent'] } }],
      [{ masquerade: { port: 1, flags: 'random' } }],
      [{ match: { op: '>', left: saddr, right: '10.0.0.1' } }, { accept: null }],
      [{ match: { op: '==', left: saddr, right: '@set' } }, { accept: null }],
      [{ match: { op: '==', left: saddr, right: 'fd00::1' } }, { accept: null }],
      [{ match: { op: '==', left: { payload: { protocol: 'tcp', field: 'dport' } }, right: 80 } }, { accept: null }],
      [{ jump: { target: 'x' } }],
    ];
    for (const expr of foreign) assert.equal(parseNftRule(expr), undefined, JSON.stringify(expr));
  });
});
