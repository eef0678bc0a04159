/** N × N of what hosts know of the way to each other. Pure. */
import type { LinkView, Overview } from '../../../src/ui/overview.ts';
import { percent } from '../format.ts';
import type { Filter } from './filter.ts';
import { hostText } from './hosts.ts';

export const METRICS = [
  { id: 'rtt', title: 'Round trip' },
  { id: 'loss', title: 'Loss' },
  { id: 'mtu', title: 'Path MTU' },
] as const;
export type Metric = (typeof METRICS)[number]['id'];

/** Upper ends of the shades of round trips, in milliseconds; the last shade has none. */
export const RTT_STEPS_MS = [0.5, 2, 10, 50] as const;

/** `bad` is kept for what does not work: one red cell is the answer. */
export type CellLook = 0 | 1 | 2 | 3 | 4 | 'warn' | 'bad' | 'none' | 'self';

export interface Cell {
  readonly look: CellLook;
  /** Empty where nobody has measured it. */
  readonly text: string;
  readonly link: LinkView | undefined;
}

export interface Matrix {
  /** Indices in `hosts` of the rows and columns. */
  readonly order: readonly number[];
  cell(row: number, column: number): Cell;
}

const SELF: Cell = { look: 'self', text: '', link: undefined };
const NOTHING: Cell = { look: 'none', text: '', link: undefined };

export function matrixOf(overview: Overview, metric: Metric, filter: Filter): Matrix {
  const order = overview.hosts.flatMap((host, index) => (filter(hostText(host)) ? [index] : []));
  const links = new Map(overview.links.map((link) => [link.from * overview.hosts.length + link.to, link]));
  return {
    order,
    cell(row, column) {
      const [from, to] = [order[row]!, order[column]!];
      if (from === to) return SELF;
      const link = links.get(from * overview.hosts.length + to);
      // What the receiver alone counted says nothing of round trips.
      return link?.path === undefined ? NOTHING : cellOf(link, metric);
    },
  };
}

export function cellOf(link: LinkView, metric: Metric): Cell {
  const text = textOf(link, metric);
  if (link.health === 'broken') return { look: 'bad', text: metric === 'loss' ? text || 'lost' : 'lost', link };
  if (link.health === 'degraded') return { look: 'warn', text: text || '!', link };
  if (text === '') return { look: 'none', text, link };
  if (metric !== 'rtt') return { look: 0, text, link };
  const step = RTT_STEPS_MS.findIndex((limit) => link.rttMs! <= limit);
  return { look: (step === -1 ? RTT_STEPS_MS.length : step) as CellLook, text, link };
}

function textOf(link: LinkView, metric: Metric): string {
  switch (metric) {
    case 'rtt':
      return link.rttMs === undefined ? '' : shortMs(link.rttMs);
    case 'loss':
      return link.lossRatio === undefined ? '' : percent(link.lossRatio);
    case 'mtu':
      return link.pathMtuBytes === undefined ? '' : String(link.pathMtuBytes);
  }
}

/** For a narrow cell; the unit is in the title of the matrix. */
function shortMs(ms: number): string {
  return ms < 0.995 ? ms.toFixed(2) : ms < 9.95 ? ms.toFixed(1) : ms.toFixed(0);
}
