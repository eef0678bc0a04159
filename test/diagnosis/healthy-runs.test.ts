import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { Bed, HOSTS } from './bed.ts';

/** `make healthy-runs RUNS=1000` for the figure of docs/DIAGNOSIS.md. */
const RUNS = Number(process.env.WEFT_HEALTHY_RUNS ?? 5);

describe('weft test on three hosts on which nothing is wrong', () => {
  let bed: Bed;
  before(async () => {
    assert.ok(Number.isInteger(RUNS) && RUNS > 0, 'WEFT_HEALTHY_RUNS is a count');
    bed = await Bed.create('udp', new AbortController().signal);
    await bed.allHealthy();
  });
  after(() => bed?.[Symbol.asyncDispose]());

  it(`raises no false alarm in ${RUNS} runs`, async (t) => {
    const alarms: string[] = [];
    const raise = (alarm: string): void => {
      alarms.push(alarm);
      process.stderr.write(`${alarm}\n`);
    };
    const warnings = new Map<string, number>();
    for (let run = 1; run <= RUNS; run++) {
      const reports = await Promise.all(HOSTS.map((name) => bed.test(name)));
      for (const [at, { problems, paths }] of reports.entries()) {
        // Two peers, each from the host and, unless a busy machine made none in time, from a container.
        if (!problems.some(({ fault }) => fault === 'test-container')) assert.equal(paths.length, 4);
        for (const { severity, where, fault, cause } of problems) {
          if (severity === 'error') raise(`run ${run}, ${HOSTS[at]}: ${where}: ${fault}: ${cause}`);
          else warnings.set(`${fault}: ${cause}`, (warnings.get(`${fault}: ${cause}`) ?? 0) + 1);
        }
      }
      // A diagnostic is shown at the end, which may be an hour away, and so is what the assertion says.
      if (run % 50 === 0) process.stderr.write(`${run} runs, ${alarms.length} alarms\n`);
    }
    t.diagnostic(`${RUNS} runs, ${alarms.length} alarms, warnings ${JSON.stringify([...warnings])}`);
    assert.deepEqual(alarms, []);
  });
});
