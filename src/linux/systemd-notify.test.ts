import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { NotifySocket } from '../../test/fakes/notify-socket.ts';
import { type SystemdNotifierOptions, systemdNotifier, watchdogIntervalMs } from './systemd-notify.ts';

function options(target: string, more: Partial<SystemdNotifierOptions> = {}): SystemdNotifierOptions {
  const onProblem = (message: string) => assert.fail(message);
  return { environment: { NOTIFY_SOCKET: target }, isAlive: () => true, onProblem, ...more };
}

describe('systemdNotifier', () => {
  for (const kind of ['path', 'abstract'] as const) {
    it(`sends the messages of sd_notify, socket by ${kind}`, () => {
      using manager = new NotifySocket(kind);
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
    using manager = new NotifySocket('abstract');
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
    using manager = new NotifySocket('abstract');
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
