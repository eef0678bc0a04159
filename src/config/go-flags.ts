/**
 * Go's `flag` package: one or two dashes, `-name value` or `-name=value`, booleans only with `=`, parsing stops at the
 * first word that is no flag. No npm parser reads single-dash long names like that, and flanneld's command lines use them.
 */

import { showInvisible } from '../invisible.ts';

export type FlagSetting<T> = { readonly ok: true; readonly value: T } | { readonly ok: false; readonly reason: string };

export interface FlagDefinition<T> {
  /** Shown by usage; a word in back quotes names the value, as in Go. */
  readonly usage: string;
  /** Name of the value in the usage text when `usage` quotes none. */
  readonly typeName: string;
  /** May stand without a value, and never takes the next word as one. */
  readonly isBoolean: boolean;
  readonly initial: T;
  /** For the usage text; `undefined` for Go's zero values. */
  readonly defaultText: string | undefined;
  /** `previous` is what the flag holds, which repeatable flags add to. */
  set(text: string, previous: T): FlagSetting<T>;
}

export type FlagTable = { readonly [name: string]: FlagDefinition<unknown> };

export type FlagValues<T extends FlagTable> = {
  readonly [K in keyof T]: T[K] extends FlagDefinition<infer V> ? V : never;
};

export interface FlagSettings<T extends FlagTable> {
  readonly values: FlagValues<T>;
  /** Flags that were given, as opposed to left at their default. */
  readonly given: ReadonlySet<string>;
}

export type FlagParse<T extends FlagTable> =
  | { readonly kind: 'help' }
  /** `message` in Go's words. */
  | { readonly kind: 'error'; readonly message: string }
  /** `rest`: the words from the first one that is no flag on; Go leaves them unparsed. */
  | ({ readonly kind: 'values'; readonly rest: readonly string[] } & FlagSettings<T>);

/** A flag that takes any text. */
export function stringFlag(initial: string, usage: string): FlagDefinition<string> {
  return {
    usage,
    typeName: 'string',
    isBoolean: false,
    initial,
    defaultText: initial === '' ? undefined : JSON.stringify(initial),
    set: (value) => ({ ok: true, value }),
  };
}

/** Go's `strconv.ParseInt(s, 0, 64)`; beyond ±(2^53−1) the value is out of range here. */
export function intFlag(initial: number, usage: string): FlagDefinition<number> {
  return {
    usage,
    typeName: 'int',
    isBoolean: false,
    initial,
    defaultText: initial === 0 ? undefined : String(initial),
    set: parseGoInt,
  };
}

/** As Go's: `-flag` alone is true, and a value must be joined to it (`-flag=false`). */
export function boolFlag(initial: boolean, usage: string): FlagDefinition<boolean> {
  return {
    usage,
    typeName: '',
    isBoolean: true,
    initial,
    defaultText: initial ? 'true' : undefined,
    set: parseGoBool,
  };
}

/** May be given several times; a value is never split. */
export function listFlag(usage: string): FlagDefinition<readonly string[]> {
  return {
    usage,
    typeName: 'value',
    isBoolean: false,
    initial: [],
    defaultText: undefined,
    set: (text, previous) => ({ ok: true, value: [...previous, text] }),
  };
}

/** One of a fixed set of words; empty counts as not given. `undefined` as initial value: what is used without the flag depends on other flags. */
export function choiceFlag<const C extends string, I extends C | undefined>(
  choices: readonly C[],
  initial: I,
  usage: string,
): FlagDefinition<C | I> {
  return {
    usage,
    typeName: choices.join('|'),
    isBoolean: false,
    initial,
    defaultText: initial,
    set: (text) => {
      if (text === '') return { ok: true, value: initial };
      const value = choices.find((choice) => choice === text);
      return value === undefined ? { ok: false, reason: `must be ${orList(choices)}` } : { ok: true, value };
    },
  };
}

function orList(words: readonly string[]): string {
  return words.length < 2 ? words.join() : `${words.slice(0, -1).join(', ')} or ${words.at(-1)}`;
}

const GO_INT = /^[+-]?(?:0[xX](?:_?[0-9a-fA-F])+|0[bB](?:_?[01])+|0[oO](?:_?[0-7])+|0(?:_?[0-7])*|[1-9](?:_?[0-9])*)$/;

function parseGoInt(text: string): FlagSetting<number> {
  if (!GO_INT.test(text)) return { ok: false, reason: 'parse error' };
  const digits = text.replace(/^[+-]/, '').replaceAll('_', '');
  // A leading 0 alone means octal to Go and decimal to BigInt.
  const magnitude = Number(BigInt(/^0\d/.test(digits) ? `0o${digits.slice(1)}` : digits));
  if (!Number.isSafeInteger(magnitude)) return { ok: false, reason: 'value out of range' };
  return { ok: true, value: text.startsWith('-') && magnitude !== 0 ? -magnitude : magnitude };
}

function parseGoBool(text: string): FlagSetting<boolean> {
  if (/^(?:1|t|T|true|TRUE|True)$/.test(text)) return { ok: true, value: true };
  if (/^(?:0|f|F|false|FALSE|False)$/.test(text)) return { ok: true, value: false };
  return { ok: false, reason: 'parse error' };
}

/** Parses the words after the program's name. `-h` and `-help` ask for help unless the table defines them. */
export function parseFlags<const T extends FlagTable>(table: T, args: readonly string[]): FlagParse<T> {
  const values = new Map<string, unknown>(Object.entries(table).map(([name, flag]) => [name, flag.initial]));
  const given = new Set<string>();
  let at = 0;
  for (; at < args.length; at++) {
    const word = args[at] ?? '';
    if (word === '--') {
      at++;
      break;
    }
    if (word.length < 2 || !word.startsWith('-')) break;
    const body = word.slice(word.startsWith('--') ? 2 : 1);
    if (/^[-=]/.test(body)) return { kind: 'error', message: `bad flag syntax: ${word}` };
    const equals = body.indexOf('=');
    const name = equals < 0 ? body : body.slice(0, equals);
    let text = equals < 0 ? undefined : body.slice(equals + 1);
    const flag = Object.hasOwn(table, name) ? table[name] : undefined;
    if (flag === undefined) {
      if (name === 'h' || name === 'help') return { kind: 'help' };
      return { kind: 'error', message: `flag provided but not defined: -${showInvisible(name)}` };
    }
    if (text === undefined && flag.isBoolean) text = 'true';
    text ??= args[++at];
    if (text === undefined) return { kind: 'error', message: `flag needs an argument: -${name}` };
    const setting = flag.set(text, values.get(name));
    if (!setting.ok) return { kind: 'error', message: `${invalidValue(flag, text)} -${name}: ${setting.reason}` };
    values.set(name, setting.value);
    given.add(name);
  }
  return { kind: 'values', values: valuesOf<T>(values), given, rest: args.slice(at) };
}

function invalidValue(flag: FlagDefinition<unknown>, text: string): string {
  const quoted = showInvisible(JSON.stringify(text));
  return flag.isBoolean ? `invalid boolean value ${quoted} for` : `invalid value ${quoted} for flag`;
}

/** Each entry was made by the flag of the same name, so it has that flag's type. */
function valuesOf<T extends FlagTable>(values: ReadonlyMap<string, unknown>): FlagValues<T> {
  return Object.freeze(Object.fromEntries(values)) as FlagValues<T>;
}

/** `iface-regex` is `FLANNELD_IFACE_REGEX` with the prefix `FLANNELD`. */
export function flagVariable(prefix: string, name: string): string {
  return `${prefix}_${name.toUpperCase().replaceAll('-', '_')}`;
}

export interface EnvironmentSettings<T extends FlagTable> extends FlagSettings<T> {
  /** Variables whose value the flag does not take; the flag keeps its default. */
  readonly problems: readonly { readonly variable: string; readonly message: string }[];
}

/**
 * Sets the flags that the command line did not give from variables. An empty variable counts as unset; a repeatable
 * flag takes the whole variable as one value.
 */
export function applyEnvironment<const T extends FlagTable>(
  table: T,
  prefix: string,
  env: { readonly [variable: string]: string | undefined },
  settings: FlagSettings<T>,
): EnvironmentSettings<T> {
  const values = new Map<string, unknown>(Object.entries(settings.values));
  const given = new Set(settings.given);
  const problems: { variable: string; message: string }[] = [];
  for (const [name, flag] of Object.entries(table)) {
    const variable = flagVariable(prefix, name);
    const text = env[variable];
    if (text === undefined || text === '' || settings.given.has(name)) continue;
    const setting = flag.set(text, flag.initial);
    if (setting.ok) {
      values.set(name, setting.value);
      given.add(name);
    } else problems.push({ variable, message: `${invalidValue(flag, text)} -${name}: ${setting.reason}` });
  }
  return { values: valuesOf<T>(values), given, problems };
}

/** The text of Go's PrintDefaults: flags in alphabetical order, each with the name of its value and its default. */
export function flagUsage(table: FlagTable): string {
  const names = Object.keys(table).sort();
  return names.map((name) => (table[name] === undefined ? '' : usageOf(name, table[name]))).join('');
}

function usageOf(name: string, flag: FlagDefinition<unknown>): string {
  const quoted = /`([^`]*)`/.exec(flag.usage);
  const valueName = quoted?.[1] ?? flag.typeName;
  const head = `  -${name}${valueName === '' ? '' : ` ${valueName}`}`;
  // Go keeps boolean flags of a single letter on one line.
  const separator = head.length <= 4 ? '\t' : '\n    \t';
  const usage = (quoted === null ? flag.usage : flag.usage.replace(quoted[0], valueName)).replaceAll('\n', '\n    \t');
  return `${head}${separator}${usage}${flag.defaultText === undefined ? '' : ` (default ${flag.defaultText})`}\n`;
}
