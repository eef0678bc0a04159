import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import {
  type MemoryHost,
  type MemoryHostOptions,
  memoryHost,
  OWN_IPV6,
  TWO_DUAL_PEERS,
} from '../../test/fakes/memory-dataplane.ts';
import { address, hex, udpPacket } from '../../test/fakes/packets.ts';
import { address6, aged6, packet6Fault, solicitation, udp6Packet } from '../../test/fakes/packets6.ts';
import { parseIpv6 } from '../ip/ipv6.ts';
import type { DropReasonName } from './drop-reason.ts';
import { RefusedSenders } from './refused-senders.ts';

const HOST_2 = address('192.168.77.2');
const OUTER: Record<4 | 6, (host: number) => number | bigint> = {
  4: (host) => address(`192.168.77.${host}`),
  6: (host) => parseIpv6(`fd00:77::${host}`)!,
};
const ports = { sourcePort: 40_000, destinationPort: 5_201 };

function packet(source: string, destination = 'fd00:244:0:1::2', hopLimit = 64): Uint8Array {
  return udp6Packet({ ip: { source: address6(source), destination: address6(destination), hopLimit }, ...ports });
}

function receive(host: MemoryHost, from: number | bigint, ...packets: readonly Uint8Array[]): string[] {
  host.rx.conn.deliver(packets.map((data) => ({ address: from, port: 8_285, data })));
  host.run();
  return host.rx.tun.written.splice(0).map((bytes) => hex(bytes.subarray(10)));
}

/** What becomes of a packet from host 2, over either underlay: `none` when it is passed on. */
function verdict(data: Uint8Array, options: MemoryHostOptions = {}): DropReasonName {
  const verdicts = ([4, 6] as const).map((underlay) => {
    const host = memoryHost({ ipv6: OWN_IPV6, underlay, ...options });
    const written = receive(host, OUTER[underlay](2), data);
    const { packets, drops } = host.counters.read(1, 'rx');
    if (packets === 1) assert.deepEqual(written, [hex(aged6(data, 1))]);
    else assert.deepEqual(written, []);
    return packets === 1 ? 'none' : (Object.keys(drops)[0] as DropReasonName);
  });
  assert.equal(verdicts[0], verdicts[1]);
  return verdicts[0]!;
}

const FROM_2 = 'fd00:244:0:2::9';

describe('the source of an IPv6 packet from a peer', () => {
  const cases: readonly [source: string, loose: DropReasonName, strict: DropReasonName][] = [
    [FROM_2, 'none', 'none'],
    ['fd00:244:0:3::9', 'spoofed-source', 'spoofed-source'], // of another peer
    ['fd00:244:0:1::9', 'spoofed-source', 'spoofed-source'], // of this host
    ['fd00:244:0:9::9', 'spoofed-source', 'spoofed-source'], // of nobody
    ['fd00:77::2', 'none', 'none'], // that host itself
    ['fd00:77::3', 'none', 'foreign-source'], // another host
    ['fd00:77::1', 'spoofed-source', 'spoofed-source'], // this host itself
    ['2001:db8::8', 'none', 'foreign-source'],
    ['::', 'foreign-source', 'foreign-source'],
    ['::1', 'foreign-source', 'foreign-source'],
    ['::ffff:10.244.3.9', 'foreign-source', 'foreign-source'],
    ['fe80::2', 'foreign-source', 'foreign-source'],
    ['febf::2', 'foreign-source', 'foreign-source'],
    ['ff02::2', 'foreign-source', 'foreign-source'],
  ];
  for (const [source, loose, strict] of cases) {
    it(`${source}: ${loose}, strict: ${strict}, and off lets it pass`, () => {
      assert.equal(verdict(packet(source)), loose);
      assert.equal(verdict(packet(source), { sourceCheck: 'strict' }), strict);
      assert.equal(verdict(packet(source), { sourceCheck: 'off' }), 'none');
    });
  }

  it('may be an address of that host inside the network, where no subnet is; not one of another', () => {
    const peers = [{ ...TWO_DUAL_PEERS[0]!, publicIpv6: 'fd00:244:0:ff::2' }, TWO_DUAL_PEERS[1]!];
    const host = memoryHost({ ipv6: OWN_IPV6, peers });
    assert.equal(receive(host, HOST_2, packet('fd00:244:0:ff::2')).length, 1);
    assert.equal(receive(host, HOST_2, packet('fd00:244:0:ff::3')).length, 0);
    assert.equal(receive(host, address('192.168.77.3'), packet('fd00:244:0:ff::2')).length, 0);
  });

  it('may be of any subnet of a host that has several', () => {
    const second = { ...TWO_DUAL_PEERS[0]!, slot: 5, subnet: '10.244.7.0/24', ipv6Subnet: 'fd00:244:0:7::/64' };
    for (const underlay of [4, 6] as const) {
      const host = memoryHost({ ipv6: OWN_IPV6, underlay, peers: [...TWO_DUAL_PEERS, second] });
      assert.equal(receive(host, OUTER[underlay](2), packet('fd00:244:0:7::9')).length, 1);
      assert.equal(receive(host, OUTER[underlay](3), packet('fd00:244:0:7::9')).length, 0);
    }
  });

  it('is nobody’s when the datagram comes from no peer', () => {
    for (const underlay of [4, 6] as const) {
      const host = memoryHost({ ipv6: OWN_IPV6, underlay });
      assert.deepEqual(receive(host, OUTER[underlay](9), packet(FROM_2)), []);
      assert.deepEqual(host.counters.read(0, 'rx').drops, { 'unknown-source': 1 });
    }
  });
});

describe('the destination of an IPv6 packet from a peer', () => {
  const cases: readonly [destination: string, loose: DropReasonName, strict: DropReasonName, off: DropReasonName][] = [
    ['fd00:244:0:1::2', 'none', 'none', 'none'],
    ['fd00:77::1', 'none', 'foreign-destination', 'none'], // this host
    ['fd00:244:0:3::2', 'foreign-destination', 'foreign-destination', 'none'], // transit
    ['2001:db8::8', 'foreign-destination', 'foreign-destination', 'none'],
    ['::1', 'foreign-destination', 'foreign-destination', 'none'],
    ['fe80::1', 'foreign-destination', 'foreign-destination', 'none'],
    ['ff02::1', 'ipv6-multicast', 'ipv6-multicast', 'ipv6-multicast'],
  ];
  for (const [destination, loose, strict, off] of cases) {
    it(`${destination}: ${loose}, strict: ${strict}, off: ${off}`, () => {
      const localAddresses6 = ['fd00:77::1', '::1', 'fe80::1'];
      const data = packet(FROM_2, destination);
      assert.equal(verdict(data, { localAddresses6 }), loose);
      assert.equal(verdict(data, { localAddresses6, destinationCheck: 'strict' }), strict);
      assert.equal(verdict(data, { localAddresses6, destinationCheck: 'off' }), off);
    });
  }
});

describe('an IPv6 packet that is not passed on', () => {
  it('is cut off, or has no hop left, which its sender is told', () => {
    assert.equal(verdict(packet(FROM_2).subarray(0, 47)), 'malformed');
    assert.equal(verdict(packet(FROM_2).subarray(0, 39)), 'not-ipv4');
    assert.equal(verdict(packet(FROM_2, undefined, 0)), 'ttl-exceeded');
    const host = memoryHost({ ipv6: OWN_IPV6 });
    const old = packet(FROM_2, undefined, 1);
    assert.deepEqual(receive(host, HOST_2, old), []);
    const [answer] = host.rx.icmp6.sent;
    assert.equal(answer && packet6Fault(answer), undefined);
    assert.deepEqual([answer?.[40], answer?.[41], answer?.slice(24, 40)], [3, 0, address6(FROM_2)]);
    assert.deepEqual(answer?.slice(48), old);
  });

  it('comes into a network without IPv6', () => {
    const host = memoryHost();
    assert.deepEqual(receive(host, HOST_2, packet(FROM_2), solicitation(0xff)), []);
    assert.deepEqual(host.counters.read(1, 'rx').drops, { 'not-ipv4': 1, 'ipv6-multicast': 1 });
  });

  it('is noted with who has sent it', () => {
    for (const underlay of [4, 6] as const) {
      const refusedSenders = RefusedSenders.allocate();
      const host = memoryHost({ ipv6: OWN_IPV6, underlay, refusedSenders });
      const [two, nine] = [OUTER[underlay](2), OUTER[underlay](9)];
      receive(host, two, packet('fd00:244:0:3::9'), packet(FROM_2, '2001:db8::8'));
      receive(host, nine, packet(FROM_2));
      refusedSenders.take();
      assert.deepEqual(refusedSenders.take(), [
        { sender: two, reason: 'spoofed-source', inner: parseIpv6('fd00:244:0:3::9'), packets: 1 },
        { sender: two, reason: 'foreign-destination', inner: parseIpv6('2001:db8::8'), packets: 1 },
        { sender: nine, reason: 'unknown-source', inner: parseIpv6(FROM_2), packets: 1 },
      ]);
    }
  });
});

it('in a network of IPv6 alone a packet of IPv4 is for nobody', () => {
  const host = memoryHost({ ipv6: OWN_IPV6, underlay: 6 });
  const ip = { source: address('10.244.2.9'), destination: address('10.244.1.2') };
  assert.deepEqual(receive(host, OUTER[6](2), udpPacket({ ip, ...ports })), []);
  assert.deepEqual(host.counters.read(1, 'rx').drops, { 'foreign-destination': 1 });
});
