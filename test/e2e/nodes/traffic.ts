import { setInterval } from 'node:timers/promises';
import type { Child } from '../../../src/linux/run.ts';
import { lostPings } from '../../netns/ping-replies.ts';
import { eventually, LineFeed } from '../../netns/waiting.ts';
import type { Pod, RealCluster } from './real-cluster.ts';
import { ECHO_PORT } from './workloads.ts';

export interface PingCount {
  readonly sent: number;
  readonly received: number;
  /** As ping(8) has measured it. */
  readonly slowestMs: number;
}

/** Pings from a pod until it is stopped. */
export class PingStream implements AsyncDisposable {
  readonly #child: Child;
  readonly #output: LineFeed;
  /** Lines that were looked at, and replies among them. */
  #read = 0;
  #answers = 0;

  private constructor(child: Child) {
    this.#child = child;
    this.#output = new LineFeed(child.stdout!);
  }

  /** Resolves once the first is answered. */
  static async start(cluster: RealCluster, from: Pod, to: Pod, intervalSeconds = 0.1): Promise<PingStream> {
    // The end of its input, for a signal would reach only what we started.
    const script = 'ping -n -i "$2" "$1" & cat >/dev/null; kill -INT $!; wait $!';
    const argv = ['sh', '-c', script, 'sh', to.status.podIP!, String(intervalSeconds)];
    const stream = new PingStream(await cluster.startBeside(from, argv, { stdin: 'pipe' }));
    await orDispose(stream, stream.answered(1));
    return stream;
  }

  async answered(more: number): Promise<void> {
    const from = this.#replies();
    await eventually(`${more} answers more`, () => this.#replies() >= from + more || undefined);
  }

  /** Counts up to the last that was answered, which is one from now on. */
  async stop(): Promise<PingCount> {
    await this.answered(1);
    this.#child.stdin!.end();
    await this.#output.find((line) => line.includes('packets transmitted'));
    const lines = this.#output.seen.map(({ text }) => text);
    const { lost, of } = lostPings(lines);
    const times = lines.map((line) => Number(/ time=([\d.]+) ms/.exec(line)?.[1] ?? 0));
    const slowestMs = times.reduce((slowest, time) => Math.max(slowest, time));
    return { sent: of, received: of - lost, slowestMs };
  }

  #replies(): number {
    for (; this.#read < this.#output.mark; this.#read++) {
      if (this.#output.seen[this.#read]!.text.includes(' time=')) this.#answers++;
    }
    return this.#answers;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#child.stdin!.end();
    await this.#child[Symbol.asyncDispose]();
  }
}

/** One TCP connection between two pods on which every line that is sent has to come back, twenty a second. */
export class EchoStream implements AsyncDisposable {
  readonly #child: Child;
  readonly #echoes: LineFeed;
  readonly #stopped = new AbortController();
  readonly #sending: Promise<void>;
  #sent = 0;

  private constructor(child: Child) {
    this.#child = child;
    this.#echoes = new LineFeed(child.stdout!);
    this.#sending = this.#send();
  }

  static async start(cluster: RealCluster, from: Pod, to: Pod): Promise<EchoStream> {
    // The port may open a little later than the one that tells of the pod's readiness.
    const argv = ['socat', 'STDIO', `TCP:${to.status.podIP}:${ECHO_PORT},retry=100,interval=0.1`];
    const stream = new EchoStream(await cluster.startBeside(from, argv, { stdin: 'pipe' }));
    await orDispose(
      stream,
      stream.#echoes.find((line) => line === 'line 1'),
    );
    return stream;
  }

  /** Stops sending, and waits until the last line is back. Returns what was sent and what came back. */
  async stop(): Promise<{ sent: string[]; echoed: string[] }> {
    this.#stopped.abort();
    await this.#sending;
    await this.#echoes.find((line) => line === `line ${this.#sent}`);
    const sent = Array.from({ length: this.#sent }, (_, i) => `line ${i + 1}`);
    return { sent, echoed: this.#echoes.seen.map(({ text }) => text) };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stopped.abort();
    this.#child.stdin!.end();
    await this.#child[Symbol.asyncDispose]();
  }

  async #send(): Promise<void> {
    try {
      for await (const _ of setInterval(50, undefined, { signal: this.#stopped.signal })) {
        this.#sent += 1;
        this.#child.stdin!.write(`line ${this.#sent}\n`);
      }
    } catch {
      // Stopped.
    }
  }
}

async function orDispose<T>(resource: AsyncDisposable, promise: Promise<T>): Promise<T> {
  try {
    return await promise;
  } catch (error) {
    await resource[Symbol.asyncDispose]();
    throw error;
  }
}
