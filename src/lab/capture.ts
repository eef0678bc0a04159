import { type CapturedFrame, PcapReader } from '../capture/pcap.ts';
import { WeftError } from '../errors.ts';
import type { Child } from '../linux/run.ts';
import type { Place, Topology } from './topology.ts';

export interface CaptureOptions {
  /** In tcpdump's language; every packet without it. */
  readonly filter?: string | undefined;
  /** Bytes kept of each packet; all of them without it. */
  readonly snapBytes?: number | undefined;
}

/** A packet capture on one device of a lab, by tcpdump. Frames stay in memory: for short looks, not for load. */
export class Capture implements AsyncDisposable {
  readonly #child: Child;
  readonly #reader = new PcapReader();
  readonly #frames: CapturedFrame[] = [];
  readonly #where: string;
  #failure: Error | undefined;
  #ended = false;
  #changed = Promise.withResolvers<void>();

  private constructor(child: Child, where: string) {
    this.#child = child;
    this.#where = where;
    child.stdout!.on('data', (chunk: Buffer) => this.#take(chunk));
    child.stdout!.on('error', (error) => this.#end(error));
    void child.exited.then(() => this.#end(undefined));
  }

  /**
   * Resolves once every further packet is captured.
   *
   * @throws WeftError WEFT_LAB_FAILED with tcpdump's last words when it cannot capture there.
   */
  static async start(
    topology: Topology,
    place: Place,
    device: string,
    options: CaptureOptions = {},
    signal?: AbortSignal,
  ): Promise<Capture> {
    const argv = [
      'tcpdump',
      '--immediate-mode',
      '-U',
      '-n',
      '-p',
      '--time-stamp-precision=nano',
      '-i',
      device,
      '-w',
      '-',
    ];
    if (options.snapBytes !== undefined) argv.push('-s', String(options.snapBytes));
    if (options.filter !== undefined) argv.push(options.filter);
    const child = await topology.start(place, argv, { signal });
    const capture = new Capture(child, `${typeof place === 'string' ? place : place.namespace} ${device}`);
    try {
      // tcpdump writes the file header after the socket is bound and the filter is set.
      await capture.#until(() => (capture.#reader.started ? true : undefined), signal);
    } catch (error) {
      await capture[Symbol.asyncDispose]();
      throw error;
    }
    return capture;
  }

  /** What was captured so far, in order. */
  get frames(): readonly CapturedFrame[] {
    return this.#frames;
  }

  /** The first frame, past or future, that `match` gives a value for. Rejects when the capture ends before or `signal` fires. */
  waitFor<T>(match: (frame: CapturedFrame) => T | undefined, signal?: AbortSignal): Promise<T> {
    let seen = 0;
    return this.#until(() => {
      while (seen < this.#frames.length) {
        const value = match(this.#frames[seen++]!);
        if (value !== undefined) return value;
      }
      return undefined;
    }, signal);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#child[Symbol.asyncDispose]();
  }

  async #until<T>(value: () => T | undefined, signal: AbortSignal | undefined): Promise<T> {
    const aborted = Promise.withResolvers<never>();
    aborted.promise.catch(() => {});
    const onAbort = () => aborted.reject(signal?.reason);
    signal?.addEventListener('abort', onAbort, { once: true });
    try {
      for (;;) {
        const got = value();
        if (got !== undefined) return got;
        signal?.throwIfAborted();
        if (this.#ended) {
          const why = this.#failure?.message ?? this.#child.tail().trim();
          throw new WeftError('WEFT_LAB_FAILED', `the packet capture on ${this.#where} ended: ${why}`, {
            ...(this.#failure === undefined ? {} : { cause: this.#failure }),
          });
        }
        await Promise.race([this.#changed.promise, aborted.promise]);
      }
    } finally {
      signal?.removeEventListener('abort', onAbort);
    }
  }

  #take(chunk: Buffer): void {
    try {
      this.#frames.push(...this.#reader.push(chunk));
    } catch (error) {
      this.#end(error instanceof Error ? error : new Error(String(error)));
      return;
    }
    this.#wake();
  }

  #end(failure: Error | undefined): void {
    this.#failure ??= failure;
    this.#ended = true;
    this.#wake();
  }

  #wake(): void {
    const { resolve } = this.#changed;
    this.#changed = Promise.withResolvers<void>();
    resolve();
  }
}
