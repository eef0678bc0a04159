import { monitorEventLoopDelay } from 'node:perf_hooks';
import type { Sample } from './definitions.ts';

/** How often the loop is probed: a lag is seen with certainty from there on. */
const RESOLUTION_MS = 100;

const QUANTILES = [50, 99, 100] as const;

/** How late timers fire in the control plane's thread. The data plane has threads of its own and does not show here. */
export class EventLoopLag implements Disposable {
  static readonly definition = {
    name: 'weft_event_loop_lag_seconds',
    type: 'gauge',
    help: 'Delay of control plane timers since the last scrape: median, 99th percentile and maximum.',
    labels: ['quantile'],
  } as const;

  readonly #histogram = monitorEventLoopDelay({ resolution: RESOLUTION_MS });

  /** Starts over: each call tells of the time since the one before. Nothing is probed, ten times a second, before the first. */
  read(): Sample[] {
    this.#histogram.enable();
    const samples = QUANTILES.map((percent) => ({
      // The histogram holds the whole time between two probes.
      value:
        this.#histogram.count === 0 ? 0 : Math.max(0, this.#histogram.percentile(percent) / 1e9 - RESOLUTION_MS / 1e3),
      labels: { quantile: String(percent / 100) },
    }));
    this.#histogram.reset();
    return samples;
  }

  [Symbol.dispose](): void {
    this.#histogram.disable();
  }
}
