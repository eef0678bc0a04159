import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { describeRatio, type Figures, ratioOf, ratios, ratioTable, table } from './report.ts';
import { summarise } from './stats.ts';

describe('ratios of a bench', () => {
  it('are those of one round, so that noise which hits both paths of a round does not count', () => {
    // The machine was four times slower in the second round; medians alone would say 1.25.
    const ratio = ratioOf(summarise([20, 5, 22]), summarise([16, 4, 17.6]))!;
    assert.equal(ratio.median, 1.25);
    assert.equal(ratio.noisy, false);
    assert.equal(describeRatio(ratio), '1.25 (1.25 to 1.25)');
    const shifted = ratioOf(summarise([20, 5, 10]), summarise([10, 10, 10]))!;
    assert.equal(shifted.median, 1);
    assert.equal(describeRatio(shifted), 'too noisy: 0.500 to 2.00');
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
    assert.deepEqual(Object.keys(ratios(figures)), ['native.tcp1.vsVxlan', 'native.tcp1.weftVxlan.vsVxlan']);
    assert.match(table(figures), /\| kernel VXLAN \| 1\.00 \| 2 % \|/);
    assert.equal(
      ratioTable({ ...figures, wire: { weft: { tcp1: summarise([1]) } } })
        .split('\n')
        .at(-1),
      '| TCP 1 | 2.00 (2.00 to 2.00) |  |',
    );
  });
});
