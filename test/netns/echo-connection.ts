import assert from 'node:assert/strict';
import type { LabContainer, Place, Topology } from '../../src/lab/topology.ts';
import type { Child } from '../../src/linux/run.ts';
import { addressOf } from './overlay.ts';
import { eventually, LineFeed } from './waiting.ts';

const TICK_MS = 50;
const ECHO_PORT = 7777;

/** What the other end of an {@link EchoConnection} needs; ends with the topology. */
export async function serveEcho(topology: Topology, place: Place, family: 4 | 6 = 4): Promise<void> {
  await topology.start(place, ['socat', `TCP${family}-LISTEN:${ECHO_PORT},reuseaddr,fork`, 'EXEC:cat'], {
    stdout: 'ignore',
  });
  await eventually('the echo server listens', async () => {
    const { stdout } = await topology.exec(place, ['ss', '-Htln', `sport = :${ECHO_PORT}`]);
    return stdout.includes(`:${ECHO_PORT}`) || undefined;
  });
}

/** A TCP connection that carries a numbered line every {@link TICK_MS} and gets each of them back, in order. */
export class EchoConnection implements AsyncDisposable {
  readonly feed: LineFeed;
  readonly #client: Child;
  readonly #timer: NodeJS.Timeout;
  #sent = 0;
  #alive = true;

  private constructor(client: Child) {
    this.#client = client;
    this.feed = new LineFeed(client.stdout!);
    void client.exited.then(() => {
      this.#alive = false;
    });
    this.#timer = setInterval(() => client.stdin!.write(`${++this.#sent}\n`), TICK_MS);
  }

  static open(topology: Topology, from: LabContainer, to: LabContainer): Promise<EchoConnection> {
    return EchoConnection.between(topology, from, addressOf(to));
  }

  /** From and to any place, that of an address which is served. */
  static async between(topology: Topology, from: Place, to: string): Promise<EchoConnection> {
    const host = to.includes(':') ? `TCP6:[${to}]` : `TCP4:${to}`;
    const target = `${host}:${ECHO_PORT},connect-timeout=5`;
    const connection = new EchoConnection(await topology.start(from, ['socat', 'STDIO', target], { stdin: 'pipe' }));
    await connection.flowing();
    return connection;
  }

  get sent(): number {
    return this.#sent;
  }

  get alive(): boolean {
    return this.#alive;
  }

  /**
   * Resolves once what was sent up to now has come back, and nothing is missing or out of order. After a gap TCP waits up to twice as
   * long as it before it tries again.
   */
  async flowing(): Promise<void> {
    const last = this.#sent + 1;
    await this.feed
      .find((text) => Number(text) >= last)
      .catch((error: unknown) => {
        throw new Error(`the connection carries nothing: ${this.#client.tail()}`, { cause: error });
      });
    const numbers = this.feed.seen.map(({ text }) => Number(text));
    assert.deepEqual(
      numbers,
      Array.from({ length: numbers.length }, (_, index) => index + 1),
    );
  }

  /** The longest time without a line, in milliseconds. */
  longestGapMs(): number {
    const { seen } = this.feed;
    return Math.round(Math.max(...seen.slice(1).map(({ atMs }, index) => atMs - seen[index]!.atMs)));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    clearInterval(this.#timer);
    await this.#client[Symbol.asyncDispose]();
  }
}

/** @param beside a connection that passes no agent: what the machine alone does to one. */
export function longestGaps(connections: readonly EchoConnection[], beside: EchoConnection): string {
  const gaps = connections.map((each) => each.longestGapMs()).join(' and ');
  return `longest gap of TCP ${gaps} ms, and ${beside.longestGapMs()} ms past the agents`;
}
