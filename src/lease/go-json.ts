import { nameOfInvisible } from '../invisible.ts';
import type { JsonValue } from './lease.ts';

/**
 * JSON as Go's encoding/json reads it. JSON.parse cannot stand in for it: it forgets the order of repeated keys (which
 * decides when `network` and `Network` are both there) and the spelling of numbers (Go refuses 24.0 for an integer).
 */
export type JsonNode =
  | { readonly kind: 'null' }
  | { readonly kind: 'boolean'; readonly value: boolean }
  /** `text` is the literal as written. */
  | { readonly kind: 'number'; readonly text: string }
  | { readonly kind: 'string'; readonly value: string }
  | { readonly kind: 'array'; readonly items: readonly JsonNode[] }
  | { readonly kind: 'object'; readonly members: readonly JsonMember[] };

/** Repeated keys are kept, in the order of the text. */
export interface JsonMember {
  readonly key: string;
  readonly value: JsonNode;
}

export type GoJsonResult =
  | { readonly ok: true; readonly node: JsonNode }
  /** `message` in Go's words; line and column count from 1. */
  | { readonly ok: false; readonly message: string; readonly line: number; readonly column: number };

/** What a text may be at most. Readers of the result are recursive, so the depth keeps them all well inside the stack. */
export interface JsonBounds {
  /** Go stops at 10,000. */
  readonly depth: number;
  /** Length of the text, in UTF-16 units. */
  readonly length: number;
  /** Values, those inside others included. */
  readonly values: number;
}

/** Files that an operator or a program of this host wrote: net-conf.json, CNI configurations. */
export const DOCUMENT_BOUNDS: JsonBounds = { depth: 500, length: 16 << 20, values: 1_000_000 };

/**
 * One entry of a store, which any host of the cluster may have written: a hundred bytes in practice. What is read within
 * these bounds is kept for each peer.
 */
export const ENTRY_BOUNDS: JsonBounds = { depth: 32, length: 64 << 10, values: 4_096 };

/** A whole object of the Kubernetes API, with all that others keep in it. */
export const OBJECT_BOUNDS: JsonBounds = { depth: 100, length: 16 << 20, values: 1_000_000 };

class SyntaxFailure extends Error {
  readonly offset: number;

  constructor(message: string, offset: number) {
    super(message);
    this.offset = offset;
  }
}

/** Parses one JSON text. Never throws; accepts exactly what JSON.parse accepts, within the bounds. */
export function parseGoJson(text: string, bounds: JsonBounds = DOCUMENT_BOUNDS): GoJsonResult {
  if (text.length > bounds.length) {
    return { ok: false, message: `longer than ${bounds.length} characters`, line: 1, column: 1 };
  }
  try {
    return { ok: true, node: new Reader(text, bounds).document() };
  } catch (error) {
    if (!(error instanceof SyntaxFailure)) throw error;
    const before = text.slice(0, error.offset);
    const line = before.split('\n').length;
    return { ok: false, message: error.message, line, column: error.offset - before.lastIndexOf('\n') };
  }
}

/**
 * The form under which Go's decoder compares keys with field names: ASCII case is ignored, and the two letters outside
 * ASCII that fold into it (ſ to s, the Kelvin sign to k) match as well.
 */
export function foldKey(key: string): string {
  return key.replaceAll('\u017f', 's').replaceAll('\u212a', 'k').toLowerCase();
}

/** Plain value of a node; a repeated key keeps its last value and that value's place in the order. */
export function jsonValueOf(node: JsonNode): JsonValue {
  switch (node.kind) {
    case 'null':
      return null;
    case 'boolean':
    case 'string':
      return node.value;
    case 'number':
      return Number(node.text);
    case 'array':
      return node.items.map(jsonValueOf);
    case 'object': {
      const members = new Map<string, JsonValue>();
      for (const { key, value } of node.members) {
        members.delete(key);
        members.set(key, jsonValueOf(value));
      }
      // fromEntries defines properties, so that a key `__proto__` stays an ordinary key.
      return Object.fromEntries(members);
    }
  }
}

const NUMBER = /-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?/y;
const LITERALS = { t: 'true', f: 'false', n: 'null' } as const;

class Reader {
  readonly #text: string;
  readonly #bounds: JsonBounds;
  #at = 0;
  #depth = 0;
  #values = 0;

  constructor(text: string, bounds: JsonBounds) {
    this.#text = text;
    this.#bounds = bounds;
  }

  document(): JsonNode {
    const node = this.#value();
    this.#space();
    if (this.#at < this.#text.length) this.#fail('after top-level value');
    return node;
  }

  #space(): void {
    for (;;) {
      const code = this.#text.charCodeAt(this.#at);
      if (code !== 0x20 && code !== 0x0a && code !== 0x0d && code !== 0x09) return;
      this.#at++;
    }
  }

  /** The next character that is not white space, not consumed; '' at the end. */
  #peek(): string {
    this.#space();
    return this.#text.charAt(this.#at);
  }

  #fail(context: string): never {
    if (this.#at >= this.#text.length) throw new SyntaxFailure('unexpected end of JSON input', this.#text.length);
    throw new SyntaxFailure(`invalid character ${quoteCharacter(this.#text, this.#at)} ${context}`, this.#at);
  }

  #value(): JsonNode {
    const next = this.#peek();
    if (++this.#values > this.#bounds.values) {
      throw new SyntaxFailure(`more than ${this.#bounds.values} values`, this.#at);
    }
    switch (next) {
      case '{':
        return this.#nested(() => this.#object());
      case '[':
        return this.#nested(() => this.#array());
      case '"':
        return { kind: 'string', value: this.#string() };
      case 't':
      case 'f':
      case 'n':
        return this.#literal(LITERALS[next]);
      default:
        if (next === '-' || (next >= '0' && next <= '9')) return this.#number();
        return this.#fail('looking for beginning of value');
    }
  }

  #nested(read: () => JsonNode): JsonNode {
    if (++this.#depth > this.#bounds.depth) throw new SyntaxFailure('exceeded max depth', this.#at);
    this.#at++;
    const node = read();
    this.#depth--;
    return node;
  }

  #object(): JsonNode {
    const members: JsonMember[] = [];
    if (this.#peek() === '}') {
      this.#at++;
      return { kind: 'object', members };
    }
    for (;;) {
      if (this.#peek() !== '"') this.#fail('looking for beginning of object key string');
      const key = this.#string();
      if (this.#peek() !== ':') this.#fail('after object key');
      this.#at++;
      members.push({ key, value: this.#value() });
      const next = this.#peek();
      if (next !== ',' && next !== '}') this.#fail('after object key:value pair');
      this.#at++;
      if (next === '}') return { kind: 'object', members };
    }
  }

  #array(): JsonNode {
    const items: JsonNode[] = [];
    if (this.#peek() === ']') {
      this.#at++;
      return { kind: 'array', items };
    }
    for (;;) {
      items.push(this.#value());
      const next = this.#peek();
      if (next !== ',' && next !== ']') this.#fail('after array element');
      this.#at++;
      if (next === ']') return { kind: 'array', items };
    }
  }

  #literal(word: 'true' | 'false' | 'null'): JsonNode {
    for (const expected of word) {
      if (this.#text.charAt(this.#at) !== expected) this.#fail(`in literal ${word} (expecting '${expected}')`);
      this.#at++;
    }
    return word === 'null' ? { kind: 'null' } : { kind: 'boolean', value: word === 'true' };
  }

  #number(): JsonNode {
    NUMBER.lastIndex = this.#at;
    const text = NUMBER.exec(this.#text)?.[0];
    if (text === undefined) {
      this.#at++;
      return this.#fail('in numeric literal');
    }
    this.#at += text.length;
    const next = this.#text.charAt(this.#at);
    if (next === '.' && !/[.eE]/.test(text)) {
      this.#at++;
      return this.#fail('after decimal point in numeric literal');
    }
    if ((next === 'e' || next === 'E') && !/[eE]/.test(text)) {
      this.#at += /[+-]/.test(this.#text.charAt(this.#at + 1)) ? 2 : 1;
      return this.#fail('in exponent of numeric literal');
    }
    return { kind: 'number', text };
  }

  #string(): string {
    const start = this.#at++;
    for (;;) {
      const code = this.#text.charCodeAt(this.#at);
      if (code === 0x22) {
        this.#at++;
        // Go replaces unpaired surrogates while decoding.
        return (JSON.parse(this.#text.slice(start, this.#at)) as string).toWellFormed();
      }
      if (code === 0x5c) this.#escape();
      else if (code < 0x20 || Number.isNaN(code)) this.#fail('in string literal');
      else this.#at++;
    }
  }

  #escape(): void {
    this.#at++;
    const next = this.#text.charAt(this.#at);
    if (next === '' || !'"\\/bfnrtu'.includes(next)) this.#fail('in string escape code');
    this.#at++;
    if (next !== 'u') return;
    for (let digit = 0; digit < 4; digit++, this.#at++) {
      if (!/[0-9a-fA-F]/.test(this.#text.charAt(this.#at))) this.#fail('in \\u hexadecimal character escape');
    }
  }
}

function quoteCharacter(text: string, at: number): string {
  const character = String.fromCodePoint(text.codePointAt(at) ?? 0xfffd);
  const name = nameOfInvisible(character);
  if (name !== undefined) return name;
  if (character === "'") return "'\\''";
  if (character === '"') return `'"'`;
  return `'${JSON.stringify(character).slice(1, -1)}'`;
}
