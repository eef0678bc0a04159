import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { Heartbeat } from './heartbeat.ts';
import { AGENT_TURNS } from './layout.ts';

const SECOND = 1_000_000_000n;
const PLACE = 9n;
const OTHER_PLACE = 10n;
const START = 1_000n * SECOND;

/** The entry of the agents' map. */
class Entry {
  #entry = { until: 0n, place: 0n };
  agent(): { until: bigint; place: bigint } {
    return this.#entry;
  }
  beat(until: bigint, place: bigint): void {
    this.#entry = { until, place };
  }
  isAttended(now: bigint): boolean {
    return this.#entry.until > now;
  }
}

describe('Heartbeat', () => {
  it('holds for more than a second, and ends at once', () => {
    const entry = new Entry();
    const heart = new Heartbeat(entry);
    heart.beat(START, PLACE);
    assert.ok(entry.isAttended(START + (12n * SECOND) / 10n));
    assert.ok(!entry.isAttended(START + (13n * SECOND) / 10n));
    assert.equal(entry.agent().place, PLACE);
    heart.end(START + 1n, PLACE);
    assert.ok(!entry.isAttended(START + 1n));
    assert.ok(entry.agent().until > START - SECOND / 100n, 'what is known is not older than it is');
  });

  it('an earlier agent that ends leaves the word to the later one, whoever spoke last', () => {
    for (const first of [0n, 1n, AGENT_TURNS - 1n, AGENT_TURNS, 0x1234_5678n]) {
      const entry = new Entry();
      entry.beat(first, PLACE);
      const [old, next] = [new Heartbeat(entry), new Heartbeat(entry)];
      old.beat(START, PLACE);
      next.beat(START + 1n, OTHER_PLACE);
      old.beat(START + SECOND / 2n, PLACE);
      assert.equal(entry.agent().place, OTHER_PLACE);
      old.end(START + SECOND, PLACE);
      assert.ok(entry.isAttended(START + SECOND), `after a word of ${first}`);
      next.beat(START + 2n * SECOND, OTHER_PLACE);
      next.end(START + 3n * SECOND, OTHER_PLACE);
      assert.ok(!entry.isAttended(START + 3n * SECOND));
    }
  });

  it('an earlier agent speaks again when the later one has ended', () => {
    const entry = new Entry();
    const [old, next] = [new Heartbeat(entry), new Heartbeat(entry)];
    old.beat(START, PLACE);
    next.beat(START + 1n, PLACE);
    old.beat(START + 3n * SECOND, PLACE);
    assert.ok(entry.isAttended(START + 3n * SECOND), 'it was killed');
    next.beat(START + 4n * SECOND, PLACE);
    next.end(START + 5n * SECOND, PLACE);
    old.beat(START + 5n * SECOND, PLACE);
    assert.ok(entry.isAttended(START + 5n * SECOND), 'it was stopped');
  });

  it('one that has never spoken says nothing at its end', () => {
    const entry = new Entry();
    const [other, heart] = [new Heartbeat(entry), new Heartbeat(entry)];
    other.beat(START, PLACE);
    heart.end(START, PLACE);
    assert.ok(entry.isAttended(START));
  });
});
