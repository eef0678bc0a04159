import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { Counters, GAUGE_RX_WRITES, GAUGES } from './counters.ts';
import { DROP_NO_ROUTE, DROP_REASONS, DROP_TOO_BIG, DROP_UNSUPPORTED_OFFLOAD } from './drop-reason.ts';

describe('Counters', () => {
  it('keeps peers, directions and reasons apart, and readers of the same memory see them', () => {
    const counters = Counters.allocate(3);
    counters.passed(1, 'tx', 2, 3_000);
    counters.passed(1, 'rx', 1, 40);
    counters.passed(2, 'tx', 5, 50);
    counters.dropped(1, 'tx', DROP_TOO_BIG, 4);
    counters.dropped(0, 'tx', DROP_NO_ROUTE, 1);
    counters.dropped(2, 'rx', DROP_UNSUPPORTED_OFFLOAD, 7); // the last cell of a slot
    const other = new Counters(counters.buffer);
    assert.deepEqual(other.read(1, 'tx'), { packets: 2, bytes: 3_000, drops: { 'too-big': 4 } });
    assert.deepEqual(other.read(1, 'rx'), { packets: 1, bytes: 40, drops: {} });
    assert.deepEqual(other.read(2, 'tx'), { packets: 5, bytes: 50, drops: {} });
    assert.deepEqual(other.read(2, 'rx'), { packets: 0, bytes: 0, drops: { 'unsupported-offload': 7 } });
    assert.deepEqual(other.read(0, 'tx'), { packets: 0, bytes: 0, drops: { 'no-route': 1 } });
  });

  it('clears one slot and nothing else', () => {
    const counters = Counters.allocate(3);
    for (let slot = 0; slot < 3; slot++) {
      counters.passed(slot, 'rx', slot + 1, 10);
      for (let reason = 1; reason < DROP_REASONS.length; reason++) counters.dropped(slot, 'tx', reason, 1);
    }
    counters.gauge(GAUGE_RX_WRITES, 9);
    counters.clear(1);
    assert.deepEqual(counters.read(1, 'tx'), { packets: 0, bytes: 0, drops: {} });
    assert.deepEqual(counters.read(1, 'rx'), { packets: 0, bytes: 0, drops: {} });
    assert.equal(counters.read(2, 'rx').packets, 3);
    assert.equal(Object.keys(counters.read(0, 'tx').drops).length, DROP_REASONS.length - 1);
    assert.equal(counters.readGauges().rxWrites, 9);
  });

  it('has a gauge for each name', () => {
    const counters = Counters.allocate(1);
    GAUGES.forEach((_, index) => {
      counters.gauge(index, index + 1);
    });
    assert.deepEqual(
      Object.values(counters.readGauges()),
      GAUGES.map((_, index) => index + 1),
    );
  });
});
