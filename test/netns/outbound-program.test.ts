import assert from 'node:assert/strict';
import { after, before, beforeEach, describe, it } from 'node:test';
import {
  CUT_ARRIVED_AT,
  CUT_UNTIL,
  ENDPOINT_VALUE_BYTES,
  LONG_WAY_UNTIL,
  NEXT_TRIAL,
  TAG_CUT_ARRIVED,
  TRIAL_PAUSE,
  UNANSWERED_SINCE,
  UNHEARD_SINCE,
} from '../../src/dataplane/fast-path/layout.ts';
import { ipv4Of } from '../../src/ip/ipv4.ts';
import { parsePrefix6, prefix4 } from '../../src/ip/prefix.ts';
import { ACK, address, payloadOf, tcpPacket, udpPacket } from '../fakes/packets.ts';
import { NEXT, openProgramBench, PORT, type ProgramBench, REDIRECTED, runProgram, TAG } from '../fuzz/program-bench.ts';

const PEER = '192.168.77.2';
const KEY = Uint8Array.from([192, 168, 77, 2]);
const MTU = 1_472;
const FOREVER = 1n << 62n;
/** In nanoseconds. */
const MS = 1_000_000n;
const LONG_WAY_MS = 100n;

describe('the outbound program where something beyond this host cuts super-packets', () => {
  let bench: ProgramBench;
  // BPF_PROG_TEST_RUN takes a packet whose source begins with 8.0 for one of IPv4.
  const ip = { source: address('8.0.1.2'), destination: address('10.244.2.9') };
  const ports = { sourcePort: 1, destinationPort: 2 };
  const segment = (bytes: number): Uint8Array =>
    tcpPacket({ ip, ...ports, flags: ACK, options: new Uint8Array(12), payload: payloadOf(bytes) });
  const datagram = (): Uint8Array => udpPacket({ ip, ...ports, payload: payloadOf(100) });

  before(async () => {
    bench = await openProgramBench([PEER]);
    bench.tables.publish({
      ipv4: {
        network: prefix4(ipv4Of(address('10.244.0.0')), 16),
        own: prefix4(ipv4Of(address('8.0.0.0')), 16),
      },
      ipv6: { network: parsePrefix6('fd00:244::/48')!, own: parsePrefix6('fd00:244:0:1::/64')! },
      mtu: MTU,
      peers: [
        {
          ...{ slot: 1, port: PORT, publicAddresses: { ipv4: ipv4Of(address(PEER)), ipv6: undefined } },
          subnets: { ipv4: prefix4(ipv4Of(address('10.244.2.0')), 24), ipv6: undefined },
        },
      ],
    });
  });
  after(() => bench?.[Symbol.asyncDispose]());

  const grant = (takesCutUntil: bigint): void =>
    bench.tables.grant(ipv4Of(address(PEER)), {
      ...{ sendUntil: FOREVER, acceptUntil: FOREVER, wholeUntil: 0n, sendUntil6: 0n, wholeUntil6: 0n, takesCutUntil },
      ...{ tag: 1, tagWhole: 2, expectTag: TAG, expectTagWhole: 3 },
    });
  const known = (): DataView => {
    const value = new Uint8Array(ENDPOINT_VALUE_BYTES);
    assert.ok(bench.tables.maps.endpoints.lookup(KEY, value) >= 0);
    return new DataView(value.buffer);
  };
  const longWayUntil = (): bigint => known().getBigUint64(LONG_WAY_UNTIL, true);
  type Field = readonly [at: number, time: bigint];
  /** All that is known of the peer's host. */
  const know = (...fields: readonly Field[]): void => {
    const value = new DataView(new ArrayBuffer(ENDPOINT_VALUE_BYTES));
    for (const [at, time] of fields) value.setBigUint64(at, time, true);
    bench.tables.maps.endpoints.update(KEY, new Uint8Array(value.buffer));
  };
  /** As after a super-packet that was tried and cut; the next trial is far. */
  const setLongWay = (until: bigint, ...more: readonly Field[]): void =>
    know([TRIAL_PAUSE, 1n], [NEXT_TRIAL, FOREVER], [LONG_WAY_UNTIL, until], ...more);
  beforeEach(() => {
    grant(0n);
    setLongWay(0n);
  });
  const verdict = (packet: Uint8Array, segmentSize?: number): number =>
    runProgram(bench.outbound.beyond, packet, segmentSize).verdict;

  it('sends single packets while no super-packet is on its way through the forwarder', () => {
    assert.deepEqual(
      [segment(0), segment(100), datagram()].map((packet) => verdict(packet)),
      [REDIRECTED, REDIRECTED, REDIRECTED],
    );
    assert.equal(longWayUntil(), 0n);
  });

  it('leaves super-packets to the forwarder, and for 0.1 s what could overtake them', () => {
    const earliest = process.hrtime.bigint() + LONG_WAY_MS * MS;
    assert.equal(verdict(segment(2_800), 1_400), NEXT);
    assert.ok(longWayUntil() >= earliest && longWayUntil() <= process.hrtime.bigint() + LONG_WAY_MS * MS);
    setLongWay(FOREVER);
    assert.deepEqual(
      [segment(0), segment(100), datagram()].map((packet) => verdict(packet)),
      [REDIRECTED, NEXT, NEXT],
    );
  });

  it('leaves the super-packets of UDP as well', () => {
    assert.equal(verdict(udpPacket({ ip, ...ports, payload: payloadOf(2_800) }), 1_400), NEXT);
    assert.notEqual(longWayUntil(), 0n);
  });

  it('sends super-packets cut once they have arrived so, behind those that are still on their way through the forwarder', () => {
    const superPackets = [segment(2_800), udpPacket({ ip, ...ports, payload: payloadOf(2_800) })];
    const single = (): number[] => [segment(100), datagram()].map((packet) => verdict(packet));
    const arrives = [CUT_UNTIL, FOREVER] as const;
    grant(FOREVER);
    setLongWay(0n, arrives);
    // BPF_PROG_TEST_RUN has none that the kernel lets a program encapsulate; but the program tries, and leaves none to the forwarder.
    for (const packet of superPackets) verdict(packet, 1_400);
    assert.equal(longWayUntil(), 0n);
    assert.deepEqual(single(), [REDIRECTED, REDIRECTED]);
    const until = process.hrtime.bigint() + 10_000n * MS;
    setLongWay(until, arrives);
    for (const packet of superPackets) assert.equal(verdict(packet, 1_400), NEXT);
    assert.deepEqual(single(), [NEXT, NEXT]);
    assert.equal(longWayUntil(), until, 'and not for longer');
    const leavesAll = (why: string): void => {
      assert.equal(verdict(superPackets[0]!, 1_400), NEXT, why);
      assert.notEqual(longWayUntil(), 0n, why);
      assert.deepEqual(single(), [NEXT, NEXT], why);
    };
    setLongWay(0n);
    leavesAll('nothing was heard of their arrival');
    grant(0n);
    setLongWay(0n, arrives);
    leavesAll('the peer does not take them');
  });

  it('leaves them to the forwarder again when nothing has been heard of TCP’s for 0.2 s', () => {
    grant(FOREVER);
    setLongWay(0n, [CUT_UNTIL, FOREVER], [UNANSWERED_SINCE, process.hrtime.bigint() - 201n * MS]);
    assert.equal(verdict(segment(2_800), 1_400), NEXT);
    assert.equal(known().getBigUint64(CUT_UNTIL, true), 0n);
  });

  it('tells a peer by the tag that one of its super-packets has arrived cut', () => {
    const tagOf = (packet: Uint8Array): number => {
      const sent = runProgram(bench.outbound.beyond, packet).packet;
      return new DataView(sent.buffer, sent.byteOffset).getUint16(14 + 4);
    };
    grant(FOREVER);
    assert.equal(tagOf(segment(100)), 1);
    setLongWay(0n, [CUT_ARRIVED_AT, process.hrtime.bigint()]);
    assert.equal(tagOf(segment(100)), 1 + TAG_CUT_ARRIVED);
  });

  it('leaves TCP’s data to the forwarder when the peer was silent for 0.2 s, since it is to be heard', () => {
    const silentSince = (since: bigint): number => {
      know([UNHEARD_SINCE, since]);
      return verdict(segment(100));
    };
    const now = process.hrtime.bigint();
    assert.equal(silentSince(now), REDIRECTED);
    assert.equal(silentSince(now - 201n * MS), NEXT);
    setLongWay(0n);
    bench.tables.hears(ipv4Of(address(PEER)), now + 60_000n * MS);
    assert.equal(verdict(segment(100)), REDIRECTED);
    bench.tables.hears(ipv4Of(address(PEER)), now - 201n * MS);
    assert.equal(verdict(segment(100)), NEXT);
  });
});
