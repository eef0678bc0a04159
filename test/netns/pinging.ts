import type { Place, Topology } from '../../src/lab/topology.ts';
import type { Child } from '../../src/linux/run.ts';
import { lostPings } from './ping-replies.ts';
import { eventually, LineFeed } from './waiting.ts';

/** More answers than can wait in ping's socket: 160 fill its buffer. */
const BUFFERED = 200;
const ATTEMPTS = 3;
/** Sockets that ping(8) may have, with what each has dropped in the last column. */
const SOCKETS = ['raw', 'raw6', 'icmp', 'icmp6'].map((name) => `/proc/net/${name}`);

/** Echo requests from one place to an address, until disposed, and what became of each. One at a time from a place. */
export class Pinging implements AsyncDisposable {
  readonly #topology: Topology;
  readonly #from: Place;
  readonly #child: Child;
  readonly #feed: LineFeed;

  private constructor(topology: Topology, from: Place, child: Child) {
    this.#topology = topology;
    this.#from = from;
    this.#child = child;
    this.#feed = new LineFeed(child.stdout!);
  }

  static async start(topology: Topology, from: Place, to: string, intervalSeconds: number): Promise<Pinging> {
    return new Pinging(topology, from, await topology.start(from, ['ping', '-n', '-i', `${intervalSeconds}`, to]));
  }

  /** Answers so far, roughly. */
  get answers(): number {
    return this.#feed.mark;
  }

  async answered(more: number): Promise<void> {
    const from = this.answers;
    await eventually(`${more} answers more`, () => this.answers >= from + more || undefined);
  }

  /**
   * How many requests were lost on the way, there or back. Answers that had waited for an agent come all at once, and ping has a
   * buffer for 160, so that on a busy machine it misses some of them: they have arrived, and are not lost.
   */
  async lost(): Promise<{ readonly lost: number; readonly of: number }> {
    let least = this.#unanswered();
    for (let attempt = 0; attempt < ATTEMPTS && least.lost > 0; attempt++) {
      const missed = await this.#missed();
      // Whatever ping had missed by then is before the last answer, and so is counted as unanswered.
      await this.answered(BUFFERED);
      const { lost, of } = this.#unanswered();
      least = { lost: Math.min(least.lost, lost - missed), of };
    }
    return least;
  }

  #unanswered(): { readonly lost: number; readonly of: number } {
    return lostPings(this.#feed.seen.map(({ text }) => text));
  }

  /** Answers that its socket had no room for. */
  async #missed(): Promise<number> {
    const { stdout } = await this.#topology.exec(this.#from, ['cat', ...SOCKETS], { okExitCodes: 'any' });
    const sockets = stdout.split('\n').filter((line) => /^ *\d+: /.test(line));
    return sockets.reduce((sum, line) => sum + Number(line.trim().split(/\s+/).at(-1)), 0);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#child[Symbol.asyncDispose]();
  }
}
