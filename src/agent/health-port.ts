import { setTimeout as delay } from 'node:timers/promises';
import { describeError } from '../errors.ts';
import { type HealthServerOptions, startHealthServer } from '../health/server.ts';
import type { Log } from '../log/log.ts';
import { failingAs } from './failing-as.ts';

const RETRY_MS = 200;

/** The health endpoint of this host's agent: one process has the port, and gives it to the next before that one carries packets. */
export class HealthPort implements AsyncDisposable {
  readonly #options: HealthServerOptions;
  readonly #log: Log;
  readonly #signal: AbortSignal;
  #server: AsyncDisposable | undefined;
  #isReleased = false;

  constructor(options: HealthServerOptions, log: Log, signal: AbortSignal) {
    this.#options = options;
    this.#log = log;
    this.#signal = signal;
  }

  /** @throws WeftError WEFT_HEALTH_LISTEN */
  async open(): Promise<void> {
    const { ip, port } = this.#options;
    this.#log.info(`Start healthz server on ${ip}:${port}`);
    await failingAs('Start healthz server error. ', () => this.#listen());
  }

  /** Others may listen there when this returns; requests under way are answered. */
  release(): void {
    this.#isReleased = true;
    void this.#server?.[Symbol.asyncDispose]();
  }

  /** Listens again, as soon as that is possible. Never rejects. */
  async regain(): Promise<void> {
    this.#isReleased = false;
    for (let last = ''; !this.#signal.aborted && !this.#isReleased; ) {
      try {
        return await this.#listen();
      } catch (error) {
        const text = describeError(error);
        if (text !== last && !this.#signal.aborted) this.#log.error(text);
        last = text;
        await delay(RETRY_MS, undefined, { ref: false });
      }
    }
  }

  async #listen(): Promise<void> {
    this.#server = await startHealthServer(this.#options, this.#signal);
    if (this.#isReleased) this.release();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#isReleased = true;
    await this.#server?.[Symbol.asyncDispose]();
  }
}
