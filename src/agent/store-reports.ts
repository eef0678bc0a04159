import type { FlanneldOptions } from '../config/flanneld-options.ts';
import type { RecordEvent } from '../events/event.ts';
import type { Log } from '../log/log.ts';
import { describeReport, type ReportSink, type SubnetReport } from '../subnet/report.ts';
import { eventOfReport } from './agent-events.ts';
import type { AgentFigures } from './agent-figures.ts';
import { EntryLines } from './entry-lines.ts';
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
  readonly #unreadable: EntryLines;
  readonly #failed = Promise.withResolvers<false>();

  /** @param now of a clock that goes on, in milliseconds. */
  constructor(parts: StoreReportsParts, now?: () => number) {
    this.#parts = parts;
    this.#unreadable = new EntryLines(now);
  }

  /** Resolves once the store could not be reached. */
  get failed(): Promise<false> {
    return this.#failed.promise;
  }

  readonly take: ReportSink = (entry) => {
    const { options, figures, readiness, failures, record, isCarrying } = this.#parts;
    const event = eventOfReport(entry, describeStore(options), figures.storeReachable);
    figures.countReport(entry);
    const unsaid = entry.type === 'entry-unreadable' ? this.#unreadable.next() : 0;
    if (unsaid === undefined) return;
    if (event !== undefined) record(event);
    const { severity, text } = this.#log(entry, unsaid);
    if (severity === 'warning' || severity === 'error') failures.waiting(text);
    if (entry.type !== 'store-failed') return;
    this.#failed.resolve(false);
    if (!isCarrying()) readiness.waiting(text);
  };

  #log(entry: SubnetReport, unsaid: number): ReturnType<typeof describeReport> {
    const { log } = this.#parts;
    const { severity, text: said } = describeReport(entry);
    const text = unsaid === 0 ? said : `${said} (${unsaid} more could not be read and were not logged)`;
    if (severity === 'debug') log.verbose(1, text);
    else if (severity === 'info') log.info(text);
    else if (severity === 'warning') log.warn(text);
    else log.error(text);
    return { severity, text };
  }
}
