import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { chainOf, lineKey, targetOf, unconditionalTarget, words } from './lines.ts';

describe('lineKey', () => {
  const same: readonly [string, string][] = [
    ['-A C -s 10.0.0.1 -j RETURN', '-A C -s 10.0.0.1/32 -j RETURN'],
    ['-A C -s 10.0.0.0/255.0.0.0 -j RETURN', '-A C -s 10.0.0.0/8 -j RETURN'],
    ['-A C -s 0.0.0.0/0 -j RETURN', '-A C -j RETURN'],
    ['-A C -s 0.0.0.0/0.0.0.0 -j RETURN', '-A C -j RETURN'],
    ['-A C -d FD00:0::/48 -j RETURN', '-A C -d fd00::/48 -j RETURN'],
    ['-A C -d fd00::1 -j RETURN', '-A C -d fd00::1/128 -j RETURN'],
    [
      '-A C -m comment --comment "flanneld masq" -j D',
      '-A C -m comment --comment  flanneld\\ masq -j D'.replace('flanneld\\ masq', '"flanneld masq"'),
    ],
    ['-A C -m mark --mark 0x4000/0x4000 -j RETURN', '-A C -m mark --mark 16384/16384 -j RETURN'],
    ['-A C -p udp -m udp --dport 8285 -j CT --notrack', '-A C -p udp --dport 8285 -j CT --notrack'],
    ['-A C -m mark --mark 0x1 -j RETURN', '-A C -m mark --mark 0x1/0xffffffff -j RETURN'],
  ];
  for (const [a, b] of same) it(`${a} = ${b}`, () => assert.equal(lineKey(a), lineKey(b)));

  const different: readonly [string, string][] = [
    ['-A C -s 10.0.0.0/8 -j RETURN', '-A C ! -s 10.0.0.0/8 -j RETURN'],
    ['-A C ! -s 0.0.0.0/0 -j RETURN', '-A C -j RETURN'],
    ['-A C -s 10.0.0.0/8 -j RETURN', '-A C -d 10.0.0.0/8 -j RETURN'],
    ['-A C -j MASQUERADE', '-A C -j MASQUERADE --random-fully'],
    ['-A C -m mark --mark 0x4000/0x4000 -j RETURN', '-A C -m mark --mark 0x4000 -j RETURN'],
    ['-A C -m comment --comment "a" -j RETURN', '-A C -m comment --comment "b" -j RETURN'],
    ['-A C -m comment --comment "a" -j RETURN', '-A C -j RETURN'],
    ['-A C -p tcp -j RETURN', '-A C -j RETURN'],
    ['-A C -s 10.0.0.0/255.0.255.0 -j RETURN', '-A C -s 10.0.0.0/8 -j RETURN'],
    ['-A C -p udp -m udp --dport 8285 -j CT --notrack', '-A C -p udp -m udp --sport 8285 -j CT --notrack'],
    ['-A C -p udp -m udp --dport 8285 -j CT --notrack', '-A C -p udp -m udp --dport 8286 -j CT --notrack'],
    ['-A C -j RETURN', '-A D -j RETURN'],
  ];
  for (const [a, b] of different) it(`${a} ≠ ${b}`, () => assert.notEqual(lineKey(a), lineKey(b)));
});

describe('reading rule lines', () => {
  it('splits words as iptables-restore does', () => {
    assert.deepEqual(words('-A C  --comment "a \\"b\\" c" -j D'), ['-A', 'C', '--comment', 'a "b" c', '-j', 'D']);
    assert.deepEqual(words('--comment ""'), ['--comment', '']);
  });

  it('finds chain and target', () => {
    const line = '-A KUBE-FORWARD -m comment --comment "x -j NO" -j ACCEPT';
    assert.equal(chainOf(line), 'KUBE-FORWARD');
    assert.equal(targetOf(line), 'ACCEPT');
    assert.equal(targetOf('-A C -g D'), 'D');
    assert.equal(chainOf('-P FORWARD ACCEPT'), undefined);
  });

  it('knows a rule that takes every packet', () => {
    assert.equal(unconditionalTarget('-A FORWARD -j REJECT --reject-with icmp-host-prohibited'), 'REJECT');
    assert.equal(unconditionalTarget('-A FORWARD -m comment --comment "last" -j DROP'), 'DROP');
    assert.equal(unconditionalTarget('-A POSTROUTING -j MASQUERADE --random-fully'), 'MASQUERADE');
    for (const line of [
      '-A FORWARD -i eth0 -j DROP',
      '-A FORWARD -s 10.0.0.0/8 -j DROP',
      '-A FORWARD -m conntrack --ctstate INVALID -j DROP',
      '-A FORWARD -p tcp -j REJECT',
    ]) {
      assert.equal(unconditionalTarget(line), undefined, line);
    }
  });
});
