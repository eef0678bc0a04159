import { setTimeout as delay } from 'node:timers/promises';
import type { Ipv4Prefix } from '../ip/prefix.ts';
import type { Log } from '../log/log.ts';
import { describeForwardDrop, type FirewallText, findForwardDrops } from '../trafficmngr/forward-drops.ts';

export interface ForwardDropWatchOptions {
  readonly network: Ipv4Prefix;
  /** Of the overlay. */
  readonly devices: readonly string[];
  readonly log: Pick<Log, 'info' | 'warn'>;
  /** How often it looks: Docker, firewalld and others may start after the agent. */
  readonly intervalMs: number;
  readonly read: (signal: AbortSignal) => Promise<FirewallText>;
}

/** Says when another firewall of this host drops packets of containers, with the remedy, and when it does so no more. */
export class ForwardDropWatch implements AsyncDisposable {
  readonly #options: ForwardDropWatchOptions;
  readonly #stop = new AbortController();
  readonly #running: Promise<void>;
  #said = new Set<string>();

  constructor(options: ForwardDropWatchOptions) {
    this.#options = options;
    this.#running = this.#run(this.#stop.signal);
  }

  async #run(signal: AbortSignal): Promise<void> {
    const { intervalMs } = this.#options;
    try {
      for (;;) {
        await this.#look(signal);
        await delay(intervalMs, undefined, { signal, ref: false });
      }
    } catch {
      // Only the signal ends it.
    }
  }

  async #look(signal: AbortSignal): Promise<void> {
    const { network, devices, log, read } = this.#options;
    const drops = findForwardDrops(await read(signal), network, devices);
    for (const drop of drops) {
      if (!this.#said.has(drop.where)) log.warn(`${describeForwardDrop(drop)}. ${drop.hint}`);
    }
    const now = new Set(drops.map(({ where }) => where));
    for (const where of this.#said) if (!now.has(where)) log.info(`${where} no longer drops packets of containers`);
    this.#said = now;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort();
    await this.#running;
  }
}
