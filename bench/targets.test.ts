import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { Figures } from './report.ts';
import { summarise } from './stats.ts';
import { targetList } from './targets.ts';

const rounds = (...values: readonly number[]) =>
  summarise(Array.from({ length: 7 }, (_, i) => values[i % values.length]!));

/** The items behind the verdict of that name. */
const items = (figures: Figures, verdict: string): string | undefined =>
  targetList(figures)
    .split('\n')
    .find((line) => line.startsWith(`* ${verdict}: `))
    ?.slice(`* ${verdict}: `.length);

describe('the list of targets', () => {
  it('says of each measured target whether its median reaches it', () => {
    const figures: Figures = {
      native: {
        weft: { tcp1: rounds(1), udp64: rounds(1.2), rttP50: rounds(0.9) },
        vxlan: { tcp1: rounds(1), udp64: rounds(1), rttP50: rounds(1) },
      },
      wire: {
        weft: { tcp1: rounds(0.9), tcp4: rounds(0.89), machineCpuPerGB: rounds(1.1), lost80: rounds(0.002) },
        vxlan: { tcp1: rounds(1), tcp4: rounds(1), machineCpuPerGB: rounds(1), lost80: rounds(0) },
      },
    };
    assert.equal(
      items(figures, 'met'),
      'TCP 1 on veth (at least 1.0: 1.00); RTT p50 on veth (at most 1.0: 0.900); TCP 1 on wire-like (at least 0.9: 0.900); ' +
        'lost 80 % on wire-like (at most 1 %: 0.20 %)',
    );
    assert.equal(
      items(figures, 'not met'),
      'UDP 64 B on veth (at least 1.3: 1.20); TCP 4 on wire-like (at least 0.9: 0.890); ' +
        'machine/GB on wire-like (at most 1.0: 1.10)',
    );
    assert.equal(items(figures, 'undecided'), 'none');
  });

  it('decides nothing by rounds that are too few or too different', () => {
    const figures: Figures = {
      native: {
        weft: { tcp1: summarise([2, 2, 2]), tcp4: rounds(1, 2), rttP50: rounds(1) },
        vxlan: { tcp1: summarise([1, 1, 1]), tcp4: rounds(1), rttP50: rounds(1) },
      },
    };
    assert.equal(items(figures, 'undecided'), 'TCP 1 on veth (at least 1.0); TCP 4 on veth (at least 1.0)');
    assert.equal(items(figures, 'met'), 'RTT p50 on veth (at most 1.0: 1.00)');
  });
});
