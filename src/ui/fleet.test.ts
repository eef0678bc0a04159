import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { FakeInspection } from '../../test/fakes/fake-inspection.ts';
import { eventually } from '../../test/netns/waiting.ts';
import type { News } from '../api/client.ts';
import type { EventKind } from '../events/event.ts';
import type { AgentSource } from './agent-source.ts';
import { Fleet, type FleetOptions } from './fleet.ts';

const never = new AbortController().signal;

const agent = new FakeInspection();
/** By the clock of a fleet; long enough for agents to be asked again, whatever reading their answers has taken by the machine's. */
const LATER_MS = 3_600_000;

const ANSWER = { ...agent.peers(), total: 0, peers: [] };

function source(name: string, ask: (path: string, signal: AbortSignal) => Promise<unknown>): AgentSource {
  return {
    name,
    ask: async (path, signal) => ({
      status: 200,
      contentType: 'application/json',
      body: Buffer.from(JSON.stringify(await ask(path, signal))),
    }),
  };
}

describe('agents of a page', () => {
  it('are asked by who looks, and not again for who looks at the same moment', async () => {
    let nowMs = 0;
    let asked = 0;
    const one = source('a', async () => {
      asked++;
      return ANSWER;
    });
    const fleet = new Fleet([one], { now: () => nowMs, freshMs: LATER_MS });
    assert.equal(asked, 0);
    await Promise.all([fleet.overview(never), fleet.overview(never)]);
    await fleet.overview(never);
    nowMs = LATER_MS - 1;
    await fleet.overview(never);
    assert.equal(asked, 1, 'one question is enough');
    nowMs = LATER_MS;
    await fleet.overview(never);
    assert.equal(asked, 2);
  });

  it('that are slow keep nobody waiting: there is what they said before', async () => {
    let nowMs = 0;
    let hanging: PromiseWithResolvers<never> | undefined;
    let isHeld = false;
    const slow = source('slow', async () => {
      if (hanging === undefined) return ANSWER;
      isHeld = true;
      return hanging.promise;
    });
    const fleet = new Fleet([slow, source('quick', async () => ANSWER)], {
      now: () => nowMs,
      patienceMs: 1,
      answerMs: 600_000,
    });
    const states = async () => (await fleet.overview(never)).hosts.map(({ state }) => state);
    await fleet.overview(never);
    hanging = Promise.withResolvers<never>();
    nowMs = LATER_MS;
    assert.deepEqual(await states(), ['ready', 'ready']);
    await eventually('the first is asked', () => isHeld || undefined);
    hanging.reject(new Error('connection reset'));
    hanging = undefined;
    await eventually('the first is away', async () => (await states())[0] === 'away');
    nowMs = 2 * LATER_MS;
    await eventually('the first is ready', async () => (await states())[0] === 'ready');
  });

  it('that never answer are away in the end', async () => {
    const hanging = source('a', (_, signal) => {
      return new Promise((_, reject) => signal.addEventListener('abort', () => reject(signal.reason)));
    });
    const [host] = (await new Fleet([hanging], { answerMs: 20 }).overview(never)).hosts;
    assert.equal(host?.state, 'away');
    assert.match(host?.reason ?? '', /within 0\.02 s/);
  });

  it('that answer with an error are away, with its text', async () => {
    const refusing: AgentSource = {
      name: 'a',
      ask: async () => ({
        status: 401,
        contentType: 'application/json',
        body: Buffer.from('{"error":"a token is needed"}'),
      }),
    };
    const [host] = (await new Fleet([refusing]).overview(never)).hosts;
    assert.equal(host?.state, 'away');
    assert.match(host?.reason ?? '', /status 401.*a token is needed/);
  });

  it('that answer with something else are away, and hide nobody', async () => {
    const answers: readonly unknown[] = [
      {},
      [],
      'text',
      null,
      7,
      { ...ANSWER, self: undefined },
      { ...ANSWER, self: { ...ANSWER.self, lease: { subnets: 7 } } },
      { ...ANSWER, self: { ...ANSWER.self, external: { addresses: [{}] } } },
      { ...agent.peers(), peers: {} },
      { ...agent.peers(), peers: [null] },
      { ...agent.peers(), peers: [{ ...agent.list[0], subnets: 'all' }] },
      { ...agent.peers(), peers: [{ ...agent.list[0], rx: { drops: null } }] },
      { ...agent.peers(), peers: [{ ...agent.list[0], probe: 7 }] },
    ];
    const sources = answers.map((given, index) => source(`bad-${index}`, async () => given));
    const { hosts } = await new Fleet([...sources, source('good', async () => ANSWER)]).overview(never);
    assert.deepEqual(
      hosts.map(({ state }) => state),
      [...answers.map(() => 'away'), 'ready'],
    );
    for (const { name, reason = '' } of hosts) if (name !== 'good') assert.notEqual(reason, '', name);
  });

  it('of a large cluster are not asked all at once', async () => {
    let running = 0;
    let most = 0;
    const sources = Array.from({ length: 200 }, (_, index) =>
      source(`h${index}`, async () => {
        most = Math.max(most, ++running);
        await new Promise(setImmediate);
        running--;
        return ANSWER;
      }),
    );
    const { hosts } = await new Fleet(sources).overview(never);
    assert.ok(hosts.every(({ state }) => state === 'ready'));
    assert.ok(most <= 32, `${most} at a time`);
  });

  it('are asked less often when reading their answers takes long', async () => {
    let nowMs = 0;
    let asked = 0;
    const peers = Array.from({ length: 5_000 }, (_, index) => ({
      id: `${index}`,
      subnets: [`${index}`],
      publicAddresses: [],
      backendType: 'udp',
      path: 'forwarder',
    }));
    const large = source('a', async () => {
      asked++;
      return { ...ANSWER, total: peers.length, peers };
    });
    const fleet = new Fleet([large], { now: () => nowMs, freshMs: 0.001 });
    await fleet.overview(never);
    // Looking again costs nothing, and so does not put off the next question.
    for (let look = 0; look < 1_000; look++) await fleet.overview(never);
    assert.equal(asked, 1);
    nowMs = LATER_MS;
    await fleet.overview(never);
    assert.equal(asked, 2);
  });

  it('behind an API server are asked so often that it can bear it, however many they are', async () => {
    let nowMs = 0;
    let asked = 0;
    const sources = Array.from({ length: 100 }, (_, index) =>
      source(`h${index}`, async () => {
        asked++;
        return ANSWER;
      }),
    );
    // What reading takes does not matter here.
    const fleet = new Fleet(sources, { now: () => nowMs, mostPerSecond: 0.05 });
    await fleet.overview(never);
    assert.equal(asked, 100);
    nowMs = 1_999_999;
    await fleet.overview(never);
    assert.equal(asked, 100);
    nowMs = 2_000_000;
    await fleet.overview(never);
    assert.equal(asked, 200);
  });

  it('have said just now what a screen of one host wants to know, and need not be asked', async () => {
    let nowMs = 0;
    let isAway = false;
    const one = source('a', async () => {
      if (isAway) throw new Error('gone');
      return ANSWER;
    });
    const fleet = new Fleet([one], { now: () => nowMs });
    assert.equal(fleet.said('a', '/peers'), undefined);
    await fleet.overview(never);
    nowMs = 999;
    assert.deepEqual(fleet.said('a', '/peers'), ANSWER);
    for (const [name, path] of [
      ['a', '/self'],
      ['b', '/peers'],
    ] as const)
      assert.equal(fleet.said(name, path), undefined);
    nowMs = 1_000;
    assert.equal(fleet.said('a', '/peers'), undefined);
    isAway = true;
    nowMs = LATER_MS;
    await fleet.overview(never);
    isAway = false;
    assert.equal(fleet.said('a', '/peers'), undefined);
  });

  describe('whose events are shown', () => {
    /** An agent that counts who asks for its events. */
    class Teller {
      newestId = 1;
      asked = 0;
      isAway = false;
      readonly source: AgentSource;

      constructor(name: string) {
        this.source = source(name, async (path) => {
          if (this.isAway) throw new Error('gone');
          const [, after] = /^\/events\?after=(\d+)&/.exec(path) ?? [];
          if (after === undefined)
            return { ...ANSWER, self: { ...ANSWER.self, startedAtMs: 5, newestEventId: this.newestId } };
          this.asked++;
          const ids = Array.from({ length: this.newestId }, (_, index) => index + 1).filter((id) => id > Number(after));
          const about = { atMs: 1, kind: 'peer-added', severity: 'info', subject: 's', text: 't' };
          return { startedAtMs: 5, events: ids.map((id) => ({ id, ...about })), oldestId: 1, newestId: this.newestId };
        });
      }
    }

    it('are asked for what is new, when they say that there is something', async () => {
      let nowMs = 0;
      const tellers = Array.from({ length: 50 }, (_, index) => new Teller(`${index}`));
      const fleet = new Fleet(
        tellers.map((teller) => teller.source),
        { now: () => nowMs, freshMs: 0.001 },
      );
      const asked = (): number => tellers.reduce((sum, teller) => sum + teller.asked, 0);
      const all = await fleet.events(0, never);
      assert.deepEqual([all.hosts.length, asked()], [50, 50]);
      for (let look = 0; look < 20; look++) {
        nowMs += 60_000;
        assert.deepEqual(await fleet.events(all.newest, never), { newest: all.newest, hosts: [] });
      }
      assert.equal(asked(), 50);
      tellers[3]!.newestId = 3;
      nowMs += 60_000;
      const { hosts } = await fleet.events(all.newest, never);
      assert.deepEqual(
        hosts.map(({ host, events }) => [host, events.map(({ id }) => id)]),
        [['3', [2, 3]]],
      );
      assert.equal(asked(), 51);
    });

    it('keep what they have told when they are away, and are not asked', async () => {
      let nowMs = 0;
      const teller = new Teller('a');
      const fleet = new Fleet([teller.source], { now: () => nowMs });
      await fleet.events(0, never);
      [teller.isAway, teller.newestId, nowMs] = [true, 2, 60_000];
      assert.equal((await fleet.events(0, never)).hosts[0]?.events.length, 1);
      assert.equal(teller.asked, 1);
    });

    it('are asked no more often than an API server can bear', async () => {
      const tellers = Array.from({ length: 100 }, (_, index) => new Teller(`${index}`));
      const sources = tellers.map((teller) => teller.source);
      const fleet = new Fleet(sources, { mostPerSecond: 0.01, now: () => 0 });
      await fleet.events(0, never);
      await fleet.events(0, never);
      assert.equal(
        tellers.reduce((sum, teller) => sum + teller.asked, 0),
        1,
      );
    });
  });

  describe('whose news are followed', { timeout: 60_000 }, () => {
    /** An agent that tells of what happens when it is told to. */
    class Told {
      ready = true;
      streams = 0;
      asked = 0;
      #tell: PromiseWithResolvers<EventKind | 'changed' | undefined> = Promise.withResolvers();
      readonly source: AgentSource;

      constructor() {
        const asked = source('a', async () => {
          this.asked++;
          return { ...ANSWER, self: { ...ANSWER.self, ready: this.ready } };
        });
        this.source = { ...asked, news: (signal) => this.#news(signal) };
      }

      async *#news(signal: AbortSignal): AsyncGenerator<News> {
        this.streams++;
        const gone = Promise.withResolvers<undefined>();
        signal.addEventListener('abort', () => gone.resolve(undefined), { once: true });
        try {
          for (;;) {
            const kind = await Promise.race([this.#tell.promise, gone.promise]);
            if (kind === undefined) return;
            this.#tell = Promise.withResolvers();
            yield kind === 'changed' ? kind : { id: 1, atMs: 1, kind, severity: 'error', subject: 's', text: 't' };
          }
        } finally {
          this.streams--;
        }
      }

      /** `undefined`: its stream ends. */
      tell(kind: EventKind | 'changed' | undefined): void {
        const { resolve } = this.#tell;
        this.#tell = Promise.withResolvers();
        resolve(kind);
      }
    }
    const HOUR = 3_600_000;
    /** Agents are asked for what they tell of alone. */
    const UNASKED: FleetOptions = { lookMs: HOUR, freshMs: HOUR, waitMs: HOUR };
    const turn = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, 1));

    it('are told of what they tell of at once, and are not asked in vain', async () => {
      const agent = new Told();
      using fleet = new Fleet([agent.source], UNASKED);
      const first = await fleet.overview(never);
      assert.equal(agent.asked, 1);
      const next = fleet.next(first.atMs, never);
      await eventually('it is followed', () => agent.streams > 0 || undefined);
      agent.ready = false;
      agent.tell('lease-renewed');
      for (let waits = 0; waits < 5; waits++) await turn();
      assert.equal(agent.asked, 1, 'nothing that an overview shows has happened');
      agent.tell('not-ready');
      const second = await next;
      assert.equal(second.hosts[0]?.state, 'not-ready');
      assert.ok(second.atMs > first.atMs);
      assert.equal(agent.asked, 2);
      assert.equal(
        (await fleet.next(first.atMs, never)).atMs,
        second.atMs,
        'who has seen the one before waits for nothing',
      );
      agent.ready = true;
      const third = fleet.next(second.atMs, never);
      agent.tell('changed');
      assert.equal((await third).hosts[0]?.state, 'ready', 'what is no event is shown as well');
    });

    it('are asked every second where none is told, and by who waits for nothing any more not at all', async () => {
      const agent = new Told();
      using fleet = new Fleet([agent.source], { lookMs: 20, freshMs: 0 });
      const first = await fleet.overview(never);
      assert.ok((await fleet.next(first.atMs, never)).atMs > first.atMs);
      assert.equal(agent.asked, 2);
      const gone = new AbortController();
      using waiting = new Fleet([agent.source], UNASKED);
      const { atMs } = await waiting.overview(never);
      const next = waiting.next(atMs, gone.signal);
      gone.abort(new Error('gone'));
      await assert.rejects(next, /gone/);
    });

    it('are followed again when the stream has ended, and are asked whether they still run', async () => {
      const agent = new Told();
      using fleet = new Fleet([agent.source], { ...UNASKED, followAgainMs: 1 });
      const first = await fleet.overview(never);
      const next = fleet.next(first.atMs, never);
      await eventually('it is followed', () => agent.streams > 0 || undefined);
      // It counts as having followed after a while.
      for (let waits = 0; waits < 5; waits++) await turn();
      agent.ready = false;
      agent.tell(undefined);
      const second = await next;
      assert.equal(second.hosts[0]?.state, 'not-ready');
      await eventually('it is followed', () => agent.streams > 0 || undefined);
      agent.ready = true;
      const third = fleet.next(second.atMs, never);
      agent.tell('ready');
      assert.equal((await third).hosts[0]?.state, 'ready');
    });

    it('are followed only while somebody looks, and not more than so many', async () => {
      const agents = Array.from({ length: 150 }, () => new Told());
      const fleet = new Fleet(
        agents.map(({ source: each }, index) => ({ ...each, name: `${index}` })),
        { lookMs: 1, mostFollowed: 100 },
      );
      const open = (): number => agents.reduce((sum, { streams }) => sum + streams, 0);
      const first = await fleet.overview(never);
      assert.equal(open(), 0);
      await fleet.next(first.atMs, never);
      await eventually('they are followed', () => open() >= 100 || undefined);
      for (let waits = 0; waits < 5; waits++) await turn();
      assert.equal(open(), 100);
      fleet[Symbol.dispose]();
      await eventually('nobody is followed', () => open() === 0 || undefined);
    });
  });

  it('are not waited for by who has gone', async () => {
    const hanging = source('a', () => new Promise(() => undefined));
    const gone = new AbortController();
    const looking = new Fleet([hanging], { patienceMs: 60_000 }).overview(gone.signal);
    gone.abort(new Error('gone'));
    await assert.rejects(looking, /gone/);
  });
});
