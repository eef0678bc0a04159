/** Styled text for terminals: lines are lists of spans, measured before they are painted. Pure. */

/** SGR parameters (ECMA-48), such as `1;32`. */
export type Style = string;

export interface Span {
  readonly text: string;
  readonly style?: Style;
}

export type Line = readonly Span[];

export const STYLE = {
  bold: '1',
  dim: '2',
  good: '32',
  bad: '31',
  badBold: '1;31',
  goodBold: '1;32',
  user: '35',
  kernel: '36',
  physical: '33',
  heading: '1',
} as const;

export function span(text: string, style?: Style): Span {
  return style === undefined ? { text } : { text, style };
}

/** Only characters that take one column are used, so that the length is the width. */
export function widthOf(line: Line): number {
  return line.reduce((sum, one) => sum + [...one.text].length, 0);
}

export function padLine(line: Line, width: number): Line {
  const missing = width - widthOf(line);
  return missing > 0 ? [...line, span(' '.repeat(missing))] : line;
}

/** Without colour, and without blanks at the end, the plain text. */
export function paint(line: Line, colour: boolean): string {
  const text = line.map((one) =>
    colour && one.style !== undefined ? `\x1b[${one.style}m${one.text}\x1b[0m` : one.text,
  );
  return text.join('').trimEnd();
}

/** Breaks at blanks; a longer word stays whole. */
export function wrap(text: string, width: number): string[] {
  const lines: string[] = [];
  let current = '';
  for (const word of text.split(' ')) {
    if (current !== '' && [...current].length + 1 + [...word].length > width) {
      lines.push(current);
      current = word;
    } else {
      current = current === '' ? word : `${current} ${word}`;
    }
  }
  lines.push(current);
  return lines;
}

/** Two blanks between columns; the first row is the heading. */
export function table(rows: readonly (readonly string[])[], headingStyle: Style): Line[] {
  const widths: number[] = [];
  for (const row of rows) {
    row.forEach((cell, i) => {
      widths[i] = Math.max(widths[i] ?? 0, [...cell].length);
    });
  }
  return rows.map((row, y) =>
    row.flatMap((cell, x) => {
      const padded = cell.padEnd((widths[x] ?? 0) + 2 + cell.length - [...cell].length);
      return [y === 0 ? span(padded, headingStyle) : span(padded)];
    }),
  );
}
