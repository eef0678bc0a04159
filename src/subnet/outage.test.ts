import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { Outage } from './outage.ts';
import { describeReport, type SubnetReport } from './report.ts';

/** Without chance: waits of 100, 200, 400, 800, 1600 … ms. */
function outageOf(reports: SubnetReport[]): Outage {
  const report = (entry: SubnetReport) => void reports.push(entry);
  return new Outage({ failure: 'Error asking', report, retry: { firstMs: 100, maxMs: 5_000 }, random: () => 0 });
}

describe('Outage', () => {
  it('tells an unchanged failure once while the attempts follow one another at once, and says the real pauses', () => {
    const reports: SubnetReport[] = [];
    const outage = outageOf(reports);
    for (let attempt = 0; attempt < 6; attempt++) outage.failed(new Error('no answer'));
    const told = reports.map(describeReport);
    assert.equal(reports.length, 6, 'every failure is counted');
    assert.deepEqual(
      told.map(({ severity, text }) => `${severity} ${text}`),
      [
        'error Error asking (trying again in 100ms): no answer',
        'debug Error asking (trying again in 200ms): no answer',
        'debug Error asking (trying again in 400ms): no answer',
        'debug Error asking (trying again in 800ms): no answer',
        'debug Error asking (trying again in 2s): no answer',
        'error Error asking (trying again in 3s): no answer',
      ],
    );
  });

  it('tells another failure, and the same one in the next outage', () => {
    const reports: SubnetReport[] = [];
    const outage = outageOf(reports);
    outage.failed(new Error('no answer'));
    outage.failed(new Error('refused'));
    outage.over();
    outage.failed(new Error('refused'));
    assert.deepEqual(
      reports.map((report) => describeReport(report).severity),
      ['error', 'error', 'info', 'error'],
    );
  });
});
