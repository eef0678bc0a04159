import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { cut } from '../../test/fakes/kernel-offload.ts';
import { EINVAL, type MemoryHost, memoryHost, OWN_IPV6 } from '../../test/fakes/memory-dataplane.ts';
import { address, aged, concat, frame, hex, payloadOf, udpPacket } from '../../test/fakes/packets.ts';
import {
  address6,
  aged6,
  fragmentHeader,
  icmp6Packet,
  ipv6Packet,
  optionsHeader,
  packet6Fault,
  solicitation,
  tcp6Frame,
  tcp6Packet,
  udp6Frame,
  udp6Packet,
} from '../../test/fakes/packets6.ts';
import { parseIpv6 } from '../ip/ipv6.ts';
import type { DropReasonName } from './drop-reason.ts';

const POD = address6('fd00:244:0:1::2');
const REMOTE = address6('fd00:244:0:2::2');
const OWN = address6('fd00:244:0:1::');
const ip = { source: POD, destination: REMOTE };
const ports = { sourcePort: 40_000, destinationPort: 5_201 };
const HOST_2 = address('192.168.77.2');

const dualHost = (options: Parameters<typeof memoryHost>[0] = {}): MemoryHost =>
  memoryHost({ ipv6: OWN_IPV6, ...options });

function send(host: MemoryHost, ...frames: readonly Uint8Array[]): string[] {
  host.tx.tun.incoming.push(...frames);
  host.run();
  return host.tx.conn.sent.splice(0).map(({ data }) => hex(data));
}

const drops = (host: MemoryHost, slot = 1): Partial<Record<DropReasonName, number>> =>
  host.counters.read(slot, 'tx').drops;
const udp = (length: number): Uint8Array => frame(udp6Packet({ ip, ...ports, payload: payloadOf(length) }));

/** The ICMPv6 message that has left: type, code, second word and what is quoted. */
function answers(host: MemoryHost): readonly (readonly [number, number, number, Uint8Array])[] {
  return host.tx.icmp6.sent.splice(0).map((packet) => {
    assert.equal(packet6Fault(packet), undefined);
    assert.deepEqual([packet.slice(8, 24), packet.slice(24, 40)], [OWN, POD]);
    const view = new DataView(packet.buffer, packet.byteOffset);
    return [packet[40]!, packet[41]!, view.getUint32(44), packet.slice(48)];
  });
}

describe('an IPv6 packet on its way out', () => {
  it('is one datagram to the peer that owns the destination, one hop older', () => {
    const host = dualHost();
    const packet = tcp6Packet({
      ip: { ...ip, trafficClass: 0xb8, flowLabel: 0x12345 },
      ...ports,
      payload: payloadOf(100),
    });
    host.tx.tun.incoming.push(frame(packet));
    host.run();
    assert.deepEqual(host.tx.conn.sent, [
      { address: HOST_2, port: 8_285, data: aged6(packet, 1), fragmentable: false },
    ]);
    assert.deepEqual(host.counters.read(1, 'tx'), { packets: 1, bytes: packet.length, drops: {} });
  });

  it('goes by IPv6 where that is between the hosts', () => {
    const host = dualHost({ underlay: 6 });
    const packet = tcp6Packet({ ip, ...ports, payload: payloadOf(100) });
    host.tx.tun.incoming.push(frame(packet));
    host.run();
    const to = { address: parseIpv6('fd00:77::2')!, port: 8_285 };
    assert.deepEqual(host.tx.conn.sent, [{ ...to, data: aged6(packet, 1), fragmentable: false }]);
  });

  it('goes with packets of IPv4 in one message, and each by itself', () => {
    const host = dualHost();
    const ip4 = { source: address('10.244.1.2'), destination: address('10.244.2.2') };
    const packets = [
      udp6Packet({ ip, ...ports, payload: payloadOf(100) }),
      udpPacket({ ip: ip4, ...ports, payload: payloadOf(120) }),
    ];
    assert.deepEqual(send(host, ...packets.map((packet) => frame(packet))), [
      hex(aged6(packets[0]!, 1)),
      hex(aged(packets[1]!, 1)),
    ]);
    assert.deepEqual(host.tx.conn.messages, [{ datagrams: 2, fragmentable: false }]);
  });

  it('keeps extension headers, and is a fragment when it was one', () => {
    const packets = [
      tcp6Packet({ ip: { ...ip, extensions: [[0, optionsHeader()]] }, ...ports, payload: payloadOf(9) }),
      ipv6Packet({ ...ip, nextHeader: 17, extensions: [[44, fragmentHeader(0, true)]] }, payloadOf(64)),
      ipv6Packet({ ...ip, nextHeader: 17, extensions: [[44, fragmentHeader(8, false)]] }, payloadOf(64)),
      ipv6Packet({ ...ip, nextHeader: 132 }, payloadOf(64)),
      ipv6Packet({ ...ip, nextHeader: 59 }, new Uint8Array(0)),
    ];
    const sent = send(dualHost(), ...packets.map((packet) => frame(packet)));
    assert.deepEqual(
      sent,
      packets.map((packet) => hex(aged6(packet, 1))),
    );
  });

  it('gets the checksum that the kernel left to the device; 0xffff where a UDP checksum comes out as zero', () => {
    const zero = new Uint8Array(2);
    zero.set(udp6Packet({ ip, ...ports, payload: zero }).subarray(46, 48)); // adding the complement of the sum makes it all ones
    const frames = [
      tcp6Frame({ ip, ...ports, payload: payloadOf(99) }, 0),
      tcp6Frame({ ip: { ...ip, extensions: [[60, optionsHeader(2)]] }, ...ports, payload: payloadOf(98) }, 0),
      udp6Frame({ ip, ...ports, payload: zero }, 0),
      udp6Frame({ ip, ...ports, payload: concat(zero, zero) }, 2),
    ];
    const sent = send(dualHost(), ...frames);
    assert.deepEqual(
      sent,
      frames.flatMap(cut).map((packet) => hex(aged6(packet, 1))),
    );
    for (const packet of sent.slice(2)) assert.equal(packet.slice(92, 96), 'ffff');
  });
});

describe('what of IPv6 is refused before it is sent', () => {
  const long = frame(udp6Packet({ ip, ...ports, payload: payloadOf(1_425) }));
  const cases: readonly [name: string, bytes: Uint8Array, slot: number, reason: DropReasonName][] = [
    ['the beginning of a header', frame(solicitation(0xff).slice(0, 39)), 0, 'not-ipv4'],
    ['a length beyond the packet', frame(udp6Packet({ ip, ...ports, payload: payloadOf(9) }).slice(0, 50)), 0, 'malformed'],
    ['multicast', frame(solicitation(0xff)), 0, 'ipv6-multicast'],
    ['a peer that takes IPv4 alone', frame(udp6Packet({ ip: { ...ip, destination: address6('fd00:244:0:4::2') }, ...ports })), 0, 'no-route'],
    ['a neighbour', frame(udp6Packet({ ip: { ...ip, destination: address6('fe80::2') }, ...ports })), 0, 'no-route'],
    ['hop limit 1', frame(udp6Packet({ ip: { ...ip, hopLimit: 1 }, ...ports })), 1, 'ttl-exceeded'],
    ['hop limit 0', frame(udp6Packet({ ip: { ...ip, hopLimit: 0 }, ...ports })), 1, 'ttl-exceeded'],
    ['longer than the MTU', long, 1, 'too-big'],
    ['a super-packet of such segments', tcp6Frame({ ip, ...ports, payload: payloadOf(3_000) }, 1_413), 1, 'too-big'],
    ['segmentation of IPv4', frame(tcp6Packet({ ip, ...ports, payload: payloadOf(9) }), { flags: 1, gsoType: 1, gsoSize: 3, checksumStart: 40 }), 1, 'unsupported-offload'],
    ['TCP segmentation of UDP', frame(udp6Packet({ ip, ...ports, payload: payloadOf(90) }), { flags: 1, gsoType: 4, gsoSize: 3, checksumStart: 40 }), 1, 'unsupported-offload'],
    ['UDP segmentation of TCP', frame(tcp6Packet({ ip, ...ports, payload: payloadOf(90) }), { flags: 1, gsoType: 5, gsoSize: 3, checksumStart: 40 }), 1, 'unsupported-offload'],
    ['a transport header inside the IP header', frame(tcp6Packet({ ip, ...ports, payload: payloadOf(90) }), { flags: 1, gsoType: 4, gsoSize: 3, checksumStart: 20 }), 1, 'unsupported-offload'],
    ['no checksum to finish', frame(tcp6Packet({ ip, ...ports, payload: payloadOf(90) }), { gsoType: 4, gsoSize: 3, checksumStart: 40 }), 1, 'unsupported-offload'],
    ['more headers than there is room for', tcp6Frame({ ip: { ...ip, extensions: [[60, optionsHeader(9)]] }, ...ports, payload: payloadOf(3_000) }, 100), 1, 'unsupported-offload'],
    ['a checksum outside the packet', frame(udp6Packet({ ip, ...ports }), { flags: 1, checksumStart: 40, checksumOffset: 7 }), 1, 'malformed'],
    ['a checksum in the IP header', frame(udp6Packet({ ip, ...ports }), { flags: 1, checksumStart: 8, checksumOffset: 6 }), 1, 'malformed'],
  ]; // biome-ignore format: one line a case
  for (const [name, bytes, slot, reason] of cases) {
    it(`${name}: ${reason}`, () => {
      const host = dualHost();
      assert.deepEqual(send(host, bytes), []);
      assert.deepEqual(drops(host, slot), { [reason]: 1 });
    });
  }

  it('all of it in a network without IPv6, and nothing is answered', () => {
    const host = memoryHost();
    assert.deepEqual(send(host, udp(9)), []);
    assert.deepEqual(drops(host, 0), { 'not-ipv4': 1 });
    assert.deepEqual(host.tx.icmp6.sent, []);
  });
});

describe('ICMPv6 errors', () => {
  it('say that there is no route, that the hop limit is used up, and what is too big', () => {
    const host = dualHost();
    const lost = udp6Packet({ ip: { ...ip, destination: address6('fd00:244:0:9::2') }, ...ports });
    send(host, frame(lost));
    assert.deepEqual(answers(host), [[1, 0, 0, lost]]);
    const old = udp6Packet({ ip: { ...ip, hopLimit: 1 }, ...ports });
    send(host, frame(old));
    assert.deepEqual(answers(host), [[3, 0, 0, old]]);
    const long = udp6Packet({ ip, ...ports, payload: payloadOf(1_500) });
    send(host, frame(long));
    assert.deepEqual(answers(host), [[2, 0, 1_472, long.slice(0, 1_280 - 48)]]);
  });
});

describe('a path that is narrower than it was thought', () => {
  /** The way to everybody takes 1,400 bytes, of which the outer headers have 28. */
  function narrow(mtu: number): MemoryHost {
    const host = dualHost();
    host.tx.conn.mtu = mtu;
    return host;
  }

  it('is learned from the kernel, and the sender is told', () => {
    const host = narrow(1_400);
    const packet = udp6Packet({ ip, ...ports, payload: payloadOf(1_400) });
    assert.deepEqual(send(host, frame(packet)), []);
    assert.deepEqual(answers(host), [[2, 0, 1_372, aged6(packet, 1).slice(0, 1_280 - 48)]]);
    assert.deepEqual(drops(host), { 'too-big': 1 });
    // From now on without asking the kernel.
    assert.deepEqual(send(host, frame(packet)), []);
    assert.equal(answers(host)[0]?.[2], 1_372);
    const fits = udp6Packet({ ip, ...ports, payload: payloadOf(1_372 - 48) });
    assert.deepEqual(send(host, frame(fits)), [hex(aged6(fits, 1))]);
  });

  it('tells the sender of a super-packet once', () => {
    const host = narrow(1_400);
    assert.deepEqual(send(host, tcp6Frame({ ip, ...ports, payload: payloadOf(14_000) }, 1_400)), []);
    assert.deepEqual(answers(host).map(([type, , mtu]) => [type, mtu]), [[2, 1_372]]); // biome-ignore format: one line
    assert.deepEqual(drops(host), { 'too-big': 10 });
  });

  it('still takes packets of 1280 bytes, in fragments of the datagram around them, and claims no less', () => {
    const host = narrow(1_200);
    const smallest = udp6Packet({ ip, ...ports, payload: payloadOf(1_280 - 48) });
    assert.deepEqual(send(host, frame(smallest)), [hex(aged6(smallest, 1))]);
    assert.deepEqual(host.tx.conn.messages.at(-1), { datagrams: 1, fragmentable: true });
    const longer = udp6Packet({ ip, ...ports, payload: payloadOf(1_281 - 48) });
    assert.deepEqual(send(host, frame(longer)), []);
    assert.equal(answers(host)[0]?.[2], 1_280);
    assert.deepEqual(send(host, frame(smallest)), [hex(aged6(smallest, 1))], 'also once the path is known');
  });

  it('an IPv6 underlay has 20 bytes less', () => {
    const host = dualHost({ underlay: 6 });
    host.tx.conn.mtu = 1_400;
    send(host, udp(1_400));
    assert.equal(answers(host)[0]?.[2], 1_352);
  });

  it('a kernel that refuses UDP_SEGMENT gets the segments one by one', () => {
    const host = dualHost();
    host.tx.conn.segmentationRefused = EINVAL;
    const super4 = tcp6Frame({ ip, ...ports, payload: payloadOf(4_000) }, 1_000);
    assert.deepEqual(
      send(host, super4),
      cut(super4).map((packet) => hex(aged6(packet, 1))),
    );
  });
});

it('an error is not answered with an error', () => {
  const host = dualHost();
  send(host, frame(icmp6Packet({ ...ip, destination: address6('fd00:244:0:9::2') }, 1, 0, 0, payloadOf(64))));
  assert.deepEqual(drops(host, 0), { 'no-route': 1 });
  assert.deepEqual(answers(host), []);
});
