import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { describeRatio, type Figures, ratioOf, ratios, ratioTable, roundsNote, table } from './report.ts';
import { summarise } from './stats.ts';

/** Seven rounds in which nothing changes. */
const steady = (value: number) => summarise(Array.from({ length: 7 }, () => value));

describe('ratios of a bench', () => {
  it('are those of one round, so that noise which hits both paths of a round does not count', () => {
    // The machine was four times slower in the second round; medians alone would say 1.25.
    const ratio = ratioOf(summarise([20, 5, 22]), summarise([16, 4, 17.6]))!;
    assert.equal(ratio.median, 1.25);
    assert.equal(ratio.noisy, false);
    assert.equal(describeRatio(ratio), '1.25 (1.25 to 1.25), of 3 rounds only');
    const shifted = ratioOf(summarise([20, 5, 10]), summarise([10, 10, 10]))!;
    assert.equal(shifted.median, 1);
    assert.equal(describeRatio(shifted), 'too noisy: 0.500 to 2.00, of 3 rounds only');
  });

  it('say so when they are of fewer than seven rounds', () => {
    const [few, single, enough] = [[2, 2, 2], [2], [2, 2, 2, 2, 2, 2, 2]].map(
      (runs) => ratioOf(summarise(runs), summarise(runs.map(() => 1)))!,
    );
    assert.equal(describeRatio(single!), '2.00 (2.00 to 2.00), of 1 round only');
    assert.equal(describeRatio(enough!), '2.00 (2.00 to 2.00)');
    assert.match(
      roundsNote({ few: few!, single: single!, enough: enough! }),
      /^2 of these 3 ratios are of fewer than 7/,
    );
    assert.equal(roundsNote({ enough: enough! }), '');
  });

  it('are left out for what was not measured in the same rounds, and for shares of lost packets', () => {
    assert.equal(ratioOf(summarise([1, 2]), summarise([1])), undefined);
    assert.equal(ratioOf(summarise([1]), summarise([0])), undefined);
    const figures: Figures = {
      native: {
        weft: { tcp1: summarise([2]), lost80: summarise([0.01]) },
        vxlan: { tcp1: summarise([1]), lost80: summarise([0.02]) },
        weftVxlan: { tcp1: summarise([1]) },
      },
    };
    assert.deepEqual(Object.keys(ratios(figures)), [
      'native.tcp1.vsVxlan',
      'native.tcp1.vsWeftVxlan',
      'native.tcp1.weftVxlan.vsVxlan',
    ]);
    assert.match(table(figures), /\| kernel VXLAN \| 1\.00 \| 2 % \|/);
  });

  it('have a table for each pair that was measured, with a column an underlay', () => {
    const figures: Figures = {
      native: {
        direct: { tcp1: steady(4) },
        weft: { tcp1: steady(2) },
        vxlan: { tcp1: steady(1) },
        weftVxlan: { tcp1: steady(0.9) },
        hostGw: { tcp1: steady(3) },
      },
      wire: { weft: { tcp1: steady(1) } },
    };
    assert.deepEqual(ratioTable(figures).split('\n'), [
      '| weft (udp mode) ÷ kernel VXLAN | veth | wire-like |',
      '|---|---|---|',
      '| TCP 1 | 2.00 (2.00 to 2.00) |  |',
      '',
      '| weft (udp mode) ÷ weft (vxlan) | veth | wire-like |',
      '|---|---|---|',
      '| TCP 1 | 2.22 (2.22 to 2.22) |  |',
      '',
      '| weft (vxlan) ÷ kernel VXLAN | veth | wire-like |',
      '|---|---|---|',
      '| TCP 1 | 0.900 (0.900 to 0.900) |  |',
      '',
      '| weft (host-gw) ÷ direct routing | veth | wire-like |',
      '|---|---|---|',
      '| TCP 1 | 0.750 (0.750 to 0.750) |  |',
    ]);
  });
});
