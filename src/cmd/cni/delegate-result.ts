import { marshalGo } from '../../cni/go-marshal.ts';
import { jsonValueOf, parseGoJson } from '../../lease/go-json.ts';
import type { JsonValue } from '../../lease/lease.ts';

/**
 * The delegate's result as flannel's plugin hands it on: a result without a version gets the configuration's, one of 1.0.0
 * or later has no empty `dns` and its members are sorted; older ones stay as the delegate wrote them.
 *
 * @throws Error when it is no JSON object.
 */
export function formatDelegateResult(output: string, configVersion: string): string {
  const parsed = parseGoJson(output);
  if (!parsed.ok) throw new Error(`failed to unmarshal raw result: ${parsed.message}`);
  // What a delegate that has nothing to say prints.
  const value = parsed.node.kind === 'null' ? {} : jsonValueOf(parsed.node);
  if (value === null || typeof value !== 'object' || Array.isArray(value)) {
    throw new Error('failed to unmarshal raw result: it is no object');
  }
  const result = value as Readonly<Record<string, JsonValue>>;
  const given = typeof result.cniVersion === 'string' ? result.cniVersion : '';
  const version = given === '' ? configVersion : given;
  if (version.startsWith('0.')) {
    if (given !== '') return output;
    const { cniVersion: _, ...rest } = result;
    return marshalGo(new Map<string, JsonValue>([['cniVersion', version], ...Object.entries(rest)]), '    ');
  }
  const { dns, ...rest } = result;
  const kept = dns === undefined || isEmptyDns(dns) ? rest : { ...rest, dns };
  return marshalGo({ ...kept, cniVersion: version }, '    ');
}

function isEmptyDns(dns: JsonValue): boolean {
  if (dns === null) return true;
  if (typeof dns !== 'object' || Array.isArray(dns)) return false;
  return Object.values(dns).every(
    (value) => value === '' || value === null || (Array.isArray(value) && value.length === 0),
  );
}
