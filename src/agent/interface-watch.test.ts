import assert from 'node:assert/strict';
import { test } from 'node:test';
import { addresses } from '../../test/fakes/host-networks.ts';
import type { Log } from '../log/log.ts';
import type { NetworkInterface } from '../underlay/host-network.ts';
import type { ChosenInterface } from '../underlay/interface-choice.ts';
import { externalOf } from './external-interface.ts';
import { InterfaceWatch } from './interface-watch.ts';

function chosen(address: string, mtuBytes = 1500, name = 'eth0', up = true): ChosenInterface {
  return {
    found: true,
    byDefault: false,
    interface: { index: 2, name, mtuBytes, up, addresses: [] },
    addresses: addresses(address),
    publicAddresses: addresses(address),
    why: '',
    failures: [],
    rejected: [],
  };
}

/** A host whose interface the test changes; `look` resolves once the watch has taken the change in. */
class Host implements AsyncDisposable {
  readonly lines: string[] = [];
  readonly watch: InterfaceWatch;
  #now: ChosenInterface | Error;
  #notice = Promise.withResolvers<void>();
  #looked = Promise.withResolvers<void>();
  readonly #stop = new AbortController();

  constructor(initial: ChosenInterface) {
    this.#now = initial;
    const say = (text: string): void => void this.lines.push(text);
    this.watch = new InterfaceWatch({
      initial,
      choose: async () => {
        if (this.#now instanceof Error) throw this.#now;
        return this.#now;
      },
      notices: (present, signal) => this.#notices(present, signal),
      log: { info: say, warn: say, error: say, verbose: say } as unknown as Log,
      settleMs: 0,
    });
  }

  async *#notices(_present: () => NetworkInterface, signal: AbortSignal): AsyncGenerator<void> {
    signal.addEventListener('abort', () => this.#stop.abort(), { once: true });
    const ended = new Promise<void>((resolve) => this.#stop.signal.addEventListener('abort', () => resolve()));
    for (;;) {
      await Promise.race([this.#notice.promise, ended]);
      if (signal.aborted) return;
      this.#notice = Promise.withResolvers();
      yield;
      this.#looked.resolve();
    }
  }

  async become(state: ChosenInterface | Error): Promise<void> {
    this.#now = state;
    this.#looked = Promise.withResolvers();
    this.#notice.resolve();
    await this.#looked.promise;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.watch[Symbol.asyncDispose]();
  }
}

test('a notice without a change is none', async () => {
  await using host = new Host(chosen('192.168.77.1'));
  const { changed } = host.watch;
  await host.become(chosen('192.168.77.1'));
  assert.equal(changed.aborted, false);
  assert.deepEqual(host.lines, []);
});

test('address, MTU and name are followed, each change once', async () => {
  await using host = new Host(chosen('192.168.77.1'));
  for (const next of [chosen('192.168.77.9'), chosen('192.168.77.9', 1400), chosen('192.168.77.9', 1400, 'eth1')]) {
    const { changed } = host.watch;
    await host.become(next);
    assert.equal(changed.aborted, true);
    assert.equal(host.watch.changed.aborted, false);
    assert.deepEqual(host.watch.current, externalOf(next));
    await host.become(next);
    assert.equal(host.watch.changed.aborted, false);
  }
  assert.match(host.lines[0]!, /eth0 with 192\.168\.77\.9, MTU 1500, before eth0 with 192\.168\.77\.1/);
});

test('an interface that vanishes is told with its reason, and its return is a change', async () => {
  const before = chosen('192.168.77.1');
  await using host = new Host(before);
  const { changed } = host.watch;
  for (let twice = 0; twice < 2; twice++) {
    await host.become(new Error('there is no eth0'));
    assert.match(host.watch.failure ?? '', /there is no eth0/);
    assert.equal(changed.aborted, false);
  }
  assert.equal(host.lines.length, 1, 'said once');
  await host.become(before);
  assert.equal(host.watch.failure, undefined);
  assert.equal(changed.aborted, true);
});

test('an interface that is down but keeps its address is a failure, and no change', async () => {
  await using host = new Host(chosen('192.168.77.1'));
  const { changed } = host.watch;
  assert.equal(host.watch.failure, undefined);
  await host.become(chosen('192.168.77.1', 1500, 'eth0', false));
  assert.equal(host.watch.failure, 'eth0 is down');
  await host.become(chosen('192.168.77.1'));
  assert.equal(host.watch.failure, undefined);
  assert.equal(changed.aborted, false);
  assert.deepEqual(host.lines, ['The external interface eth0 is down', 'The external interface eth0 is up again']);
});
