import assert from 'node:assert/strict';
import type { TestContext } from 'node:test';
import { fileURLToPath } from 'node:url';
import type { LabHost, Place, Topology } from '../../src/lab/topology.ts';
import type { Child } from '../../src/linux/run.ts';
import { RUNTIME_FLAGS } from '../../src/runtime-flags.ts';
import { isStall, type Pause, worstPause } from './pauses.ts';
import { LineFeed } from './waiting.ts';

const PROGRAM = fileURLToPath(new URL('./echo-program.ts', import.meta.url));
const PORT = 7778;
/** Much shorter than a stall. */
const TICK_MS = 10;

/** A container, or what stands for one, with its address in the overlay. */
export interface End {
  readonly place: Place;
  readonly address: string;
  readonly host: LabHost;
  /** Of the host, among the hosts. */
  readonly hostAddress: string;
}

/** Two connections between the same two processes: one through the overlay, and one that hosts route past their agents. */
export class EchoBeside implements AsyncDisposable {
  readonly #child: Child;
  readonly #feed: LineFeed;

  private constructor(child: Child) {
    this.#child = child;
    this.#feed = new LineFeed(child.stdout!);
  }

  /** Both ways, after the hosts have got their routes; they and the servers end with the topology. */
  static async bothWays(topology: Topology, ends: readonly [End, End]): Promise<readonly EchoBeside[]> {
    const beside = await routePastAgents(topology, ends);
    const node = [process.execPath, ...RUNTIME_FLAGS, PROGRAM];
    for (const { place } of ends) {
      const server = await topology.start(place, [...node, 'serve', `${PORT}`]);
      await new LineFeed(server.stdout!).find((line) => line === 'ready');
    }
    return await Promise.all(
      ([0, 1] as const).map(async (from) => {
        const to = from === 0 ? 1 : 0;
        const targets = [ends[to].address, `${beside[from]}=${beside[to]}`];
        const argv = [...node, 'connect', `${PORT}`, `${TICK_MS}`, ...targets];
        const pair = new EchoBeside(await topology.start(ends[from].place, argv));
        await pair.flowing();
        return pair;
      }),
    );
  }

  get mark(): number {
    return this.#feed.mark;
  }

  /** Resolves once a line that was sent from now on, or a moment before, has come back on both. */
  async flowing(): Promise<void> {
    const last = Math.max(0, ...this.#feed.seen.slice(-4).map(({ text }) => numbersOf(text)[1]));
    for (const index of [0, 1]) {
      await this.#feed
        .find((text) => numbersOf(text)[0] === index && numbersOf(text)[1] > last, Math.max(0, this.mark - 1))
        .catch((error: unknown) => {
          throw new Error(`a connection carries nothing: ${this.#child.tail()}`, { cause: error });
        });
    }
  }

  /** When lines came back since that mark, by the clock of the process at this end. */
  timesSince(mark: number, index: 0 | 1): number[] {
    const numbers = this.#feed.seen.slice(Math.max(0, mark - 2)).map(({ text }) => numbersOf(text));
    return numbers.flatMap(([which, , atMs]) => (which === index ? [atMs] : []));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#child[Symbol.asyncDispose]();
  }
}

function numbersOf(text: string): readonly [index: number, line: number, atMs: number] {
  return text.split(' ').map(Number) as [number, number, number];
}

/** Gives each end an address more, to which the hosts have routes that pass no agent. Returns these addresses. */
async function routePastAgents(topology: Topology, ends: readonly [End, End]): Promise<readonly [string, string]> {
  const extra = ends.map(({ address }, index) =>
    address.includes(':') ? `2001:db8:ec::${index + 1}` : `198.18.0.${index + 1}`,
  );
  for (const [index, { place, address, host, hostAddress }] of ends.entries()) {
    const own = extra[index]!;
    const other = ends[1 - index]!.host;
    await topology.exec(place, ['ip', 'address', 'add', own, 'dev', 'lo']);
    await topology.exec(host, ['ip', 'route', 'add', own, 'via', address]);
    await topology.exec(other, ['ip', 'route', 'add', own, 'via', hostAddress]);
  }
  return [extra[0]!, extra[1]!];
}

/** Runs what is between two marks; pauses outside of it do not count. */
export type Watch = (act: () => Promise<void>) => Promise<void>;

/**
 * Does what takes an agent away or brings it, while lines flow, and fails when a connection through the overlay stalls meanwhile: when it
 * pauses for longer than the one beside it in the same moment, see {@link isStall}. A bound on an interruption, with a control
 * that has the same processes at its ends, and no measure of speed. Done once more if it fails: the machine is shared.
 *
 * @param act watches the moments that count, which are those without bulk data: on a busy machine these wait in more queues of the kernel
 *   when they pass the overlay.
 */
export async function withoutStall(
  t: TestContext,
  pairs: readonly EchoBeside[],
  act: (watch: Watch) => Promise<void>,
): Promise<void> {
  for (const isLast of [false, true]) {
    const pauses: Pause[] = [];
    await act(async (watched) => {
      const marks = pairs.map(({ mark }) => mark);
      await watched();
      for (const [index, pair] of pairs.entries()) {
        await pair.flowing();
        pauses.push(worstPause(pair.timesSince(marks[index]!, 0), pair.timesSince(marks[index]!, 1)));
      }
    });
    const text = pauses
      .map(({ ms, besideMs }) => `${ms.toFixed(0)} (${besideMs.toFixed(0)} past the agents)`)
      .join(', ');
    t.diagnostic(`longest pauses of TCP, ms: ${text}`);
    assert.ok(pauses.length > 0, 'nothing was watched');
    if (!pauses.some(isStall)) return;
    assert.ok(!isLast, `TCP has stalled for, ms: ${text}`);
  }
}
