import assert from 'node:assert/strict';
import { beforeEach, describe, it } from 'node:test';
import { EAGAIN, GuardedLayout, ManualClock, MemoryIcmp, OWN_ADDRESS } from '../../test/fakes/memory-dataplane.ts';
import {
  address,
  concat,
  hex,
  icmpPacket,
  ipv4Packet,
  payloadOf,
  tcpPacket,
  udpPacket,
} from '../../test/fakes/packets.ts';
import { createArena } from './arena.ts';
import { Counters } from './counters.ts';
import { IcmpErrors } from './icmp-error.ts';
import { IcmpLimits } from './icmp-limits.ts';

/** Two sources may share a bucket; with this seed those of the tests do not. */
const SEED = 1;
const SENDER = address('10.244.1.7');
const RECEIVER = address('10.244.9.9');
const ip = { source: SENDER, destination: RECEIVER };

describe('IcmpErrors', () => {
  const layout = new GuardedLayout(createArena());
  const offender = layout.take(65_536);
  const out = new MemoryIcmp(layout);
  const clock = new ManualClock();
  const counters = Counters.allocate(1);
  const errors = new IcmpErrors(layout, out, counters, clock.read, new IcmpLimits(SEED));

  beforeEach(() => {
    clock.nowMs += 10_000; // the bucket is full again
    errors.setSource(OWN_ADDRESS);
    out.failure = 0;
  });

  function answer(packet: Uint8Array, type = 3, code = 0, rest = 0, length = packet.length): Uint8Array | undefined {
    out.sent.length = 0;
    layout.arena.bytes.set(packet, offender);
    errors.send(offender, length, type, code, rest);
    layout.checkGuards();
    assert.ok(out.sent.length <= 1);
    return out.sent[0];
  }

  it('is, byte for byte, what a router sends', () => {
    const payload = Uint8Array.from([1, 2, 3]);
    const packet = udpPacket({ ip: { ...ip, id: 0x1234 }, sourcePort: 5_000, destinationPort: 53, payload });
    const header = '45c0003b00000000400162140af401000af40107';
    const message = '03001d1400000000';
    const quote = '4500001f12340000401148a30af401070af40909' + '13880035000bc821' + '010203';
    const sent = answer(packet);
    assert.equal(sent && hex(sent), header + message + quote);
  });

  it('carries type, code and the next-hop MTU', () => {
    const packet = tcpPacket({ ip, sourcePort: 1, destinationPort: 2, payload: payloadOf(1_000) });
    const sent = answer(packet, 3, 4, 1_372);
    assert.deepEqual(
      sent,
      icmpPacket({ source: OWN_ADDRESS, destination: SENDER, tos: 0xc0 }, 3, 4, 1_372, packet.slice(0, 548)),
    );
    assert.equal(sent?.[26], 1_372 >> 8);
    assert.equal(answer(packet, 11)?.[20], 11);
  });

  it('is at most 576 bytes, and quotes no more than is present or the header claims', () => {
    const long = udpPacket({ ip, sourcePort: 1, destinationPort: 2, payload: payloadOf(9_000) });
    assert.equal(answer(long)?.length, 576);
    assert.equal(answer(long, 3, 0, 0, 28)?.length, 56);
    const padded = concat(udpPacket({ ip, sourcePort: 1, destinationPort: 2 }), new Uint8Array(30));
    assert.equal(answer(padded)?.length, 56);
  });

  it('keeps silent about ICMP errors, and answers about queries', () => {
    for (let type = 0; type < 256; type++) {
      const packet = icmpPacket(ip, type, 0, 0, payloadOf(20));
      const isQuery = [0, 8, 13, 14, 15, 16, 17, 18].includes(type);
      assert.equal(answer(packet) !== undefined, isQuery, `ICMP type ${type}`);
    }
    assert.ok(answer(icmpPacket(ip, 8, 0, 0, payloadOf(20)))); // leaves its type behind the next packet
    assert.equal(answer(ipv4Packet({ ...ip, protocol: 1 }, new Uint8Array(0))), undefined);
  });

  it('reads the ICMP type behind IP options', () => {
    const options = Uint8Array.from([7, 4, 4, 0]);
    assert.ok(answer(icmpPacket({ ...ip, options }, 8, 0, 0, payloadOf(8))));
    assert.equal(answer(icmpPacket({ ...ip, options }, 3, 0, 0, payloadOf(8))), undefined);
  });

  it('keeps silent about later fragments, and answers about the first', () => {
    const fragment = { ...ip, protocol: 17, moreFragments: true };
    assert.equal(answer(ipv4Packet({ ...fragment, fragmentOffset: 1 }, payloadOf(64))), undefined);
    assert.ok(answer(ipv4Packet(fragment, payloadOf(64))));
  });

  it('keeps silent about addresses that are not one host’s', () => {
    for (const text of ['0.0.0.0', '0.1.2.3', '127.0.0.1', '224.0.0.1', '239.1.1.1', '240.0.0.1', '255.255.255.255']) {
      const odd = address(text);
      assert.equal(
        answer(udpPacket({ ip: { ...ip, source: odd }, sourcePort: 1, destinationPort: 2 })),
        undefined,
        text,
      );
      assert.equal(
        answer(udpPacket({ ip: { ...ip, destination: odd }, sourcePort: 1, destinationPort: 2 })),
        undefined,
      );
    }
    for (const text of ['1.0.0.0', '126.255.255.255', '128.0.0.1', '223.255.255.255']) {
      assert.ok(answer(udpPacket({ ip: { ...ip, source: address(text) }, sourcePort: 1, destinationPort: 2 })), text);
    }
  });

  it('sends nothing without an address of its own', () => {
    errors.setSource(0);
    assert.equal(answer(udpPacket({ ip, sourcePort: 1, destinationPort: 2 })), undefined);
  });

  it('keeps to what one source may have, answers another one, and counts what it held back', () => {
    const packet = udpPacket({ ip, sourcePort: 1, destinationPort: 2 });
    const another = udpPacket({ ip: { ...ip, source: ip.source + 1 }, sourcePort: 1, destinationPort: 2 });
    const before = counters.readGauges();
    const burst = Array.from({ length: 80 }, () => answer(packet)).filter((sent) => sent !== undefined);
    assert.equal(burst.length, 10);
    assert.ok(answer(another));
    clock.nowMs += 100;
    assert.equal(Array.from({ length: 80 }, () => answer(packet)).filter((sent) => sent !== undefined).length, 10);
    const after = counters.readGauges();
    assert.equal(after.icmpSent - before.icmpSent, 21);
    assert.equal(after.icmpSuppressed - before.icmpSuppressed, 140);
  });

  it('packets that get no answer use up no rate', () => {
    const silent = icmpPacket(ip, 3, 0, 0, payloadOf(20));
    for (let index = 0; index < 100; index++) answer(silent);
    assert.ok(answer(udpPacket({ ip, sourcePort: 1, destinationPort: 2 })));
  });

  it('counts what the socket refused as not sent', () => {
    out.failure = EAGAIN;
    const before = counters.readGauges();
    answer(udpPacket({ ip, sourcePort: 1, destinationPort: 2 }));
    const after = counters.readGauges();
    assert.equal(after.icmpSent - before.icmpSent, 0);
    assert.equal(after.icmpSuppressed - before.icmpSuppressed, 1);
  });
});
