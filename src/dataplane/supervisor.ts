import { Worker } from 'node:worker_threads';
import { WeftError } from '../errors.ts';
import type { Ipv4Addr } from '../ip/ipv4.ts';
import { Counters } from './counters.ts';
import { PeerTable, type PeerTableContent } from './peer-table.ts';
import type { SourceCheck } from './source-check.ts';
import type { WorkerInput, WorkerMessage } from './worker-protocol.ts';

/** What the forwarder holds of the host while it runs. Made by linux/ adapters, wired in cmd/. */
export interface ForwarderDescriptors extends Disposable {
  readonly tunFd: number;
  readonly udpSegmentation: boolean;
  readonly socketFd: number;
  readonly icmpFd: number;
  readonly stopFd: number;
  /** Wakes every worker that waits, for good. */
  signalStop(): void;
}

export type ForwarderEvent =
  | { readonly type: 'started' }
  | { readonly type: 'failed'; readonly reason: string; readonly retryInMs: number };

export interface ForwarderOptions {
  /** Entry of the worker threads. */
  readonly workerUrl: URL;
  /** Opens the TUN device and the sockets; called again after a loss. */
  readonly open: () => ForwarderDescriptors;
  readonly sourceCheck: SourceCheck;
  readonly onEvent: (event: ForwarderEvent) => void;
}

/** Peers at most, slot 0 excluded. Memory is touched only as far as it is used. */
export const MAX_PEERS = 65_535;
const FIRST_RETRY_MS = 100;
const LAST_RETRY_MS = 5_000;
const STOP_TIMEOUT_MS = 2_000;
/** As the kernel's net.ipv4.route.mtu_expires. */
const PATH_MTU_TTL_MS = 600_000;

interface Generation {
  readonly descriptors: ForwarderDescriptors;
  readonly stop: Int32Array;
  readonly workers: readonly Worker[];
  readonly exited: Promise<unknown>;
}

/**
 * The data plane as the control plane sees it: two packet workers, one a direction, that share memory with this thread and
 * nothing else. When one dies, or the TUN device is deleted under it, everything is opened and started again; table
 * and counters stay.
 */
export class Forwarder implements AsyncDisposable {
  readonly counters: Counters = Counters.allocate(MAX_PEERS + 1);
  readonly table: PeerTable = PeerTable.allocate(MAX_PEERS + 1);
  readonly #options: ForwarderOptions;
  #prepared: ForwarderDescriptors | undefined;
  #ownAddress = 0;
  #generation: Generation | undefined;
  #failure: string | undefined = 'not started';
  #retryMs = FIRST_RETRY_MS;
  #retry: NodeJS.Timeout | undefined;
  readonly #expiry: NodeJS.Timeout;
  #stopped = false;

  constructor(options: ForwarderOptions) {
    this.#options = options;
    this.#expiry = setInterval(() => this.table.forgetPathMtus(), PATH_MTU_TTL_MS).unref();
  }

  /** Why packets do not flow; `undefined` when they do. */
  get failure(): string | undefined {
    return this.#failure;
  }

  publish(content: PeerTableContent): void {
    this.table.publish(content);
  }

  /**
   * Opens the device and the sockets without starting: what cannot work fails here, before a lease is taken.
   * @throws WeftError of the adapters
   */
  prepare(): void {
    this.#prepared ??= this.#options.open();
  }

  /**
   * Starts, or starts again with another address; resolves when both workers run. Later failures are retried and reported
   * by `onEvent`.
   * @param ownAddress source of ICMP errors, the address of the TUN device.
   * @throws WeftError of the adapters, or WEFT_FORWARDER_FAILED.
   */
  async start(ownAddress: Ipv4Addr, signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    this.#ownAddress = ownAddress;
    await this.#endGeneration();
    await this.#startGeneration();
  }

  async #startGeneration(): Promise<void> {
    const descriptors = this.#prepared ?? this.#options.open();
    this.#prepared = undefined;
    const stop = new Int32Array(new SharedArrayBuffer(4));
    const input = {
      tunFd: descriptors.tunFd,
      socketFd: descriptors.socketFd,
      icmpFd: descriptors.icmpFd,
      stopFd: descriptors.stopFd,
      table: this.table.buffer,
      tableCapacity: this.table.capacity,
      counters: this.counters.buffer,
      stop: stop.buffer,
      ownAddress: this.#ownAddress,
      sourceCheck: this.#options.sourceCheck,
      udpSegmentation: descriptors.udpSegmentation,
    };
    const workers = (['tx', 'rx'] as const).map((direction) => {
      const workerData: WorkerInput = { ...input, direction };
      return new Worker(this.#options.workerUrl, { workerData, name: `forwarder-${direction}` });
    });
    const exits = workers.map((worker) => new Promise<void>((resolve) => worker.once('exit', () => resolve())));
    const generation = { descriptors, stop, workers, exited: Promise.all(exits) };
    this.#generation = generation;
    try {
      await Promise.all(workers.map((worker) => this.#watch(worker, generation)));
    } catch (error) {
      await this.#endGeneration();
      throw error;
    }
    this.#failure = undefined;
    this.#retryMs = FIRST_RETRY_MS;
    this.#options.onEvent({ type: 'started' });
  }

  /** Resolves when the worker is ready; after that its end is a failure to recover from. */
  #watch(worker: Worker, generation: Generation): Promise<void> {
    return new Promise((resolve, reject) => {
      let isReady = false;
      const fail = (reason: string, cause?: unknown): void => {
        if (this.#generation !== generation) return;
        if (isReady) void this.#recover(reason);
        else reject(new WeftError('WEFT_FORWARDER_FAILED', `packet worker failed to start: ${reason}`, { cause }));
      };
      worker.on('message', (message: WorkerMessage) => {
        if (message.type === 'ready') {
          isReady = true;
          resolve();
        } else {
          fail(message.what === 'tun' ? 'the TUN device is gone' : 'the UDP socket failed');
        }
      });
      worker.on('error', (error) =>
        fail(error instanceof Error ? (error.stack ?? error.message) : String(error), error),
      );
      worker.on('exit', () => fail(`${worker.threadName ?? 'worker'} ended`));
    });
  }

  async #recover(reason: string): Promise<void> {
    this.#failure = reason;
    await this.#endGeneration();
    if (this.#stopped) return;
    const retryInMs = this.#retryMs;
    this.#retryMs = Math.min(LAST_RETRY_MS, retryInMs * 2);
    this.#options.onEvent({ type: 'failed', reason, retryInMs });
    this.#retry = setTimeout(() => {
      this.#startGeneration().catch((error: unknown) =>
        this.#recover(error instanceof Error ? error.message : String(error)),
      );
    }, retryInMs);
  }

  async #endGeneration(): Promise<void> {
    const generation = this.#generation;
    this.#generation = undefined;
    if (generation === undefined) return;
    Atomics.store(generation.stop, 0, 1);
    generation.descriptors.signalStop();
    const timeout = AbortSignal.timeout(STOP_TIMEOUT_MS);
    await Promise.race([
      generation.exited,
      new Promise((resolve) => timeout.addEventListener('abort', resolve, { once: true })),
    ]);
    // Descriptors are closed only after the workers are gone: a closed number may be given to another file.
    await Promise.all(generation.workers.map((worker) => worker.terminate()));
    generation.descriptors[Symbol.dispose]();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stopped = true;
    clearTimeout(this.#retry);
    clearInterval(this.#expiry);
    this.#failure = 'stopped';
    this.#prepared?.[Symbol.dispose]();
    this.#prepared = undefined;
    await this.#endGeneration();
  }
}
