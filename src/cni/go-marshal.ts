/** What {@link marshalGo} writes. A Map stands for a Go struct: its members keep their order. */
export type GoValue =
  | null
  | boolean
  | number
  | string
  | readonly GoValue[]
  | ReadonlyMap<string, GoValue>
  | { readonly [key: string]: GoValue };

/**
 * JSON as Go's encoding/json writes it: the keys of an object sorted by their UTF-8 bytes, and the characters that matter
 * to HTML escaped in strings. With `indent`, as MarshalIndent does: one member or element a line.
 *
 * @throws RangeError for a number that JSON has no word for (a literal too large for a double).
 */
export function marshalGo(value: GoValue, indent = ''): string {
  return write(value, indent, indent === '' ? '' : '\n');
}

function write(value: GoValue, indent: string, newline: string): string {
  if (value === null || typeof value === 'boolean') return String(value);
  if (typeof value === 'number') return writeNumber(value);
  if (typeof value === 'string') return writeString(value);
  const inner = newline + indent;
  if (isArray(value)) {
    const items = value.map((item) => write(item, indent, inner));
    return enclose('[]', items, inner, newline);
  }
  const colon = indent === '' ? ':' : ': ';
  const members = membersOf(value).map(([key, member]) => writeString(key) + colon + write(member, indent, inner));
  return enclose('{}', members, inner, newline);
}

function membersOf(value: ReadonlyMap<string, GoValue> | { readonly [key: string]: GoValue }): [string, GoValue][] {
  if (value instanceof Map) return [...value];
  return Object.entries(value).sort(([a], [b]) => compareUtf8(a, b));
}

function enclose(brackets: string, items: readonly string[], inner: string, newline: string): string {
  if (items.length === 0) return brackets;
  return brackets.charAt(0) + inner + items.join(`,${inner}`) + newline + brackets.charAt(1);
}

/** Array.isArray does not narrow a readonly array. */
function isArray(value: GoValue): value is readonly GoValue[] {
  return Array.isArray(value);
}

/** Go formats numbers as JavaScript does, minus zero apart. */
function writeNumber(value: number): string {
  if (!Number.isFinite(value)) throw new RangeError('a number in the configuration is too large for JSON');
  return Object.is(value, -0) ? '-0' : String(value);
}

function writeString(text: string): string {
  return JSON.stringify(text).replaceAll(
    /[<>&\u2028\u2029]/g,
    (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`,
  );
}

/** Code points order as UTF-8 bytes do; UTF-16 units, which `<` compares, do not above U+FFFF. */
function compareUtf8(a: string, b: string): number {
  const length = Math.min(a.length, b.length);
  for (let i = 0; i < length; i++) {
    const [x, y] = [a.codePointAt(i)!, b.codePointAt(i)!];
    if (x !== y) return x - y;
  }
  return a.length - b.length;
}
