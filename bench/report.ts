/** From measured figures to ratios, the tables of the documents and their plot. Pure. */
import type { Underlay } from '../src/lab/namespaces.ts';
import { PATH_TITLES, PATHS, type PathName } from './paths.ts';
import type { Summary } from './stats.ts';

export const METRICS = [
  'tcp1',
  'tcp1Reverse',
  'tcp4',
  'tcp4Reverse',
  'udp64',
  'udp64Lost',
  'rttP50',
  'cpuPerGB',
  'machineCpuPerGB',
] as const;
export type Metric = (typeof METRICS)[number];

export const UNITS: Readonly<Record<Metric, string>> = {
  tcp1: 'Gbit/s',
  tcp1Reverse: 'Gbit/s',
  tcp4: 'Gbit/s',
  tcp4Reverse: 'Gbit/s',
  udp64: 'thousand packets/s received',
  udp64Lost: 'share of packets lost',
  rttP50: 'µs',
  cpuPerGB: 'CPU s/GB, forwarder, TCP 1 stream',
  machineCpuPerGB: 'CPU s/GB, both hosts together, TCP 1 stream',
};

export type Figures = Partial<Record<Underlay, Partial<Record<PathName, Partial<Record<Metric, Summary>>>>>>;

const RIVALS = {
  vsDirect: 'direct',
  vsVxlan: 'vxlan',
  vsLoop: 'loop',
  vsWireguard: 'wireguard',
} as const satisfies Record<string, PathName>;

/** weft's median divided by the other's, under keys such as `native.tcp1.vsVxlan`; what was not measured is left out. */
export function ratios(figures: Figures): Record<string, number> {
  const result: Record<string, number> = {};
  for (const [underlay, paths] of Object.entries(figures)) {
    for (const metric of METRICS) {
      const own = paths.weft?.[metric];
      if (own === undefined) continue;
      for (const [key, rival] of Object.entries(RIVALS)) {
        const other = paths[rival]?.[metric];
        if (other === undefined || other.median === 0) continue;
        result[`${underlay}.${metric}.${key}`] = Number((own.median / other.median).toPrecision(3));
      }
    }
  }
  return result;
}

function shown(metric: Metric, value: number): string {
  switch (metric) {
    case 'udp64Lost':
      return `${(value * 100).toFixed(0)} %`;
    case 'udp64':
    case 'rttP50':
      return value.toFixed(0);
    default:
      return value.toFixed(2);
  }
}

const COLUMNS: readonly (readonly [string, Metric])[] = [
  ['TCP 1', 'tcp1'],
  ['TCP 1 ←', 'tcp1Reverse'],
  ['TCP 4', 'tcp4'],
  ['TCP 4 ←', 'tcp4Reverse'],
  ['UDP 64 B', 'udp64'],
  ['lost', 'udp64Lost'],
  ['RTT p50', 'rttP50'],
  ['CPU/GB', 'cpuPerGB'],
  ['machine/GB', 'machineCpuPerGB'],
];

const UNDERLAY_TITLES: Readonly<Record<Underlay, string>> = {
  native: 'veth underlay as it is',
  wire: 'wire-like underlay (datagrams cut to MTU size between the hosts)',
};

/** Markdown tables: medians with their range, one table an underlay. */
export function table(figures: Figures): string {
  return (Object.keys(UNDERLAY_TITLES) as Underlay[])
    .filter((underlay) => figures[underlay] !== undefined)
    .map((underlay) => {
      const paths = figures[underlay] ?? {};
      const columns = COLUMNS.filter(([, metric]) => PATHS.some((path) => paths[path]?.[metric] !== undefined));
      const rows = PATHS.filter((path) => paths[path] !== undefined).map((path) => {
        const cells = columns.map(([, metric]) => {
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
        `| path | ${columns.map(([title]) => title).join(' | ')} |`,
        `|---|${columns.map(() => '---|').join('')}`,
        ...rows,
      ].join('\n');
    })
    .join('\n\n');
}

/** In the README: the first five paths, and of each what most people ask first. Medians. */
export function overview(figures: Figures): string {
  const columns: readonly (readonly [string, Underlay, Metric])[] = [
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
};
const WIDTH = 860;
const BAR = 18;
const LABEL = 210;

/** A bar chart of TCP throughput with one stream, both underlays, as SVG. */
export function plot(figures: Figures): string {
  const bars = (Object.keys(UNDERLAY_TITLES) as Underlay[]).flatMap((underlay) => {
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
