import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { BUSY_POLL_MS, BusyPoll, LONE_PACKET_BYTES } from './busy-poll.ts';

const SHORT = BUSY_POLL_MS / 2;
const LONG = BUSY_POLL_MS * 20;
const LOOK = BUSY_POLL_MS / 8;

class Bench {
  ms = 1_000;
  readonly lastStep = new Int32Array(2);
  readonly poll = new BusyPoll(() => this.ms, this.lastStep, 0);

  /** A packet comes `gapMs` after the last: how often the worker looked in vain, and whether it then slept. */
  packet(gapMs: number, bytes = 64): { looks: number; slept: boolean } {
    const arrival = this.ms + gapMs;
    let looks = 0;
    while (this.ms < arrival && this.poll.lookAgain()) {
      looks++;
      this.ms += LOOK;
    }
    const slept = this.ms < arrival;
    this.ms = Math.max(this.ms, arrival);
    this.poll.moved(bytes);
    return { looks, slept };
  }
}

describe('busy polling', () => {
  it('sleeps at first, and meets packets awake once they come close together', () => {
    const bench = new Bench();
    assert.deepEqual(bench.packet(LONG), { looks: 0, slept: true });
    assert.deepEqual(bench.packet(SHORT), { looks: 0, slept: true });
    assert.equal(bench.packet(SHORT).slept, false);
    assert.equal(bench.packet(SHORT).slept, false);
  });

  it('looks in vain for one limit at most, then sleeps until packets come close together again', () => {
    const bench = new Bench();
    bench.packet(LONG);
    bench.packet(SHORT);
    const { looks, slept } = bench.packet(LONG);
    assert.equal(slept, true);
    assert.equal(looks, BUSY_POLL_MS / LOOK);
    for (let i = 0; i < 5; i++) assert.deepEqual(bench.packet(LONG), { looks: 0, slept: true });
    assert.deepEqual(bench.packet(SHORT), { looks: 0, slept: true });
    assert.equal(bench.packet(SHORT).slept, false);
  });

  it('expects a lone packet where packets came one by one, and not right behind another', () => {
    const bench = new Bench();
    bench.packet(LONG);
    assert.equal(bench.poll.expectsLonePacket, false);
    bench.packet(SHORT);
    assert.equal(bench.poll.expectsLonePacket, false);
    assert.equal(bench.poll.lookAgain(), true);
    assert.equal(bench.poll.expectsLonePacket, true);
    bench.packet(SHORT);
    assert.equal(bench.poll.expectsLonePacket, false);
  });

  it('leaves a stream to batching, whichever direction it has', () => {
    const bench = new Bench();
    for (let i = 0; i < 3; i++) bench.packet(SHORT, LONE_PACKET_BYTES + 1);
    assert.deepEqual(bench.packet(SHORT), { looks: 0, slept: true });
    assert.equal(bench.packet(SHORT).slept, false);
    bench.lastStep[1] = 64_000;
    assert.deepEqual(bench.packet(SHORT), { looks: 0, slept: true });
  });
});
