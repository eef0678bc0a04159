import type { LabContainer, Place, Topology } from '../../src/lab/topology.ts';
import type { Child } from '../../src/linux/run.ts';
import { addressOf } from '../netns/overlay.ts';
import { eventually, LineFeed } from '../netns/waiting.ts';

const INTERVAL_SECONDS = 0.01;

export interface FlowFigures {
  readonly sent: number;
  readonly lost: number;
  /** The longest time between two replies. */
  readonly longestGapMs: number;
}

interface Reply {
  readonly sequence: number;
  readonly atMs: number;
}

/** A hundred echo requests a second from one container to another, and what became of each. */
export class PingFlow implements AsyncDisposable {
  readonly #child: Child;
  readonly #feed: LineFeed;
  readonly #seen: Reply[] = [];
  #read = 0;

  private constructor(child: Child) {
    this.#child = child;
    this.#feed = new LineFeed(child.stdout!);
  }

  /** Resolves once replies come. */
  static async start(topology: Topology, from: Place, to: LabContainer): Promise<PingFlow> {
    const argv = ['ping', '-n', '-D', '-i', String(INTERVAL_SECONDS), addressOf(to)];
    const flow = new PingFlow(await topology.start(from, argv));
    await flow.flowing();
    return flow;
  }

  /** Resolves when a request that was sent from now on is answered; says after how long. */
  async flowing(timeoutMs?: number): Promise<number> {
    const fromMs = performance.now();
    // Replies to what was sent before may still be read.
    const sentMs = Date.now();
    await eventually('packets flow', () => (this.#replies().at(-1)?.atMs ?? 0) > sentMs + 20 || undefined, timeoutMs);
    return performance.now() - fromMs;
  }

  /** Ends it. What was under way at the end counts neither as sent nor as lost. */
  async stop(): Promise<FlowFigures> {
    await this.flowing();
    this.#child.kill('SIGINT');
    await this.#child.exited;
    const replies = this.#replies();
    const sequences = new Set(replies.map(({ sequence }) => sequence));
    const sent = Math.max(...sequences);
    const gaps = replies.slice(1).map(({ atMs }, index) => atMs - replies[index]!.atMs);
    return { sent, lost: sent - sequences.size, longestGapMs: Math.round(Math.max(...gaps)) };
  }

  #replies(): readonly Reply[] {
    for (; this.#read < this.#feed.seen.length; this.#read++) {
      const { text } = this.#feed.seen[this.#read]!;
      const [, seconds, sequence] = /^\[(\d+\.\d+)\] \d+ bytes from .* icmp_seq=(\d+) /.exec(text) ?? [];
      if (sequence !== undefined) this.#seen.push({ sequence: Number(sequence), atMs: Number(seconds) * 1_000 });
    }
    return this.#seen;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#child[Symbol.asyncDispose]();
  }
}
