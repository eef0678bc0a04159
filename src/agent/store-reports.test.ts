import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { parseFlanneldOptions } from '../config/flanneld-options.ts';
import type { NewEvent } from '../events/event.ts';
import { createLog } from '../log/log.ts';
import type { SubnetReport } from '../subnet/report.ts';
import { StoreReports } from './store-reports.ts';

const AWAY: SubnetReport = {
  ...{ type: 'store-failed', failure: 'list leases', error: new Error('connection refused'), retryInMs: 1_000 },
};

/** What the reports become, in each of the places. */
function told(isCarrying: boolean, now?: () => number) {
  const parsed = parseFlanneldOptions([], {});
  assert.ok(parsed.kind === 'run');
  const [lines, events, counted, waiting, failures]: string[][] = [[], [], [], [], []];
  const parts = {
    options: parsed.options,
    figures: { storeReachable: true, countReport: ({ type }: SubnetReport) => void counted!.push(type) },
    readiness: { waiting: (text: string | undefined) => void waiting!.push(text ?? '') },
    failures: { waiting: (text: string) => void failures!.push(text) },
    record: ({ kind }: NewEvent) => void events!.push(kind),
    isCarrying: () => isCarrying,
    log: createLog({ format: 'text', verbosity: 0, write: (line) => void lines!.push(line) }),
  };
  const reports = new StoreReports(parts, now);
  return { reports, lines: lines!, events: events!, counted: counted!, waiting: waiting!, failures: failures! };
}

describe('reports of the subnet manager', () => {
  it('of a store that is away are in the log, the events, the metrics and the file for the CNI plugin', async () => {
    const { reports, lines, events, counted, failures } = told(true);
    reports.take(AWAY);
    assert.match(lines.join(), /connection refused/);
    assert.deepEqual([events, counted], [['store-away'], ['store-failed']]);
    assert.match(failures.join(), /connection refused/);
    assert.equal(await reports.failed, false);
  });

  it('keep the node from being ready only while it carries no packets', () => {
    const [idle, carrying] = [told(false), told(true)];
    for (const { reports } of [idle, carrying]) reports.take(AWAY);
    assert.match(idle.waiting.join(), /connection refused/);
    assert.deepEqual(carrying.waiting, []);
  });

  it('of entries that cannot be read are some lines, events and writes to that file, however many there are; the metric counts all', () => {
    let nowMs = 0;
    const { reports, lines, events, counted, failures } = told(false, () => nowMs);
    const flood = (count: number): void => {
      for (let n = 0; n < count; n++) {
        reports.take({ type: 'entry-unreadable', key: `10.244.${n}.0-24`, reason: 'bad' });
      }
    };
    flood(10_000);
    assert.deepEqual([lines.length, events.length, failures.length, counted.length], [20, 20, 20, 10_000]);
    reports.take(AWAY);
    assert.match(failures.at(-1)!, /connection refused/);
    nowMs = 10_000;
    flood(2);
    assert.deepEqual([lines.length, events.length, failures.length, counted.length], [22, 22, 22, 10_003]);
    assert.match(lines.at(-1)!, /Skipping unreadable .*: bad \(9980 more could not be read and were not logged\)/);
  });

  it('that are no failure are only logged and counted, at their level', () => {
    const { reports, lines, counted, failures } = told(false);
    reports.take({ type: 'note', severity: 'info', text: 'the first' });
    reports.take({ type: 'note', severity: 'debug', text: 'the second' });
    reports.take({ type: 'note', severity: 'warning', text: 'the third' });
    assert.deepEqual(
      lines.map((line) => `${line[0]} ${/the \w+/.exec(line)?.[0]}`),
      ['I the first', 'W the third'],
    );
    assert.deepEqual([counted, failures], [['note', 'note', 'note'], ['the third']]);
  });
});
