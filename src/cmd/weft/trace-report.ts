import type { TraceHop, TraceVerdict } from '../../diagnosis/trace.ts';
import type { CountedRise } from '../../diagnosis/trace-copies.ts';
import { printable } from '../../printable.ts';
import { NARROW_COLUMNS, wrapped } from '../../wrapped.ts';

/** What `weft trace --json` prints. */
export interface TraceReport {
  readonly ok: boolean;
  readonly from: string;
  readonly to: string;
  readonly protocol: string;
  readonly farHost: string;
  /** What of the far host could be looked at. */
  readonly far: { readonly frames: boolean; readonly agent: boolean };
  readonly hops: readonly TraceHop[];
  readonly verdict: TraceVerdict;
  /** Sent after the packet, where its loss has no other reason. */
  readonly copies: number;
  /** Of the copies. */
  readonly agentDrops: readonly CountedRise[];
  readonly notes: readonly string[];
}

const LEGS: Readonly<Record<TraceHop['leg'], string>> = { request: '→', answer: '←', error: '!' };

/** Fits 80 columns: a line a hop, and the headers below. */
export function renderTrace(report: TraceReport): string {
  const { from, to, protocol, farHost, far, hops, verdict, notes } = report;
  const lines = [`TRACE ${printable(from)} > ${printable(to)} ${protocol}`, ''];
  for (const hop of hops) {
    const place = [hop.host, hop.place === 'host' ? '' : hop.place, hop.device].filter((one) => one !== '').map(shown);
    lines.push(cut(`${hop.atUs.toFixed(0).padStart(8)} µs ${LEGS[hop.leg]} ${place.join(' ')} ${hop.direction}`));
    lines.push(...wrapped(`            ${hop.packet.text}`, '              '));
    if (hop.inner !== undefined) lines.push(...wrapped(`            [${hop.inner.text}]`, '              '));
  }
  if (hops.length > 0) lines.push('');
  const mark = report.ok ? '✔' : '✖';
  const { outcome, host, hop, reason, text, rule } = verdict;
  lines.push(...wrapped(`${mark} ${outcome} at ${printable(host)}, ${printable(hop)}: ${printable(reason)}`, '  '));
  lines.push(...wrapped(`  ${printable(text)}`, '  '));
  if (rule !== undefined) {
    lines.push(...wrapped(`  Rule: ${printable(`table ${rule.table}, chain ${rule.chain}: ${rule.text}`)}`, '    '));
    lines.push(...wrapped(`  Listed by: ${printable(rule.listedBy)}`, '    '));
  }
  const sides = far.frames ? 'both hosts' : far.agent ? `this host, and the counters of ${farHost}` : 'this host only';
  lines.push(...wrapped(`  Seen: ${printable(sides)}.`, '  '));
  for (const note of notes) lines.push(...wrapped(`  Note: ${printable(note)}`, '    '));
  return `${lines.join('\n')}\n`;
}

/** Whoever rules a container names its devices, with any characters but blanks, `/` and `:` (`dev_valid_name` of the kernel). */
const shown = (name: string): string => printable(name);

function cut(line: string): string {
  return line.slice(0, NARROW_COLUMNS);
}
