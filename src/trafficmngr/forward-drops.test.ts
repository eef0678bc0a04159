import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { type IpPrefix, parsePrefix } from '../ip/address.ts';
import { type ForwardDrop, findForwardDrops, suspectTables } from './forward-drops.ts';

const NETWORK = parsePrefix('10.244.0.0/16')!;
const NETWORK6 = parsePrefix('fd10::/48')!;
const chain = (table: string, name: string, more: object = {}) => ({ chain: { family: 'ip', table, name, ...more } });
const forward = (policy: string, table = 'filter') => chain(table, 'FORWARD', { hook: 'forward', policy });
const rule = (table: string, name: string, ...expr: object[]) => ({
  rule: { family: 'ip', table, chain: name, expr },
});
const match = (field: string, right: unknown, op = '==') => ({
  match: { op, left: { payload: { protocol: 'ip', field } }, right },
});
/** The same in the tables of IPv6. */
const in6 = (item: object): object =>
  Object.fromEntries(Object.entries(item).map(([key, value]) => [key, { ...(value as object), family: 'ip6' }]));
const iif = (right: string, op = '==') => ({ match: { op, left: { meta: { key: 'iifname' } }, right } });
const prefix = (addr: string, len: number) => ({ prefix: { addr, len } });

function drops(items: readonly object[], network: IpPrefix, legacy = { ipv4: '', ipv6: '' }): ForwardDrop[] {
  const nft = [JSON.stringify({ nftables: [{ metainfo: {} }, ...items] })];
  return findForwardDrops({ nft, legacy }, network, ['flannel0']);
}

function found(items: readonly object[], legacy = ''): string[] {
  return drops(items, NETWORK, { ipv4: legacy, ipv6: '-P FORWARD DROP' }).map(({ where }) => where);
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

  it('may be that before routing of iptables-legacy', () => {
    const raw = (line: string) => found([], `-P PREROUTING ACCEPT\n-A PREROUTING ${line}`);
    const where = ['chain PREROUTING of table raw of iptables-legacy'];
    assert.deepEqual(raw('-d 10.244.1.2/32 ! -i docker0 -j DROP'), where);
    assert.deepEqual(raw('! -i docker0 -m comment --comment "a b" -d 10.244.1.2/32 -j DROP'), where);
    for (const line of [
      '-d 172.17.0.2/32 ! -i docker0 -j DROP',
      '! -d 10.244.1.2/32 -i docker0 -j DROP',
      '-d 10.244.1.2/32 -j ACCEPT',
      '-i docker0 -j DROP',
    ]) {
      assert.deepEqual(raw(line), [], line);
    }
    const [drop] = drops([], NETWORK6, { ipv4: '', ipv6: '-A PREROUTING -d fd10:0:0:7::9/128 ! -i docker0 -j DROP' });
    assert.deepEqual(drop?.where, 'chain PREROUTING of table raw of ip6tables-legacy');
    assert.match(drop.hint, /gateway_mode_ipv6=nat-unprotected/);
  });

  it('are those of the network’s family, or of both', () => {
    const told = (items: readonly object[], ipv6 = '') =>
      drops(items, NETWORK6, { ipv4: '-P FORWARD DROP', ipv6 }).map(({ where, hint }) => `${where}: ${hint}`);
    assert.deepEqual(told([forward('drop')]), []);
    const [iptables] = told([in6(forward('drop'))]);
    assert.match(iptables!, /^chain FORWARD of table ip6 filter: .* ip6tables -I FORWARD -s fd10::\/48 -j ACCEPT; /);
    const [legacy] = told([], '-P FORWARD DROP');
    assert.match(
      legacy!,
      /^chain FORWARD of ip6tables-legacy: .* ip6tables-legacy -I FORWARD -s fd10::\/48 -j ACCEPT; /,
    );
    assert.deepEqual(told([], '-P FORWARD DROP\n-A FORWARD -s fd10::/48 -j ACCEPT'), []);
    for (const right of [prefix('fd10::', 48), prefix('fd00::', 8), 'fd10:0:0:7::9']) {
      const open = in6(rule('filter', 'FORWARD', match('saddr', right), { accept: null }));
      assert.deepEqual(told([in6(forward('drop')), open]), [], JSON.stringify(right));
    }
    const both = { chain: { family: 'inet', table: 'guard', name: 'forward', hook: 'forward', policy: 'drop' } };
    const only4 = {
      rule: {
        family: 'inet',
        table: 'guard',
        chain: 'forward',
        expr: [match('saddr', prefix('10.244.0.0', 16)), { accept: null }],
      },
    };
    assert.deepEqual(found([both, only4]), []);
    const [shared] = told([both, only4]);
    assert.match(
      shared!,
      /^chain forward of table inet guard: .* nft insert rule inet guard forward ip6 saddr fd10::\/48 accept; /,
    );
    const raw = in6(chain('raw', 'PREROUTING', { hook: 'prerouting', policy: 'accept' }));
    const drop = in6(rule('raw', 'PREROUTING', iif('docker0', '!='), match('daddr', 'fd10:0:0:7::9'), { drop: null }));
    assert.match(told([raw, drop])[0]!, /^chain PREROUTING of table ip6 raw: .*gateway_mode_ipv6=nat-unprotected/);
  });

  it('make few tables suspect, of which the rules are read', () => {
    const chains = [
      forward('drop'),
      chain('nat', 'PREROUTING', { hook: 'prerouting', prio: -100, policy: 'accept' }),
      chain('raw', 'PREROUTING', { hook: 'prerouting', prio: -300, policy: 'accept' }),
      chain('filter', 'INPUT', { hook: 'input', policy: 'drop' }),
      forward('accept', 'open'),
      forward('drop', 'flannel-ipv4'),
      in6(forward('drop')),
      in6(forward('drop', 'flannel-ipv6')),
    ];
    assert.deepEqual(suspectTables(JSON.stringify({ nftables: chains })), ['ip filter', 'ip raw', 'ip6 filter']);
  });

  it('are none in what cannot be read', () => {
    for (const nft of ['', '{', 'null', '{"nftables": [null, 1, {"chain": {}}, {"rule": {"expr": [null]}}]}']) {
      assert.deepEqual(
        findForwardDrops({ nft: [nft], legacy: { ipv4: undefined, ipv6: undefined } }, NETWORK, ['flannel0']),
        [],
      );
    }
  });
});
