import type { JsonBounds } from './go-json.ts';
import type { JsonValue } from './lease.ts';

/** Why `parseJsonWithin` did not parse a text that may well be JSON. */
export class JsonBoundsError extends Error {
  override readonly name = 'JsonBoundsError';
}

const SPACE = 0x20;
const QUOTE = 0x22;
const BACKSLASH = 0x5c;
const OPEN_BRACE = 0x7b;
const CLOSE_BRACE = 0x7d;
const OPEN_BRACKET = 0x5b;
const CLOSE_BRACKET = 0x5d;
const COMMA = 0x2c;
const COLON = 0x3a;

/**
 * JSON.parse for texts that come from a store, where Go's way with repeated keys does not matter: five times as fast as
 * parseGoJson, with the same bounds, which are checked before anything is made of the text.
 *
 * @throws JsonBoundsError, SyntaxError.
 */
export function parseJsonWithin(text: string, bounds: JsonBounds): JsonValue {
  if (text.length > bounds.length) throw new JsonBoundsError(`longer than ${bounds.length} characters`);
  let depth = 0;
  let values = 1;
  for (let at = 0; at < text.length; at++) {
    switch (text.charCodeAt(at)) {
      case QUOTE:
        at = endOfString(text, at + 1);
        break;
      case OPEN_BRACE:
      case OPEN_BRACKET:
        values++;
        if (++depth > bounds.depth) throw new JsonBoundsError('exceeded max depth');
        break;
      case CLOSE_BRACE:
      case CLOSE_BRACKET:
        depth--;
        break;
      case COMMA:
        values++;
        break;
    }
    if (values > bounds.values) throw new JsonBoundsError(`more than ${bounds.values} values`);
  }
  return JSON.parse(text) as JsonValue;
}

/**
 * The text at a path of keys, of a document that is too much to be parsed: nothing is made of the rest, and no stack is needed,
 * however deep it is. `undefined` when there is none, or it is longer than any name. A key that is repeated counts where it comes first.
 */
export function textWithin(text: string, path: readonly string[]): string | undefined {
  let depth = 0;
  /** Keys of the path that lead to the innermost object which is on it, itself at a depth of one more. */
  let found = 0;
  for (let at = 0; at < text.length; at++) {
    switch (text.charCodeAt(at)) {
      case QUOTE: {
        const end = endOfString(text, at + 1);
        const value = depth === found + 1 && isKey(text, at, end, path[found]!) ? afterColon(text, end) : undefined;
        at = end;
        if (value === undefined) break;
        const first = text.charCodeAt(value);
        if (found === path.length - 1) return first === QUOTE ? stringAt(text, value) : undefined;
        if (first !== OPEN_BRACE) return undefined;
        found++;
        break;
      }
      case OPEN_BRACE:
      case OPEN_BRACKET:
        depth++;
        break;
      case CLOSE_BRACE:
      case CLOSE_BRACKET:
        depth--;
        // The object that the path leads through has ended without what was looked for.
        if (found > 0 && depth <= found) return undefined;
        break;
    }
  }
  return undefined;
}

const MAX_TEXT = 1_024;

/** Whether the string between these quotes is that key; where a value is wanted, none of them is one. */
function isKey(text: string, from: number, end: number, key: string): boolean {
  return end - from - 1 === key.length && text.startsWith(key, from + 1);
}

/** Where the value of a key begins whose closing quote is at `end`; `undefined` when it is no key. */
function afterColon(text: string, end: number): number | undefined {
  const colon = skipSpace(text, end + 1);
  return text.charCodeAt(colon) === COLON ? skipSpace(text, colon + 1) : undefined;
}

function skipSpace(text: string, from: number): number {
  let at = from;
  while (at < text.length && text.charCodeAt(at) <= SPACE) at++;
  return at;
}

function stringAt(text: string, from: number): string | undefined {
  const end = endOfString(text, from + 1);
  if (end - from > MAX_TEXT || end >= text.length) return undefined;
  try {
    return JSON.parse(text.slice(from, end + 1)) as string;
  } catch {
    return undefined;
  }
}

/** The position of the quote that ends a string; the end of the text when none does, which JSON.parse then refuses. */
function endOfString(text: string, from: number): number {
  for (let at = from; ; ) {
    const quote = text.indexOf('"', at);
    if (quote < 0) return text.length;
    let backslashes = 0;
    while (quote - 1 - backslashes >= at && text.charCodeAt(quote - 1 - backslashes) === BACKSLASH) backslashes++;
    if (backslashes % 2 === 0) return quote;
    at = quote + 1;
  }
}

/** Whether two values are the same, whatever the order of keys. Needs no stack, however deep they are. */
export function equalJson(a: JsonValue | undefined, b: JsonValue | undefined): boolean {
  const pending: [JsonValue | undefined, JsonValue | undefined][] = [[a, b]];
  for (let pair = pending.pop(); pair !== undefined; pair = pending.pop()) {
    const [left, right] = pair;
    if (Object.is(left, right)) continue;
    if (typeof left !== 'object' || typeof right !== 'object' || left === null || right === null) return false;
    if (left === undefined || right === undefined || Array.isArray(left) !== Array.isArray(right)) return false;
    const keys = Object.keys(left);
    if (keys.length !== Object.keys(right).length) return false;
    for (const key of keys) {
      if (!Object.hasOwn(right, key)) return false;
      pending.push([member(left, key), member(right, key)]);
    }
  }
  return true;
}

function member(value: object, key: string): JsonValue {
  return (value as { readonly [key: string]: JsonValue })[key] as JsonValue;
}
