import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import {
  type AgentSample,
  agentGrowth,
  countersOf,
  goneBack,
  type HostsSample,
  hostsGrowth,
  notByFastPath,
  tooManyKeys,
} from './soak-checks.ts';

/** Twenty samples, ten seconds apart. */
function life(change: (index: number) => Partial<AgentSample>): AgentSample[] {
  const usual = { pid: 7, isFast: true, rssMiB: 90, anonymousMiB: 60, descriptors: 50, threads: 10 };
  return Array.from({ length: 20 }, (_, index) => ({ ...usual, ageMs: (index + 1) * 10_000, ...change(index) }));
}

describe('growth of an agent over its life', () => {
  it('is none when figures go up and down', () => {
    assert.deepEqual(
      agentGrowth(life((index) => ({ descriptors: 50 + (index % 3), anonymousMiB: 60 + (index % 9) }))),
      [],
    );
    assert.deepEqual(agentGrowth([]), []);
  });

  it('is that of descriptors and threads with the same state of the fast path', () => {
    assert.deepEqual(agentGrowth(life((index) => ({ descriptors: 50 + index }))), [
      'agent 7: descriptors grew from 56.0 to 67.0',
    ]);
    assert.deepEqual(agentGrowth(life((index) => ({ threads: index > 10 ? 11 : 10 }))), [
      'agent 7: threads grew from 10.0 to 11.0',
    ]);
    // Opened late, it has its own descriptors; closed at last, each time one more is left.
    assert.deepEqual(agentGrowth(life((index) => ({ isFast: index > 9, descriptors: index > 9 ? 70 : 50 }))), []);
    assert.deepEqual(
      agentGrowth(life((index) => ({ isFast: index % 2 === 0, descriptors: index % 2 === 0 ? 70 : 50 + index }))),
      ['agent 7: descriptors grew from 56.0 to 68.0'],
    );
  });

  it('is that of private memory, of which a young one may fill more', () => {
    assert.deepEqual(agentGrowth(life((index) => ({ anonymousMiB: 40 + Math.min(index, 5) * 6 }))), []);
    assert.deepEqual(agentGrowth(life((index) => ({ anonymousMiB: 40 + index * 2 }))), [
      'agent 7: anonymousMiB grew from 59.0 to 75.0',
    ]);
  });
});

describe('growth on the hosts', () => {
  it('is that of samples in which as many of them have a fast path', () => {
    const sample = (fast: number, more: Partial<HostsSample> = {}): HostsSample => ({
      ...{ fast, processes: 12, pinned: fast * 14, mapKeys: fast * 6 },
      ...more,
    });
    assert.deepEqual(hostsGrowth([1, 1, 1, 2, 2, 2, 1, 2].map((fast) => sample(fast))), []);
    assert.deepEqual(hostsGrowth([0, 1, 2, 3].map((index) => sample(2, { pinned: 28 + index, mapKeys: 12 + index }))), [
      'hosts, 2 with a fast path: pinned grew from 28.0 to 31.0',
      'hosts, 2 with a fast path: mapKeys grew from 12.0 to 15.0',
    ]);
  });
});

const METRICS = `# HELP a_total some
# TYPE a_total counter
a_total{peer="x y",direction="tx"} 5
a_total{peer="x y",direction="rx"} 6
# TYPE b gauge
b 9
# TYPE c_total counter
c_total 1e3
`;

describe('counters of an agent', () => {
  it('are those that /metrics calls so', () => {
    assert.deepEqual(
      [...countersOf(METRICS)],
      [
        ['a_total{peer="x y",direction="tx"}', 5],
        ['a_total{peer="x y",direction="rx"}', 6],
        ['c_total', 1000],
      ],
    );
  });

  it('never go back, nor away', () => {
    const before = countersOf(METRICS);
    assert.deepEqual(goneBack(before, before), []);
    assert.deepEqual(goneBack(before, countersOf(METRICS.replace('} 5', '} 7'))), []);
    assert.deepEqual(goneBack(before, countersOf(METRICS.replace('} 5', '} 4').replace('c_total 1e3\n', ''))), [
      'a_total{peer="x y",direction="tx"} went from 5 to 4',
      'c_total went from 1000 to nothing',
    ]);
  });
});

describe('packets of a host with a fast path', () => {
  const none = { fastTx: 10, fastRx: 10, all: 20 };

  it('take it both ways, and as many of them as are wanted', () => {
    assert.equal(notByFastPath(none, { fastTx: 60, fastRx: 60, all: 200 }, 0.5), undefined);
    assert.equal(
      notByFastPath(none, { fastTx: 60, fastRx: 60, all: 300 }, 0.5),
      'of 280 packets the fast path has sent 50 and received 50',
    );
    assert.match(notByFastPath(none, { fastTx: 200, fastRx: 10, all: 210 }, 0) ?? '', /sent 190 and received 0/);
    assert.match(notByFastPath(none, { fastTx: 10, fastRx: 200, all: 210 }, 0) ?? '', /sent 0 and received 190/);
  });

  it('leave no more keys in a map than there are peers', () => {
    assert.deepEqual(tooManyKeys({ subnets: 1, counters: 2 }, 1), []);
    assert.deepEqual(tooManyKeys({ subnets: 1, counters: 3 }, 1), ['the map counters has 3 keys']);
  });
});
