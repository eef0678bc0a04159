import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { Ticker, type TickerClock } from './ticker.ts';

/** Time goes on to the next timer. */
class FakeClock implements TickerClock {
  nowMs = 123.4;
  wakes = 0;
  #timers: { readonly atMs: number; readonly work: () => void }[] = [];
  readonly now = (): number => this.nowMs;
  readonly after = (ms: number, work: () => void): Disposable => {
    const timer = { atMs: this.nowMs + ms, work };
    this.#timers.push(timer);
    return { [Symbol.dispose]: () => void (this.#timers = this.#timers.filter((other) => other !== timer)) };
  };

  /** @param lateMs of each wake. */
  run(forMs: number, lateMs = 0): void {
    const endMs = this.nowMs + forMs;
    for (;;) {
      this.#timers.sort((a, b) => a.atMs - b.atMs);
      const next = this.#timers[0];
      if (next === undefined || next.atMs > endMs) break;
      this.#timers.shift();
      this.nowMs = Math.max(this.nowMs, next.atMs + lateMs);
      this.wakes++;
      next.work();
    }
    this.nowMs = endMs;
  }
}

describe('a ticker', () => {
  it('does work of different intervals at the same wake, whenever each was begun', () => {
    const clock = new FakeClock();
    const ticker = new Ticker(clock);
    const done = { quarter: 0, second: 0, other: 0 };
    using _quarter = ticker.every(250, () => void done.quarter++);
    clock.run(333);
    using _second = ticker.every(1_000, () => void done.second++);
    clock.run(444);
    using _other = ticker.every(1_000, () => void done.other++);
    clock.run(5_000);
    clock.wakes = 0;
    Object.assign(done, { quarter: 0, second: 0, other: 0 });
    clock.run(60_000, 1);
    assert.deepEqual(done, { quarter: 240, second: 60, other: 60 });
    assert.equal(clock.wakes, 240);
  });

  it('does what is due once, not before its time, and together with the rest', () => {
    const clock = new FakeClock();
    const ticker = new Ticker(clock);
    const at: number[] = [];
    using _every = ticker.every(1_000, () => {});
    clock.run(200);
    ticker.once(700, () => at.push(clock.nowMs));
    ticker.once(1_003, () => at.push(clock.nowMs));
    ticker.once(650, () => at.push(clock.nowMs))[Symbol.dispose]();
    clock.wakes = 0;
    clock.run(1_000);
    assert.deepEqual(at, [700, 1_000]);
    assert.ok(clock.wakes <= 3);
  });

  it('skips what it is too late for, and wakes nobody when nothing is left', () => {
    const clock = new FakeClock();
    const ticker = new Ticker(clock);
    let done = 0;
    const work = ticker.every(100, () => {
      done++;
      clock.nowMs += 450;
    });
    clock.run(5_000);
    assert.ok(done >= 9 && done <= 11, `${done} times`);
    work[Symbol.dispose]();
    clock.run(200);
    clock.wakes = 0;
    clock.run(10_000);
    assert.equal(clock.wakes, 0);
  });

  it('waits for about so long, together with other work, and no longer than a signal lets it', async () => {
    const clock = new FakeClock();
    const ticker = new Ticker(clock);
    using _every = ticker.every(1_000, () => {});
    const never = new AbortController().signal;
    const at: number[] = [];
    const loop = async (): Promise<void> => {
      for (let times = 0; times < 4; times++) {
        await ticker.wait(5_000, never);
        at.push(clock.nowMs);
      }
    };
    const looping = loop();
    clock.wakes = 0;
    for (let second = 0; second < 30; second++) {
      clock.run(1_000, 3);
      await Promise.resolve();
      await Promise.resolve();
    }
    await looping;
    assert.equal(clock.wakes, 30);
    const [first = 0, ...others] = at;
    assert.ok(first >= 2_500 && first <= 7_600, `${first}`);
    for (const [index, ms] of others.entries()) assert.equal(Math.round((ms - first) / 1_000), 5 * (index + 1));
    const aborted = new AbortController();
    const waiting = ticker.wait(3_600_000, aborted.signal);
    aborted.abort();
    await waiting;
    await ticker.wait(3_600_000, aborted.signal);
  });

  it('goes on with the rest when some work throws', () => {
    const clock = new FakeClock();
    const ticker = new Ticker(clock);
    let done = 0;
    using _throws = ticker.every(100, () => {
      if (clock.nowMs < 400) throw new Error('once');
    });
    using _other = ticker.every(100, () => void done++);
    assert.throws(() => clock.run(1_000), /once/);
    for (let i = 0; i < 5; i++) {
      try {
        clock.run(1_000);
      } catch {
        // As a process with a handler goes on.
      }
    }
    assert.ok(done > 20);
  });

  it('has the time of this process by default', async () => {
    const ticker = new Ticker();
    const atMs = performance.now() + 20;
    const alive = setTimeout(() => {}, 60_000);
    try {
      await new Promise<void>((resolve) => void ticker.once(atMs, resolve));
      assert.ok(performance.now() >= atMs);
    } finally {
      clearTimeout(alive);
    }
  });
});
