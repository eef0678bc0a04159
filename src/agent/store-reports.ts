import type { FlanneldOptions } from '../config/flanneld-options.ts';
import type { RecordEvent } from '../events/event.ts';
import type { Log } from '../log/log.ts';
import { describeReport, type ReportSink, type SubnetReport } from '../subnet/report.ts';
import { eventOfReport } from './agent-events.ts';
import type { AgentFigures } from './agent-figures.ts';
import type { NodeReadiness } from './readiness.ts';
import type { StartupFailures } from './startup-failures.ts';
import { describeStore } from './store-name.ts';

export interface StoreReportsParts {
  readonly options: FlanneldOptions;
  readonly figures: Pick<AgentFigures, 'countReport' | 'storeReachable'>;
  readonly readiness: Pick<NodeReadiness, 'waiting'>;
  readonly failures: Pick<StartupFailures, 'waiting'>;
  readonly record: RecordEvent;
  /** Whether packets of a subnet are carried, whatever the store says. */
  readonly isCarrying: () => boolean;
  readonly log: Log;
}

/** What the subnet manager reports, told wherever people look: log, events, metrics, readiness, the file for the CNI plugin. */
export class StoreReports {
  readonly #parts: StoreReportsParts;
  readonly #failed = Promise.withResolvers<false>();

  constructor(parts: StoreReportsParts) {
    this.#parts = parts;
  }

  /** Resolves once the store could not be reached. */
  get failed(): Promise<false> {
    return this.#failed.promise;
  }

  readonly take: ReportSink = (entry) => {
    const { options, figures, readiness, failures, record, isCarrying } = this.#parts;
    const event = eventOfReport(entry, describeStore(options), figures.storeReachable);
    if (event !== undefined) record(event);
    figures.countReport(entry);
    const { severity, text } = this.#log(entry);
    if (severity === 'warning' || severity === 'error') failures.waiting(text);
    if (entry.type !== 'store-failed') return;
    this.#failed.resolve(false);
    if (!isCarrying()) readiness.waiting(text);
  };

  #log(entry: SubnetReport): ReturnType<typeof describeReport> {
    const { log } = this.#parts;
    const described = describeReport(entry);
    const { severity, text } = described;
    if (severity === 'debug') log.verbose(1, text);
    else if (severity === 'info') log.info(text);
    else if (severity === 'warning') log.warn(text);
    else log.error(text);
    return described;
  }
}
