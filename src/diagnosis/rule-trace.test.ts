import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { address, udpPacket } from '../../test/fakes/packets.ts';
import { address6, udp6Packet } from '../../test/fakes/packets6.ts';
import { parseAddr } from '../ip/address.ts';
import { droppingRule, plainTarget, ruleMatch, ruleTargetOf } from './rule-trace.ts';
import { matchIp, type TraceIdentity } from './trace-match.ts';

const payload = Buffer.from('weft-trace');
const [FROM, TO] = [address('10.244.1.2'), address('10.244.2.2')];
const request = udpPacket({ ip: { source: FROM, destination: TO }, sourcePort: 0x1234, destinationPort: 53, payload });
const answer = udpPacket({ ip: { source: TO, destination: FROM }, sourcePort: 53, destinationPort: 0x1234, payload });
const identity: TraceIdentity = { protocol: 'udp', destination: parseAddr('10.244.2.2')!, mark: 0x1234, port: 53 };
const hosts = { source: address('192.168.77.1'), destination: address('192.168.77.2') };
const wrap = (port: number, inside: Uint8Array): Uint8Array =>
  udpPacket({ ip: hosts, sourcePort: port, destinationPort: port, payload: inside });

/** What the fields of the match are in those bytes. */
function valuesIn(bytes: Uint8Array, match: string): readonly (readonly [found: string, wanted: string])[] {
  return [...match.matchAll(/@nh,(\d+),(\d+) 0x([0-9a-f]+)/g)].map(([, at, bits, wanted]) => {
    const from = Number(at) / 8;
    return [Buffer.from(bytes.subarray(from, from + Number(bits) / 8)).toString('hex'), wanted!];
  });
}

describe('the rule that traces a packet', () => {
  it('fits it as it is, as an answer, and inside a tunnel of either kind', () => {
    const vxlan = Buffer.concat([Buffer.from('0800000000000100', 'hex'), Buffer.alloc(12), Buffer.of(8, 0), request]);
    const to6 = parseAddr('fd10::2:2')!;
    const [a6, b6] = [address6('fd10::1:2'), address6('fd10::2:2')];
    const of6 = { source: a6, destination: b6 };
    const request6 = udp6Packet({ ip: of6, sourcePort: 0x1234, destinationPort: 53, payload });
    for (const [bytes, wanted] of [
      [request, identity],
      [answer, identity],
      [wrap(8285, request), identity],
      [wrap(8472, vxlan), identity],
      [request6, { ...identity, destination: to6 }],
      [wrap(8285, request6), { ...identity, destination: to6 }],
    ] as const) {
      const match = ruleMatch(wanted, ruleTargetOf(matchIp(wanted, bytes)!));
      const values = valuesIn(bytes, match);
      assert.equal(values.length, 2, match);
      for (const [found, value] of values) assert.equal(found, value, match);
    }
  });

  it('fits a packet that is yet to be sent', () => {
    assert.equal(ruleMatch(identity, plainTarget(identity)), '@nh,128,32 0x0af40202 @nh,160,16 0x1234');
  });
});

describe('a line of nft monitor trace', () => {
  // As nft 1.0.6 prints them.
  const cases = [
    [
      'trace id 62200ee9 inet t d rule ip protocol icmp counter packets 3 bytes 84 drop comment "hi" (verdict drop)',
      { table: 'inet t', chain: 'd', text: 'ip protocol icmp counter drop comment "hi"' },
      'nft -a list chain inet t d',
    ],
    [
      'trace id a115f17d ip filter INPUT rule ip daddr 127.0.0.8 counter packets 0 bytes 0 drop (verdict drop)',
      { table: 'ip filter', chain: 'INPUT', text: 'ip daddr 127.0.0.8 counter drop' },
      'iptables-nft -t filter -S INPUT',
    ],
    [
      'trace id a115f17d ip filter FORWARD policy drop ',
      { table: 'ip filter', chain: 'FORWARD', text: 'policy drop' },
      'iptables-nft -t filter -S FORWARD',
    ],
  ] as const;
  for (const [line, rule, listedBy] of cases)
    it(`names ${rule.text}`, () => assert.deepEqual(droppingRule(line), { ...rule, listedBy }));

  it('that drops nothing names nothing', () => {
    for (const line of [
      'trace id 62200ee9 inet t c rule ip daddr 127.0.0.9 jump d (verdict jump d)',
      'trace id 62200ee9 ip filter INPUT policy accept ',
      'trace id 62200ee9 ip filter INPUT packet: iif "lo" ip saddr 127.0.0.1 ip daddr 127.0.0.9 ip ttl 64 (verdict drop',
      '',
    ])
      assert.equal(droppingRule(line), undefined);
  });
});
