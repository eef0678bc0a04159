import type { NewEvent } from '../events/event.ts';
import { formatAddr } from '../ip/address.ts';
import { isSilence } from '../probe/diagnose.ts';
import type { FaultChange } from '../probe/fault-log.ts';
import { spanText } from '../time-span.ts';

/** What has become of the way to a peer, as an event. Pure. */
export function pathEvent({ target, diagnosis, before, lastedMs, isProbed, isOften }: FaultChange): NewEvent {
  const { id, underlay } = target;
  const peer = underlay === undefined ? id : `${id} (${formatAddr(underlay)})`;
  const often = isOften ? '; it changes often: what comes next is told once a minute' : '';
  if (diagnosis === undefined) {
    const lasted = `${before} for ${spanText(Math.max(1_000, lastedMs))}`;
    const text = isProbed
      ? `the path to ${peer} works again, after ${lasted}`
      : `${peer} is not probed any more: ${lasted}`;
    return { kind: 'path-recovered', severity: 'info', subject: id, text: `${text}${often}` };
  }
  const { fault, cause } = diagnosis;
  const [severity, what] = isSilence(fault)
    ? (['error', 'no packets get through to'] as const)
    : (['warning', 'some packets do not get through to'] as const);
  return { kind: 'path-fault', severity, subject: id, text: `${what} ${peer}: ${fault}${often}`, cause };
}
