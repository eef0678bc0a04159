import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { TunnelCounters } from '../test/netns/tunnel.ts';
import { assertPassedForwarders, obstacleTo } from './fast-path-check.ts';

const OPEN =
  'weft tunnel: Packets take the fast path in the kernel through eth0, to peers that receive super-packets in one piece';
const BY_XDP =
  'weft tunnel: Packets take the fast path in the kernel outbound through eth0, where this host segments super-packets, ' +
  'and XDP takes what eth0 receives from peers';
const WITHOUT_XDP = `${OPEN}, without XDP on the way in: the kernel has refused it`;
const CLOSED = 'weft tunnel: All packets pass through the forwarder: this host has 1 IPsec policies (ip xfrm policy)';

describe('what a tunnel of the bench says of its fast path', () => {
  it('is an obstacle when the last word is that it is closed, or when there was none', () => {
    assert.equal(obstacleTo('fast path', ['something else', OPEN, 'something else']), undefined);
    assert.equal(obstacleTo('fast path', [CLOSED, OPEN]), undefined);
    assert.equal(obstacleTo('fast path', [OPEN, CLOSED]), `it says: ${CLOSED}`);
    assert.match(obstacleTo('fast path', ['something else']) ?? '', /nothing of a fast path/);
  });

  it('is an obstacle to XDP when XDP does not take what comes in', () => {
    assert.equal(obstacleTo('xdp', [BY_XDP]), undefined);
    assert.equal(obstacleTo('xdp', [OPEN]), `it says: ${OPEN}`);
    assert.equal(obstacleTo('xdp', [BY_XDP, WITHOUT_XDP]), `it says: ${WITHOUT_XDP}`);
    assert.equal(obstacleTo('fast path', [WITHOUT_XDP]), undefined);
  });
});

describe('pings that have taken the fast path', () => {
  const counters = (sent: number, txReads: number, rxDatagrams: number): TunnelCounters => {
    const direction = (packets: number) => ({ packets, bytes: 0, drops: {} });
    const both = (packets: number) => ({ sent: direction(packets), received: direction(packets) });
    return { peers: [{ subnet: '', endpoint: '', ...both(sent) }], nobody: both(0), totals: { txReads, rxDatagrams } };
  };
  const carried = (after: TunnelCounters) => ({
    before: [counters(5, 9, 9), counters(5, 9, 9)],
    after: [counters(25, 10, 12), after],
  });

  it('are those that both hosts have counted and no forwarder has read', () => {
    assertPassedForwarders(carried(counters(25, 10, 12)));
    assert.throws(() => assertPassedForwarders(carried(counters(24, 9, 9))), /host 2 has sent 19/);
    assert.throws(
      () => assertPassedForwarders(carried(counters(25, 29, 9))),
      /host 2 .* read 20 packets and 0 datagrams/,
    );
    assert.throws(
      () => assertPassedForwarders(carried(counters(25, 9, 29))),
      /host 2 .* read 0 packets and 20 datagrams/,
    );
  });
});
