import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { AF_UNIX, EAGAIN, SOCK_DGRAM, SOCK_NONBLOCK } from './constants.ts';
import { addressOf, bind, close, read, socket } from './ffi.ts';
import { type SystemdNotifierOptions, sockaddrUn, systemdNotifier, watchdogIntervalMs } from './systemd-notify.ts';

/** The service manager's end: a datagram socket under a path or an abstract name. */
class Manager implements Disposable {
  readonly target: string;
  readonly #fd: number;
  readonly #buffer = new Uint8Array(new SharedArrayBuffer(4096));
  readonly #directory: string | undefined;

  constructor(kind: 'path' | 'abstract') {
    this.#directory = kind === 'path' ? mkdtempSync(join(tmpdir(), 'weft-notify-')) : undefined;
    this.target = this.#directory === undefined ? `@weft-notify-${process.pid}-${Date.now()}` : `${this.#directory}/s`;
    this.#fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0);
    const address = sockaddrUn(this.target);
    assert.ok(this.#fd >= 0 && address !== undefined);
    assert.equal(bind(this.#fd, addressOf(address), address.length), 0);
  }

  /** All that has arrived; a datagram that was sent is there at once. */
  received(): string[] {
    const messages: string[] = [];
    for (;;) {
      const length = read(this.#fd, addressOf(this.#buffer), this.#buffer.length);
      if (length === -EAGAIN) return messages;
      assert.ok(length > 0);
      messages.push(Buffer.from(this.#buffer.subarray(0, length)).toString());
    }
  }

  [Symbol.dispose](): void {
    close(this.#fd);
    if (this.#directory !== undefined) rmSync(this.#directory, { recursive: true });
  }
}

function options(target: string, more: Partial<SystemdNotifierOptions> = {}): SystemdNotifierOptions {
  const onProblem = (message: string) => assert.fail(message);
  return { environment: { NOTIFY_SOCKET: target }, isAlive: () => true, onProblem, ...more };
}

describe('systemdNotifier', () => {
  for (const kind of ['path', 'abstract'] as const) {
    it(`sends the messages of sd_notify, socket by ${kind}`, () => {
      using manager = new Manager(kind);
      using notifier = systemdNotifier(options(manager.target));
      notifier.status('waiting for\n a lease');
      notifier.status('waiting for\n a lease');
      notifier.ready();
      notifier.stopping();
      assert.deepEqual(manager.received(), ['STATUS=waiting for; a lease', 'READY=1', 'STOPPING=1']);
    });
  }

  it('keeps the watchdog quiet while the agent lives, and not after that', (t) => {
    t.mock.timers.enable({ apis: ['setInterval'] });
    using manager = new Manager('abstract');
    let alive = true;
    const environment = { NOTIFY_SOCKET: manager.target, WATCHDOG_USEC: '30000000', WATCHDOG_PID: String(process.pid) };
    using notifier = systemdNotifier(options(manager.target, { environment, isAlive: () => alive }));
    t.mock.timers.tick(14_999);
    assert.deepEqual(manager.received(), []);
    t.mock.timers.tick(1);
    assert.deepEqual(manager.received(), ['WATCHDOG=1']);
    alive = false;
    t.mock.timers.tick(60_000);
    assert.deepEqual(manager.received(), []);
    alive = true;
    t.mock.timers.tick(15_000);
    assert.deepEqual(manager.received(), ['WATCHDOG=1']);
    notifier.stopping();
    t.mock.timers.tick(60_000);
    assert.deepEqual(manager.received(), ['STOPPING=1']);
  });

  it('sends what a full queue did not take later, in order', (t) => {
    t.mock.timers.enable({ apis: ['setTimeout'] });
    using manager = new Manager('abstract');
    using notifier = systemdNotifier(options(manager.target));
    const sent: string[] = [];
    // More than net.unix.max_dgram_qlen and the send buffer hold, whatever they are here.
    for (let i = 0; i < 5000; i++) {
      notifier.status(`step ${i}`);
      sent.push(`STATUS=step ${i}`);
    }
    notifier.ready();
    sent.push('READY=1');
    const got = manager.received();
    assert.ok(got.length < sent.length, 'the queue was full');
    while (got.length < sent.length) {
      t.mock.timers.tick(100);
      const more = manager.received();
      assert.ok(more.length > 0);
      got.push(...more);
    }
    assert.deepEqual(got, sent);
  });

  it('does nothing without a socket, and says once when the socket cannot be used', () => {
    const problems: string[] = [];
    const onProblem = (message: string) => problems.push(message);
    for (const target of ['', '/nonexistent/socket', 'relative', `/${'x'.repeat(200)}`]) {
      using notifier = systemdNotifier(options(target, { onProblem }));
      notifier.ready();
      notifier.stopping();
    }
    assert.equal(problems.length, 3);
    assert.match(problems[0] ?? '', /NOTIFY_SOCKET=\/nonexistent\/socket: ENOENT/);
    assert.match(problems[1] ?? '', /neither an absolute path/);
  });
});

describe('watchdogIntervalMs', () => {
  it('is half the time, when the watchdog is meant for this process', () => {
    assert.equal(watchdogIntervalMs({ WATCHDOG_USEC: '30000000' }), 15_000);
    assert.equal(watchdogIntervalMs({ WATCHDOG_USEC: '30000000', WATCHDOG_PID: String(process.pid) }), 15_000);
    assert.equal(watchdogIntervalMs({ WATCHDOG_USEC: '30000000', WATCHDOG_PID: '1' }), undefined);
    assert.equal(watchdogIntervalMs({ WATCHDOG_USEC: '1' }), 1);
    for (const usec of ['', '0', '-5', 'soon']) assert.equal(watchdogIntervalMs({ WATCHDOG_USEC: usec }), undefined);
    assert.equal(watchdogIntervalMs({}), undefined);
  });
});
