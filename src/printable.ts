/** Longest text from outside on one line, in UTF-16 units: a name, a value, what a command or a server said. */
const MAX_TEXT = 1_000;

/** Control and format characters (line breaks, escapes of terminals, changes of direction, what is not seen), half characters. */
const UNPRINTABLE = /[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/gu;

/**
 * Text from outside as it may stand on one line of a log, a table, a condition of a node or a terminal: what would make a line
 * of its own, or steer the terminal, is written as an escape of JavaScript, and what is too long is cut. Every such text
 * passes here on its way to people. Printable text comes back as it is.
 */
export function printable(text: string, maxLength: number = MAX_TEXT): string {
  const cut = text.length > maxLength ? text.slice(0, maxLength) : text;
  const shown = cut.replaceAll(UNPRINTABLE, escaped);
  return cut === text ? shown : `${shown}… (${text.length - maxLength} more)`;
}

/**
 * The same for text of ours that has several lines, all but the first indented by two spaces or more: those stay lines. Where
 * text from outside looks like that, it cannot be taken for a line of the log all the same.
 */
export function printableLines(text: string, maxLength: number): string {
  const cut = text.length > maxLength ? text.slice(0, maxLength) : text;
  const lines = cut.split(/\n(?= {2})/).map((line) => printable(line, maxLength));
  return `${lines.join('\n')}${cut === text ? '' : `… (${text.length - maxLength} more)`}`;
}

/**
 * The same for each text in a value of JSON that somebody else has made, the names in it too: whoever shows a part of it need not think
 * of it. Nothing is cut.
 *
 * @throws RangeError when it is nested too deep.
 */
export function printableValue(value: unknown): unknown {
  if (typeof value === 'string') return printableLines(value, Number.POSITIVE_INFINITY);
  if (typeof value !== 'object' || value === null) return value;
  if (Array.isArray(value)) return value.map(printableValue);
  return Object.fromEntries(
    Object.entries(value).map(([name, each]) => [printable(name, Number.POSITIVE_INFINITY), printableValue(each)]),
  );
}

const SHORT: Readonly<Record<string, string>> = { '\n': '\\n', '\r': '\\r', '\t': '\\t' };

function escaped(character: string): string {
  const short = SHORT[character];
  if (short !== undefined) return short;
  const code = character.codePointAt(0) ?? 0;
  if (code > 0xffff) return `\\u{${code.toString(16)}}`;
  return code < 0x100 ? `\\x${code.toString(16).padStart(2, '0')}` : `\\u${code.toString(16).padStart(4, '0')}`;
}
