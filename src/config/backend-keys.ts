import { assertNever } from '../assert-never.ts';
import { showInvisible } from '../invisible.ts';
import { foldKey } from '../lease/go-json.ts';
import type { JsonValue } from '../lease/lease.ts';
import { type ConfigProblem, memberPath } from './config-problem.ts';

/** What may stand under one key of the Backend object. */
export type BackendKeySpec =
  /** `zeroIsUnset`: 0 means "not given", as in flannel's Go structs. */
  | { readonly kind: 'integer'; readonly min: number; readonly max: number; readonly zeroIsUnset: boolean }
  | { readonly kind: 'boolean' }
  /** `check` returns what is wrong with a value, or `undefined`. */
  | { readonly kind: 'string'; readonly check?: (value: string) => string | undefined };

export type BackendKeyTable = { readonly [key: string]: BackendKeySpec };

/** The values of a table's keys; absent ones are `undefined`, so that each backend states its own defaults. */
export type BackendValues<T extends BackendKeyTable> = {
  readonly [K in keyof T]:
    | (T[K] extends { kind: 'integer' } ? number : T[K] extends { kind: 'boolean' } ? boolean : string)
    | undefined;
};

export interface BackendReading<T extends BackendKeyTable> {
  readonly values: BackendValues<T>;
  readonly problems: readonly ConfigProblem[];
  /** JSON paths of keys that are in the object but not in the table. */
  readonly ignoredKeys: readonly string[];
}

export const BOOLEAN = { kind: 'boolean' } as const;
export const STRING = { kind: 'string' } as const;

/** `min` and `max` are inclusive. */
export function integer(min: number, max: number) {
  return { kind: 'integer', min, max, zeroIsUnset: false } as const;
}

/** As `integer`, or 0 for "not given". */
export function integerOrZero(min: number, max: number) {
  return { kind: 'integer', min, max, zeroIsUnset: true } as const;
}

/** `check` returns what is wrong with a value, or `undefined`. */
export function checked(check: (value: string) => string | undefined) {
  return { kind: 'string', check } as const;
}

/** `MTU` is always the MTU of the network between the hosts; each backend subtracts its own overhead from it. */
export const MTU = integerOrZero(96, 65_535);

/**
 * Reads the Backend object as Go's decoder would fill a struct: key case does not matter, the last of several spellings
 * wins, `null` changes nothing, unknown keys are ignored (and listed). Every wrong value is reported, never thrown.
 */
export function readBackendKeys<const T extends BackendKeyTable>(
  backend: { readonly [key: string]: JsonValue },
  table: T,
  parentPath = '$.Backend',
): BackendReading<T> {
  const names = new Map(Object.keys(table).map((name) => [foldKey(name), name]));
  const values: Record<string, number | boolean | string | undefined> = {};
  const problems: ConfigProblem[] = [];
  const ignoredKeys: string[] = [];
  for (const [key, value] of Object.entries(backend)) {
    const folded = foldKey(key);
    const name = names.get(folded);
    const spec = name === undefined ? undefined : table[name];
    const path = memberPath(parentPath, key);
    if (name === undefined || spec === undefined) {
      if (folded !== 'type') ignoredKeys.push(path);
      continue;
    }
    if (value === null) continue;
    const message = problemOf(spec, value);
    if (message === undefined) {
      const unset = spec.kind === 'integer' && spec.zeroIsUnset && value === 0;
      values[name] = unset ? undefined : (value as number | boolean | string);
    } else problems.push({ path, message });
  }
  // The loop stores under a name only what that name's spec has accepted.
  return { values: values as BackendValues<T>, problems, ignoredKeys };
}

function problemOf(spec: BackendKeySpec, value: JsonValue): string | undefined {
  switch (spec.kind) {
    case 'integer': {
      if (spec.zeroIsUnset && value === 0) return undefined;
      if (typeof value === 'number' && Number.isInteger(value) && value >= spec.min && value <= spec.max) {
        return undefined;
      }
      const range = `a whole number from ${spec.min} to ${spec.max}${spec.zeroIsUnset ? ', or 0 for the default' : ''}`;
      return `must be ${range}, but is ${describeJson(value)}`;
    }
    case 'boolean':
      return typeof value === 'boolean' ? undefined : `must be true or false, but is ${describeJson(value)}`;
    case 'string':
      return typeof value === 'string' ? spec.check?.(value) : `must be a string, but is ${describeJson(value)}`;
    default:
      return assertNever(spec, 'backend key');
  }
}

/** For messages: the value with its type, short. */
export function describeJson(value: JsonValue): string {
  if (value === null) return 'null';
  if (Array.isArray(value)) return 'an array';
  if (typeof value === 'object') return 'an object';
  const text = JSON.stringify(value);
  const short = text.length > 60 ? `${text.slice(0, 57)}…` : text;
  return typeof value === 'string' ? `the string ${showInvisible(short)}` : short;
}
