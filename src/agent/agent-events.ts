import type { NewEvent } from '../events/event.ts';
import { leaseKey } from '../lease/lease.ts';
import { describeReport, type ReportSeverity, type SubnetReport } from '../subnet/report.ts';

const SEVERITY: Readonly<Record<ReportSeverity, NewEvent['severity']>> = {
  ...{ debug: 'info', info: 'info', warning: 'warning', error: 'error' },
};

/**
 * What a subnet manager reports, as an event; `undefined` for what is of no interest later.
 * @param wasReachable whether the store answered last: an outage is one event, however often it is tried.
 */
export function eventOfReport(report: SubnetReport, store: string, wasReachable: boolean): NewEvent | undefined {
  const { severity, text } = describeReport(report);
  const event = (kind: NewEvent['kind'], subject: string, revision?: number): NewEvent => {
    return { ...{ kind, severity: SEVERITY[severity], subject, text }, revision };
  };
  switch (report.type) {
    case 'lease-reused':
    case 'lease-allocated':
      return event('lease-acquired', keyText(report.lease), report.lease.origin?.since);
    case 'lease-renewed':
      return event('lease-renewed', keyText(report.lease));
    case 'lease-retaken':
      return event('lease-retaken', keyText(report.lease));
    case 'entry-unreadable':
      return { ...event('entry-unreadable', report.key), cause: report.reason };
    case 'store-failed':
      return wasReachable ? { ...event('store-away', store), severity: 'error' } : undefined;
    case 'store-answered':
      return event('store-back', store);
    default:
      return undefined;
  }
}

function keyText(lease: Parameters<typeof leaseKey>[0]): string {
  return leaseKey(lease).replaceAll('-', '/');
}
