const POSIX_CLASSES: ReadonlyMap<string, string> = new Map([
  ['alnum', '0-9A-Za-z'],
  ['alpha', 'A-Za-z'],
  ['ascii', '\\x00-\\x7F'],
  ['blank', '\\t '],
  ['cntrl', '\\x00-\\x1F\\x7F'],
  ['digit', '0-9'],
  ['graph', '!-~'],
  ['lower', 'a-z'],
  ['print', ' -~'],
  ['punct', '!-\\/:-@\\[-`{-~'],
  ['space', '\\t\\n\\v\\f\\r '],
  ['upper', 'A-Z'],
  ['word', '0-9A-Za-z_'],
  ['xdigit', '0-9A-Fa-f'],
]);

/**
 * A JavaScript RegExp for a pattern in RE2's syntax (Go's regexp), as `--iface-regex` takes it: leading `(?i)` flags,
 * `\A` and `\z`, `\Q…\E`, `(?P<name>…)` and POSIX classes are translated, the rest is common to both.
 * `undefined` when it is not a pattern, or uses a negated POSIX class.
 */
export function compileRe2(pattern: string): RegExp | undefined {
  // JavaScript has no way to say "all but this class" inside a larger class.
  if (/\[:\^\w+:\]/.test(pattern)) return undefined;
  const leading = /^\(\?([ims]+)\)/.exec(pattern);
  const source = pattern
    .slice(leading?.[0].length ?? 0)
    .replace(/\\Q([\s\S]*?)(?:\\E|$)|\\[\s\S]|\(\?P<|\[:(\w+):\]/g, translate);
  try {
    return new RegExp(source, [...new Set(leading?.[1] ?? '')].join(''));
  } catch {
    return undefined;
  }
}

function translate(match: string, quoted: string | undefined, posixClass: string | undefined): string {
  if (quoted !== undefined) return quoted.replace(/[\\^$.*+?()[\]{}|]/g, '\\$&');
  if (match === '\\A') return '(?<![\\s\\S])';
  if (match === '\\z') return '(?![\\s\\S])';
  if (match === '(?P<') return '(?<';
  return POSIX_CLASSES.get(posixClass ?? '') ?? match;
}
