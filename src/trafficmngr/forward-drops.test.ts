import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { parsePrefix4 } from '../ip/prefix.ts';
import { findForwardDrops, suspectTables } from './forward-drops.ts';

const NETWORK = parsePrefix4('10.244.0.0/16')!;
const chain = (table: string, name: string, more: object = {}) => ({ chain: { family: 'ip', table, name, ...more } });
const forward = (policy: string, table = 'filter') => chain(table, 'FORWARD', { hook: 'forward', policy });
const rule = (table: string, name: string, ...expr: object[]) => ({
  rule: { family: 'ip', table, chain: name, expr },
});
const match = (field: string, right: unknown, op = '==') => ({
  match: { op, left: { payload: { protocol: 'ip', field } }, right },
});
const iif = (right: string, op = '==') => ({ match: { op, left: { meta: { key: 'iifname' } }, right } });
const prefix = (addr: string, len: number) => ({ prefix: { addr, len } });

function found(items: readonly object[], legacyForward?: string): string[] {
  const nft = [JSON.stringify({ nftables: [{ metainfo: {} }, ...items] })];
  return findForwardDrops({ nft, legacyForward }, NETWORK, ['flannel0']).map(({ where }) => where);
}

const FILTER = ['chain FORWARD of table ip filter'];

describe('chains that drop packets of containers', () => {
  it('drop by their policy, are not ours, and accept none of the network', () => {
    assert.deepEqual(found([]), []);
    assert.deepEqual(found([forward('accept')]), []);
    assert.deepEqual(found([forward('drop', 'flannel-ipv4')]), []);
    assert.deepEqual(found([chain('filter', 'INPUT', { hook: 'input', policy: 'drop' })]), []);
    assert.deepEqual(found([forward('drop')]), FILTER);
    for (const open of [
      [{ counter: null }, { accept: null }],
      [match('saddr', prefix('10.244.0.0', 16)), { accept: null }],
      [match('daddr', prefix('10.0.0.0', 8)), { accept: null }],
      [match('daddr', '10.244.7.9'), { accept: null }],
      [iif('cni0'), { accept: null }],
    ]) {
      assert.deepEqual(found([forward('drop'), rule('filter', 'FORWARD', ...open)]), [], JSON.stringify(open));
    }
    for (const closed of [
      [match('saddr', prefix('10.245.0.0', 16)), { accept: null }],
      [match('saddr', prefix('10.244.0.0', 16), '!='), { accept: null }],
      [match('saddr', prefix('10.244.0.0', 16)), { drop: null }],
      [iif('eth0'), { accept: null }],
      [{ xt: { type: 'match', name: 'conntrack' } }, { accept: null }],
    ]) {
      assert.deepEqual(found([forward('drop'), rule('filter', 'FORWARD', ...closed)]), FILTER, JSON.stringify(closed));
    }
  });

  it('may accept in chains that they jump to, through others', () => {
    const jumps = [
      rule('filter', 'FORWARD', { jump: { target: 'DOCKER-USER' } }),
      rule('filter', 'DOCKER-USER', { goto: { target: 'SITE' } }),
      rule('filter', 'SITE', { jump: { target: 'DOCKER-USER' } }),
    ];
    const accept = rule('filter', 'SITE', match('saddr', prefix('10.244.0.0', 16)), { accept: null });
    assert.deepEqual(found([forward('drop'), ...jumps, accept]), []);
    assert.deepEqual(found([forward('drop'), ...jumps.slice(1), accept]), FILTER);
  });

  it('are also those before routing that drop what is for a container', () => {
    const raw = chain('raw', 'PREROUTING', { hook: 'prerouting', policy: 'accept' });
    const drop = (address: string) =>
      rule('raw', 'PREROUTING', iif('docker0', '!='), match('daddr', address), { drop: null });
    assert.deepEqual(found([raw, drop('10.244.1.2')]), ['chain PREROUTING of table ip raw']);
    assert.deepEqual(found([raw, drop('172.17.0.2')]), []);
  });

  it('may be those of iptables-legacy', () => {
    const legacy = (...lines: string[]) => found([], ['-P FORWARD DROP', ...lines].join('\n'));
    assert.deepEqual(found([], '-P FORWARD ACCEPT'), []);
    assert.deepEqual(legacy(), ['chain FORWARD of iptables-legacy']);
    assert.deepEqual(legacy('-A FORWARD ! -s 10.244.0.0/16 -j ACCEPT', '-A FORWARD -i eth0 -j ACCEPT'), [
      'chain FORWARD of iptables-legacy',
    ]);
    for (const line of ['-s 10.244.0.0/16 -j ACCEPT', '-o cni0 -j ACCEPT', '-j ACCEPT', '-m comment -j FLANNEL-FWD']) {
      assert.deepEqual(legacy(`-A FORWARD ${line}`), []);
    }
  });

  it('make few tables suspect, of which the rules are read', () => {
    const chains = [
      forward('drop'),
      chain('nat', 'PREROUTING', { hook: 'prerouting', prio: -100, policy: 'accept' }),
      chain('raw', 'PREROUTING', { hook: 'prerouting', prio: -300, policy: 'accept' }),
      chain('filter', 'INPUT', { hook: 'input', policy: 'drop' }),
      forward('accept', 'open'),
      forward('drop', 'flannel-ipv4'),
    ];
    assert.deepEqual(suspectTables(JSON.stringify({ nftables: chains })), ['ip filter', 'ip raw']);
  });

  it('are none in what cannot be read', () => {
    for (const nft of ['', '{', 'null', '{"nftables": [null, 1, {"chain": {}}, {"rule": {"expr": [null]}}]}']) {
      assert.deepEqual(findForwardDrops({ nft: [nft], legacyForward: undefined }, NETWORK, ['flannel0']), []);
    }
  });
});
