import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { eventually } from '../../test/netns/waiting.ts';
import type { PeerHook } from '../backend/backend.ts';
import type { HostCommand } from '../config/host-command.ts';
import type { LeaseKey } from '../lease/lease.ts';
import { HookKeeper } from './hook-keeper.ts';

const never = new AbortController().signal;
const command = (name: string, stdin = ''): HostCommand => ({ words: [name], env: {}, stdin });
const key = (host: number): LeaseKey => `10.244.${host}.0-24` as LeaseKey;
/** What a peer that says `data` asks for. */
const hook = (data: string): PeerHook => ({ add: command('add', data), remove: command('remove', data) });

/** A host that notes what is run, one command after the other. */
class Host implements AsyncDisposable {
  readonly ran: string[] = [];
  readonly lines: string[] = [];
  /** Why a command fails. */
  refuse: (ran: string) => string | undefined = () => undefined;
  readonly keeper: HookKeeper;
  #isRunning = false;

  constructor() {
    this.keeper = new HookKeeper({
      run: async ({ words, stdin }, signal) => {
        assert(!this.#isRunning, 'one at a time');
        this.#isRunning = true;
        await new Promise((resolve) => setImmediate(resolve));
        this.#isRunning = false;
        signal.throwIfAborted();
        const ran = `${words[0]} ${stdin}`;
        this.ran.push(ran);
        const refusal = this.refuse(ran);
        if (refusal !== undefined) throw new Error(refusal);
        return { stdout: '', stderr: '' };
      },
      log: { error: (text) => void this.lines.push(text) },
      retryMs: 1,
    });
  }

  async ranFor(count: number): Promise<void> {
    await eventually(`${count} commands were run`, () => this.ran.length >= count);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.keeper[Symbol.asyncDispose]();
  }
}

describe('commands of peers', () => {
  it('are run once for each that comes, changes or goes, in that order', async () => {
    await using host = new Host();
    const { keeper } = host;
    keeper.setPeer(key(2), hook('two'));
    keeper.setPeer(key(3), hook('three'));
    await keeper.idle();
    keeper.setPeer(key(2), hook('two'));
    keeper.setPeer(key(3), hook('three again'));
    await keeper.idle();
    keeper.setPeer(key(3), undefined);
    keeper.setPeer(key(4), undefined);
    await keeper.idle();
    assert.deepEqual(host.ran, ['add two', 'add three', 'add three again', 'remove three again']);
    assert.deepEqual(keeper.figures, {
      'subnet-add': { succeeded: 3, failed: 0 },
      'subnet-remove': { succeeded: 1, failed: 0 },
    });
  });

  it('are left out where there is none', async () => {
    await using host = new Host();
    host.keeper.setPeer(key(2), { add: undefined, remove: command('remove') });
    host.keeper.setPeer(key(3), { add: command('add'), remove: undefined });
    await host.keeper.idle();
    host.keeper.setPeer(key(2), undefined);
    host.keeper.setPeer(key(3), undefined);
    await host.keeper.idle();
    assert.deepEqual(host.ran, ['add ', 'remove ']);
  });

  it('are tried again until they succeed, and told once; others do not wait for that', async () => {
    await using host = new Host();
    host.refuse = (ran) => (ran === 'add two' && host.ran.length < 4 ? 'no route' : undefined);
    host.keeper.setPeer(key(2), hook('two'));
    host.keeper.setPeer(key(3), hook('three'));
    await host.ranFor(4);
    await host.keeper.idle();
    assert.deepEqual(host.ran, ['add two', 'add three', 'add two', 'add two']);
    assert.deepEqual(host.lines, ['10.244.2.0/24: no route']);
    assert.deepEqual(host.keeper.figures['subnet-add'], { succeeded: 2, failed: 2 });
  });

  it('are not tried again for a peer that is gone', async () => {
    await using host = new Host();
    host.refuse = () => 'broken';
    host.keeper.setPeer(key(2), hook('two'));
    await host.keeper.idle();
    host.keeper.setPeer(key(2), undefined);
    host.keeper.setPeer(key(3), hook('three'));
    await host.ranFor(5);
    assert.equal(host.ran.filter((ran) => ran === 'remove two').length, 1);
    assert.equal(host.ran.filter((ran) => ran === 'add two').length, 1);
  });

  it('end at the same as the wishes, however these change meanwhile', async () => {
    const changes = fc.array(
      fc.record({
        peer: fc.integer({ min: 2, max: 4 }),
        data: fc.option(fc.constantFrom('a', 'b'), { nil: undefined }),
        waits: fc.boolean(),
      }),
      { maxLength: 12 },
    );
    await fc.assert(
      fc.asyncProperty(changes, async (steps) => {
        await using host = new Host();
        const wanted = new Map<string, string>();
        for (const { peer, data, waits } of steps) {
          host.keeper.setPeer(key(peer), data === undefined ? undefined : hook(`${peer}${data}`));
          if (data === undefined) wanted.delete(String(peer));
          else wanted.set(String(peer), data);
          if (waits) await new Promise((resolve) => setImmediate(resolve));
        }
        await host.keeper.idle();
        const there = new Map<string, string>();
        for (const ran of host.ran) {
          const [verb, [peer, data] = ''] = ran.split(' ') as [string, string];
          if (verb === 'add') there.set(peer!, data!);
          else assert.equal(there.get(peer!), data, 'what was said last');
          if (verb === 'remove') there.delete(peer!);
        }
        assert.deepEqual(new Map([...there].sort()), new Map([...wanted].sort()));
      }),
      { numRuns: 100 },
    );
  });

  it('are not run any more when the agent has ended', async () => {
    const host = new Host();
    for (let peer = 2; peer < 20; peer++) host.keeper.setPeer(key(peer), hook(String(peer)));
    await host[Symbol.asyncDispose]();
    assert.deepEqual([host.ran, host.lines], [[], []]);
  });
});

describe('the command of the own lease', () => {
  it('is run again only for another one, or when it has failed', async () => {
    await using host = new Host();
    const { keeper } = host;
    await keeper.start(undefined, never);
    host.refuse = () => 'not logged in';
    await assert.rejects(keeper.start(command('up', 'a'), never), /not logged in/);
    host.refuse = () => undefined;
    for (const stdin of ['a', 'a', 'b', 'b']) await keeper.start(command('up', stdin), never);
    assert.deepEqual(host.ran, ['up a', 'up a', 'up b']);
    assert.deepEqual(keeper.figures, { 'post-startup': { succeeded: 2, failed: 1 } });
  });
});
