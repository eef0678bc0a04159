/** What udp mode is to reach beside kernel VXLAN, and which of it measured figures reach. Pure. */
import type { BenchUnderlay } from './paths.ts';
import { ENOUGH_ROUNDS, type Figures, METRIC_TITLES, type Metric, ratios, shown, UNDERLAY_NAMES } from './report.ts';

const TCP = ['tcp1', 'tcp1Reverse', 'tcp4', 'tcp4Reverse'] as const;

interface Target {
  readonly underlay: BenchUnderlay;
  readonly metrics: readonly Metric[];
  readonly is: 'at least' | 'at most';
  /** A ratio to kernel VXLAN; of losses, the share itself. */
  readonly limit: number;
}

/** With an XDP program on both sides, the copies that veth makes for one are in both; without it, that is weft's price. */
const TARGETS: readonly Target[] = [
  { underlay: 'native', metrics: TCP, is: 'at least', limit: 1 },
  { underlay: 'native', metrics: ['udp64'], is: 'at least', limit: 1.3 },
  { underlay: 'native', metrics: ['rttP50', 'rttP99'], is: 'at most', limit: 1 },
  { underlay: 'wire', metrics: TCP, is: 'at least', limit: 0.9 },
  { underlay: 'wire', metrics: ['rttP50', 'rttP99', 'machineCpuPerGB'], is: 'at most', limit: 1 },
  { underlay: 'wire', metrics: ['lost80'], is: 'at most', limit: 0.01 },
  ...(['xdp', 'switchXdp'] as const).flatMap((underlay): Target[] => [
    { underlay, metrics: TCP, is: 'at least', limit: 1 },
    { underlay, metrics: ['machineCpuPerGB'], is: 'at most', limit: 1 },
  ]),
];

const VERDICTS = ['met', 'not met', 'undecided'] as const;
type Verdict = (typeof VERDICTS)[number];

interface Reached {
  readonly value: number;
  readonly text: string;
  /** The rounds are too few, or differ too much, for a median to be a result. */
  readonly isResult: boolean;
}

function reached(figures: Figures, underlay: BenchUnderlay, metric: Metric): Reached | undefined {
  if (metric.startsWith('lost')) {
    const share = figures[underlay]?.weft?.[metric];
    if (share === undefined) return undefined;
    const { median, runs } = share;
    return { value: median, text: shown(metric, median), isResult: runs.length >= ENOUGH_ROUNDS };
  }
  const ratio = ratios(figures)[`${underlay}.${metric}.vsVxlan`];
  if (ratio === undefined) return undefined;
  const { median, noisy, runs } = ratio;
  return { value: median, text: median.toPrecision(3), isResult: !noisy && runs.length >= ENOUGH_ROUNDS };
}

/** Markdown: what is met, what is not, and what the figures do not decide; what was not measured is left out. */
export function targetList(figures: Figures): string {
  const found: Record<Verdict, string[]> = { met: [], 'not met': [], undecided: [] };
  for (const { underlay, metrics, is, limit } of TARGETS) {
    for (const metric of metrics) {
      const own = reached(figures, underlay, metric);
      if (own === undefined) continue;
      const isMet = is === 'at least' ? own.value >= limit : own.value <= limit;
      const verdict = own.isResult ? (isMet ? 'met' : 'not met') : 'undecided';
      const wanted = metric.startsWith('lost') ? shown(metric, limit) : limit.toFixed(1);
      const value = verdict === 'undecided' ? '' : `: ${own.text}`;
      found[verdict].push(`${METRIC_TITLES[metric]} on ${UNDERLAY_NAMES[underlay]} (${is} ${wanted}${value})`);
    }
  }
  const line = (verdict: Verdict): string => `* ${verdict}: ${found[verdict].join('; ') || 'none'}`;
  return [
    `Targets of udp mode, as ratios to kernel VXLAN in the same round. A target is undecided if its rounds differ too much, or are ` +
      `fewer than ${ENOUGH_ROUNDS}:`,
    '',
    ...VERDICTS.map(line),
  ].join('\n');
}
