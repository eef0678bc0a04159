import { FAMILIES, type PerFamily, perFamily } from '../../ip/family.ts';
import { ENTRY_BOUNDS } from '../../lease/go-json.ts';
import type { AnnotationKeys } from './annotations.ts';

/**
 * What is kept of a Node object: some hundred bytes of the 10 to 20 kB that a kubelet makes of it (image lists,
 * managedFields), so that a cluster of 5,000 nodes costs a few MiB.
 */
export interface NodeRecord {
  readonly name: string;
  readonly uid: string;
  /** metadata.creationTimestamp, in milliseconds since the epoch: set by the API server. */
  readonly createdAtMs: number | undefined;
  /** spec.podCIDRs, or spec.podCIDR alone when that list is empty. Empty: not assigned yet. */
  readonly podCidrs: readonly string[];
  /** Whether the annotation `kube-subnet-manager` is `true`: only such nodes are peers. */
  readonly managed: boolean;
  readonly backendType: string | undefined;
  /** Of nodes other than the own one kept only where asked for: each may be 64 KiB long. */
  readonly backendData: PerFamily<string | undefined>;
  readonly publicAddresses: PerFamily<string | undefined>;
  /** status.addresses that are IP addresses; kept only where asked for. */
  readonly addresses: readonly string[] | undefined;
  /** Details that only the own node needs; `undefined` for all others. */
  readonly own: OwnNodeDetails | undefined;
}

export interface OwnNodeDetails {
  readonly publicOverwrites: PerFamily<string | undefined>;
  readonly nodePublicAddresses: PerFamily<string | undefined>;
  /** status.addresses of type InternalIP, in their order. */
  readonly internalIps: readonly string[];
  /** The status of the condition NetworkUnavailable: `True`, `False`, `Unknown`, or not there. */
  readonly networkUnavailable: string | undefined;
}

/** In the place of a longer annotation, which is not kept: no reader takes it for a value, and the owner writes its own again. */
const TOO_LONG = `longer than ${ENTRY_BOUNDS.length} characters`;

const NO_DATA: NodeRecord['backendData'] = { ipv4: undefined, ipv6: undefined };

/** What is kept of other nodes beside what their leases need with every backend. */
export interface KeptOfOthers {
  /** The addresses that the store has for them. */
  readonly addresses?: boolean;
  /** What they publish for the backend; kept unless told not to. */
  readonly data?: boolean;
}

/** @throws Error, saying what is wrong, when it is no Node that can be read. */
export function nodeRecord(
  object: unknown,
  keys: AnnotationKeys,
  ownName: string,
  { addresses = false, data = true }: KeptOfOthers = {},
): NodeRecord {
  const node = mapping(object, 'the object');
  const metadata = mapping(node.metadata, 'metadata');
  const name = metadata.name;
  if (typeof name !== 'string' || name === '') throw new Error('metadata.name is not a text');
  const spec = optionalMapping(node.spec, 'spec');
  const written = optionalMapping(metadata.annotations, 'metadata.annotations');
  const annotation = (key: string): string | undefined => {
    const value = written[key];
    if (value === undefined) return undefined;
    if (typeof value === 'string') return value.length > ENTRY_BOUNDS.length ? TOO_LONG : value;
    throw new Error(`the annotation ${key} is not a text`);
  };
  const annotations = (pair: PerFamily<string>): PerFamily<string | undefined> =>
    perFamily((family) => annotation(pair[family]));
  return {
    name,
    uid: typeof metadata.uid === 'string' ? metadata.uid : '',
    createdAtMs: timeOf(metadata.creationTimestamp),
    podCidrs: podCidrs(spec),
    managed: annotation(keys.kubeSubnetManager) === 'true',
    backendType: annotation(keys.backendType),
    backendData: data || name === ownName ? annotations(keys.backendData) : NO_DATA,
    publicAddresses: annotations(keys.publicAddresses),
    addresses: addresses ? addressesOf(node.status) : undefined,
    own:
      name === ownName
        ? {
            publicOverwrites: annotations(keys.publicOverwrites),
            nodePublicAddresses: annotations(keys.nodePublicAddresses),
            internalIps: internalIps(node.status),
            networkUnavailable: networkUnavailable(node.status),
          }
        : undefined,
  };
}

export function withoutData(node: NodeRecord): NodeRecord {
  return { ...node, backendData: NO_DATA };
}

/** Whether nothing that is kept has changed; most updates of a Node are heart-beats. */
export function sameNodeRecord(a: NodeRecord, b: NodeRecord): boolean {
  return (
    a.uid === b.uid &&
    a.managed === b.managed &&
    samePair(a.publicAddresses, b.publicAddresses) &&
    a.backendType === b.backendType &&
    samePair(a.backendData, b.backendData) &&
    a.createdAtMs === b.createdAtMs &&
    sameTexts(a.podCidrs, b.podCidrs) &&
    sameTexts(a.addresses ?? [], b.addresses ?? []) &&
    sameOwn(a.own, b.own)
  );
}

function sameOwn(a: OwnNodeDetails | undefined, b: OwnNodeDetails | undefined): boolean {
  if (a === undefined || b === undefined) return a === b;
  return (
    samePair(a.publicOverwrites, b.publicOverwrites) &&
    samePair(a.nodePublicAddresses, b.nodePublicAddresses) &&
    a.networkUnavailable === b.networkUnavailable &&
    sameTexts(a.internalIps, b.internalIps)
  );
}

function samePair(a: PerFamily<string | undefined>, b: PerFamily<string | undefined>): boolean {
  return FAMILIES.every(({ key }) => a[key] === b[key]);
}

function sameTexts(a: readonly string[], b: readonly string[]): boolean {
  return a.length === b.length && a.every((text, i) => text === b[i]);
}

function podCidrs(spec: Record<string, unknown>): string[] {
  const list = spec.podCIDRs;
  if (Array.isArray(list) && list.length > 0) {
    if (!list.every((cidr) => typeof cidr === 'string')) throw new Error('spec.podCIDRs is not a list of texts');
    return list;
  }
  return typeof spec.podCIDR === 'string' && spec.podCIDR !== '' ? [spec.podCIDR] : [];
}

function timeOf(value: unknown): number | undefined {
  const ms = typeof value === 'string' ? Date.parse(value) : Number.NaN;
  return Number.isNaN(ms) ? undefined : ms;
}

/** More than that are no addresses of one host. */
const MAX_ADDRESSES = 64;

function addressesOf(status: unknown): string[] {
  const all = entries(status, 'addresses').map(({ address }) => address);
  return all
    .filter((address) => typeof address === 'string' && address.length <= 45)
    .slice(0, MAX_ADDRESSES) as string[];
}

function internalIps(status: unknown): string[] {
  const ips: string[] = [];
  for (const address of entries(status, 'addresses')) {
    if (address.type === 'InternalIP' && typeof address.address === 'string') ips.push(address.address);
  }
  return ips;
}

function networkUnavailable(status: unknown): string | undefined {
  const condition = entries(status, 'conditions').find((one) => one.type === 'NetworkUnavailable');
  return typeof condition?.status === 'string' ? condition.status : undefined;
}

function entries(status: unknown, field: string): Record<string, unknown>[] {
  const list = optionalMapping(status, 'status')[field];
  return Array.isArray(list) ? list.map((one) => mapping(one, `an entry of status.${field}`)) : [];
}

function optionalMapping(value: unknown, what: string): Record<string, unknown> {
  return value === undefined || value === null ? {} : mapping(value, what);
}

function mapping(value: unknown, what: string): Record<string, unknown> {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw new Error(`${what} is not an object`);
  return value as Record<string, unknown>;
}
