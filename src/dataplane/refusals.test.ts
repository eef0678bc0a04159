import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { peer6Of, peerOf, TWO_DUAL_PEERS, TWO_PEERS } from '../../test/fakes/memory-dataplane.ts';
import { address } from '../../test/fakes/packets.ts';
import { ipv4Of } from '../ip/ipv4.ts';
import { parseIpv6 } from '../ip/ipv6.ts';
import { parsePrefix6, prefix4 } from '../ip/prefix.ts';
import type { DropReasonName } from './drop-reason.ts';
import { REMEMBERED_MS, Refusals } from './refusals.ts';
import type { RefusedSender } from './refused-senders.ts';

const refused = (sender: string, reason: DropReasonName, inner: string, packets = 5): RefusedSender => ({
  sender: ipv4Of(address(sender)),
  reason,
  inner: inner === '' ? undefined : ipv4Of(address(inner)),
  packets,
});

function refusals(): Refusals {
  const made = new Refusals();
  made.peersAre({
    ipv4: { network: prefix4(ipv4Of(address('10.244.0.0')), 16), own: prefix4(ipv4Of(address('10.244.1.0')), 24) },
    ipv6: undefined,
    mtu: 1_472,
    peers: TWO_PEERS.map(peerOf),
  });
  return made;
}

describe('Refusals', () => {
  for (const [what, entry, expected] of [
    [
      'a node behind an elastic IP',
      refused('203.0.113.9', 'unknown-source', '10.244.2.9', 312),
      /^Dropped 312 packets from 203\.0\.113\.9 \(unknown-source\): no node has that address\. Their source 10\.244\.2\.9 is of 10\.244\.2\.0\/24, which 192\.168\.77\.2 has leased: .*--public-ip=203\.0\.113\.9/,
    ],
    [
      'a node without a lease',
      refused('203.0.113.9', 'unknown-source', '10.244.77.9'),
      /10\.244\.77\.9 is in no node’s subnet/,
    ],
    [
      'a stranger',
      refused('203.0.113.9', 'unknown-source', '', 1),
      /^Dropped 1 packet from .*They do not contain an IP packet/,
    ],
    [
      'another node’s container',
      refused('192.168.77.2', 'spoofed-source', '10.244.3.9'),
      /their source 10\.244\.3\.9 is of 10\.244\.3\.0\/24, which 192\.168\.77\.3 has leased\./,
    ],
    [
      'nobody’s container',
      refused('192.168.77.2', 'spoofed-source', '10.244.9.9'),
      /10\.244\.9\.9 is in no node’s subnet/,
    ],
    [
      'an address from outside',
      refused('192.168.77.2', 'foreign-source', '8.8.8.8'),
      /8\.8\.8\.8 is outside the network/,
    ],
    [
      'transit',
      refused('192.168.77.2', 'foreign-destination', '169.254.169.254'),
      /they are for 169\.254\.169\.254, which is neither/,
    ],
  ] as const) {
    it(`says who and what to do: ${what}`, () => {
      const lines = refusals().add([entry], 0);
      assert.equal(lines.length, 1);
      assert.match(lines[0]!, expected);
    });
  }

  it('says it of IPv6 as of IPv4', () => {
    const made = new Refusals();
    const [network, own] = [parsePrefix6('fd00:244::/48')!, parsePrefix6('fd00:244:0:1::/64')!];
    made.peersAre({ ipv4: undefined, ipv6: { network, own }, mtu: 1_452, peers: TWO_DUAL_PEERS.map(peer6Of) });
    const [sender, pod, peer] = ['2001:db8::9', 'fd00:244:0:2::9', 'fd00:77::2'].map((text) => parseIpv6(text)!);
    const [line] = made.add([{ sender: sender!, reason: 'unknown-source', inner: pod, packets: 3 }], 0);
    assert.match(
      line!,
      /^Dropped 3 packets from 2001:db8::9 .*Their source fd00:244:0:2::9 is of fd00:244:0:2::\/64, which fd00:77::2 has leased: .*--public-ipv6=2001:db8::9/,
    );
    assert.deepEqual(made.add([{ sender: peer!, reason: 'unknown-source', inner: pod, packets: 3 }], 0), []);
  });

  it('speaks of a sender once in ten minutes, and remembers the sum', () => {
    const made = refusals();
    const entry = refused('203.0.113.9', 'unknown-source', '10.244.2.9');
    assert.equal(made.add([entry], 0).length, 1);
    for (let at = 2_000; at <= REMEMBERED_MS; at += 2_000) assert.deepEqual(made.add([entry], at), []);
    assert.match(made.recent(REMEMBERED_MS)[0]!, /^Dropped 1505 packets/);
    assert.equal(made.add([entry], REMEMBERED_MS + 2_000).length, 1);
  });

  it('forgets who is quiet', () => {
    const made = refusals();
    made.add([refused('203.0.113.9', 'unknown-source', '10.244.2.9')], 0);
    assert.deepEqual(made.counts(REMEMBERED_MS), { 'unknown-source': 1 });
    assert.deepEqual([made.recent(REMEMBERED_MS + 1), made.counts(REMEMBERED_MS + 1)], [[], {}]);
  });

  it('says nothing about a peer whose lease came after its first packet', () => {
    const made = refusals();
    assert.deepEqual(made.add([refused('192.168.77.3', 'unknown-source', '10.244.3.9')], 0), []);
    assert.deepEqual(made.recent(0), []);
  });

  it('has bounded lines and memory in a flood of forged addresses', () => {
    const made = refusals();
    let lines = 0;
    for (let at = 0; at < 200; at++) {
      const flood = Array.from({ length: 32 }, (_, index) =>
        refused(`198.18.${at}.${index}`, 'unknown-source', '10.244.2.9'),
      );
      lines += made.add(flood, at * 2_000).length;
    }
    assert.equal(lines, 10);
    assert.equal(made.recent(400_000).length, 64);
  });
});
