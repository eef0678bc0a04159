import { setTimeout as delay } from 'node:timers/promises';
import { describeError, WeftError } from '../errors.ts';
import type { Log } from '../log/log.ts';
import type { SubnetEnvContent } from '../node-files/subnet-env.ts';
import { writeSubnetFile } from '../node-files/subnet-file.ts';
import type { Keeper } from './keeper.ts';

const RETRY_MS = 5_000;

export interface SubnetEnvKeeperOptions {
  readonly path: string;
  readonly log: Pick<Log, 'info' | 'warn'>;
  readonly retryMs?: number;
}

/** Writes subnet.env each time it is set; while it cannot be written it is tried again. */
export class SubnetEnvKeeper implements Keeper<SubnetEnvContent>, AsyncDisposable {
  readonly #options: SubnetEnvKeeperOptions;
  readonly #stop = new AbortController();
  #wanted: SubnetEnvContent | undefined;
  #failure: string | undefined;
  #tried: Promise<void> = Promise.resolve();
  #running: Promise<void> = Promise.resolve();

  constructor(options: SubnetEnvKeeperOptions) {
    this.#options = options;
  }

  get failure(): string | undefined {
    return this.#failure;
  }

  set(wanted: SubnetEnvContent): void {
    this.#wanted = wanted;
    const tried = Promise.withResolvers<void>();
    this.#tried = tried.promise;
    this.#running = this.#running.then(() => this.#write(wanted, tried.resolve));
  }

  async settled(signal: AbortSignal): Promise<void> {
    await this.#tried;
    signal.throwIfAborted();
    if (this.#failure !== undefined) throw new WeftError('WEFT_SUBNET_FILE_UNWRITABLE', this.#failure);
  }

  /** Until it is written, or something else is wanted. Never rejects. */
  async #write(wanted: SubnetEnvContent, onTried: () => void): Promise<void> {
    const { path, log, retryMs = RETRY_MS } = this.#options;
    while (wanted === this.#wanted && !this.#stop.signal.aborted) {
      try {
        await writeSubnetFile(path, wanted);
        this.#failure = undefined;
        log.info(`Wrote subnet file to ${path}`);
        break;
      } catch (error) {
        const failure = `Failed to write subnet file: ${describeError(error)}`;
        if (failure !== this.#failure) log.warn(failure);
        this.#failure = failure;
      } finally {
        onTried();
      }
      await delay(retryMs, undefined, { signal: this.#stop.signal, ref: false }).catch(() => {});
    }
    onTried();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort();
    await this.#running;
  }
}
