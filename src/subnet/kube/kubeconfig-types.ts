import { boolYaml11Tag, CORE_SCHEMA, mergeTag, Schema } from 'js-yaml';

/**
 * YAML as kubectl reads it: `yes` and `off` without quotes are booleans, as in YAML 1.1, dates and 1:30 are text, `<<` merges.
 */
export const KUBECONFIG_SCHEMA: Schema = new Schema([
  ...CORE_SCHEMA.tags.filter(({ tagName }) => tagName !== boolYaml11Tag.tagName && tagName !== mergeTag.tagName),
  boolYaml11Tag,
  mergeTag,
]);

type Kind = 'string' | 'boolean';
type Fields = Readonly<Record<string, Kind>>;

/** client-go's types (tools/clientcmd/api/v1): what must be a string, so that kubectl refuses a number there. */
const CONFIG: Fields = { 'current-context': 'string' };
const CLUSTER: Fields = {
  server: 'string',
  'tls-server-name': 'string',
  'insecure-skip-tls-verify': 'boolean',
  'certificate-authority': 'string',
  'certificate-authority-data': 'string',
  'proxy-url': 'string',
};
const USER: Fields = {
  'client-certificate': 'string',
  'client-certificate-data': 'string',
  'client-key': 'string',
  'client-key-data': 'string',
  token: 'string',
  tokenFile: 'string',
  as: 'string',
  'as-uid': 'string',
  username: 'string',
  password: 'string',
};
const CONTEXT: Fields = { cluster: 'string', user: 'string', namespace: 'string' };
const LISTS = [
  { list: 'clusters', item: 'cluster', fields: CLUSTER },
  { list: 'users', item: 'user', fields: USER },
  { list: 'contexts', item: 'context', fields: CONTEXT },
] as const;

/**
 * Refuses what kubectl refuses, with the place: a password or a name of digits without quotes is a number. And a token that
 * no HTTP header can hold, which `token: |` makes of any token.
 *
 * @throws Error
 */
export function checkKubeconfigTypes(document: unknown): void {
  const config = mapping(document);
  checkFields(config, CONFIG, '');
  for (const { list, item, fields } of LISTS) {
    const entries = Array.isArray(config[list]) ? config[list] : [];
    for (const [i, entry] of entries.map(mapping).entries()) {
      checkFields(entry, { name: 'string' }, `${list}[${i}].`);
      if (typeof entry[item] === 'string') throw new Error(`${list}[${i}].${item} must be a mapping, but is text`);
      checkFields(mapping(entry[item]), fields, `${list}[${i}].${item}.`);
      if (item === 'user') checkToken(mapping(entry.user).token, `users[${i}].user.token`);
    }
  }
}

function checkFields(object: Readonly<Record<string, unknown>>, fields: Fields, path: string): void {
  for (const [key, kind] of Object.entries(fields)) {
    const value = object[key];
    // Go leaves a field at its default for null.
    if (value === undefined || value === null || typeof value === kind) continue;
    const is = Array.isArray(value) ? 'a list' : typeof value === 'object' ? 'a mapping' : `a ${typeof value} to YAML`;
    const quotes = typeof value !== 'object' && kind === 'string' ? ': put it in quotes' : '';
    throw new Error(`${path}${key} must be a ${kind}, but is ${is}${quotes}`);
  }
}

function checkToken(token: unknown, path: string): void {
  if (typeof token !== 'string') return;
  if (/^[^\r\n]*[\r\n]+$/.test(token)) {
    throw new Error(
      `${path} ends with a line break, which no HTTP header can have. Write it behind "token: " on the same line, or below "token: |-", not below "token: |"`,
    );
  }
  const bad = /[^\t\x20-\x7e]/u.exec(token);
  if (bad === null) return;
  const code = bad[0].codePointAt(0)!.toString(16).toUpperCase().padStart(4, '0');
  throw new Error(`${path} has a character that no HTTP header can have: U+${code}, as number ${bad.index + 1}`);
}

function mapping(value: unknown): Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as Record<string, unknown>) : {};
}
