import assert from 'node:assert/strict';
import { after, before, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { ROOT } from '../../scripts/packaging/architecture.ts';
import { LAYOUT } from '../../src/dataplane/fast-path/layout.ts';
import { addressOf } from '../netns/overlay.ts';
import { Pinging } from '../netns/pinging.ts';
import { eventually } from '../netns/waiting.ts';
import { buildOfLayout, ReplacedAgent } from './replaced-agent.ts';

/** An agent that is killed at any moment of its start, also in the middle of taking the fast path over, leaves one that carries. */

const OPEN = /Packets take the fast path in the kernel .*, even while the agent is down$/;
/** Each time the agent before them runs long enough to be the last that there was: see `SOCKET_COUNTS_AFTER_SECONDS`. */
const GROUPS = 5;
const CRASHES = 2;
/** A thousand requests a second. */
const INTERVAL_SECONDS = 0.001;

const stack = new AsyncDisposableStack();
let otherBuild: string;

before(async () => {
  otherBuild = await buildOfLayout(LAYOUT + 1, stack);
});
after(() => stack.disposeAsync());

for (const [underlay, moreFlags] of [
  ['native', []],
  ['wire', ['--fast-path-in', 'xdp']],
] as const)
  it(`loses no packet when agents are killed while they start (${[underlay, ...moreFlags].join(' ')})`, async (t) => {
    await using agent = await ReplacedAgent.on(underlay, moreFlags);
    const { topology, agents } = agent.overlay;
    const [a, b] = topology.containers;
    await using flood = await Pinging.start(topology, a!, addressOf(b!), INTERVAL_SECONDS);
    const startMs = agents[0]!.readyMs;
    const killedAfterMs: number[] = [];
    const forwarded = async (): Promise<number> => {
      const pages = await Promise.all(topology.hosts.map((host) => agent.overlay.ask(host, '/metrics')));
      const counts = pages.flatMap((page) => [...page.matchAll(/\{operation="(?:txReads|rxReceives)"\} (\d+)$/gm)]);
      return counts.reduce((sum, [, count]) => sum + Number(count), 0);
    };
    /** An agent that is killed before both hosts know each other has nothing to leave. */
    const carried = (): Promise<true> =>
      eventually('the fast path carries the pings', async () => {
        const before = await forwarded();
        await flood.answered(500);
        return (await forwarded()) - before < 50 || undefined;
      });
    await carried();
    for (let group = 0; group < GROUPS; group++) {
      const build = group % 2 === 0 ? ROOT : otherBuild;
      await agent.replace('SIGKILL', build, OPEN);
      await carried();
      for (let crash = 0; crash < CRASHES; crash++) {
        await agent.end('SIGKILL');
        await agent.start(crash % 2 === 0 ? build : otherBuild);
        const ms = Math.round(Math.random() * startMs);
        killedAfterMs.push(ms);
        await sleep(ms);
      }
    }
    await agent.replace('SIGKILL', ROOT, OPEN);
    await flood.answered(1_000);
    const { lost, of } = await flood.lost();
    t.diagnostic(
      `${lost} of ${of} lost; killed ${killedAfterMs.join(', ')} ms after their start, of ${Math.round(startMs)}`,
    );
    assert.equal(lost, 0, `${lost} of ${of}`);
  });
