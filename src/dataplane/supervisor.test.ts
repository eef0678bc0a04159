import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { STUB_ORDERS, STUB_STARTS } from '../../test/fakes/forwarder-stub.ts';
import { WeftError } from '../errors.ts';
import { parseIpv4 } from '../ip/ipv4.ts';
import { Forwarder, type ForwarderDescriptors, type ForwarderEvent } from './supervisor.ts';

const OWN = { ipv4: parseIpv4('10.244.1.0')!, ipv6: undefined };
const never = new AbortController().signal;

/** A forwarder with stub workers whose descriptors are only counted. */
class Stage implements AsyncDisposable {
  readonly forwarder: Forwarder;
  readonly events: ForwarderEvent[] = [];
  readonly #starts: (number | Error)[];
  opened = 0;
  started = 0;
  stopped = 0;
  closed = 0;
  /** What was done with the descriptors, in this order. */
  readonly deeds: string[] = [];
  #waiters: (() => void)[] = [];

  /** @param starts how each generation starts; the last one counts from then on. An error is thrown when opening. */
  constructor(starts: readonly (number | Error)[] = [STUB_STARTS.well]) {
    this.#starts = [...starts];
    this.forwarder = new Forwarder({
      workerUrl: new URL('../../test/fakes/forwarder-stub-worker.ts', import.meta.url),
      sourceCheck: 'loose',
      destinationCheck: 'loose',
      open: () => this.#open(),
      onEvent: (event) => {
        this.events.push(event);
        for (const wake of this.#waiters.splice(0)) wake();
      },
    });
  }

  #open(): ForwarderDescriptors {
    const start = this.#starts.length > 1 ? this.#starts.shift()! : this.#starts[0]!;
    if (start instanceof Error) throw start;
    assert.equal(this.opened, this.closed, 'the descriptors before are closed');
    this.opened++;
    return {
      tunFd: start,
      udpSegmentation: false,
      socketFd: -1,
      underlay: 4,
      icmpFd: -1,
      icmp6Fd: -1,
      stopFd: -1,
      signalStop: () => {
        this.stopped++;
        this.deeds.push('stop');
      },
      ending: () => void this.deeds.push('ending'),
      started: () => void this.started++,
      [Symbol.dispose]: () => {
        this.closed++;
        this.deeds.push('closed');
      },
    };
  }

  order(order: number): void {
    new Float64Array(this.forwarder.counters.buffer)[0] = order;
  }

  /** Resolves when there are `count` events in all. */
  async untilEvents(count: number): Promise<void> {
    while (this.events.length < count) await new Promise<void>((resolve) => this.#waiters.push(resolve));
  }

  /** The events in short: `started`, `failed 100: reason`. */
  get story(): string[] {
    return this.events.map((event) => {
      if (event.type === 'started') return 'started';
      const what = event.type === 'failed' ? `failed ${event.retryInMs}` : event.type;
      return `${what}: ${event.reason.split('\n')[0]}`;
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.forwarder[Symbol.asyncDispose]();
    assert.equal(this.opened, this.closed, 'every descriptor that was opened is closed');
  }
}

describe('Forwarder', () => {
  it('says that it ends while its workers still run', async () => {
    const stage = new Stage();
    await stage.forwarder.start(OWN, never);
    assert.deepEqual(stage.deeds, []);
    await stage[Symbol.asyncDispose]();
    assert.deepEqual(stage.deeds, ['ending', 'stop', 'closed']);
  });

  it('starts both workers, and ends them before it closes what they use', async () => {
    await using stage = new Stage();
    const { forwarder } = stage;
    assert.equal(forwarder.failure, 'not started');
    await forwarder.start(OWN, never);
    assert.equal(forwarder.failure, undefined);
    assert.deepEqual([stage.opened, stage.started, stage.closed], [1, 1, 0]);
    await forwarder[Symbol.asyncDispose]();
    assert.deepEqual([stage.stopped, stage.closed], [1, 1]);
    assert.equal(forwarder.failure, 'stopped');
    assert.deepEqual(stage.story, ['started']);
  });

  it('opens once for prepare and start together', async () => {
    await using stage = new Stage();
    stage.forwarder.prepare();
    stage.forwarder.prepare();
    assert.equal(stage.opened, 1);
    await stage.forwarder.start(OWN, never);
    assert.equal(stage.opened, 1);
  });

  it('closes what was prepared and never started, and makes nothing last', async () => {
    await using stage = new Stage();
    stage.forwarder.prepare();
    await stage.forwarder[Symbol.asyncDispose]();
    assert.deepEqual([stage.opened, stage.closed, stage.started], [1, 1, 0]);
  });

  it('prepare throws what opening throws', async () => {
    await using stage = new Stage([new WeftError('WEFT_TUN_MISSING', 'no device'), STUB_STARTS.well]);
    assert.throws(() => stage.forwarder.prepare(), { code: 'WEFT_TUN_MISSING' });
    await stage.forwarder.start(OWN, never);
  });

  it('start rejects when a worker cannot start, closes everything and does not try again by itself', async () => {
    await using stage = new Stage([STUB_STARTS.throws, STUB_STARTS.well]);
    await assert.rejects(stage.forwarder.start(OWN, never), {
      code: 'WEFT_FORWARDER_FAILED',
      message: /packet worker failed to start: Error: cannot start/,
    });
    assert.deepEqual([stage.opened, stage.closed, stage.started], [1, 1, 0]);
    assert.deepEqual(stage.events, []);
    assert.equal(stage.forwarder.failure, 'not started');
    await stage.forwarder.start(OWN, never);
    assert.equal(stage.forwarder.failure, undefined);
  });

  for (const [name, order, reason] of [
    ['a worker that crashes', STUB_ORDERS.crash, /^failed 100: Error: crashed as told$/],
    ['a worker that ends', STUB_ORDERS.end, /^failed 100: forwarder-tx ended$/],
    ['a TUN device that is deleted', STUB_ORDERS.loseTun, /^failed 100: the TUN device is gone$/],
    ['a socket that fails', STUB_ORDERS.loseSocket, /^failed 100: the UDP socket failed$/],
  ] as const) {
    it(`recovers from ${name}, with table and counters as they were`, async () => {
      await using stage = new Stage();
      const { forwarder } = stage;
      await forwarder.start(OWN, never);
      forwarder.counters.passed(7, 'rx', 3, 300);
      stage.order(order);
      await stage.untilEvents(2);
      assert.match(stage.story[1]!, reason);
      assert.notEqual(forwarder.failure, undefined);
      await stage.untilEvents(3);
      assert.equal(stage.story[2], 'started');
      assert.equal(forwarder.failure, undefined);
      assert.deepEqual([stage.opened, stage.started, stage.closed], [2, 2, 1]);
      assert.equal(forwarder.counters.read(7, 'rx').packets, 3);
    });
  }

  it('waits longer after each failure, also when it had started in between', async () => {
    await using stage = new Stage();
    await stage.forwarder.start(OWN, never);
    for (let round = 1; round <= 3; round++) {
      stage.order(STUB_ORDERS.crash);
      await stage.untilEvents(2 * round + 1);
    }
    assert.deepEqual(stage.story, [
      'started',
      ...['failed 100: Error: crashed as told', 'started'],
      ...['failed 200: Error: crashed as told', 'started'],
      ...['failed 400: Error: crashed as told', 'started'],
    ]);
  });

  it('goes on trying when opening or starting fails, and says why each time', async () => {
    const busy = new WeftError('WEFT_TUN_BUSY', 'somebody has it');
    await using stage = new Stage([STUB_STARTS.well, busy, STUB_STARTS.throws, STUB_STARTS.well]);
    await stage.forwarder.start(OWN, never);
    stage.order(STUB_ORDERS.loseTun);
    await stage.untilEvents(5);
    assert.match(
      stage.story.join('; '),
      /^started; failed 100: the TUN device is gone; failed 200: somebody has it \[WEFT_TUN_BUSY\]; failed 400: packet worker failed to start: Error: cannot start.*; started$/,
    );
  });

  it('does not start any more once it is disposed of while it waits', async (t) => {
    t.mock.timers.enable({ apis: ['setTimeout'] });
    await using stage = new Stage();
    await stage.forwarder.start(OWN, never);
    stage.order(STUB_ORDERS.crash);
    await stage.untilEvents(2);
    await stage.forwarder[Symbol.asyncDispose]();
    t.mock.timers.tick(60_000);
    assert.deepEqual([stage.opened, stage.events.length, stage.forwarder.failure], [1, 2, 'stopped']);
  });

  it('a start by the caller takes the place of the retry', async (t) => {
    t.mock.timers.enable({ apis: ['setTimeout'] });
    await using stage = new Stage();
    await stage.forwarder.start(OWN, never);
    stage.order(STUB_ORDERS.crash);
    await stage.untilEvents(2);
    await stage.forwarder.start(OWN, never);
    t.mock.timers.tick(60_000);
    assert.deepEqual([stage.opened, stage.closed], [2, 1]);
    assert.equal(stage.forwarder.failure, undefined);
  });

  it('starts again with another address', async () => {
    await using stage = new Stage();
    await stage.forwarder.start(OWN, never);
    await stage.forwarder.start({ ipv4: parseIpv4('10.244.2.0')!, ipv6: undefined }, never);
    assert.deepEqual([stage.opened, stage.closed], [2, 1]);
    assert.deepEqual(stage.story, ['started', 'started']);
  });

  it('a start ends with the signal, and so does what it has begun', async () => {
    await using stage = new Stage([STUB_STARTS.hangs]);
    const controller = new AbortController();
    const starting = stage.forwarder.start(OWN, controller.signal);
    setTimeout(() => controller.abort(new Error('enough')), 50);
    await assert.rejects(starting, /enough/);
    assert.deepEqual([stage.opened, stage.closed, stage.events.length], [1, 1, 0]);
    await assert.rejects(stage.forwarder.start(OWN, controller.signal), /enough/);
    assert.equal(stage.opened, 1);
  });

  it('a start ends when it is disposed of meanwhile', async () => {
    const stage = new Stage([STUB_STARTS.hangs]);
    const starting = assert.rejects(stage.forwarder.start(OWN, never), { code: 'WEFT_FORWARDER_FAILED' });
    await new Promise((resolve) => setImmediate(resolve));
    await stage[Symbol.asyncDispose]();
    await starting;
    assert.deepEqual([stage.opened, stage.closed], [1, 1]);
  });
});
