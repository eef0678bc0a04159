import { setTimeout as delay } from 'node:timers/promises';
import type { IpPrefix } from '../ip/address.ts';
import type { Log } from '../log/log.ts';
import { describeForwardDrop, type FirewallText, findForwardDrops } from '../trafficmngr/forward-drops.ts';

export interface ForwardDropWatchOptions {
  readonly networks: readonly IpPrefix[];
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
  /** Where, by what was said. */
  #said: ReadonlyMap<string, string> = new Map();

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
    const { networks, devices, log, read } = this.#options;
    const text = await read(signal);
    // A chain may drop those of both families, and each has a remedy of its own.
    const drops = networks.flatMap((network) => findForwardDrops(text, network, devices));
    const now = new Map(drops.map((drop) => [`${describeForwardDrop(drop)}. ${drop.hint}`, drop.where]));
    for (const line of now.keys()) if (!this.#said.has(line)) log.warn(line);
    const still = new Set(now.values());
    for (const where of new Set(this.#said.values()))
      if (!still.has(where)) log.info(`${where} no longer drops packets of containers`);
    this.#said = now;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort();
    await this.#running;
  }
}
