/** From measured figures to ratios, the tables of the documents and their plot. Pure. */
import { type BenchUnderlay, PATH_TITLES, PATHS, type PathName } from './paths.ts';
import { type Summary, summarise } from './stats.ts';

export const METRICS = [
  'tcp1',
  'tcp1Reverse',
  'tcp4',
  'tcp4Reverse',
  'udp64',
  'lost50',
  'lost80',
  'lost100',
  'rttP50',
  'rttP99',
  'loadP50',
  'loadP99',
  'loadP999',
  'crr1',
  'crr64',
  'cpuPerGB',
  'machineCpuPerGB',
] as const;
export type Metric = (typeof METRICS)[number];

export const UNITS: Readonly<Record<Metric, string>> = {
  tcp1: 'Gbit/s',
  tcp1Reverse: 'Gbit/s',
  tcp4: 'Gbit/s',
  tcp4Reverse: 'Gbit/s',
  udp64: 'thousand packets/s that arrive',
  lost50: "share of packets lost at 50 % of kernel VXLAN's rate",
  lost80: "share of packets lost at 80 % of kernel VXLAN's rate",
  lost100: "share of packets lost at kernel VXLAN's rate",
  rttP50: 'µs',
  rttP99: 'µs',
  loadP50: 'µs, among 20,000 packets/s',
  loadP99: 'µs, among 20,000 packets/s',
  loadP999: 'µs, among 20,000 packets/s',
  crr1: 'thousand short TCP connections/s, one at a time',
  crr64: 'thousand short TCP connections/s, 64 at a time',
  cpuPerGB: 'CPU s/GB, forwarder, TCP 1 stream',
  machineCpuPerGB: 'CPU s/GB, both hosts together, TCP 1 stream',
};

export type Figures = Partial<Record<BenchUnderlay, Partial<Record<PathName, Partial<Record<Metric, Summary>>>>>>;

/** What is divided by what. */
const PAIRS: readonly (readonly [string, PathName, PathName])[] = [
  ['vsDirect', 'weft', 'direct'],
  ['vsVxlan', 'weft', 'vxlan'],
  ['vsWeftVxlan', 'weft', 'weftVxlan'],
  ['vsLoop', 'weft', 'loop'],
  ['vsWireguard', 'weft', 'wireguard'],
  ['weftVxlan.vsVxlan', 'weftVxlan', 'vxlan'],
  ['hostGw.vsDirect', 'hostGw', 'direct'],
];

/** Of these, those of which the documents have a table: a backend beside what it does by hand, and beside one with the same firewall rules. */
const SHOWN_PAIRS = ['vsVxlan', 'vsWeftVxlan', 'weftVxlan.vsVxlan', 'hostGw.vsDirect'] as const;

/** A share of lost packets is near zero: its ratio says nothing. */
const COMPARED = METRICS.filter((metric) => !metric.startsWith('lost'));

/** From least to most, as a part of the median: above this, a ratio is no result. */
const MOST_SPREAD = 0.4;
/** Of fewer rounds than these, the spread says little. */
export const ENOUGH_ROUNDS = 7;

/** One path divided by another in each round, in which both were measured one after the other. */
export interface Ratio extends Summary {
  /** The rounds differ by so much that the median is no result. */
  readonly noisy: boolean;
}

export function ratioOf(own: Summary, other: Summary): Ratio | undefined {
  if (own.runs.length !== other.runs.length || other.runs.some((value) => value === 0)) return undefined;
  const summary = summarise(own.runs.map((value, round) => value / other.runs[round]!));
  return { ...summary, noisy: summary.max - summary.min > MOST_SPREAD * summary.median };
}

/** Under keys such as `native.tcp1.vsVxlan`; what was not measured is left out. */
export function ratios(figures: Figures): Record<string, Ratio> {
  const result: Record<string, Ratio> = {};
  for (const [underlay, paths] of Object.entries(figures)) {
    for (const metric of COMPARED) {
      for (const [key, own, other] of PAIRS) {
        const [a, b] = [paths[own]?.[metric], paths[other]?.[metric]];
        const ratio = a && b && ratioOf(a, b);
        if (ratio !== undefined) result[`${underlay}.${metric}.${key}`] = ratio;
      }
    }
  }
  return result;
}

export function describeRatio({ median, min, max, noisy, runs }: Ratio): string {
  const [least, most] = [min.toPrecision(3), max.toPrecision(3)];
  const result = noisy ? `too noisy: ${least} to ${most}` : `${median.toPrecision(3)} (${least} to ${most})`;
  if (runs.length >= ENOUGH_ROUNDS) return result;
  return `${result}, of ${runs.length} ${runs.length === 1 ? 'round' : 'rounds'} only`;
}

/** A paragraph for whoever reads ratios of too few rounds; empty when there are none. */
export function roundsNote(all: Readonly<Record<string, Ratio>>): string {
  const few = Object.values(all).filter(({ runs }) => runs.length < ENOUGH_ROUNDS).length;
  if (few === 0) return '';
  return (
    `${few} of these ${Object.keys(all).length} ratios are of fewer than ${ENOUGH_ROUNDS} rounds. They show where to look, and are no ` +
    `results: run without --quick, with --repeat ${ENOUGH_ROUNDS} or more.\n\n`
  );
}

/** Markdown, for each pair in {@link SHOWN_PAIRS}: one path divided by the other in the same round, a row a metric and a column an underlay. */
export function ratioTable(figures: Figures): string {
  const all = ratios(figures);
  const underlays = (Object.keys(UNDERLAY_NAMES) as BenchUnderlay[]).filter((name) => figures[name] !== undefined);
  return SHOWN_PAIRS.map((key) => {
    const [, own, other] = PAIRS.find(([name]) => name === key)!;
    const rows = METRICS.flatMap((metric) => {
      const cells = underlays.map((underlay) => {
        const ratio = all[`${underlay}.${metric}.${key}`];
        return ratio === undefined ? '' : describeRatio(ratio);
      });
      return cells.every((cell) => cell === '') ? [] : [`| ${[METRIC_TITLES[metric], ...cells].join(' | ')} |`];
    });
    if (rows.length === 0) return '';
    return [
      `| ${PATH_TITLES[own]} ÷ ${PATH_TITLES[other]} | ${underlays.map((name) => UNDERLAY_NAMES[name]).join(' | ')} |`,
      `|---|${underlays.map(() => '---|').join('')}`,
      ...rows,
    ].join('\n');
  })
    .filter((text) => text !== '')
    .join('\n\n');
}

export function shown(metric: Metric, value: number): string {
  switch (metric) {
    case 'lost50':
    case 'lost80':
    case 'lost100':
      return `${(value * 100).toFixed(value > 0 && value < 0.01 ? 2 : 0)} %`;
    case 'udp64':
    case 'rttP50':
    case 'rttP99':
    case 'loadP50':
    case 'loadP99':
    case 'loadP999':
      return value.toFixed(0);
    default:
      return value.toFixed(2);
  }
}

/** As columns and rows name them. */
export const METRIC_TITLES: Readonly<Record<Metric, string>> = {
  tcp1: 'TCP 1',
  tcp1Reverse: 'TCP 1 ←',
  tcp4: 'TCP 4',
  tcp4Reverse: 'TCP 4 ←',
  udp64: 'UDP 64 B',
  lost50: 'lost 50 %',
  lost80: 'lost 80 %',
  lost100: 'lost 100 %',
  rttP50: 'RTT p50',
  rttP99: 'RTT p99',
  loadP50: 'load p50',
  loadP99: 'load p99',
  loadP999: 'load p99.9',
  crr1: 'conn 1',
  crr64: 'conn 64',
  cpuPerGB: 'CPU/GB',
  machineCpuPerGB: 'machine/GB',
};

const UNDERLAY_TITLES: Readonly<Record<BenchUnderlay, string>> = {
  native: 'veth underlay as it is',
  wire: 'wire-like underlay (each host cuts its datagrams to MTU size)',
  xdp: 'wire-like underlay, with an XDP program on each device (an empty one where the path has none)',
  switch: 'underlay with a switch that cuts (hosts hand over large packets, as to a NIC with TSO)',
  switchXdp: 'the same with an XDP program on each device',
};

/** As columns name them. */
export const UNDERLAY_NAMES: Readonly<Record<BenchUnderlay, string>> = {
  native: 'veth',
  wire: 'wire-like',
  xdp: 'xdp',
  switch: 'switch',
  switchXdp: 'switch, xdp',
};

/** Markdown tables: medians with their range, one table an underlay. */
export function table(figures: Figures): string {
  return (Object.keys(UNDERLAY_TITLES) as BenchUnderlay[])
    .filter((underlay) => figures[underlay] !== undefined)
    .map((underlay) => {
      const paths = figures[underlay] ?? {};
      const columns = METRICS.filter((metric) => PATHS.some((path) => paths[path]?.[metric] !== undefined));
      const rows = PATHS.filter((path) => paths[path] !== undefined).map((path) => {
        const cells = columns.map((metric) => {
          const summary = paths[path]?.[metric];
          if (summary === undefined) return '';
          const range = `${shown(metric, summary.min)}–${shown(metric, summary.max)}`;
          return summary.runs.length > 1
            ? `${shown(metric, summary.median)} <sub>${range}</sub>`
            : shown(metric, summary.median);
        });
        return `| ${[titleOf(path), ...cells].join(' | ')} |`;
      });
      return [
        `${UNDERLAY_TITLES[underlay]}:`,
        '',
        `| path | ${columns.map((metric) => METRIC_TITLES[metric]).join(' | ')} |`,
        `|---|${columns.map(() => '---|').join('')}`,
        ...rows,
      ].join('\n');
    })
    .join('\n\n');
}

/** In the README: the first five paths, and of each what most people ask first. Medians. */
export function overview(figures: Figures): string {
  const columns: readonly (readonly [string, BenchUnderlay, Metric])[] = [
    ['TCP, veth (Gbit/s)', 'native', 'tcp1'],
    ['TCP, wire-like (Gbit/s)', 'wire', 'tcp1'],
    ['UDP 64 B, veth (kpps)', 'native', 'udp64'],
    ['round trip, veth (µs)', 'native', 'rttP50'],
  ];
  const rows = PATHS.slice(0, 5).map((path) => {
    const cells = columns.map(([, underlay, metric]) => {
      const summary = figures[underlay]?.[path]?.[metric];
      return summary === undefined ? '' : shown(metric, summary.median);
    });
    return `| ${[titleOf(path), ...cells].join(' | ')} |`;
  });
  return [`| path | ${columns.map(([title]) => title).join(' | ')} |`, '|---|---|---|---|---|', ...rows].join('\n');
}

function titleOf(path: PathName): string {
  return path === 'weft' ? `**${PATH_TITLES[path]}**` : PATH_TITLES[path];
}

const COLOURS: Readonly<Record<PathName, string>> = {
  direct: '#9aa5b1',
  vxlan: '#52667a',
  weft: '#d9480f',
  forwarder: '#f59f66',
  loop: '#c9b458',
  wireguard: '#7b5ea7',
  weftVxlan: '#0b7285',
  hostGw: '#66a80f',
};
const WIDTH = 860;
const BAR = 18;
const LABEL = 210;

/** A bar chart of TCP throughput with one stream, a group for each underlay, as SVG. */
export function plot(figures: Figures): string {
  const bars = (Object.keys(UNDERLAY_TITLES) as BenchUnderlay[]).flatMap((underlay) => {
    const entries = PATHS.flatMap((path) => {
      const summary = figures[underlay]?.[path]?.tcp1;
      return summary === undefined ? [] : [{ path, summary }];
    });
    return entries.length === 0 ? [] : [{ underlay, entries }];
  });
  const most = Math.max(1, ...bars.flatMap(({ entries }) => entries.map(({ summary }) => summary.max)));
  const scale = (WIDTH - LABEL - 90) / most;
  let y = 34;
  const parts: string[] = [];
  for (const { underlay, entries } of bars) {
    parts.push(`<text x="8" y="${y}" font-weight="bold">${UNDERLAY_TITLES[underlay]}</text>`);
    y += 12;
    for (const { path, summary } of entries) {
      const middle = y + BAR / 2;
      const end = LABEL + summary.median * scale;
      parts.push(
        `<text x="${LABEL - 8}" y="${middle + 4}" text-anchor="end">${PATH_TITLES[path]}</text>`,
        `<rect x="${LABEL}" y="${y}" width="${(end - LABEL).toFixed(1)}" height="${BAR}" fill="${COLOURS[path]}"/>`,
        `<path d="M${(LABEL + summary.min * scale).toFixed(1)} ${middle}H${(LABEL + summary.max * scale).toFixed(1)}" stroke="#1f2933"/>`,
        `<text x="${(LABEL + summary.max * scale + 6).toFixed(1)}" y="${middle + 4}">${summary.median.toFixed(2)}</text>`,
      );
      y += BAR + 6;
    }
    y += 28;
  }
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${y}" font-family="sans-serif" font-size="12">`,
    '<title>TCP throughput of the data paths that the bench compares</title>',
    `<rect width="${WIDTH}" height="${y}" fill="#ffffff"/>`,
    '<text x="8" y="16">TCP, one stream between two containers on two hosts, Gbit/s: median, line from least to most</text>',
    ...parts,
    '</svg>',
    '',
  ].join('\n');
}
