import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { parseIpv4 } from '../ip/ipv4.ts';
import { parseIpv6 } from '../ip/ipv6.ts';
import { parsePrefix4, parsePrefix6 } from '../ip/prefix.ts';
import { ruleLine } from './iptables/lines.ts';
import { nftRule } from './nftables/script.ts';
import { NO_RULES, type TrafficOptions, trafficRules, withoutFullyRandom } from './rules.ts';

const IPV4 = { network: parsePrefix4('10.244.0.0/16')!, subnet: parsePrefix4('10.244.1.0/24')! };
const IPV6 = { network: parsePrefix6('fd00::/48')!, subnet: parsePrefix6('fd00:0:0:1::/64')! };
const OPTIONS: TrafficOptions = { ipv4: IPV4, ipv6: undefined, ipMasq: true, randomFully: true, forwardRules: true };

describe('trafficRules', () => {
  it('has flannel’s masquerade rules in flannel’s order, in both notations', () => {
    const { masquerade } = trafficRules(OPTIONS).ipv4;
    assert.deepEqual(
      masquerade.map((rule) =>
        ruleLine('C', 'flanneld masq', rule).replace(' -m comment --comment "flanneld masq"', ''),
      ),
      [
        '-A C -m mark --mark 0x4000/0x4000 -j RETURN',
        '-A C -s 10.244.1.0/24 -d 10.244.0.0/16 -j RETURN',
        '-A C -s 10.244.0.0/16 -d 10.244.1.0/24 -j RETURN',
        '-A C ! -s 10.244.0.0/16 -d 10.244.1.0/24 -j RETURN',
        '-A C -s 10.244.0.0/16 ! -d 224.0.0.0/4 -j MASQUERADE --random-fully',
        '-A C ! -s 10.244.0.0/16 -d 10.244.0.0/16 -j MASQUERADE --random-fully',
      ],
    );
    assert.deepEqual(masquerade.map(nftRule), [
      'meta mark & 0x00004000 == 0x00004000 return',
      'ip saddr 10.244.1.0/24 ip daddr 10.244.0.0/16 return',
      'ip saddr 10.244.0.0/16 ip daddr 10.244.1.0/24 return',
      'ip saddr != 10.244.0.0/16 ip daddr 10.244.1.0/24 return',
      'ip saddr 10.244.0.0/16 ip daddr != 224.0.0.0/4 masquerade fully-random',
      'ip saddr != 10.244.0.0/16 ip daddr 10.244.0.0/16 masquerade fully-random',
    ]);
  });

  it('does the same for IPv6, with its multicast range', () => {
    const rules = trafficRules({ ...OPTIONS, ipv4: undefined, ipv6: IPV6, randomFully: false });
    assert.deepEqual(rules.ipv4, NO_RULES);
    assert.equal(
      ruleLine('C', 'c', rules.ipv6.masquerade[4]!),
      '-A C -s fd00::/48 ! -d ff00::/8 -m comment --comment "c" -j MASQUERADE',
    );
    assert.deepEqual(rules.ipv6.forward.map(nftRule), ['ip6 saddr fd00::/48 accept', 'ip6 daddr fd00::/48 accept']);
  });

  it('has no rules of a kind that is switched off', () => {
    const rules = trafficRules({ ...OPTIONS, ipMasq: false, forwardRules: false });
    assert.deepEqual([rules.ipv4, rules.ipv6], [NO_RULES, NO_RULES]);
  });

  it('keeps the tunnel’s datagrams out of connection tracking by their port at this host’s address, in both notations', () => {
    const untracked = { listenAddress: parseIpv4('192.168.77.1')!, listenPort: 8285 };
    const { untrackedIn, untrackedOut, ...others } = trafficRules({ ...OPTIONS, untracked }).ipv4;
    assert.deepEqual(
      [...untrackedIn, ...untrackedOut].map((rule) => ruleLine('C', 'c', rule)),
      [
        '-A C -d 192.168.77.1/32 -p udp -m udp --dport 8285 -m comment --comment "c of 10.244.0.0/16" -j CT --notrack',
        '-A C -s 192.168.77.1/32 -p udp -m udp --sport 8285 -m comment --comment "c of 10.244.0.0/16" -j CT --notrack',
      ],
    );
    assert.deepEqual([...untrackedIn, ...untrackedOut].map(nftRule), [
      'ip daddr 192.168.77.1 udp dport 8285 notrack comment "of 10.244.0.0/16"',
      'ip saddr 192.168.77.1 udp sport 8285 notrack comment "of 10.244.0.0/16"',
    ]);
    const without = trafficRules(OPTIONS).ipv4;
    assert.deepEqual([without.untrackedIn, without.untrackedOut], [[], []]);
    assert.deepEqual({ ...without, ...others }, without);
  });

  it('keeps those of a tunnel over IPv6 out in the rules of IPv6', () => {
    const untracked = { listenAddress: parseIpv6('fd77::1')!, listenPort: 8285 };
    const { ipv4, ipv6 } = trafficRules({ ...OPTIONS, ipv4: undefined, ipv6: IPV6, untracked });
    assert.deepEqual(ipv4, NO_RULES);
    assert.deepEqual([...ipv6.untrackedIn, ...ipv6.untrackedOut].map(nftRule), [
      'ip6 daddr fd77::1 udp dport 8285 notrack comment "of fd00::/48"',
      'ip6 saddr fd77::1 udp sport 8285 notrack comment "of fd00::/48"',
    ]);
  });

  it('leaves out what a network of every address makes empty', () => {
    const all = parsePrefix4('0.0.0.0/0')!;
    const { masquerade, forward } = trafficRules({ ...OPTIONS, ipv4: { ...IPV4, network: all } }).ipv4;
    assert.deepEqual(masquerade.map(nftRule), [
      'meta mark & 0x00004000 == 0x00004000 return',
      'ip saddr 10.244.1.0/24 return',
      'ip daddr 10.244.1.0/24 return',
      'ip daddr != 224.0.0.0/4 masquerade fully-random',
    ]);
    assert.deepEqual(forward.map(nftRule), ['accept', 'accept']);
  });

  it('can leave out fully-random afterwards', () => {
    const plain = trafficRules({ ...OPTIONS, randomFully: false }).ipv4.masquerade;
    assert.deepEqual(withoutFullyRandom(trafficRules(OPTIONS).ipv4.masquerade), plain);
  });
});
