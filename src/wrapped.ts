/** What a terminal has at least. */
export const NARROW_COLUMNS = 80;

/** Lines that fit a terminal, all but the first indented. */
export function wrapped(text: string, indent: string, width: number = NARROW_COLUMNS): string[] {
  return text.split('\n').flatMap((paragraph) => {
    const lines: string[] = [];
    const lead = /^ */.exec(paragraph)?.[0] ?? '';
    let line = lead;
    for (const word of paragraph.trim().split(' ')) {
      const next = line.trim() === '' ? `${line}${word}` : `${line} ${word}`;
      if (next.length <= width || line.trim() === '') line = next;
      else {
        lines.push(line);
        line = `${indent}${word}`;
      }
    }
    return [...lines, line];
  });
}
