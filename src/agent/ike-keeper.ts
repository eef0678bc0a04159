import { setTimeout as delay } from 'node:timers/promises';
import { isDeepStrictEqual } from 'node:util';
import { describeError, WeftError } from '../errors.ts';
import {
  type IkeConnection,
  type IkeDaemon,
  type IkeSession,
  type IkeSettings,
  type IkeTunnel,
  NO_TUNNEL,
} from '../ike/ike.ts';
import type { LeaseKey } from '../lease/lease.ts';
import type { Log } from '../log/log.ts';

/** A daemon that does not stay is started ever more rarely, down to {@link LONGEST_RETRY_MS}. */
const RETRY_MS = 1_000;
const LONGEST_RETRY_MS = 30_000;
/** How often tunnels are looked at; soon after a change, and then ever more rarely. */
const LOOK_MS = 10_000;
const FIRST_LOOK_MS = 500;

export interface IkeKeeperOptions {
  readonly daemon: IkeDaemon;
  readonly settings: IkeSettings;
  readonly log: Pick<Log, 'info' | 'error'>;
  /** Before the first start after an end; default {@link RETRY_MS}. */
  readonly retryMs?: number | undefined;
  /** Default {@link LOOK_MS}. */
  readonly lookMs?: number | undefined;
}

/**
 * Runs the IKE daemon of this host for as long as the agent lives, and has it agree with every peer on keys: what is wanted is told
 * it when it starts and as it changes, a peer at a time. A daemon that ends is started again. A tunnel that came to nothing is tried
 * again at the next look: the peer may not have known of this host yet.
 */
export class IkeKeeper implements AsyncDisposable {
  readonly #options: IkeKeeperOptions;
  readonly #stop = new AbortController();
  readonly #wanted = new Map<LeaseKey, IkeConnection>();
  #tunnels: ReadonlyMap<string, IkeTunnel> = new Map();
  #failure: string | undefined = 'the IKE daemon charon has not started yet';
  #running: Promise<void> | undefined;
  #changed = Promise.withResolvers<void>();

  constructor(options: IkeKeeperOptions) {
    this.#options = options;
  }

  /** Why no tunnel can be had; a tunnel to a single peer is none of its matter, see {@link tunnel}. */
  get failure(): string | undefined {
    return this.#failure;
  }

  /** Changes nothing. @throws WeftError WEFT_CHARON_MISSING. */
  async prepare(signal: AbortSignal): Promise<void> {
    await this.#options.daemon.find(signal);
  }

  /** Starts the daemon, soon; without effect when it runs. */
  start(): void {
    if (!this.#stop.signal.aborted) this.#running ??= this.#run(this.#stop.signal);
  }

  /** What one peer needs; `undefined` takes it away. Takes effect soon. */
  setPeer(key: LeaseKey, connection: IkeConnection | undefined): void {
    if (isDeepStrictEqual(this.#wanted.get(key), connection)) return;
    if (connection === undefined) this.#wanted.delete(key);
    else this.#wanted.set(key, connection);
    this.#changed.resolve();
  }

  /** The tunnel of a peer, as of the last look; `undefined` for one that has none to be. */
  tunnel(key: LeaseKey): (IkeTunnel & { readonly problem: string | undefined }) | undefined {
    const connection = this.#wanted.get(key);
    if (connection === undefined) return undefined;
    const tunnel = this.#tunnels.get(connection.name) ?? NO_TUNNEL;
    const why = this.#failure;
    const problem = tunnel.isUp ? undefined : `its IPsec tunnel is not up${why === undefined ? '' : `: ${why}`}`;
    return { ...tunnel, problem };
  }

  /** Of all peers that are to have one. */
  *tunnels(): Iterable<readonly [LeaseKey, IkeTunnel]> {
    for (const [key, { name }] of this.#wanted) yield [key, this.#tunnels.get(name) ?? NO_TUNNEL];
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort(new Error('the agent ended'));
    this.#changed.resolve();
    await this.#running;
  }

  /** Never rejects. */
  async #run(signal: AbortSignal): Promise<void> {
    const { daemon, log, retryMs = RETRY_MS } = this.#options;
    let waitMs = retryMs;
    while (!signal.aborted) {
      try {
        await using session = await daemon.start(signal);
        log.info('charon is running');
        waitMs = retryMs;
        await this.#serve(session, signal);
      } catch (error) {
        if (signal.aborted) return;
        const failure = describeError(error);
        if (failure !== this.#failure) log.error(failure);
        this.#failure = failure;
      }
      this.#tunnels = new Map();
      await delay(waitMs, undefined, { signal }).catch(() => {});
      waitMs = Math.min(waitMs * 2, LONGEST_RETRY_MS);
    }
  }

  /** Until the session has ended. @throws WeftError WEFT_CHARON_FAILED; the signal's reason. */
  async #serve(session: IkeSession, signal: AbortSignal): Promise<void> {
    const { settings, lookMs = LOOK_MS } = this.#options;
    let ended: string | undefined;
    void session.ended.then((why) => {
      ended = why;
      this.#changed.resolve();
    });
    await session.loadKey(settings.presharedKey, signal);
    const loaded = new Map<string, IkeConnection>();
    let idle: ReadonlySet<string> = new Set();
    let waitMs = 0;
    while (ended === undefined) {
      this.#changed = Promise.withResolvers();
      const isChanged = await this.#load(session, loaded, signal);
      this.#tunnels = await session.tunnels(signal);
      idle = await this.#initiate(session, loaded, idle, signal);
      waitMs = Math.min(lookMs, isChanged ? FIRST_LOOK_MS : waitMs * 2);
      const look = setTimeout(() => this.#changed.resolve(), waitMs);
      await this.#changed.promise;
      clearTimeout(look);
      signal.throwIfAborted();
    }
    throw new WeftError('WEFT_CHARON_FAILED', `strongSwan's charon: ${ended}`, { hint: 'The agent starts it again.' });
  }

  /** @returns whether there was anything to tell. */
  async #load(session: IkeSession, loaded: Map<string, IkeConnection>, signal: AbortSignal): Promise<boolean> {
    const { settings, log } = this.#options;
    const wanted = new Map(Array.from(this.#wanted.values(), (connection) => [connection.name, connection]));
    let isChanged = false;
    let refusal: string | undefined;
    for (const [name, connection] of loaded) {
      if (isDeepStrictEqual(wanted.get(name), connection)) continue;
      isChanged = true;
      await session.unload(name, signal);
      loaded.delete(name);
    }
    for (const [name, connection] of wanted) {
      if (loaded.has(name)) continue;
      isChanged = true;
      try {
        await session.load(connection, settings, signal);
        loaded.set(name, connection);
      } catch (error) {
        signal.throwIfAborted();
        refusal ??= describeError(error);
      }
    }
    // What a connection says is the same for all peers but for addresses: the host's settings are at fault.
    if (refusal !== undefined && refusal !== this.#failure) log.error(refusal);
    this.#failure = refusal;
    return isChanged;
  }

  /**
   * Tries those again that were idle at the look before as well: one that was told a moment ago begins by itself.
   * @returns those that are idle.
   */
  async #initiate(
    session: IkeSession,
    loaded: ReadonlyMap<string, IkeConnection>,
    before: ReadonlySet<string>,
    signal: AbortSignal,
  ): Promise<ReadonlySet<string>> {
    const idle = new Set<string>();
    for (const [name, connection] of loaded) {
      if (this.#tunnels.get(name)?.isIdle === false) continue;
      // What comes of it shows at the next look.
      if (before.has(name)) await session.initiate(connection, signal).catch(() => signal.throwIfAborted());
      else idle.add(name);
    }
    return idle;
  }
}
