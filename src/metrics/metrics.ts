import type { Counter, Gauge, Registry } from 'prom-client';
import { METRICS, type Sample } from './definitions.ts';
import { EventLoopLag } from './event-loop-lag.ts';
import type { MetricsSnapshot } from './snapshot.ts';

export interface Metrics extends Disposable {
  /** Prometheus' text format 0.0.4. `snapshot` is called once, so that all figures are of one moment. */
  render(): Promise<string>;
}

/**
 * All metrics of the agent. Nothing is kept between two scrapes: series of a peer that has gone are gone too.
 *
 * @param snapshot called at each scrape, on the control plane's thread; must be quick and must not throw.
 */
export function createMetrics(snapshot: () => MetricsSnapshot): Metrics {
  const lag = new EventLoopLag();
  let current: MetricsSnapshot;
  let filling: Promise<Registry> | undefined;
  // An agent that nobody asks does not load the library, which brings clients of HTTPS with it.
  const fill = async (): Promise<Registry> => {
    const { Counter, Gauge, Registry } = await import('prom-client');
    const registry = new Registry();
    const register = (
      definition: { name: string; type: 'counter' | 'gauge'; help: string; labels: readonly string[] },
      read: () => Iterable<Sample>,
    ) => {
      const options = {
        name: definition.name,
        help: definition.help,
        labelNames: [...definition.labels],
        registers: [registry],
      };
      const refresh = (metric: Counter<string> | Gauge<string>): void => {
        metric.reset();
        // reset() gives a metric without labels the value 0, and what is not known must not show as that.
        if (definition.labels.length === 0) metric.remove();
        for (const { value, labels } of read()) metric.inc({ ...labels }, value);
      };
      if (definition.type === 'counter') {
        const counter: Counter<string> = new Counter({ ...options, collect: () => refresh(counter) });
      } else {
        const gauge: Gauge<string> = new Gauge({ ...options, collect: () => refresh(gauge) });
      }
    };
    for (const definition of METRICS) register(definition, () => definition.read(current));
    register(EventLoopLag.definition, () => lag.read());
    return registry;
  };
  return {
    async render() {
      filling ??= fill();
      const registry = await filling;
      current = snapshot();
      return await registry.metrics();
    },
    [Symbol.dispose]() {
      lag[Symbol.dispose]();
    },
  };
}
