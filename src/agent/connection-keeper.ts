import { setTimeout as delay } from 'node:timers/promises';
import { describeError } from '../errors.ts';
import { formatAddr, type IpAddr } from '../ip/address.ts';
import type { Log } from '../log/log.ts';
import type { ConnectionCloser } from './ports.ts';

const SETTLE_MS = 20;

export interface ConnectionKeeperOptions {
  readonly connections: ConnectionCloser;
  /** All addresses of this host. */
  readonly addresses: (signal: AbortSignal) => Promise<readonly IpAddr[]>;
  /** An address or a default route has come or gone. The first comes at once. */
  readonly notices: (signal: AbortSignal) => AsyncIterable<void>;
  /** Called after each notice: what could not be reached before may be within reach. */
  readonly retryNow: () => void;
  readonly log: Pick<Log, 'warn'>;
}

/**
 * Closes connections at once whose own address has gone from the host, so that stores are asked again over new ones instead of
 * waiting for answers that cannot come; and has whoever waits to try again do so when the host has another address or route.
 */
export class ConnectionKeeper implements AsyncDisposable {
  readonly #options: ConnectionKeeperOptions;
  readonly #stop = new AbortController();
  readonly #running: Promise<void>;

  constructor(options: ConnectionKeeperOptions) {
    this.#options = options;
    this.#running = this.#run(this.#stop.signal);
  }

  /** Never rejects. */
  async #run(signal: AbortSignal): Promise<void> {
    const { connections, addresses, notices, retryNow, log } = this.#options;
    for await (const _ of notices(signal)) {
      try {
        const own = new Set((await addresses(signal)).map(formatAddr));
        for (const [address, count] of connections.keepOnly(own)) {
          log.warn(`Closed ${count} TCP connections from the address ${address}, which this host no longer has`);
        }
      } catch (error) {
        if (signal.aborted) return;
        log.warn(`Could not check for connections from removed addresses: ${describeError(error)}`);
      }
      // Whoever lost a connection begins to wait only now.
      await delay(SETTLE_MS);
      retryNow();
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort(new Error('the agent ended'));
    await this.#running;
  }
}
