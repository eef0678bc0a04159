import { Worker } from 'node:worker_threads';
import { describeError, WeftError } from '../errors.ts';
import type { IpAddr } from '../ip/address.ts';
import type { Addresses } from '../ip/family.ts';
import { type Ipv6Addr, putIpv6 } from '../ip/ipv6.ts';
import { Counters, type Direction, type PeerCounters } from './counters.ts';
import type { DestinationCheck } from './destination-check.ts';
import type { FastPathTables } from './fast-path/fast-path-tables.ts';
import { LocalAddresses } from './local-addresses.ts';
import { LocalAddresses6 } from './local-addresses6.ts';
import { PeerTable, type PeerTableContent } from './peer-table.ts';
import type { Slot } from './peer-table-layout.ts';
import { Refusals } from './refusals.ts';
import { RefusedSenders } from './refused-senders.ts';
import type { SourceCheck } from './source-check.ts';
import type { WorkerInput, WorkerMessage } from './worker-protocol.ts';

/** What the forwarder holds of the host while it runs. Made by linux/ adapters, wired in cmd/. */
export interface ForwarderDescriptors extends Disposable {
  readonly tunFd: number;
  readonly udpSegmentation: boolean;
  readonly socketFd: number;
  /** Version of IP between the hosts. */
  readonly underlay: 4 | 6;
  /** Raw sockets, below 0 when there is none. */
  readonly icmpFd: number;
  readonly icmp6Fd: number;
  readonly stopFd: number;
  /** Wakes every worker that waits, for good. */
  signalStop(): void;
  /** Called before the workers are told to stop, and while they run: what goes on without them has to know it first. May be called again. */
  ending(): void;
  /**
   * Called once both workers run: what is to outlive this process may be made so now. A start that fails has then left
   * nothing behind. May throw WeftError.
   */
  started(): void;
}

export type ForwarderEvent =
  | { readonly type: 'started' }
  | { readonly type: 'failed'; readonly reason: string; readonly retryInMs: number }
  /**
   * A worker sits in a call that it does not come back from. Its descriptors cannot be closed, nothing is started any more,
   * and no exit that waits for threads ends this process: only another process can carry packets.
   */
  | { readonly type: 'stuck'; readonly reason: string };

export interface ForwarderOptions {
  /** Entry of the worker threads. */
  readonly workerUrl: URL;
  /** Opens the TUN device and the sockets; called again after a loss. */
  readonly open: () => ForwarderDescriptors;
  readonly sourceCheck: SourceCheck;
  readonly destinationCheck: DestinationCheck;
  /** Datagrams that the kernel dropped because the socket had no room. */
  readonly socketDrops?: () => number | undefined;
  /** Peers and counters of the fast path in the kernel, where there is one; ends with the forwarder. */
  readonly fastPath?: FastPathTables | undefined;
  /** Buffers of SignalQueue, by which the packet workers tell the fast path what has passed the socket. */
  readonly signals?: Readonly<Record<Direction, SharedArrayBuffer>> | undefined;
  readonly onEvent: (event: ForwarderEvent) => void;
}

/** Peers at most, slot 0 excluded. Memory is touched only as far as it is used. */
export const MAX_PEERS = 65_535;
const FIRST_RETRY_MS = 100;
const LAST_RETRY_MS = 5_000;
/** A forwarder that ran this long was sound: the next loss is a new one, and is retried at once. */
const SOUND_MS = 10_000;
/** A worker that waits leaves in 5 ms. One that turns or starts is terminated then, which takes little longer. */
const STOP_TIMEOUT_MS = 750;
const TERMINATE_TIMEOUT_MS = 500;
/** As the kernel's net.ipv4.route.mtu_expires. */
const PATH_MTU_TTL_MS = 600_000;

interface Generation {
  readonly descriptors: ForwarderDescriptors;
  readonly stop: Int32Array;
  readonly workers: readonly Worker[];
  /** Of each worker; grows with them. */
  readonly exits: readonly Promise<void>[];
  /** `ended` comes before the workers are gone. */
  phase: 'starting' | 'running' | 'ended';
  runningSinceMs: number;
}

/**
 * The data plane as the control plane sees it: two packet workers, one a direction, that share memory with this thread and
 * nothing else. When one dies, or the TUN device is deleted under it, everything is opened and started again; table
 * and counters stay.
 */
export class Forwarder implements AsyncDisposable {
  readonly counters: Counters = Counters.allocate(MAX_PEERS + 1);
  readonly table: PeerTable = PeerTable.allocate(MAX_PEERS + 1);
  /** Filled by whoever knows this host's addresses; none until then. */
  readonly localAddresses: LocalAddresses = LocalAddresses.allocate();
  readonly localAddresses6: LocalAddresses6 = LocalAddresses6.allocate();
  readonly refusedSenders: RefusedSenders = RefusedSenders.allocate();
  readonly refusals: Refusals = new Refusals();
  readonly #options: ForwarderOptions;
  #prepared: ForwarderDescriptors | undefined;
  /** This host on the overlay: the base addresses of its subnets. */
  #own: Addresses = { ipv4: undefined, ipv6: undefined };
  #generation: Generation | undefined;
  /** Settles when nothing of earlier generations is left; never rejects. */
  #ending: Promise<void> = Promise.resolve();
  /** Grows with everything that decides anew what happens next, so that what was decided before is not done any more. */
  #decision = 0;
  #failure: string | undefined = 'not started';
  #retryMs = FIRST_RETRY_MS;
  #retry: NodeJS.Timeout | undefined;
  readonly #expiry: NodeJS.Timeout;
  #publications = 0;
  #publishedAtMs: number | undefined;

  constructor(options: ForwarderOptions) {
    this.#options = options;
    this.#expiry = setInterval(() => this.table.forgetPathMtus(), PATH_MTU_TTL_MS).unref();
  }

  /** Why packets do not flow; `undefined` when they do. */
  get failure(): string | undefined {
    return this.#failure;
  }

  /** Datagrams of peers that the socket had no room for; `undefined` when that is not known. */
  socketDrops(): number | undefined {
    return this.#options.socketDrops?.();
  }

  publish(content: PeerTableContent): void {
    this.table.publish(content);
    this.refusals.peersAre(content);
    this.#options.fastPath?.publish(content);
    this.#publications++;
    this.#publishedAtMs = Date.now();
  }

  /** What went to and came from a peer, by the packet workers and by the fast path. */
  traffic(slot: Slot): Record<Direction, PeerCounters> {
    const fast = this.#options.fastPath?.read(slot);
    const both = (direction: Direction): PeerCounters => {
      const { packets, bytes, drops } = this.counters.read(slot, direction);
      if (fast === undefined) return { packets, bytes, drops };
      return { packets: packets + fast[direction].packets, bytes: bytes + fast[direction].bytes, drops };
    };
    return { tx: both('tx'), rx: both('rx') };
  }

  /** Whether packets to that host may take the fast path now. */
  isFast(address: IpAddr): boolean {
    return this.#options.fastPath?.sendsTo(address, process.hrtime.bigint()) === true;
  }

  /** A slot that is given to another peer starts at zero. The workers must no longer see the old peer. */
  clearTraffic(slot: Slot): void {
    this.counters.clear(slot);
    this.#options.fastPath?.clear(slot);
  }

  /** How often the peer table was written, and when last, in milliseconds since the epoch. */
  get published(): { readonly times: number; readonly lastAtMs: number | undefined } {
    return { times: this.#publications, lastAtMs: this.#publishedAtMs };
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
   * by `onEvent`. When this fails nothing is retried.
   * @param own sources of ICMP errors, the addresses of the TUN device.
   * @throws WeftError of the adapters, or WEFT_FORWARDER_FAILED. The reason of `signal` when that fired.
   */
  async start(own: Addresses, signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    this.#own = own;
    const decision = this.#decide();
    await this.#end();
    const cancel = (): void => {
      if (decision === this.#decision) void this.#end();
    };
    signal.addEventListener('abort', cancel, { once: true });
    try {
      if (decision !== this.#decision) throw superseded();
      signal.throwIfAborted();
      await this.#begin();
    } catch (error) {
      signal.throwIfAborted();
      throw error;
    } finally {
      signal.removeEventListener('abort', cancel);
    }
  }

  /** From here on only the caller says what happens next. */
  #decide(): number {
    clearTimeout(this.#retry);
    return ++this.#decision;
  }

  async #begin(): Promise<void> {
    const descriptors = this.#prepared ?? this.#options.open();
    this.#prepared = undefined;
    const stop = new Int32Array(new SharedArrayBuffer(4));
    const input = {
      tunFd: descriptors.tunFd,
      socketFd: descriptors.socketFd,
      underlay: descriptors.underlay,
      icmpFd: descriptors.icmpFd,
      icmp6Fd: descriptors.icmp6Fd,
      stopFd: descriptors.stopFd,
      table: this.table.buffer,
      tableCapacity: this.table.capacity,
      counters: this.counters.buffer,
      stop: stop.buffer,
      lastStep: new SharedArrayBuffer(8),
      ownAddress: this.#own.ipv4 ?? 0,
      ownAddress6: this.#own.ipv6 === undefined ? undefined : bytesOf(this.#own.ipv6),
      sourceCheck: this.#options.sourceCheck,
      destinationCheck: this.#options.destinationCheck,
      localAddresses: this.localAddresses.buffer,
      localAddresses6: this.localAddresses6.buffer,
      refusedSenders: this.refusedSenders.buffer,
      udpSegmentation: descriptors.udpSegmentation,
    };
    const workers: Worker[] = [];
    const exits: Promise<void>[] = [];
    const generation: Generation = {
      descriptors,
      stop,
      workers,
      exits,
      phase: 'starting',
      runningSinceMs: 0,
    };
    this.#generation = generation;
    try {
      for (const direction of ['tx', 'rx'] as const) {
        const workerData: WorkerInput = { ...input, direction, signals: this.#options.signals?.[direction] };
        const worker = new Worker(this.#options.workerUrl, { workerData, name: `forwarder-${direction}` });
        workers.push(worker);
        exits.push(new Promise((resolve) => worker.once('exit', () => resolve())));
      }
      await this.#untilReady(generation);
      descriptors.started();
    } catch (error) {
      await this.#end();
      throw error;
    }
    generation.phase = 'running';
    generation.runningSinceMs = performance.now();
    this.#failure = undefined;
    this.#options.onEvent({ type: 'started' });
  }

  /** Resolves when both workers are ready; a failure after that is recovered from. */
  #untilReady(generation: Generation): Promise<void> {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    let waitingFor = generation.workers.length;
    const fail = (reason: string, cause?: unknown): void => {
      if (generation.phase === 'running') this.#recover(reason, generation);
      else if (generation.phase === 'ended') reject(superseded());
      else reject(new WeftError('WEFT_FORWARDER_FAILED', `packet worker failed to start: ${reason}`, { cause }));
    };
    for (const worker of generation.workers) {
      worker.on('message', (message: WorkerMessage) => {
        if (message.type === 'lost') fail(message.what === 'tun' ? 'the TUN device is gone' : 'the UDP socket failed');
        else if (--waitingFor === 0 && generation.phase === 'starting') resolve();
      });
      worker.on('error', (error) =>
        fail(error instanceof Error ? (error.stack ?? error.message) : String(error), error),
      );
      // `threadName` is gone with the thread.
      const name = worker.threadName ?? 'worker';
      worker.on('exit', () => fail(`${name} ended`));
    }
    return promise;
  }

  #recover(reason: string, generation?: Generation): void {
    if (generation !== undefined && performance.now() - generation.runningSinceMs > SOUND_MS) {
      this.#retryMs = FIRST_RETRY_MS;
    }
    this.#failure = reason;
    const decision = this.#decide();
    const retryInMs = this.#retryMs;
    this.#retryMs = Math.min(LAST_RETRY_MS, retryInMs * 2);
    void this.#end().then(() => {
      if (decision !== this.#decision) return;
      this.#options.onEvent({ type: 'failed', reason, retryInMs });
      this.#retry = setTimeout(() => void this.#retryNow(decision), retryInMs);
    });
  }

  async #retryNow(decision: number): Promise<void> {
    try {
      await this.#begin();
    } catch (error) {
      if (decision === this.#decision) this.#recover(describeError(error));
    }
  }

  /** Ends what runs and closes its descriptors; resolves when that and all earlier endings are done. */
  #end(): Promise<void> {
    const generation = this.#generation;
    this.#generation = undefined;
    if (generation !== undefined) {
      generation.phase = 'ended';
      generation.descriptors.ending();
      Atomics.store(generation.stop, 0, 1);
      generation.descriptors.signalStop();
      this.#ending = Promise.all([this.#ending, close(generation)]).then(([, stuck]) => {
        if (stuck) this.#giveUp();
      });
    }
    return this.#ending;
  }

  #giveUp(): void {
    this.#decide();
    this.#failure = 'a packet worker did not stop when it was told to';
    this.#options.onEvent({ type: 'stuck', reason: this.#failure });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#decide();
    clearInterval(this.#expiry);
    this.#failure = 'stopped';
    this.#prepared?.[Symbol.dispose]();
    this.#prepared = undefined;
    await this.#end();
    this.#options.fastPath?.[Symbol.dispose]();
  }
}

function bytesOf(address: Ipv6Addr): Uint8Array {
  const view = new DataView(new ArrayBuffer(16));
  putIpv6(view, 0, address);
  return new Uint8Array(view.buffer);
}

/** @returns whether a worker is stuck: then the descriptors stay open, for a closed number may be given to another file. */
async function close({ descriptors, workers, exits }: Generation): Promise<boolean> {
  const exited = Promise.all(exits).then(() => true);
  if (!(await within(STOP_TIMEOUT_MS, exited))) {
    // Never comes back for a thread that is blocked in a foreign call.
    for (const worker of workers) void worker.terminate().catch(() => {});
    if (!(await within(TERMINATE_TIMEOUT_MS, exited))) return true;
  }
  descriptors[Symbol.dispose]();
  return false;
}

/** `undefined` when it takes longer. */
async function within<T>(ms: number, promise: Promise<T>): Promise<T | undefined> {
  const { promise: timedOut, resolve } = Promise.withResolvers<undefined>();
  const timer = setTimeout(resolve, ms, undefined);
  try {
    return await Promise.race([promise, timedOut]);
  } finally {
    clearTimeout(timer);
  }
}

function superseded(): WeftError {
  return new WeftError('WEFT_FORWARDER_FAILED', 'the forwarder was stopped while it started');
}
