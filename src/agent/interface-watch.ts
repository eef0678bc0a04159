import { isDeepStrictEqual } from 'node:util';
import type { ExternalInterface } from '../backend/backend.ts';
import { describeError } from '../errors.ts';
import { formatAddr } from '../ip/address.ts';
import { present } from '../ip/family.ts';
import type { Log } from '../log/log.ts';
import { ticker } from '../ticker.ts';
import { choiceLogLines } from '../underlay/explain-choice.ts';
import type { NetworkInterface } from '../underlay/host-network.ts';
import type { ChosenInterface } from '../underlay/interface-choice.ts';
import type { InterfaceInUse } from '../underlay/keep-interface.ts';
import { externalOf } from './external-interface.ts';

export interface InterfaceWatchOptions {
  /** What was chosen at the start. */
  readonly initial: ChosenInterface;
  /** Stays with what is in use if it may, else chooses anew. Rejects when no interface will do. */
  readonly choose: (inUse: InterfaceInUse, signal: AbortSignal) => Promise<ChosenInterface>;
  /** Something that may bear on the choice has happened on this host; see linux/link-monitor.ts. */
  readonly notices: (present: () => NetworkInterface, signal: AbortSignal) => AsyncIterable<void>;
  readonly log: Log;
  /** How long to wait after a notice: an address that is replaced is gone for a moment. Default 100. */
  readonly settleMs?: number;
  /** How often to try while no interface will do, since not all that matters gives notice. Default 3,000. */
  readonly retryMs?: number;
}

/**
 * Follows the external interface while the agent runs: its address or MTU may change, it may get another name, vanish and
 * come back. flannel looks once, at its start.
 */
export class InterfaceWatch implements AsyncDisposable {
  readonly #options: InterfaceWatchOptions;
  readonly #stop = new AbortController();
  readonly #running: Promise<void>;
  #looking: Promise<void> = Promise.resolve();
  #current: ExternalInterface;
  #link: NetworkInterface;
  /** Why none will do. */
  #lost: string | undefined;
  #change = new AbortController();

  constructor(options: InterfaceWatchOptions) {
    this.#options = options;
    this.#current = externalOf(options.initial);
    this.#link = options.initial.interface;
    this.#running = this.#run();
  }

  /** The interface to use; the last one while none will do. */
  get current(): ExternalInterface {
    return this.#current;
  }

  /** Whether it was administratively up at the last look. */
  get isUp(): boolean {
    return this.#link.up;
  }

  /** Why no packets can leave by it now: no interface will do, or it is down. */
  get failure(): string | undefined {
    return this.#lost ?? (this.isUp ? undefined : `${this.#link.name} is down`);
  }

  /** Fires when `current` has become another one, or one will do again after none did. A new signal from then on. */
  get changed(): AbortSignal {
    return this.#change.signal;
  }

  /** Looks now, without waiting for a notice. Looks never overlap. */
  look(): Promise<void> {
    this.#looking = this.#looking.then(() => this.#lookNow());
    return this.#looking;
  }

  async #run(): Promise<void> {
    const { notices, settleMs = 100, retryMs = 3_000 } = this.#options;
    const { signal } = this.#stop;
    using _retrying = ticker.every(retryMs, () => {
      if (this.failure !== undefined) void this.look();
    });
    for await (const _ of notices(() => this.#link, signal)) {
      await new Promise((resolve) => setTimeout(resolve, settleMs));
      await this.look();
    }
  }

  async #lookNow(): Promise<void> {
    const { choose, log } = this.#options;
    const { signal } = this.#stop;
    if (signal.aborted) return;
    let choice: ChosenInterface;
    try {
      choice = await choose(this.#current, signal);
    } catch (error) {
      if (signal.aborted) return;
      const text = describeError(error);
      if (text !== this.#lost) log.error(`The external interface can no longer be used: ${text}`);
      this.#lost = text;
      return;
    }
    const found = externalOf(choice);
    const { name, up } = choice.interface;
    if (up !== this.#link.up) log.warn(`The external interface ${name} is ${up ? 'up again' : 'down'}`);
    this.#link = choice.interface;
    const before = this.#current;
    const isBack = this.#lost !== undefined;
    this.#lost = undefined;
    if (isDeepStrictEqual(found, before) && !isBack) return;
    log.warn(
      `The external interface ${isBack ? 'can be used again' : 'has changed'}: ${describeExternal(found)}, before ${describeExternal(before)}`,
    );
    for (const line of choiceLogLines(choice)) log.info(line);
    this.#current = found;
    const change = this.#change;
    this.#change = new AbortController();
    change.abort(new Error('the external interface has changed'));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort(new Error('the interface watch ended'));
    await this.#running;
    await this.#looking;
  }
}

/** For logs: `eth0 with 192.0.2.7, MTU 1500`. */
export function describeExternal({ name, mtuBytes, publicAddresses }: ExternalInterface): string {
  const addresses = present(publicAddresses).map(formatAddr);
  return `${name} with ${addresses.join(' and ')}, MTU ${mtuBytes}`;
}
