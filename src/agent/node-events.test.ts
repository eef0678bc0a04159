import assert from 'node:assert/strict';
import { afterEach, beforeEach, describe, it, mock } from 'node:test';
import type { NewEvent } from '../events/event.ts';
import { EventRing } from '../events/event-ring.ts';
import type { NodeEvent } from '../events/node-event.ts';
import { NodeEvents } from './node-events.ts';

const event = (kind: NewEvent['kind'], fields: Partial<NewEvent> = {}): NewEvent => ({
  ...{ kind, severity: 'error', subject: '10.244.2.0/24', text: `${kind} of 10.244.2.0/24` },
  ...fields,
});

beforeEach(() => mock.timers.enable({ apis: ['setTimeout', 'Date'], now: 1_000_000 }));
afterEach(() => mock.reset());

/** What is told; `answer` is what becomes of it. */
class Rig implements AsyncDisposable {
  answer: () => 'told' | 'refused' = () => 'told';
  readonly ring = new EventRing(100);
  readonly told: NodeEvent[] = [];
  readonly warnings: string[] = [];
  readonly #events = new NodeEvents({
    events: this.ring,
    tell: async (told) => {
      const answer = this.answer();
      if (answer === 'told') this.told.push(told);
      return answer;
    },
    log: { warn: (text) => void this.warnings.push(text), verbose: () => {} },
  });

  add(...events: NewEvent[]): void {
    for (const one of events) this.ring.add(one);
  }

  /** A second: what has happened is told. */
  settled(): Promise<void> {
    return this.after(1);
  }

  async after(seconds: number): Promise<void> {
    for (let second = 0; second < seconds; second++) {
      mock.timers.tick(1_000);
      await new Promise((resolve) => setImmediate(resolve));
    }
  }

  short(): string[] {
    return this.told.splice(0).map(({ type, reason, count }) => `${type} ${reason} ${count}`);
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#events[Symbol.asyncDispose]();
  }
}

describe('what is told on the Node', () => {
  it('is what went wrong, and its end, and nothing of everyday life', async () => {
    await using r = new Rig();
    r.add(
      event('agent-started'),
      event('ready', { severity: 'info' }),
      event('lease-acquired', { severity: 'info' }),
      event('forwarder-started', { severity: 'info' }),
      event('peer-added', { severity: 'info' }),
    );
    await r.settled();
    assert.deepEqual(r.short(), []);
    r.add(event('forwarder-failed', { cause: 'the device is gone' }), event('forwarder-started', { severity: 'info' }));
    await r.settled();
    assert.equal(r.told[0]?.message, 'forwarder-failed of 10.244.2.0/24 (the device is gone)');
    assert.deepEqual(r.short(), ['Warning FlannelDataPathBroken 1', 'Normal FlannelDataPathMended 1']);
    r.add(event('forwarder-started', { severity: 'info' }), event('lease-lost'), event('backend-changed'));
    await r.settled();
    assert.deepEqual(r.short(), ['Warning FlannelLeaseLost 1', 'Warning FlannelBackendChanged 1']);
  });

  it('counts what happens again, until it was silent for ten minutes', async () => {
    await using r = new Rig();
    r.add(event('entry-refused'));
    await r.settled();
    r.add(event('entry-refused'), event('entry-refused'));
    await r.settled();
    assert.deepEqual(r.short(), ['Warning FlannelPeerRefused 1', 'Warning FlannelPeerRefused 3']);
    await r.after(601);
    r.add(event('entry-refused'));
    await r.settled();
    assert.deepEqual(r.short(), ['Warning FlannelPeerRefused 1']);
  });

  it('cuts a storm to a few series and to a request every fifteen seconds', async () => {
    await using r = new Rig();
    const storm = Array.from({ length: 500 }, (_, n) => event('entry-refused', { text: `entry ${n}` }));
    r.add(...storm);
    await r.settled();
    assert.equal(r.told.length, 6);
    assert.equal(r.told.at(-1)?.count, 495);
    assert.match(r.told.at(-1)!.message, /weft events/);
    r.told.length = 0;
    for (let n = 0; n < 10; n++) {
      r.add(event('entry-refused', { text: `later ${n}` }));
      await r.settled();
    }
    assert.equal(r.told.length, 4, 'what is left of the burst of ten');
    await r.after(31);
    assert.equal(r.told.at(-1)?.count, 505, 'nothing is lost of the count');
    assert.equal(r.told.length, 5);
  });

  it('wakes for nothing while there is nothing to tell', async () => {
    const timers = [mock.method(globalThis, 'setTimeout'), mock.method(globalThis, 'setInterval')];
    const made = (): number => timers.reduce((sum, timer) => sum + timer.mock.callCount(), 0);
    await using r = new Rig();
    r.add(event('agent-started'), event('peer-added', { severity: 'info' }));
    await r.after(60);
    assert.equal(made(), 0);
    r.add(event('lease-lost'), event('kernel-failed'));
    await r.after(60);
    assert.deepEqual([r.told.length, made()], [2, 1]);
  });

  it('is a path that stays broken, each once, and its end; not one that is well again within a minute', async () => {
    await using r = new Rig();
    const path = (peer: number, kind: 'path-fault' | 'path-recovered', text: string) =>
      event(kind, { subject: `10.244.${peer}.0/24`, text, severity: kind === 'path-fault' ? 'error' : 'info' });
    for (const peer of [2, 3, 4]) r.add(path(peer, 'path-fault', `tunnel-blocked to 10.244.${peer}.0/24`));
    await r.after(30);
    r.add(path(2, 'path-recovered', '10.244.2.0/24 is back'), path(3, 'path-fault', 'unreachable: 10.244.3.0/24'));
    await r.after(29);
    assert.deepEqual(r.told, []);
    await r.after(3);
    assert.deepEqual(r.told.map(({ message }) => message).sort(), [
      'tunnel-blocked to 10.244.4.0/24',
      'unreachable: 10.244.3.0/24',
    ]);
    assert.deepEqual(r.short(), ['Warning FlannelPathFault 1', 'Warning FlannelPathFault 1']);
    for (const peer of [2, 3, 4]) r.add(path(peer, 'path-recovered', `10.244.${peer}.0/24 is well`));
    await r.after(120);
    assert.deepEqual(r.told.map(({ message }) => message).sort(), ['10.244.3.0/24 is well', '10.244.4.0/24 is well']);
    assert.deepEqual(r.short(), ['Normal FlannelPathRecovered 1', 'Normal FlannelPathRecovered 1']);
  });

  it('says once that it may not, and asks no more', async () => {
    await using r = new Rig();
    let asked = 0;
    r.answer = () => {
      asked++;
      return 'refused';
    };
    r.add(event('lease-lost'), event('forwarder-failed'));
    await r.settled();
    r.add(event('kernel-failed'));
    await r.after(3_600);
    assert.equal(asked, 1);
    assert.equal(r.warnings.length, 1);
    assert.match(r.warnings[0]!, /may not create and patch events/);
  });

  it('tells later what could not be told now', async () => {
    await using r = new Rig();
    r.answer = () => {
      throw new Error('the API server is away');
    };
    r.add(event('kernel-failed'));
    await r.settled();
    r.answer = () => 'told';
    await r.settled();
    assert.deepEqual(r.short(), [], 'not at once');
    await r.after(16);
    assert.deepEqual(r.short(), ['Warning FlannelKernelFailed 1']);
    assert.deepEqual(r.warnings, []);
  });
});
