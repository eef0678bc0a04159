import assert from 'node:assert/strict';
import { beforeEach, describe, it } from 'node:test';
import { EAGAIN, GuardedLayout, ManualClock, MemoryIcmp } from '../../test/fakes/memory-dataplane.ts';
import { concat, payloadOf } from '../../test/fakes/packets.ts';
import {
  address6,
  fragmentHeader,
  type Ip6Only,
  icmp6Packet,
  ipv6Packet,
  optionsHeader,
  tcp6Packet,
  udp6Packet,
} from '../../test/fakes/packets6.ts';
import { createArena } from './arena.ts';
import { Counters } from './counters.ts';
import { IcmpLimits } from './icmp-limits.ts';
import { Icmp6Errors } from './icmp6-error.ts';

/** Two sources may share a bucket; with this seed those of the tests do not. */
const SEED = 1;
const OWN = address6('fd00:244:0:1::');
const SENDER = address6('fd00:244:0:1::7');
const ip: Ip6Only = { source: SENDER, destination: address6('fd00:244:0:9::9') };
const ports = { sourcePort: 5_000, destinationPort: 53 };

describe('Icmp6Errors', () => {
  const layout = new GuardedLayout(createArena());
  const offender = layout.take(65_536);
  const out = new MemoryIcmp(layout);
  const clock = new ManualClock();
  const counters = Counters.allocate(1);
  const errors = new Icmp6Errors(layout, out, counters, clock.read, new IcmpLimits(SEED));

  beforeEach(() => {
    clock.nowMs += 10_000; // the bucket is full again
    errors.setSource(OWN);
    out.failure = 0;
  });

  function answer(packet: Uint8Array, type = 1, rest = 0, length = packet.length): Uint8Array | undefined {
    out.sent.length = 0;
    layout.arena.bytes.set(packet, offender);
    errors.send(offender, length, type, 0, rest);
    layout.checkGuards();
    return out.sent[0];
  }

  it('is, byte for byte, what a router sends', () => {
    const packet = tcp6Packet({ ip, ...ports, payload: payloadOf(101) });
    const expected = (type: number, rest: number): Uint8Array =>
      icmp6Packet({ source: OWN, destination: SENDER }, type, 0, rest, packet);
    assert.deepEqual(answer(packet), expected(1, 0));
    assert.deepEqual(answer(packet, 2, 1_372), expected(2, 1_372));
    assert.deepEqual(answer(packet, 3), expected(3, 0));
  });

  it('is at most 1280 bytes, and quotes no more than is present or the header claims', () => {
    const long = udp6Packet({ ip, ...ports, payload: payloadOf(9_000) });
    assert.equal(answer(long)?.length, 1_280);
    assert.equal(answer(long, 1, 0, 48)?.length, 96);
    assert.equal(answer(concat(udp6Packet({ ip, ...ports }), new Uint8Array(30)))?.length, 96);
  });

  it('keeps silent about errors and redirects, and answers about other messages', () => {
    for (let type = 0; type < 256; type++) {
      const sent = answer(icmp6Packet(ip, type, 0, 0, payloadOf(20)));
      clock.nowMs += 1_000;
      assert.equal(sent !== undefined, type >= 128 && type !== 137, `ICMPv6 type ${type}`);
    }
  });

  it('looks for the type behind extension headers, and keeps silent where it may be an error', () => {
    const error = (extensions: Ip6Only['extensions']): Uint8Array =>
      icmp6Packet({ ...ip, ...(extensions && { extensions }) }, 1, 0, 0, payloadOf(20));
    const echo = icmp6Packet({ ...ip, extensions: [[0, optionsHeader(2)], [60, optionsHeader()]] }, 128, 0, 0, payloadOf(9)); // biome-ignore format: one line
    assert.ok(answer(echo));
    assert.equal(answer(error([[0, optionsHeader(2)]])), undefined);
    assert.equal(answer(error([[43, optionsHeader(1)], [44, fragmentHeader(0, true)]])), undefined); // biome-ignore format: one line
    const later = (nextHeader: number): Uint8Array =>
      ipv6Packet({ ...ip, nextHeader, extensions: [[44, fragmentHeader(9, false)]] }, payloadOf(64));
    assert.equal(answer(later(58)), undefined);
    assert.ok(answer(later(17)), 'packet too big is for later fragments, too');
    assert.equal(answer(error([[0, optionsHeader(30)]]), 1, 0, 48), undefined, 'cut off');
    assert.equal(answer(ipv6Packet({ ...ip, nextHeader: 58 }, new Uint8Array(0))), undefined);
    const many = Array.from({ length: 9 }, () => [60, optionsHeader()] as const);
    assert.equal(answer(udp6Packet({ ip: { ...ip, extensions: many }, ...ports })), undefined);
  });

  it('keeps silent about addresses that are not one host’s on the overlay', () => {
    for (const text of ['::', '::1', '::10.0.0.1', '::ffff:10.0.0.1', 'fe80::1', 'febf::1', 'ff02::1']) {
      assert.equal(answer(udp6Packet({ ip: { ...ip, source: address6(text) }, ...ports })), undefined, text);
    }
    assert.equal(answer(udp6Packet({ ip: { ...ip, destination: address6('ff02::1') }, ...ports })), undefined);
    for (const text of ['fec0::1', '64:ff9b::1', '0:0:1::1']) {
      assert.ok(answer(udp6Packet({ ip: { ...ip, source: address6(text) }, ...ports })), text);
    }
  });

  it('sends nothing without an address of its own', () => {
    errors.setSource(undefined);
    assert.equal(answer(udp6Packet({ ip, ...ports })), undefined);
  });

  it('keeps to what one source may have, answers another one, and counts what it held back', () => {
    const packet = udp6Packet({ ip, ...ports });
    const another = udp6Packet({ ip: { ...ip, source: address6('fd00:244:0:1::8') }, ...ports });
    const before = counters.readGauges();
    assert.equal(Array.from({ length: 80 }, () => answer(packet)).filter((sent) => sent !== undefined).length, 10);
    assert.ok(answer(another));
    assert.ok(answer(packet, 2, 1_280), 'packet too big has a bucket of its own');
    const after = counters.readGauges();
    assert.equal(after.icmpSent - before.icmpSent, 12);
    assert.equal(after.icmpSuppressed - before.icmpSuppressed, 70);
  });

  it('counts what the socket refused as not sent', () => {
    out.failure = EAGAIN;
    const before = counters.readGauges();
    answer(udp6Packet({ ip, ...ports }));
    const after = counters.readGauges();
    assert.equal(after.icmpSent - before.icmpSent, 0);
    assert.equal(after.icmpSuppressed - before.icmpSuppressed, 1);
  });
});
