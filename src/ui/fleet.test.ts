import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { eventually } from '../../test/netns/waiting.ts';
import type { AgentSource } from './agent-source.ts';
import { Fleet } from './fleet.ts';

const never = new AbortController().signal;

function answer(path: string): unknown {
  return path === '/self'
    ? { ready: true, lease: { subnets: ['10.1.0.0/24'], publicAddresses: ['1.1.1.1'] }, dataPath: {} }
    : { atMs: 1, total: 0, peers: [] };
}

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
    const one = source('a', async (path) => {
      asked++;
      return answer(path);
    });
    const fleet = new Fleet([one], { now: () => nowMs, freshMs: 700 });
    assert.equal(asked, 0);
    await Promise.all([fleet.overview(never), fleet.overview(never)]);
    await fleet.overview(never);
    assert.equal(asked, 2);
    nowMs = 700;
    await fleet.overview(never);
    assert.equal(asked, 4);
  });

  it('that are slow keep nobody waiting: there is what they said before', async () => {
    let nowMs = 0;
    let hanging: PromiseWithResolvers<never> | undefined;
    const slow = source('slow', async (path) => (hanging === undefined ? answer(path) : hanging.promise));
    const fleet = new Fleet([slow, source('quick', async (path) => answer(path))], {
      now: () => nowMs,
      patienceMs: 1,
      answerMs: 600_000,
    });
    const states = async () => (await fleet.overview(never)).hosts.map(({ state }) => state);
    await fleet.overview(never);
    hanging = Promise.withResolvers<never>();
    nowMs = 1000;
    assert.deepEqual(await states(), ['ready', 'ready']);
    hanging.reject(new Error('connection reset'));
    hanging = undefined;
    await eventually('the first is away', async () => (await states())[0] === 'away');
    nowMs = 2000;
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

  it('of a large cluster are not asked all at once', async () => {
    let running = 0;
    let most = 0;
    const sources = Array.from({ length: 200 }, (_, index) =>
      source(`h${index}`, async (path) => {
        most = Math.max(most, ++running);
        await new Promise(setImmediate);
        running--;
        return answer(path);
      }),
    );
    const { hosts } = await new Fleet(sources).overview(never);
    assert.ok(hosts.every(({ state }) => state === 'ready'));
    assert.ok(most <= 64, `${most} at a time`);
  });

  it('are asked less often when reading their answers takes long', async () => {
    let nowMs = 0;
    let asked = 0;
    const peers = Array.from({ length: 5_000 }, (_, index) => ({
      id: `${index}`,
      subnets: [`${index}`],
      publicAddresses: [],
    }));
    const large = source('a', async (path) => {
      asked++;
      return path === '/self' ? answer(path) : { atMs: 1, total: peers.length, peers };
    });
    const fleet = new Fleet([large], { now: () => nowMs, freshMs: 0.001 });
    await fleet.overview(never);
    // Looking again costs nothing, and so does not put off the next question.
    for (let look = 0; look < 1_000; look++) await fleet.overview(never);
    assert.equal(asked, 2);
    nowMs = 10_000;
    await fleet.overview(never);
    assert.equal(asked, 4);
  });

  it('behind an API server are asked so often that it can bear it, however many they are', async () => {
    let nowMs = 0;
    let asked = 0;
    const sources = Array.from({ length: 100 }, (_, index) =>
      source(`h${index}`, async (path) => {
        asked++;
        return answer(path);
      }),
    );
    // What reading takes does not matter here.
    const fleet = new Fleet(sources, { now: () => nowMs, mostPerSecond: 0.05 });
    await fleet.overview(never);
    assert.equal(asked, 200);
    nowMs = 3_999_999;
    await fleet.overview(never);
    assert.equal(asked, 200);
    nowMs = 4_000_000;
    await fleet.overview(never);
    assert.equal(asked, 400);
  });

  it('have said just now what a screen of one host wants to know, and need not be asked', async () => {
    let nowMs = 0;
    let isAway = false;
    const one = source('a', async (path) => {
      if (isAway) throw new Error('gone');
      return answer(path);
    });
    const fleet = new Fleet([one], { now: () => nowMs });
    assert.equal(fleet.said('a', '/self'), undefined);
    await fleet.overview(never);
    nowMs = 999;
    assert.deepEqual(fleet.said('a', '/self'), answer('/self'));
    assert.deepEqual(fleet.said('a', '/peers'), answer('/peers'));
    for (const [name, path] of [
      ['a', '/state'],
      ['b', '/self'],
    ] as const)
      assert.equal(fleet.said(name, path), undefined);
    nowMs = 1_000;
    assert.equal(fleet.said('a', '/self'), undefined);
    isAway = true;
    await fleet.overview(never);
    isAway = false;
    assert.equal(fleet.said('a', '/self'), undefined);
  });

  it('are not waited for by who has gone', async () => {
    const hanging = source('a', () => new Promise(() => undefined));
    const gone = new AbortController();
    const looking = new Fleet([hanging], { patienceMs: 60_000 }).overview(gone.signal);
    gone.abort(new Error('gone'));
    await assert.rejects(looking, /gone/);
  });
});
