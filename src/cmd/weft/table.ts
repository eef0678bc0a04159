import { printable } from '../../printable.ts';
import { NARROW_COLUMNS } from '../../wrapped.ts';

const GAP = 2;

export interface Column<R> {
  readonly title: string;
  readonly text: (row: R) => string;
  readonly right?: true;
  /** Gives way when the table is too wide: the first of these down to this width, then the next. */
  readonly minWidth?: number;
}

/**
 * A table of text that fits `columns`; what is cut ends with `…`. Cells come from outside: control characters show as such.
 * Without rows, only its head.
 */
export function table<R>(columns: readonly Column<R>[], rows: readonly R[], width: number = NARROW_COLUMNS): string {
  const cells = rows.map((row) => columns.map(({ text }) => printable(text(row))));
  const widths = columns.map(({ title }, at) => Math.max(title.length, ...cells.map((row) => row[at]!.length)));
  let excess = widths.reduce((sum, each) => sum + each, 0) + GAP * (columns.length - 1) - width;
  columns.forEach(({ minWidth }, at) => {
    if (excess <= 0 || minWidth === undefined) return;
    const less = Math.min(excess, Math.max(0, widths[at]! - minWidth));
    widths[at]! -= less;
    excess -= less;
  });
  const line = (texts: readonly string[]): string =>
    texts
      .map((text, at) => fitted(text, widths[at]!, columns[at]!.right === true))
      .join(' '.repeat(GAP))
      .trimEnd();
  return [line(columns.map(({ title }) => title)), ...cells.map(line)].map((text) => `${text}\n`).join('');
}

function fitted(text: string, width: number, right: boolean): string {
  const cut = text.length > width ? `${text.slice(0, Math.max(0, width - 1))}…` : text;
  return right ? cut.padStart(width) : cut.padEnd(width);
}
