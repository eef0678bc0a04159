/** The traffic of a soak, by the program in soak-stream.ts at both ends. */
import { fileURLToPath } from 'node:url';
import type { LabContainer, Topology } from '../src/lab/topology.ts';
import { type Child, lines } from '../src/linux/run.ts';
import { addressOf } from '../test/netns/overlay.ts';
import type { Received } from './soak-stream.ts';

const STREAM = fileURLToPath(new URL('./soak-stream.ts', import.meta.url));
const PORT = 7_000;
/** TCP sends again after ever longer pauses; after a disturbance of seconds they are seconds long. */
export const MOVES_WITHIN_MS = 60_000;

/** One direction of the traffic. */
export class Stream implements AsyncDisposable {
  readonly #receiver: Child;
  readonly #sender: Child;
  #last: Received = { bytes: 0, wrongBlocks: 0, datagrams: 0, wrongDatagrams: 0 };
  #grewAt = performance.now();
  #longestPauseMs = 0;
  #ended: string | undefined;

  private constructor(receiver: Child, sender: Child) {
    this.#receiver = receiver;
    this.#sender = sender;
    void this.#read();
    for (const child of [receiver, sender]) {
      void child.exited.then(() => {
        this.#ended ??= child.tail().trim() || 'a stream has ended';
      });
    }
  }

  static async open(topology: Topology, from: LabContainer, to: LabContainer): Promise<Stream> {
    const node = [process.execPath, '--disable-warning=ExperimentalWarning', STREAM];
    await using stack = new AsyncDisposableStack();
    const receiver = stack.use(await topology.start(to, [...node, 'receive', `${PORT}`]));
    for await (const _ of lines(receiver.stdout!)) break;
    const sender = await topology.start(from, [...node, 'send', addressOf(to), `${PORT}`], { stdout: 'ignore' });
    stack.move();
    return new Stream(receiver, sender);
  }

  get received(): Received {
    return this.#last;
  }

  get longestPauseMs(): number {
    return Math.max(this.#longestPauseMs, performance.now() - this.#grewAt);
  }

  /** What is wrong with it so far. */
  get failure(): string | undefined {
    const { wrongBlocks, wrongDatagrams } = this.#last;
    if (wrongBlocks + wrongDatagrams > 0)
      return `${wrongBlocks} blocks and ${wrongDatagrams} datagrams are not what was sent`;
    if (this.#ended !== undefined) return this.#ended;
    const pauseMs = performance.now() - this.#grewAt;
    return pauseMs > MOVES_WITHIN_MS ? `nothing has arrived for ${(pauseMs / 1_000).toFixed(0)} s` : undefined;
  }

  async #read(): Promise<void> {
    for await (const line of lines(this.#receiver.stdout!)) {
      const now = JSON.parse(line) as Received;
      if (now.bytes > this.#last.bytes) {
        this.#longestPauseMs = this.longestPauseMs;
        this.#grewAt = performance.now();
      }
      this.#last = now;
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#sender[Symbol.asyncDispose]();
    await this.#receiver[Symbol.asyncDispose]();
  }
}
