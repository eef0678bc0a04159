import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { cut } from '../../test/fakes/kernel-offload.ts';
import {
  EAGAIN,
  EINVAL,
  EIO,
  EMSGSIZE,
  ENETDOWN,
  ENOBUFS,
  type MemoryHost,
  memoryHost,
  OWN_ADDRESS,
} from '../../test/fakes/memory-dataplane.ts';
import {
  ACK,
  address,
  aged,
  CWR,
  concat,
  FIN,
  frame,
  hex,
  icmpPacket,
  ipv4Packet,
  PSH,
  packetFault,
  payloadOf,
  tcpFrame,
  tcpPacket,
  udpFrame,
  udpPacket,
} from '../../test/fakes/packets.ts';
import { solicitation } from '../../test/fakes/packets6.ts';
import type { DropReasonName } from './drop-reason.ts';

const POD = address('10.244.1.2');
const REMOTE = address('10.244.2.2');
const OTHER_REMOTE = address('10.244.3.2');
const ip = { source: POD, destination: REMOTE };
const ports = { sourcePort: 40_000, destinationPort: 5_201 };

function send(host: MemoryHost, ...frames: readonly Uint8Array[]): Uint8Array[] {
  host.tx.tun.incoming.push(...frames);
  host.run();
  return host.tx.conn.sent.splice(0).map(({ data }) => data);
}

function drops(host: MemoryHost, slot = 1): Partial<Record<DropReasonName, number>> {
  return host.counters.read(slot, 'tx').drops;
}

function udp(length: number, fields: { dontFragment?: boolean; id?: number; destination?: number } = {}): Uint8Array {
  return frame(udpPacket({ ip: { ...ip, ...fields }, ...ports, payload: payloadOf(length) }));
}

describe('a packet on its way out', () => {
  it('is one datagram to the peer that owns the destination, one TTL older', () => {
    const host = memoryHost();
    const packet = tcpPacket({ ip, ...ports, payload: payloadOf(100) });
    host.tx.tun.incoming.push(frame(packet));
    assert.equal(host.tx.core.step(), 1);
    assert.deepEqual(host.tx.conn.sent, [
      { address: address('192.168.77.2'), port: 8_285, data: aged(packet, 1), fragmentable: false },
    ]);
    assert.deepEqual(host.counters.read(1, 'tx'), { packets: 1, bytes: packet.length, drops: {} });
  });

  it('goes to the port of the peer', () => {
    const host = memoryHost({ peers: [{ slot: 9, subnet: '10.244.2.0/24', publicIp: '192.168.77.2', port: 9_999 }] });
    host.tx.tun.incoming.push(udp(1));
    host.run();
    assert.equal(host.tx.conn.sent[0]?.port, 9_999);
    assert.equal(host.counters.read(9, 'tx').packets, 1);
  });

  it('is only its own length, whatever lies behind it', () => {
    const packet = udpPacket({ ip, ...ports, payload: payloadOf(10) });
    assert.deepEqual(send(memoryHost(), frame(concat(packet, [1, 2, 3]))), [aged(packet, 1)]);
  });

  it('keeps IP options, and is a fragment when it was one', () => {
    const options = Uint8Array.from([7, 11, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    const packets = [
      tcpPacket({ ip: { ...ip, options }, ...ports, payload: payloadOf(10) }),
      ipv4Packet({ ...ip, protocol: 17, moreFragments: true }, payloadOf(64)),
      ipv4Packet({ ...ip, protocol: 17, fragmentOffset: 8 }, payloadOf(64)),
      ipv4Packet({ ...ip, protocol: 132 }, payloadOf(64)),
    ];
    assert.deepEqual(
      send(memoryHost(), ...packets.map((packet) => frame(packet))),
      packets.map((packet) => aged(packet, 1)),
    );
  });

  it('gets the checksum that the kernel left to the device', () => {
    const options = Uint8Array.from([7, 7, 4, 0, 0, 0, 0, 0]);
    const frames = [
      tcpFrame({ ip, ...ports, payload: payloadOf(99) }, 0),
      tcpFrame({ ip: { ...ip, options }, ...ports, payload: payloadOf(98) }, 0),
      udpFrame({ ip, ...ports, payload: payloadOf(97) }, 0),
    ];
    const sent = send(memoryHost(), ...frames);
    assert.deepEqual(
      sent,
      frames.flatMap(cut).map((packet) => aged(packet, 1)),
    );
    for (const packet of sent) assert.equal(packetFault(packet), undefined);
  });

  it('has 0xffff for a UDP checksum that comes out as zero, because zero says "none"', () => {
    const payload = new Uint8Array(2);
    const plain = udpPacket({ ip, ...ports, payload });
    payload.set(plain.subarray(26, 28)); // adding the complement of the sum makes it all ones
    const sent = send(
      memoryHost(),
      udpFrame({ ip, ...ports, payload }, 0),
      udpFrame({ ip, ...ports, payload: concat(payload, payload) }, 2),
    );
    for (const packet of sent) assert.equal(hex(packet.subarray(26, 28)), 'ffff');
    assert.equal(sent.length, 3);
  });
});

describe('what is refused before it is sent', () => {
  const cases: readonly [name: string, bytes: Uint8Array, slot: number, reason: DropReasonName][] = [
    ['no room for a virtio header', new Uint8Array(5), 0, 'malformed'],
    ['nothing behind the virtio header', new Uint8Array(10), 0, 'malformed'],
    ['a cut-off header', frame(ipv4Packet({ ...ip, protocol: 17 }, payloadOf(9)).slice(0, 19)), 0, 'malformed'],
    ['a header length below 20', frame(concat([0x44], udpPacket({ ip, ...ports }).slice(1))), 0, 'malformed'],
    ['a header longer than the packet', frame(concat([0x4f], udpPacket({ ip, ...ports }).slice(1))), 0, 'malformed'],
    ['a total length beyond the packet', frame(udpPacket({ ip, ...ports, payload: payloadOf(9) }).slice(0, 36)), 0, 'malformed'],
    ['a total length below the header', frame(concat([0x45, 0, 0, 19], udpPacket({ ip, ...ports }).slice(4))), 0, 'malformed'],
    ['IPv6', frame(concat([0x60], new Uint8Array(60))), 0, 'not-ipv4'],
    ['a router solicitation', frame(solicitation(0xff)), 0, 'ipv6-multicast'],
    ['IPv6 to one host', frame(solicitation(0xfd)), 0, 'not-ipv4'],
    ['the beginning of one', frame(solicitation(0xff).slice(0, 30)), 0, 'not-ipv4'],
    ['IP version 0', frame(new Uint8Array(60)), 0, 'not-ipv4'],
    ['no peer', udp(1, { destination: address('10.244.9.1') }), 0, 'no-route'],
    ['TTL 1', frame(udpPacket({ ip: { ...ip, ttl: 1 }, ...ports })), 1, 'ttl-exceeded'],
    ['TTL 0', frame(udpPacket({ ip: { ...ip, ttl: 0 }, ...ports })), 1, 'ttl-exceeded'],
    ['longer than the MTU with DF', udp(1_445, { dontFragment: true }), 1, 'too-big'],
    ['a super-packet of segments longer than the MTU with DF',
      tcpFrame({ ip: { ...ip, dontFragment: true }, ...ports, payload: payloadOf(3_000) }, 1_433), 1, 'too-big'],
    ['TCPv6 segmentation', frame(tcpPacket({ ip, ...ports, payload: payloadOf(9) }), { flags: 1, gsoType: 4, gsoSize: 3 }), 1, 'unsupported-offload'],
    ['UFO', frame(udpPacket({ ip, ...ports, payload: payloadOf(9) }), { flags: 1, gsoType: 3, gsoSize: 3 }), 1, 'unsupported-offload'],
    ['TCP segmentation of UDP', frame(udpPacket({ ip, ...ports, payload: payloadOf(90) }), { flags: 1, gsoType: 1, gsoSize: 3 }), 1, 'unsupported-offload'],
    ['UDP segmentation of TCP', frame(tcpPacket({ ip, ...ports, payload: payloadOf(90) }), { flags: 1, gsoType: 5, gsoSize: 3 }), 1, 'unsupported-offload'],
    ['segments of 0 bytes', frame(tcpPacket({ ip, ...ports, payload: payloadOf(9) }), { flags: 1, gsoType: 1, gsoSize: 0 }), 1, 'unsupported-offload'],
    ['segmentation of nothing', frame(tcpPacket({ ip, ...ports }), { flags: 1, gsoType: 1, gsoSize: 5 }), 1, 'unsupported-offload'],
    ['a checksum field outside', frame(udpPacket({ ip, ...ports }), { flags: 1, checksumStart: 20, checksumOffset: 7 }), 1, 'malformed'],
    ['a checksum over the IP header', frame(udpPacket({ ip, ...ports }), { flags: 1, checksumStart: 12, checksumOffset: 6 }), 1, 'malformed'],
  ]; // biome-ignore format: a case a line

  for (const [name, bytes, slot, reason] of cases) {
    it(`${name}: ${reason}`, () => {
      const host = memoryHost();
      assert.deepEqual(send(host, bytes), []);
      assert.deepEqual(drops(host, slot), { [reason]: 1 });
      for (const other of [0, 1, 2]) if (other !== slot) assert.deepEqual(drops(host, other), {});
    });
  }

  it('a TCP header that is longer than the packet or shorter than 20 bytes', () => {
    for (const dataOffset of [0x40, 0x00, 0xf0]) {
      const bytes = tcpFrame({ ip, ...ports, payload: payloadOf(30) }, 10);
      bytes[10 + 20 + 12] = dataOffset;
      const host = memoryHost();
      assert.deepEqual(send(host, bytes), []);
      assert.deepEqual(drops(host), { 'unsupported-offload': 1 });
    }
  });

  it('does not keep what comes after it', () => {
    const host = memoryHost();
    assert.equal(send(host, new Uint8Array(3), udp(1), frame(new Uint8Array(99)), udp(2)).length, 2);
  });
});

describe('ICMP errors on the way out', () => {
  it('network unreachable when nobody owns the destination', () => {
    const host = memoryHost();
    const packet = udpPacket({ ip: { ...ip, destination: address('10.244.9.9') }, ...ports, payload: payloadOf(5) });
    send(host, frame(packet));
    assert.deepEqual(host.tx.icmp.sent, [
      icmpPacket({ source: OWN_ADDRESS, destination: POD, tos: 0xc0 }, 3, 0, 0, packet),
    ]);
  });

  it('time exceeded, also for a packet that is too big', () => {
    const host = memoryHost();
    const small = tcpPacket({ ip: { ...ip, ttl: 1 }, ...ports });
    const big = tcpPacket({ ip: { ...ip, ttl: 1, dontFragment: true }, ...ports, payload: payloadOf(1_500) });
    send(host, frame(small), frame(big));
    const answer = { source: OWN_ADDRESS, destination: POD, tos: 0xc0 };
    assert.deepEqual(host.tx.icmp.sent, [
      icmpPacket(answer, 11, 0, 0, small),
      icmpPacket(answer, 11, 0, 0, big.slice(0, 548)),
    ]);
    assert.deepEqual(drops(host), { 'ttl-exceeded': 2 });
  });

  it('fragmentation needed with the MTU of the overlay', () => {
    const host = memoryHost({ mtu: 1_372 });
    const packet = tcpPacket({ ip: { ...ip, dontFragment: true }, ...ports, payload: payloadOf(1_333) });
    send(host, frame(packet));
    assert.deepEqual(host.tx.icmp.sent, [
      icmpPacket({ source: OWN_ADDRESS, destination: POD, tos: 0xc0 }, 3, 4, 1_372, packet.slice(0, 548)),
    ]);
  });

  it('none for a packet that just fits, nor for one without DF', () => {
    const host = memoryHost();
    const sent = send(host, udp(1_444, { dontFragment: true }), udp(3_000));
    assert.equal(sent.length, 2);
    assert.deepEqual(host.tx.icmp.sent, []);
  });

  it('no answer to an ICMP error, but it is counted', () => {
    const host = memoryHost();
    send(host, frame(icmpPacket({ ...ip, destination: address('10.244.9.9') }, 3, 1, 0, payloadOf(28))));
    assert.deepEqual(host.tx.icmp.sent, []);
    assert.deepEqual(drops(host, 0), { 'no-route': 1 });
    assert.equal(host.counters.readGauges().icmpSuppressed, 1);
  });
});

describe('super-packets', () => {
  it('become what the kernel would have made of them: options, flags, identifications, sequence across the wrap', () => {
    const options = Uint8Array.from([1, 1, 8, 10, 0, 0, 1, 2, 0, 0, 3, 4]);
    const ipOptions = Uint8Array.from([7, 7, 4, 0, 0, 0, 0, 0]);
    const fields = {
      ...ports,
      sequence: 0xffff_fff0,
      options,
      flags: ACK | PSH | FIN | CWR,
      payload: payloadOf(5_000),
    };
    const frames = [
      tcpFrame({ ip: { ...ip, id: 0xfffe }, ...fields }, 1_400),
      tcpFrame({ ip: { ...ip, id: 7, dontFragment: true, options: ipOptions }, ...fields }, 1_000),
      udpFrame({ ip: { ...ip, id: 0xfffe }, ...ports, payload: payloadOf(5_000) }, 1_400),
      udpFrame({ ip: { ...ip, options: ipOptions }, ...ports, payload: payloadOf(5_001) }, 1_000),
    ];
    assert.deepEqual(
      send(memoryHost(), ...frames),
      frames.flatMap(cut).map((packet) => aged(packet, 1)),
    );
  });

  it('with a tiny segment size fill many messages and batches', () => {
    const host = memoryHost();
    const frames = [
      tcpFrame({ ip: { ...ip, id: 1 }, ...ports, payload: payloadOf(3_001) }, 1),
      tcpFrame({ ip: { ...ip, id: 2 }, ...ports, payload: payloadOf(65_000) }, 50),
      udpFrame({ ip: { ...ip, id: 3 }, ...ports, payload: payloadOf(1_025) }, 1),
    ];
    const sent = send(host, ...frames);
    assert.equal(sent.length, 3_001 + 1_300 + 1_025);
    assert.deepEqual(
      sent,
      frames.flatMap(cut).map((packet) => aged(packet, 1)),
    );
    assert.equal(host.counters.read(1, 'tx').packets, sent.length);
  });

  it('of one segment keep their flags', () => {
    const bytes = tcpFrame({ ip, ...ports, flags: ACK | PSH | FIN | CWR, payload: payloadOf(100) }, 200);
    assert.deepEqual(
      send(memoryHost(), bytes),
      cut(bytes).map((packet) => aged(packet, 1)),
    );
  });

  it('to two peers keep apart and in order', () => {
    const host = memoryHost();
    const frames = [REMOTE, OTHER_REMOTE, REMOTE].map((destination, id) =>
      tcpFrame({ ip: { ...ip, destination, id: id * 100 }, ...ports, payload: payloadOf(4_000) }, 1_000),
    );
    host.tx.tun.incoming.push(...frames);
    host.run();
    const { sent, messages } = host.tx.conn;
    assert.deepEqual(
      sent.map(({ data }) => data),
      frames.flatMap(cut).map((packet) => aged(packet, 1)),
    );
    assert.deepEqual(
      messages.map(({ datagrams }) => datagrams),
      [4, 4, 4],
    );
    assert.deepEqual(
      sent.map((datagram) => Number(datagram.address) & 255),
      [2, 2, 2, 2, 3, 3, 3, 3, 2, 2, 2, 2],
    );
    assert.equal(host.counters.read(1, 'tx').packets, 8);
    assert.equal(host.counters.read(2, 'tx').packets, 4);
  });
});

describe('batches', () => {
  it('take at most 64 packets, and say when nothing is left', () => {
    const host = memoryHost();
    host.tx.tun.incoming.push(...Array.from({ length: 100 }, (_, id) => udp(10, { id })));
    assert.equal(host.tx.core.step(), 64);
    assert.equal(host.tx.core.drained, false);
    assert.equal(host.tx.core.step(), 36);
    assert.equal(host.tx.core.drained, true);
    assert.equal(host.tx.core.step(), 0);
    assert.equal(host.tx.core.drained, true);
    assert.equal(host.tx.conn.sent.length, 100);
    const { txReads, txBatches, txSends } = host.counters.readGauges();
    assert.deepEqual({ txReads, txBatches, txSends }, { txReads: 100, txBatches: 2, txSends: 2 });
  });

  it('take no more packets than asked for', () => {
    const host = memoryHost();
    host.tx.tun.incoming.push(udp(10, { id: 1 }), udp(10, { id: 2 }));
    assert.equal(host.tx.core.step(1), 1);
    assert.equal(host.tx.core.drained, false);
    assert.equal(host.tx.conn.sent.length, 1);
    assert.equal(host.tx.core.step(1), 1);
    assert.equal(host.tx.core.step(1), 0);
    assert.equal(host.tx.core.drained, true);
  });

  it('take no more than two or three super-packets', () => {
    const host = memoryHost();
    const one = tcpFrame({ ip, ...ports, payload: payloadOf(65_000) }, 1_400);
    host.tx.tun.incoming.push(one, one, one, one, one);
    assert.equal(host.tx.core.step(), 3);
    host.run();
    assert.equal(host.counters.read(1, 'tx').packets, 5 * 47);
  });

  it('an error of the TUN is handed on when nothing was read, else at the next step', () => {
    const host = memoryHost();
    host.tx.tun.readFailures.push(ENETDOWN);
    assert.equal(host.tx.core.step(), -ENETDOWN);
    host.tx.tun.incoming.push(udp(1));
    assert.equal(host.tx.core.step(), 1);
  });

  it('a whole batch sees one version of the peer table', () => {
    const host = memoryHost();
    host.tx.tun.incoming.push(udp(1), udp(2));
    const read = host.tx.tun.read.bind(host.tx.tun);
    let reads = 0;
    host.tx.tun.read = (offset, capacity) => {
      if (reads++ === 1) host.publish([{ slot: 3, subnet: '10.244.2.0/24', publicIp: '192.168.77.9' }]);
      return read(offset, capacity);
    };
    host.tx.core.step();
    assert.deepEqual(
      host.tx.conn.sent.map((datagram) => Number(datagram.address) & 255),
      [2, 2],
    );
    host.tx.tun.incoming.push(udp(3));
    host.tx.core.step();
    assert.equal(Number(host.tx.conn.sent.at(-1)?.address ?? 0) & 255, 9);
  });
});

describe('a socket that refuses', () => {
  it('waits while it is full (EAGAIN), then sends the rest in order', () => {
    const host = memoryHost();
    host.tx.conn.takes = 1;
    host.tx.conn.sendFailures.push(EAGAIN, 0, EAGAIN, EAGAIN, 0);
    const frames = [1, 2, 3, 4].map((length) => udp(length));
    const sent = send(host, ...frames);
    assert.deepEqual(
      sent.map((packet) => packet.length - 28),
      [1, 2, 3, 4],
    );
    assert.equal(host.tx.conn.waits, 3);
    assert.equal(host.counters.read(1, 'tx').packets, 4);
    assert.deepEqual(drops(host), {});
  });

  it('lets the peer table be replaced while it waits', (t) => {
    const wait = t.mock.method(Atomics, 'wait', () => 'timed-out');
    const host = memoryHost();
    host.tx.conn.sendFailures.push(EAGAIN);
    host.tx.conn.writable = () => {
      for (let version = 0; version < 4; version++) host.publish([]);
      return true;
    };
    assert.equal(send(host, udp(1), udp(2)).length, 2);
    assert.equal(wait.mock.callCount(), 0);
  });

  it('counts what is left when the worker is told to stop', () => {
    const host = memoryHost();
    host.tx.conn.takes = 1;
    host.tx.conn.writable = () => false;
    host.tx.conn.sendFailures.push(0, EAGAIN);
    send(host, udp(1), udp(2), udp(3));
    assert.equal(host.counters.read(1, 'tx').packets, 1);
    assert.deepEqual(drops(host), { 'send-failed': 2 });
  });

  it('an error of one message costs that message alone', () => {
    const host = memoryHost();
    host.tx.conn.sendFailures.push(0, ENOBUFS, 0);
    send(host, udp(1), udp(2), udp(3));
    assert.equal(host.counters.read(1, 'tx').packets, 2);
    assert.deepEqual(drops(host), { 'send-failed': 1 });
  });

  it('segments refused (EIO): sends them one by one, from then on without asking', () => {
    for (const errno of [EIO, EINVAL, 95]) {
      const host = memoryHost();
      host.tx.conn.segmentationRefused = errno;
      const bytes = tcpFrame({ ip, ...ports, payload: payloadOf(10_000) }, 1_000);
      const wanted = cut(bytes).map((packet) => aged(packet, 1));
      assert.deepEqual(send(host, bytes), wanted);
      assert.equal(host.counters.readGauges().gsoFallbacks, 1);
      const { txSends } = host.counters.readGauges();
      assert.deepEqual(send(host, bytes), wanted);
      assert.equal(host.counters.readGauges().gsoFallbacks, 1);
      assert.equal(host.counters.readGauges().txSends - txSends, 1);
      assert.equal(host.counters.read(1, 'tx').packets, 20);
      assert.deepEqual(drops(host), {});
    }
  });
});

describe('a full socket while datagrams are sent one by one', () => {
  const bytes = tcpFrame({ ip, ...ports, payload: payloadOf(3_000) }, 1_000);

  it('is waited for', () => {
    const host = memoryHost();
    host.tx.conn.sendFailures.push(EIO, 0, EAGAIN, EAGAIN, 0);
    assert.deepEqual(
      send(host, bytes),
      cut(bytes).map((packet) => aged(packet, 1)),
    );
    assert.equal(host.tx.conn.waits, 2);
    assert.equal(host.counters.read(1, 'tx').packets, 3);
  });

  it('costs the rest when the worker is told to stop', () => {
    const host = memoryHost();
    host.tx.conn.sendFailures.push(EIO, 0, EAGAIN, EAGAIN);
    host.tx.conn.writable = () => false;
    assert.equal(send(host, bytes).length, 1);
    assert.equal(host.counters.read(1, 'tx').packets, 1);
    assert.deepEqual(drops(host), { 'send-failed': 2 });
  });
});

describe('a path that is narrower than thought', () => {
  for (const segmentTooBig of [EINVAL, EMSGSIZE]) {
    it(`is learned from a refused super-packet (errno ${segmentTooBig}), whose sender is told once`, () => {
      const host = memoryHost();
      Object.assign(host.tx.conn, { mtu: 1_400, segmentTooBig });
      const fields = { ip: { ...ip, dontFragment: true, id: 5 }, ...ports, payload: payloadOf(9_000) };
      const bytes = tcpFrame(fields, 1_432);
      const segments = cut(bytes);
      const sent = send(host, bytes);
      assert.deepEqual(
        sent,
        segments.slice(-1).map((packet) => aged(packet, 1)),
      ); // the short last one fits
      assert.equal(host.table.pathMtu(1), 1_372);
      assert.equal(host.table.pathMtu(2), 0);
      assert.deepEqual(drops(host), { 'too-big': 6 });
      const quote = aged(segments[0]!, 1).slice(0, 40);
      assert.deepEqual(host.tx.icmp.sent, [
        icmpPacket({ source: OWN_ADDRESS, destination: POD, tos: 0xc0 }, 3, 4, 1_372, quote),
      ]);
      assert.equal(host.counters.readGauges().gsoFallbacks, 0);
      // Known now: the next one is refused before anything is sent.
      const { txSends } = host.counters.readGauges();
      assert.deepEqual(send(host, bytes), []);
      assert.equal(host.counters.readGauges().txSends, txSends);
      assert.deepEqual(drops(host), { 'too-big': 7 });
      // And what fits goes out with segmentation.
      assert.equal(send(host, tcpFrame(fields, 1_332)).length, 7);
    });
  }

  it('packets without DF are fragmented on the underlay', () => {
    const host = memoryHost();
    host.tx.conn.mtu = 1_400;
    const packets = [udp(1_444), udp(1_000), udp(1_444), udp(1_344)];
    host.tx.tun.incoming.push(...packets);
    host.run();
    assert.deepEqual(
      host.tx.conn.sent.map(({ data, fragmentable }) => [data.length, fragmentable]),
      [[1_472, true], [1_028, false], [1_472, true], [1_372, false]], // biome-ignore format: rows
    );
    assert.deepEqual(drops(host), {});
    assert.deepEqual(host.tx.icmp.sent, []);
    assert.equal(host.counters.read(1, 'tx').packets, 4);
  });

  it('one message with packets of several senders: each is treated by its own DF', () => {
    const host = memoryHost();
    host.tx.conn.mtu = 1_400;
    const from = (source: string, dontFragment: boolean, id: number): Uint8Array =>
      frame(
        udpPacket({ ip: { ...ip, source: address(source), dontFragment, id }, ...ports, payload: payloadOf(1_444) }),
      );
    host.tx.tun.incoming.push(
      from('10.244.1.2', true, 1),
      from('10.244.1.3', false, 2),
      from('10.244.1.3', false, 3),
      from('10.244.1.4', true, 4),
      from('10.244.1.4', true, 5),
    );
    host.run();
    assert.deepEqual(host.tx.conn.sent.map(({ data, fragmentable }) => [data[5], fragmentable]), [[2, true], [3, true]]); // biome-ignore format: one line
    assert.deepEqual(drops(host), { 'too-big': 3 });
    assert.deepEqual(
      host.tx.icmp.sent.map((packet) => packet[19]),
      [2, 4],
    );
  });

  it('a refusal the kernel does not explain is tried datagram by datagram and changes nothing for later', () => {
    const host = memoryHost();
    host.tx.conn.sendFailures.push(EMSGSIZE);
    const bytes = tcpFrame({ ip: { ...ip, dontFragment: true }, ...ports, payload: payloadOf(3_000) }, 1_000);
    assert.equal(send(host, bytes).length, 3);
    assert.equal(host.table.pathMtu(1), 0);
    assert.equal(host.counters.readGauges().gsoFallbacks, 0);
    assert.deepEqual(send(host, bytes).length, 3);
    assert.deepEqual(
      host.tx.conn.messages.map(({ datagrams }) => datagrams),
      [1, 1, 1, 3],
    );
  });

  it('a claim below the smallest MTU of IPv4, or none at all, is not believed', () => {
    for (const claimedMtu of [0, 67]) {
      const host = memoryHost();
      Object.assign(host.tx.conn, { mtu: 1_000, claimedMtu });
      assert.deepEqual(send(host, udp(1_400)), []);
      assert.deepEqual(drops(host), { 'send-failed': 1 });
      assert.equal(host.table.pathMtu(1), 0);
    }
  });

  it('forgotten, it is tried at full size again', () => {
    const host = memoryHost();
    host.tx.conn.mtu = 1_400;
    send(host, udp(1_444, { dontFragment: true }));
    assert.equal(host.table.pathMtu(1), 1_372);
    host.tx.conn.mtu = 1_500;
    assert.equal(send(host, udp(1_444, { dontFragment: true })).length, 0);
    host.table.forgetPathMtus();
    assert.equal(send(host, udp(1_444, { dontFragment: true })).length, 1);
  });

  it('more than a UDP datagram holds is refused and counted', () => {
    const host = memoryHost({ mtu: 65_535 });
    host.tx.conn.mtu = 65_535;
    assert.deepEqual(send(host, udp(65_507)), []);
    assert.deepEqual(drops(host), { 'send-failed': 1 });
    assert.equal(host.table.pathMtu(1), 65_507);
  });
});

describe('counters on the way out', () => {
  it('every packet is passed or dropped once, for one peer, whatever the socket answers', () => {
    const packets = fc.record({
      destination: fc.constantFrom(REMOTE, OTHER_REMOTE, address('10.244.9.1')),
      kind: fc.constantFrom('udp', 'super', 'ttl', 'malformed', 'ipv6'),
      dontFragment: fc.boolean(),
      length: fc.integer({ min: 1, max: 4_000 }),
    });
    const errnos = fc.array(fc.constantFrom(0, 0, 0, EAGAIN, EIO, EINVAL, EMSGSIZE, ENOBUFS), { maxLength: 20 });
    fc.assert(
      fc.property(
        fc.array(packets, { minLength: 1, maxLength: 40 }),
        errnos,
        fc.integer({ min: 500, max: 1_500 }),
        (list, failures, mtu) => {
          const host = memoryHost();
          host.tx.conn.mtu = mtu;
          host.tx.conn.sendFailures.push(...failures);
          const most = [0, 0, 0];
          const least = [0, 0, 0];
          for (const { destination, kind, dontFragment, length } of list) {
            const fields = { ip: { ...ip, destination, dontFragment, ttl: kind === 'ttl' ? 1 : 64 }, ...ports };
            const withPayload = { ...fields, payload: payloadOf(length) };
            let bytes = kind === 'super' ? tcpFrame(withPayload, 700) : frame(udpPacket(withPayload));
            if (kind === 'malformed') bytes = bytes.slice(0, 29);
            if (kind === 'ipv6') bytes[10] = 0x60;
            const slot = kind === 'malformed' || kind === 'ipv6' ? 0 : [REMOTE, OTHER_REMOTE].indexOf(destination) + 1;
            most[slot]! += kind === 'super' && slot > 0 ? Math.ceil(length / 700) : 1;
            least[slot]! += 1; // a super-packet that is refused whole counts as one
            host.tx.tun.incoming.push(bytes);
          }
          host.run();
          const sentTo = [0, 0, 0];
          const bytesTo = [0, 0, 0];
          for (const { address: to, data } of host.tx.conn.sent) {
            sentTo[(Number(to) & 255) - 1]! += 1;
            bytesTo[(Number(to) & 255) - 1]! += data.length;
          }
          for (const slot of [0, 1, 2]) {
            const { packets: passed, bytes, drops: byReason } = host.counters.read(slot, 'tx');
            const dropped = Object.values(byReason).reduce((sum, count) => sum + count, 0);
            assert.equal(passed, sentTo[slot]);
            assert.equal(bytes, bytesTo[slot]);
            assert.ok(passed + dropped <= most[slot]!);
            assert.ok(passed + dropped >= least[slot]!);
            if (byReason['too-big'] === undefined) assert.equal(passed + dropped, most[slot]);
          }
        },
      ),
      { numRuns: 150 },
    );
  });
});
