import { type Ipv4Addr, ipv4Of } from '../ip/ipv4.ts';
import { type Ipv6Addr, ipv6Of } from '../ip/ipv6.ts';
import { type Ipv4Prefix, type Ipv6Prefix, prefix4, prefix6 } from '../ip/prefix.ts';
import { foldKey, type JsonMember, type JsonNode, jsonValueOf, parseGoJson } from '../lease/go-json.ts';
import type { JsonValue } from '../lease/lease.ts';
import {
  type AddressFamily,
  type AddressRange,
  IPV4_FAMILY,
  IPV6_FAMILY,
  type NetworkNumber,
  planAddresses,
  unplannedRange,
} from './address-plan.ts';
import { type BackendLookup, readBackendConfig } from './backend-config.ts';
import { type BackendKeyTable, describeJson } from './backend-keys.ts';
import { type ConfigProblem, configInvalid, memberPath } from './config-problem.ts';
import type { AddressPlan, BackendConfig, NetworkConfig } from './network-config.ts';
import { unusualNetwork } from './unusual-network.ts';

export interface NetConfOptions {
  /** Where the text comes from, for messages: a path, or an etcd key. */
  readonly source: string;
  /**
   * `full`: the store hands out subnets, so lengths and ranges are checked (flannel's etcd manager). `kube`: Kubernetes
   * hands them out, so SubnetLen, SubnetMin, SubnetMax and their IPv6 forms must only be well-formed.
   */
  readonly validation: 'full' | 'kube';
  /** Which keys a backend has, and what it makes of them. */
  readonly backends: BackendLookup;
}

/** Everything that can be said about a net-conf.json, for `doctor`. */
export interface NetConfInspection {
  /** `undefined` exactly when there are problems. */
  readonly config: NetworkConfig | undefined;
  readonly problems: readonly ConfigProblem[];
  /** JSON paths of keys that have no effect: unknown ones, and those of a family or feature that is off. */
  readonly ignoredKeys: readonly string[];
  /** What is accepted but probably not meant. */
  readonly warnings: readonly ConfigProblem[];
}

/**
 * net-conf.json (or the etcd value) as flannel reads it: keys in any case, the last of repeated keys wins, unknown keys
 * are ignored, types are strict as in Go, `null` leaves a number or boolean at its default.
 *
 * @throws WeftError WEFT_CONFIG_INVALID that lists every problem with its JSON path; where flannel has a message for the
 * problem, ours starts with it.
 */
export function parseNetConf(text: string, options: NetConfOptions): NetworkConfig {
  const { config, problems } = inspectNetConf(text, options);
  if (config === undefined) throw configInvalid(options.source, problems);
  return config;
}

/** As parseNetConf, but returns what it found instead of throwing. */
export function inspectNetConf(text: string, options: Omit<NetConfOptions, 'source'>): NetConfInspection {
  const parsed = parseGoJson(text);
  if (!parsed.ok) return unreadable(`${parsed.message} (line ${parsed.line}, column ${parsed.column})`);
  const { node } = parsed;
  // Go leaves the struct at its defaults when the whole text is `null`.
  if (node.kind !== 'object' && node.kind !== 'null') return unreadable(`must be an object, but is ${describe(node)}`);
  return new Inspection(node.kind === 'object' ? node.members : [], options).run();
}

function unreadable(message: string): NetConfInspection {
  return { config: undefined, problems: [{ path: '$', message }], ignoredKeys: [], warnings: [] };
}

const FIELD_NAMES = [
  'Network',
  'IPv6Network',
  'EnableIPv4',
  'EnableIPv6',
  'EnableNFTables',
  'SubnetLen',
  'IPv6SubnetLen',
  'SubnetMin',
  'SubnetMax',
  'IPv6SubnetMin',
  'IPv6SubnetMax',
  'Backend',
] as const;
type FieldName = (typeof FIELD_NAMES)[number];
const FIELD_BY_FOLDED_NAME: ReadonlyMap<string, FieldName> = new Map(FIELD_NAMES.map((name) => [foldKey(name), name]));

/** What flannel takes when there is no Backend. */
export const DEFAULT_BACKEND = 'udp';

/** `value` undefined: the node changes nothing (JSON null, where Go ignores it). */
type Outcome<T> =
  | { readonly ok: true; readonly value: T | undefined }
  | { readonly ok: false; readonly message: string };

/** `wrong`: a problem has been reported, so that nothing more should be said about this field. */
interface Field<T> {
  readonly value: T | undefined;
  readonly wrong: boolean;
}

class Inspection {
  readonly #fields = new Map<FieldName, JsonMember[]>();
  readonly #validation: 'full' | 'kube';
  readonly #backends: BackendLookup;
  readonly #problems: ConfigProblem[] = [];
  readonly #warnings: ConfigProblem[] = [];
  readonly #ignoredKeys = new Set<string>();

  constructor(members: readonly JsonMember[], { validation, backends }: Omit<NetConfOptions, 'source'>) {
    this.#validation = validation;
    this.#backends = backends;
    for (const member of members) {
      const name = FIELD_BY_FOLDED_NAME.get(foldKey(member.key));
      const same = name === undefined ? undefined : this.#fields.get(name);
      if (name === undefined) this.#ignoredKeys.add(memberPath('$', member.key));
      else if (same === undefined) this.#fields.set(name, [member]);
      else same.push(member);
    }
  }

  run(): NetConfInspection {
    const enableIpv4 = this.#field('EnableIPv4', readBoolean);
    const enableIpv6 = this.#field('EnableIPv6', readBoolean);
    const enableNfTables = this.#field('EnableNFTables', readBoolean).value ?? false;
    const wantsIpv4 = enableIpv4.value ?? true;
    const wantsIpv6 = enableIpv6.value ?? false;
    const backend = this.#backend();
    const ipv4 = this.#range(IPV4_FAMILY, wantsIpv4, backend);
    const ipv6 = this.#range(IPV6_FAMILY, wantsIpv6, backend);
    if (!enableIpv4.wrong && !enableIpv6.wrong) this.#checkFamilies(wantsIpv4, wantsIpv6, backend);
    for (const [name, members] of this.#fields) {
      if (members.length < 2) continue;
      const spellings = members.map(({ key }) => key).join(', ');
      this.#warn(name, `is given ${members.length} times (${spellings}); the last one counts`);
    }
    const valid = this.#problems.length === 0 && backend !== undefined;
    return {
      config: valid
        ? Object.freeze({
            ipv4: ipv4 && plan4(ipv4),
            ipv6: ipv6 && plan6(ipv6),
            enableNfTables,
            backend,
          })
        : undefined,
      problems: this.#problems,
      ignoredKeys: [...this.#ignoredKeys],
      warnings: this.#warnings,
    };
  }

  /** The field's path in the user's spelling. */
  #path(name: FieldName): string {
    return memberPath('$', this.#fields.get(name)?.at(-1)?.key ?? name);
  }

  #report(name: FieldName, message: string): void {
    this.#problems.push({ path: this.#path(name), message });
  }

  #warn(name: FieldName, message: string): void {
    this.#warnings.push({ path: this.#path(name), message });
  }

  /** Reads every occurrence, as Go does: an early wrong one is an error even when a later one is right. */
  #field<T>(name: FieldName, read: (node: JsonNode) => Outcome<T>): Field<T> {
    let value: T | undefined;
    let wrong = false;
    for (const member of this.#fields.get(name) ?? []) {
      const outcome = read(member.value);
      if (!outcome.ok) {
        wrong = true;
        this.#problems.push({ path: memberPath('$', member.key), message: outcome.message });
      } else value = outcome.value ?? value;
    }
    return { value, wrong };
  }

  #range(family: AddressFamily, enabled: boolean, backend: BackendConfig | undefined): AddressRange | undefined {
    const { keys } = family;
    // Read even when the family is off: Go decodes every field, so what cannot be decoded is an error in any case.
    const network = this.#field(keys.network, (node) => readNetwork(family, node));
    const length = this.#field(keys.length, readUint);
    const min = this.#field(keys.min, (node) => readAddr(family, node));
    const max = this.#field(keys.max, (node) => readAddr(family, node));
    const unused: FieldName[] = enabled ? [] : [keys.network];
    if (!enabled || this.#validation === 'kube') unused.push(keys.length, keys.min, keys.max);
    for (const name of unused) if (this.#fields.has(name)) this.#ignoredKeys.add(this.#path(name));
    if (!enabled || network.wrong) return undefined;
    const given = network.value ?? { addr: 0n, length: 0 };
    if (this.#validation === 'kube') {
      if (given.length === 0) this.#checkBoundlessNetwork(family, backend);
      return this.#usual(family, unplannedRange(family, given));
    }
    const { range, problems } = planAddresses(family, {
      network: given,
      length: length.value,
      min: min.value,
      max: max.value,
    });
    for (const { key, message } of problems) {
      // A length that could not be read stands at its default here; what that default leads to is not news.
      if (!length.wrong || key === keys.network) this.#report(key, message);
    }
    return range && this.#usual(family, range);
  }

  #usual(family: AddressFamily, range: AddressRange): AddressRange {
    for (const { message } of unusualNetwork(family, range, this.#validation === 'full'))
      this.#warn(family.keys.network, message);
    return range;
  }

  /** flannel with Kubernetes accepts a missing IPv4 Network as 0.0.0.0/0. */
  #checkBoundlessNetwork(family: AddressFamily, backend: BackendConfig | undefined): void {
    const { network } = family.keys;
    const advice = `please define a correct ${network} parameter in the flannel config`;
    if (family.name === 'IPv6') this.#report(network, advice);
    else if (backend?.routesWholeNetwork === true) {
      this.#report(network, `${advice}: without it the ${backend.type} backend would take the host's default route`);
    } else this.#warn(network, `${advice}: every address counts as part of the network, so nothing is masqueraded`);
  }

  #checkFamilies(ipv4: boolean, ipv6: boolean, backend: BackendConfig | undefined): void {
    if (!ipv4 && !ipv6) {
      this.#report('EnableIPv4', 'none defined stack: EnableIPv4 and EnableIPv6 are both false, turn one of them on');
      return;
    }
    if (!ipv6) return;
    if (backend !== undefined && !backend.families.includes('ipv6')) {
      const limit = `the ${backend.type} backend carries IPv4 only`;
      if (ipv4) this.#warn('EnableIPv6', `${limit}; pods get no IPv6 connectivity between nodes`);
      else this.#report('EnableIPv6', `${limit}: turn EnableIPv4 on`);
    }
    if (!ipv4 && this.#validation === 'full') {
      this.#report(
        'EnableIPv4',
        'IPv6 without IPv4 needs the Kubernetes subnet manager: the keys of other stores always hold an IPv4 subnet, ' +
          'and flannel peers would withdraw all their routes over any other key',
      );
    }
  }

  /** `undefined` when the backend's type could not be read; then that is among the problems. */
  #backend(): BackendConfig | undefined {
    // Only the last one counts, whole: Go keeps the raw text and decodes it afterwards.
    const node = this.#fields.get('Backend')?.at(-1)?.value;
    const path = this.#path('Backend');
    if (node === undefined) {
      this.#warn('Backend', 'is not given, so the udp backend is used');
      return readBackendConfig(DEFAULT_BACKEND, Object.freeze({}), this.#backends).config;
    }
    if (node.kind !== 'object' && node.kind !== 'null') {
      this.#report('Backend', `error decoding Backend property of config: must be an object, but is ${describe(node)}`);
      return undefined;
    }
    const members = node.kind === 'object' ? node.members : [];
    let type = '';
    let typePath = `${path}.Type`;
    for (const { key, value } of members) {
      if (foldKey(key) !== 'type') continue;
      typePath = memberPath(path, key);
      if (value.kind === 'string') type = value.value.toLowerCase();
      else if (value.kind !== 'null') {
        const message = `error decoding Backend property of config: must be a string, but is ${describe(value)}`;
        this.#problems.push({ path: typePath, message });
        return undefined;
      }
    }
    if (type === '') {
      const message = 'unknown backend type: the Backend object names none; give it a Type, "udp" for instance';
      this.#problems.push({ path: typePath, message });
      return undefined;
    }
    const reading = readBackendConfig(type, backendRecord(members), this.#backends, path);
    this.#problems.push(...reading.problems, ...spelledAsFractions(members, this.#backends(type)?.keys ?? {}, path));
    for (const ignored of reading.ignoredKeys) this.#ignoredKeys.add(ignored);
    return reading.config;
  }
}

/** Go's decoder takes a number with a point or an exponent for no integer, whatever its value. */
function spelledAsFractions(members: readonly JsonMember[], table: BackendKeyTable, parent: string): ConfigProblem[] {
  const integers = new Set(Object.keys(table).flatMap((key) => (table[key]?.kind === 'integer' ? [foldKey(key)] : [])));
  return members.flatMap(({ key, value }) => {
    if (value.kind !== 'number' || !integers.has(foldKey(key)) || /^-?\d+$/.test(value.text)) return [];
    // What is no whole number at all has been complained of by its value.
    if (!Number.isInteger(Number(value.text))) return [];
    const whole = `must be a whole number without point or exponent, but is ${value.text}`;
    return [{ path: memberPath(parent, key), message: whole }];
  });
}

/** A null after a value does not replace it, because Go would not. */
function backendRecord(members: readonly JsonMember[]): BackendConfig['written'] {
  const record = new Map<string, JsonValue>();
  for (const { key, value } of members) {
    const next = value.kind === 'null' ? (record.get(key) ?? null) : deepFreeze(jsonValueOf(value));
    record.delete(key);
    record.set(key, next);
  }
  return Object.freeze(Object.fromEntries(record));
}

function deepFreeze(value: JsonValue): JsonValue {
  if (typeof value === 'object' && value !== null) for (const inner of Object.values(value)) deepFreeze(inner);
  return Object.freeze(value);
}

function plan4(range: AddressRange): AddressPlan<Ipv4Prefix, Ipv4Addr> {
  return Object.freeze({
    network: Object.freeze(prefix4(ipv4Of(Number(range.network.addr)), range.network.length)),
    subnetLength: range.subnetLength,
    subnetMin: ipv4Of(Number(range.min)),
    subnetMax: ipv4Of(Number(range.max)),
  });
}

function plan6(range: AddressRange): AddressPlan<Ipv6Prefix, Ipv6Addr> {
  return Object.freeze({
    network: Object.freeze(prefix6(ipv6Of(range.network.addr), range.network.length)),
    subnetLength: range.subnetLength,
    subnetMin: ipv6Of(range.min),
    subnetMax: ipv6Of(range.max),
  });
}

function describe(node: JsonNode): string {
  return node.kind === 'number' ? node.text : describeJson(jsonValueOf(node));
}

function readBoolean(node: JsonNode): Outcome<boolean> {
  if (node.kind === 'boolean' || node.kind === 'null') {
    return { ok: true, value: node.kind === 'boolean' ? node.value : undefined };
  }
  return { ok: false, message: `must be true or false, but is ${describe(node)}` };
}

/** Go's uint: digits only, so neither 24.0 nor -0. */
function readUint(node: JsonNode): Outcome<number> {
  if (node.kind === 'null') return { ok: true, value: undefined };
  if (node.kind === 'number' && /^\d+$/.test(node.text) && BigInt(node.text) < 1n << 64n) {
    return { ok: true, value: Number(node.text) };
  }
  return { ok: false, message: `must be a whole number of 0 or more, but is ${describe(node)}` };
}

function readNetwork(family: AddressFamily, node: JsonNode): Outcome<NetworkNumber> {
  const value = node.kind === 'string' ? family.parseNetwork(node.value) : undefined;
  if (value !== undefined) return { ok: true, value };
  const message = `invalid ${family.name} CIDR format: must be a string such as "${family.exampleNetwork}", but is`;
  return { ok: false, message: `${message} ${describe(node)}` };
}

function readAddr(family: AddressFamily, node: JsonNode): Outcome<bigint> {
  // Only the IPv6 fields are pointers in flannel's struct, which null leaves unset.
  if (node.kind === 'null' && family.name === 'IPv6') return { ok: true, value: undefined };
  const value = node.kind === 'string' ? family.parseAddr(node.value) : undefined;
  if (value !== undefined) return { ok: true, value };
  const hint = node.kind === 'string' && node.value === '' ? ' (leave the key out for the default)' : '';
  return { ok: false, message: `invalid ${family.name} address format: ${describe(node)}${hint}` };
}
