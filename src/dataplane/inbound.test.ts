import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { cut } from '../../test/fakes/kernel-offload.ts';
import { type MemoryHost, type MemoryHostOptions, memoryHost, OWN_ADDRESS } from '../../test/fakes/memory-dataplane.ts';
import {
  address,
  aged,
  concat,
  frame,
  hex,
  icmpPacket,
  ipv4Packet,
  packetFault,
  payloadOf,
  tcpPacket,
  udpPacket,
} from '../../test/fakes/packets.ts';
import { solicitation } from '../../test/fakes/packets6.ts';
import type { DropReasonName } from './drop-reason.ts';
import { RECEIVE_MESSAGES } from './limits.ts';
import { RefusedSenders } from './refused-senders.ts';

const POD = address('10.244.2.5');
const LOCAL_POD = address('10.244.1.2');
const HOST_2 = address('192.168.77.2');
const HOST_3 = address('192.168.77.3');
const STRANGER = address('192.168.77.66');
const ip = { source: POD, destination: LOCAL_POD };
const ports = { sourcePort: 5_201, destinationPort: 40_000 };

function receive(host: MemoryHost, from: number, ...datagrams: readonly Uint8Array[]): Uint8Array[] {
  host.rx.conn.deliver(datagrams.map((data) => ({ address: from, port: 8_285, data })));
  host.run();
  return host.rx.tun.written.splice(0);
}

function drops(host: MemoryHost, slot = 1): Partial<Record<DropReasonName, number>> {
  return host.counters.read(slot, 'rx').drops;
}

function from(source: string): Uint8Array {
  return udpPacket({ ip: { ...ip, source: address(source) }, ...ports, payload: payloadOf(20) });
}

describe('a datagram on its way in', () => {
  it('is one packet for the kernel, one TTL older, with nothing for it to do', () => {
    const host = memoryHost();
    const packet = tcpPacket({ ip, ...ports, payload: payloadOf(100) });
    assert.deepEqual(receive(host, HOST_2, packet), [frame(aged(packet, 1))]);
    assert.deepEqual(host.counters.read(1, 'rx'), { packets: 1, bytes: packet.length, drops: {} });
  });

  it('passes whatever protocol it carries, fragments and IP options too', () => {
    const options = Uint8Array.from([7, 7, 4, 0, 0, 0, 0, 0]);
    const packets = [
      icmpPacket(ip, 8, 0, 1, payloadOf(56)),
      ipv4Packet({ ...ip, protocol: 47 }, payloadOf(30)),
      ipv4Packet({ ...ip, protocol: 17, moreFragments: true }, payloadOf(64)),
      ipv4Packet({ ...ip, protocol: 17, fragmentOffset: 8 }, payloadOf(64)),
      ipv4Packet({ ...ip, protocol: 6, fragmentOffset: 8 }, payloadOf(4)),
      tcpPacket({ ip: { ...ip, options }, ...ports, payload: payloadOf(5) }),
      ipv4Packet({ ...ip, protocol: 59 }, new Uint8Array(0)),
    ];
    assert.deepEqual(
      receive(memoryHost(), HOST_2, ...packets),
      packets.map((packet) => frame(aged(packet, 1))),
    );
  });

  it('is cut to its own length', () => {
    const packet = udpPacket({ ip, ...ports, payload: payloadOf(10) });
    assert.deepEqual(receive(memoryHost(), HOST_2, concat(packet, [1, 2, 3])), [frame(aged(packet, 1))]);
  });

  it('may come from any port of the peer', () => {
    const host = memoryHost();
    host.rx.conn.deliver([{ address: HOST_2, port: 1_024, data: from('10.244.2.9') }]);
    host.run();
    assert.equal(host.rx.tun.written.length, 1);
  });

  it('the longest one passes', () => {
    const packet = udpPacket({ ip, ...ports, payload: payloadOf(65_507 - 28) });
    assert.deepEqual(receive(memoryHost(), HOST_2, packet), [frame(aged(packet, 1))]);
  });
});

describe('what is refused', () => {
  const good = udpPacket({ ip, ...ports, payload: payloadOf(9) });
  const cases: readonly [name: string, bytes: Uint8Array, reason: DropReasonName][] = [
    ['nothing at all', new Uint8Array(0), 'malformed'],
    ['one byte', Uint8Array.from([0x45]), 'malformed'],
    ['19 bytes', good.slice(0, 19), 'malformed'],
    ['a header length below 20', concat([0x44], good.slice(1)), 'malformed'],
    ['a header longer than the packet', concat([0x4f], good.slice(1)), 'malformed'],
    ['a total length beyond the datagram', good.slice(0, -1), 'malformed'],
    ['a total length below the header', concat([0x45, 0, 0, 19], good.slice(4)), 'malformed'],
    ['IPv6', concat([0x60], new Uint8Array(60)), 'not-ipv4'],
    ['a text', new TextEncoder().encode('GET / HTTP/1.1\r\n\r\n......'), 'malformed'],
    ['a router solicitation', solicitation(0xff), 'ipv6-multicast'],
    ['IPv6 to one host', solicitation(0xfd), 'not-ipv4'],
    ['another protocol', payloadOf(40).fill(0xff, 0, 1), 'not-ipv4'],
    ['TTL 1', udpPacket({ ip: { ...ip, ttl: 1 }, ...ports }), 'ttl-exceeded'],
    ['TTL 0', udpPacket({ ip: { ...ip, ttl: 0 }, ...ports }), 'ttl-exceeded'],
  ]; // biome-ignore format: a case a line

  for (const [name, bytes, reason] of cases) {
    it(`${name}: ${reason}`, () => {
      const host = memoryHost();
      assert.deepEqual(receive(host, HOST_2, bytes), []);
      assert.deepEqual(drops(host), { [reason]: 1 });
      assert.deepEqual(drops(host, 0), {});
    });
  }

  it('time exceeded is told to the sender of the inner packet', () => {
    const host = memoryHost();
    const packet = tcpPacket({ ip: { ...ip, ttl: 1 }, ...ports, payload: payloadOf(10) });
    receive(host, HOST_2, packet);
    assert.deepEqual(host.rx.icmp.sent, [
      icmpPacket({ source: OWN_ADDRESS, destination: POD, tos: 0xc0 }, 11, 0, 0, packet),
    ]);
  });

  it('what the kernel does not take is counted for its peer, all packets of it', () => {
    const host = memoryHost();
    host.rx.tun.writeFailures.push(5);
    const segments = [0, 1, 2].map((id) =>
      tcpPacket({ ip: { ...ip, id }, ...ports, sequence: id * 10, payload: payloadOf(10) }),
    );
    receive(host, HOST_2, ...segments);
    assert.deepEqual(host.counters.read(1, 'rx'), { packets: 0, bytes: 0, drops: { 'tun-write-failed': 3 } });
    host.rx.tun.writeFailures.push(5);
    receive(host, HOST_2, good);
    assert.deepEqual(drops(host), { 'tun-write-failed': 4 });
  });
});

describe('source check', () => {
  it('a host whose own address lies in the network, in nobody’s subnet, answers under it; nobody else does', () => {
    for (const sourceCheck of ['loose', 'strict'] as const) {
      const peers = [{ slot: 1, subnet: '10.244.2.0/24', publicIp: '10.244.250.2' }];
      const host = memoryHost({ sourceCheck, peers });
      const answer = from('10.244.250.2');
      assert.deepEqual(receive(host, address('10.244.250.2'), answer), [frame(aged(answer, 1))]);
      assert.deepEqual(receive(host, address('10.244.250.2'), from('10.244.250.3')), []);
      assert.deepEqual(drops(host), { 'spoofed-source': 1 });
    }
  });

  const inner = {
    own: '10.244.2.5',
    otherPeers: '10.244.3.5',
    ours: '10.244.1.9',
    nobodys: '10.244.200.1',
    peersPublic: '192.168.77.2',
    outside: '8.8.8.8',
    loopback: '127.0.0.1',
    multicast: '224.0.0.1',
  };
  type Verdict = DropReasonName | 'passes';
  const table: Record<'loose' | 'strict' | 'off', Record<keyof typeof inner | 'stranger', Verdict>> = {
    loose: {
      own: 'passes',
      otherPeers: 'spoofed-source',
      ours: 'spoofed-source',
      nobodys: 'spoofed-source',
      peersPublic: 'passes',
      outside: 'passes',
      loopback: 'foreign-source',
      multicast: 'foreign-source',
      stranger: 'unknown-source',
    },
    strict: {
      own: 'passes',
      otherPeers: 'spoofed-source',
      ours: 'spoofed-source',
      nobodys: 'spoofed-source',
      peersPublic: 'passes',
      outside: 'foreign-source',
      loopback: 'foreign-source',
      multicast: 'foreign-source',
      stranger: 'unknown-source',
    },
    off: {
      own: 'passes',
      otherPeers: 'passes',
      ours: 'passes',
      nobodys: 'passes',
      peersPublic: 'passes',
      outside: 'passes',
      loopback: 'passes',
      multicast: 'passes',
      stranger: 'passes',
    },
  };
  for (const [sourceCheck, rows] of Object.entries(table)) {
    for (const [row, verdict] of Object.entries(rows)) {
      it(`${sourceCheck}: a source that is ${row === 'stranger' ? 'no peer' : row}: ${verdict}`, () => {
        const host = memoryHost({ sourceCheck } as MemoryHostOptions);
        const isStranger = row === 'stranger';
        const packet = from(isStranger ? inner.own : inner[row as keyof typeof inner]);
        const written = receive(host, isStranger ? STRANGER : HOST_2, packet);
        const slot = isStranger ? 0 : 1;
        assert.deepEqual(written, verdict === 'passes' ? [frame(aged(packet, 1))] : []);
        assert.deepEqual(drops(host, slot), verdict === 'passes' ? {} : { [verdict]: 1 });
        assert.equal(host.counters.read(slot, 'rx').packets, verdict === 'passes' ? 1 : 0);
      });
    }
  }

  it('a host may own several subnets', () => {
    const host = memoryHost({
      peers: [
        { slot: 1, subnet: '10.244.2.0/24', publicIp: '192.168.77.2' },
        { slot: 2, subnet: '10.244.7.0/24', publicIp: '192.168.77.2' },
      ],
    });
    assert.equal(receive(host, HOST_2, from('10.244.2.1'), from('10.244.7.1')).length, 2);
    assert.deepEqual(drops(host), {});
  });

  it('a stranger’s datagrams are counted one by one, also when they came together', () => {
    const host = memoryHost();
    const data = [1, 2, 3].map(() => ({ address: STRANGER, port: 1, data: from('10.244.2.1') }));
    host.rx.conn.deliver(data, true);
    host.run();
    assert.equal(host.rx.conn.incoming.length, 0);
    assert.deepEqual(drops(host, 0), { 'unknown-source': 3 });
  });

  it('a peer that is gone is a stranger at the next batch', () => {
    const host = memoryHost();
    assert.equal(receive(host, HOST_2, from('10.244.2.1')).length, 1);
    host.publish([]);
    assert.equal(receive(host, HOST_2, from('10.244.2.1')).length, 0);
    assert.deepEqual(drops(host, 0), { 'unknown-source': 1 });
  });
});

describe('destination check', () => {
  const WHERE = {
    'a container of this host': '10.244.1.9',
    'the base of its subnet, which flannel0 has': '10.244.1.0',
    'an address of this host': '192.168.77.1',
    'another peer': '192.168.77.3',
    'another peer’s container': '10.244.3.9',
    'the sender’s own container': '10.244.2.9',
    'a subnet that nobody has': '10.244.77.9',
    'an address of the internet': '8.8.8.8',
    'the address of a service': '10.96.0.1',
    loopback: '127.0.0.1',
    'a link-local address, which this host has': '169.254.169.254',
    multicast: '224.0.0.251',
    'the broadcast address': '255.255.255.255',
  } as const;
  const DELIVERED = {
    loose: ['a container of this host', 'the base of its subnet, which flannel0 has', 'an address of this host'],
    strict: ['a container of this host', 'the base of its subnet, which flannel0 has'],
    off: Object.keys(WHERE),
  } as const;
  const to = (text: string): Uint8Array =>
    udpPacket({ ip: { ...ip, destination: address(text) }, ...ports, payload: payloadOf(20) });
  const localAddresses = ['192.168.77.1', '127.0.0.1', '169.254.169.254'];

  for (const [destinationCheck, delivered] of Object.entries(DELIVERED)) {
    for (const [what, text] of Object.entries(WHERE)) {
      const passes = (delivered as readonly string[]).includes(what);
      it(`${destinationCheck}: ${what}: ${passes ? 'passes' : 'foreign-destination'}`, () => {
        const host = memoryHost({ destinationCheck, localAddresses } as MemoryHostOptions);
        const packet = to(text);
        assert.deepEqual(receive(host, HOST_2, packet), passes ? [frame(aged(packet, 1))] : []);
        assert.deepEqual(drops(host), passes ? {} : { 'foreign-destination': 1 });
        assert.deepEqual(host.rx.icmp.sent, []);
      });
    }
  }

  it('holds for each datagram of those that came together', () => {
    const host = memoryHost();
    const [ours, theirs] = [to('10.244.1.9'), to('10.244.3.9')];
    const data = [ours, theirs, ours, theirs].map((bytes) => ({ address: HOST_2, port: 8_285, data: bytes }));
    host.rx.conn.deliver(data, true);
    host.run();
    assert.deepEqual(drops(host), { 'foreign-destination': 2 });
    assert.equal(host.counters.read(1, 'rx').packets, 2);
  });

  it('nothing that is written to the TUN is for anybody else, whatever arrives (property)', () => {
    const host = memoryHost();
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 0, max: 0xffff_ffff }), { minLength: 1, maxLength: 24 }), (words) => {
        const packets = words.flatMap((word) =>
          [word, (0x0af4_0100 | (word & 0xff)) >>> 0, (0x0af4_0000 | (word & 0xffff)) >>> 0].map((destination) =>
            udpPacket({ ip: { ...ip, destination }, ...ports, payload: payloadOf(4) }),
          ),
        );
        for (const packet of receive(host, HOST_2, ...packets).flatMap(cut)) {
          const destination = new DataView(packet.buffer, packet.byteOffset).getUint32(16);
          assert.ok(destination >>> 8 === 0x0af401 || destination === address('192.168.77.1'));
        }
      }),
    );
  });
});

describe('who is refused is noted', () => {
  it('with the address that was refused, of a datagram alone or of several that came together', () => {
    const refusedSenders = RefusedSenders.allocate();
    const host = memoryHost({ refusedSenders, sourceCheck: 'strict' });
    const forOthers = udpPacket({ ip: { ...ip, destination: address('9.9.9.9') }, ...ports });
    receive(host, HOST_2, from('10.244.3.9'), from('8.8.8.8'), from('10.244.2.9'), forOthers, from('10.244.3.8'));
    const data = [1, 2, 3].map(() => ({ address: STRANGER, port: 1, data: from('10.244.2.1') }));
    host.rx.conn.deliver(data, true);
    host.run();
    receive(host, address('203.0.113.1'), Uint8Array.from([0x45, 0]));
    refusedSenders.take();
    assert.deepEqual(refusedSenders.take(), [
      { sender: HOST_2, reason: 'spoofed-source', inner: address('10.244.3.9'), packets: 2 },
      { sender: HOST_2, reason: 'foreign-source', inner: address('8.8.8.8'), packets: 1 },
      { sender: HOST_2, reason: 'foreign-destination', inner: address('9.9.9.9'), packets: 1 },
      { sender: STRANGER, reason: 'unknown-source', inner: address('10.244.2.1'), packets: 3 },
      { sender: address('203.0.113.1'), reason: 'unknown-source', inner: undefined, packets: 1 },
    ]);
  });
});

describe('batches', () => {
  it('take what the socket holds, and say when nothing is left', () => {
    const host = memoryHost();
    const datagrams = Array.from({ length: RECEIVE_MESSAGES + 3 }, () => from('10.244.2.1'));
    host.rx.conn.deliver(datagrams.map((data) => ({ address: HOST_2, port: 8_285, data })));
    assert.equal(host.rx.core.step(), RECEIVE_MESSAGES);
    assert.equal(host.rx.core.drained, false);
    assert.equal(host.rx.core.step(), 3);
    assert.equal(host.rx.core.drained, true);
    assert.equal(host.rx.core.step(), 0);
    const { rxReceives, rxDatagrams } = host.counters.readGauges();
    assert.deepEqual({ rxReceives, rxDatagrams }, { rxReceives: 2, rxDatagrams: RECEIVE_MESSAGES + 3 });
  });

  it('a datagram that is cut off is malformed, also as the last of several that came together', () => {
    const host = memoryHost();
    const whole = from('10.244.2.1');
    const data = [whole, whole, whole.slice(0, -1)].map((bytes) => ({ address: HOST_2, port: 8_285, data: bytes }));
    host.rx.conn.deliver([{ address: HOST_2, port: 8_285, data: new Uint8Array(500) }]); // its bytes stay in the buffer
    host.run();
    host.rx.conn.deliver(data, true);
    host.run();
    assert.equal(host.rx.tun.written.length, 2);
    assert.deepEqual(drops(host), { 'not-ipv4': 1, malformed: 1 });
  });

  it('an error of the socket is handed on, and the next step works', () => {
    const host = memoryHost();
    host.rx.conn.receiveFailures.push(111);
    assert.equal(host.rx.core.step(), -111);
    assert.equal(host.rx.core.drained, true);
    assert.equal(receive(host, HOST_2, from('10.244.2.1')).length, 1);
  });
});

describe('counters on the way in', () => {
  it('every datagram is passed or dropped once, at the door of the peer that sent it', () => {
    const datagrams = fc.record({
      outer: fc.constantFrom(HOST_2, HOST_3, STRANGER),
      inner: fc.constantFrom('10.244.2.5', '10.244.3.5', '10.244.9.5', '192.168.77.2', '9.9.9.9'),
      kind: fc.constantFrom('tcp', 'tcp', 'udp', 'udp', 'ttl', 'cut', 'ipv6', 'empty', 'noise'),
      length: fc.constantFrom(0, 1, 100, 100, 100, 1_000),
      seed: fc.nat(),
    });
    fc.assert(
      fc.property(
        fc.array(datagrams, { minLength: 1, maxLength: 60 }),
        fc.constantFrom('loose' as const, 'strict' as const, 'off' as const),
        fc.boolean(),
        fc.array(fc.constantFrom(0, 0, 5), { maxLength: 10 }),
        (list, sourceCheck, group, writeErrors) => {
          const host = memoryHost({ sourceCheck });
          host.rx.tun.writeFailures.push(...writeErrors.filter((errno) => errno !== 0));
          let sequence = 0;
          const arrived = [0, 0, 0];
          const deliveries = list.map(({ outer, inner, kind, length, seed }) => {
            arrived[outer === STRANGER ? 0 : outer === HOST_2 ? 1 : 2]! += 1;
            const fields = {
              ip: { ...ip, source: address(inner), ttl: kind === 'ttl' ? 1 : 64, dontFragment: true },
              ...ports,
            };
            let data = udpPacket({ ...fields, payload: payloadOf(length, seed) });
            if (kind === 'tcp') {
              data = tcpPacket({ ...fields, sequence, payload: payloadOf(length, seed) });
              sequence += length;
            }
            if (kind === 'cut') data = data.slice(0, data.length - 1);
            if (kind === 'ipv6') data[0] = 0x61;
            if (kind === 'empty') data = new Uint8Array(0);
            if (kind === 'noise') data = payloadOf(length, seed);
            return { address: outer, port: 8_285, data };
          });
          host.rx.conn.deliver(deliveries, group);
          host.run();
          let passedInAll = 0;
          let bytesInAll = 0;
          for (const slot of [0, 1, 2]) {
            const { packets, bytes, drops: byReason } = host.counters.read(slot, 'rx');
            const dropped = Object.values(byReason).reduce((sum, count) => sum + count, 0);
            assert.equal(packets + dropped, arrived[slot]);
            passedInAll += packets;
            bytesInAll += bytes;
          }
          const out = host.rx.tun.written.flatMap(cut);
          assert.equal(out.length, passedInAll);
          assert.equal(
            out.reduce((sum, packet) => sum + packet.length, 0),
            bytesInAll,
          );
        },
      ),
      { numRuns: 200 },
    );
  });

  it('gauges say how much was put together', () => {
    const host = memoryHost();
    const segments = Array.from({ length: 10 }, (_, id) =>
      tcpPacket({ ip: { ...ip, id }, ...ports, sequence: id * 100, payload: payloadOf(100) }),
    );
    receive(host, HOST_2, ...segments, from('10.244.2.77'));
    const { rxWrites, rxCoalesced, rxDatagrams } = host.counters.readGauges();
    assert.deepEqual({ rxWrites, rxCoalesced, rxDatagrams }, { rxWrites: 2, rxCoalesced: 10, rxDatagrams: 11 });
    for (const packet of segments) assert.equal(packetFault(packet), undefined, hex(packet));
  });
});
