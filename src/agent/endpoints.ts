import type { FlanneldOptions } from '../config/flanneld-options.ts';
import type { EventRing } from '../events/event-ring.ts';
import type { ProcessLog } from '../log/log.ts';
import { createMetrics } from '../metrics/metrics.ts';
import type { AgentFigures } from './agent-figures.ts';
import { endWith } from './hand-over.ts';
import { HealthPort } from './health-port.ts';
import { AgentInspection, type AgentView } from './inspection.ts';
import type { AgentHost } from './ports.ts';
import type { NodeReadiness } from './readiness.ts';
import { StateChanges } from './state-changes.ts';

export interface EndpointsParts {
  readonly host: Pick<AgentHost, 'hostName' | 'version' | 'serveApi' | 'examine'>;
  readonly options: FlanneldOptions;
  readonly log: ProcessLog;
  readonly figures: AgentFigures;
  readonly readiness: NodeReadiness;
  readonly events: EventRing;
  readonly view: () => AgentView;
  /** Everything that ends with the agent. */
  readonly stack: AsyncDisposableStack;
}

/** Where others look at the agent: the port with health and metrics, and the API. */
export class Endpoints {
  readonly #parts: EndpointsParts;
  #health: HealthPort | undefined;

  constructor(parts: EndpointsParts) {
    this.#parts = parts;
  }

  /** `undefined` when it was not asked for, or is not open yet. */
  get health(): HealthPort | undefined {
    return this.#health;
  }

  /** @throws WeftError WEFT_HEALTH_LISTEN */
  async openHealth(signal: AbortSignal): Promise<void> {
    const { options, figures, readiness, log, stack } = this.#parts;
    const { healthzPort: port, healthzIp: ip } = options;
    if (port <= 0) return;
    const metrics = stack.use(createMetrics(() => figures.snapshot()));
    const server = {
      ...{ ip, port, readiness: () => readiness.read(), metrics: () => metrics.render() },
      lists: new Map([
        ['/refusals', () => figures.forwarder?.refusals.recent(performance.now()) ?? []],
        ['/skipped-peers', () => figures.plane?.skipped.lines() ?? []],
      ]),
    };
    this.#health = stack.use(new HealthPort(server, log, signal));
    await this.#health.open();
  }

  /**
   * From now on the agent's events are recorded.
   * @returns what opens the API.
   */
  watch(signal: AbortSignal): () => Promise<void> {
    const { host, options, log, figures, readiness, events, view, stack } = this.#parts;
    const inspection = stack.use(
      new AgentInspection({
        ...{ hostName: host.hostName, version: host.version, options },
        ...{ figures, readiness, events, view, log, examine: (one) => host.examine(one) },
      }),
    );
    stack.use(
      new StateChanges({
        readiness,
        isConfigOutdated: () => figures.config?.isOutdated ?? false,
        record: (event) => events.add(event),
      }),
    );
    const text = `weft ${host.version} started with the subnet manager ${options.subnetManager}`;
    events.add({ kind: 'agent-started', severity: 'info', subject: host.hostName, text });
    return async () => await endWith(stack, await host.serveApi(inspection, (problem) => log.warn(problem), signal));
  }
}
