import { readFile } from 'node:fs/promises';
import { writeFileAtomically } from '../atomic-file.ts';
import { type BackendLookup, readBackendConfig } from '../config/backend-config.ts';
import type { AddressPlan, NetworkConfig } from '../config/network-config.ts';
import type { NodeAddresses } from '../config/node-addresses.ts';
import { hasErrno } from '../errno.ts';
import { formatIpv4, type Ipv4Addr, parseIpv4 } from '../ip/ipv4.ts';
import { formatIpv6, type Ipv6Addr, parseIpv6 } from '../ip/ipv6.ts';
import {
  formatPrefix4,
  formatPrefix6,
  type Ipv4Prefix,
  type Ipv6Prefix,
  parsePrefix4,
  parsePrefix6,
} from '../ip/prefix.ts';
import type { JsonBounds } from '../lease/go-json.ts';
import { parseJsonWithin } from '../lease/json-value.ts';
import { type JsonValue, type Lease, type LeaseKey, leaseKey } from '../lease/lease.ts';
import { decodeLeaseValue, encodeLeaseValue, parseLeaseKey } from '../lease/lease-codec.ts';
import type { InterfaceInUse } from '../underlay/keep-interface.ts';

/**
 * What the agent knew when it last heard of its store: enough to carry packets again after a restart while the store is
 * away. A copy, never the truth: once the store answers, what it says counts.
 */
export interface LastKnown {
  /** Which store it comes from; what another one said is of no use. */
  readonly source: string;
  readonly config: NetworkConfig;
  /** `undefined` when the subnet manager knows no nodes. */
  readonly node: NodeAddresses | undefined;
  /** The external interface and the addresses on it that were used. */
  readonly external: InterfaceInUse;
  readonly own: Lease;
  readonly peers: readonly Lease[];
}

/** Ours, but a file all the same: 150 bytes for each of 65,535 peers, and what a backend publishes. */
const FILE_BOUNDS: JsonBounds = { depth: 32, length: 256 << 20, values: 10_000_000 };

/** Grows when older agents could misread the file. */
const VERSION = 1;

/** Beside subnet.env, under its name, so that two agents of one host have one each. `weft cleanup` removes it. */
export function lastKnownPath(subnetFile: string): string {
  return `${subnetFile}.last-known.json`;
}

/** Atomic; 0600, because a network configuration may hold a pre-shared key. */
export async function writeLastKnown(subnetFile: string, known: LastKnown): Promise<void> {
  await writeFileAtomically(lastKnownPath(subnetFile), formatLastKnown(known, new Date()), 0o600);
}

export type LastKnownResult =
  /** `unreadable` says of the peers that cannot be read why; the others count. */
  | {
      readonly kind: 'read';
      readonly known: LastKnown;
      readonly writtenAt: Date;
      readonly unreadable: readonly string[];
      /** Names of nodes by their leases, where the store knows names: for people, as the leases themselves have no origin here. */
      readonly holders: ReadonlyMap<LeaseKey, string>;
    }
  | { readonly kind: 'absent' }
  | { readonly kind: 'unusable'; readonly reason: string };

/** Never rejects. */
export async function readLastKnown(
  subnetFile: string,
  source: string,
  backends: BackendLookup,
): Promise<LastKnownResult> {
  try {
    return parseLastKnown(await readFile(lastKnownPath(subnetFile), 'utf8'), source, backends);
  } catch (error) {
    if (hasErrno(error, 'ENOENT')) return { kind: 'absent' };
    return { kind: 'unusable', reason: error instanceof Error ? error.message : String(error) };
  }
}

/** Equal texts mean equal configurations. */
export function describeNetworkConfig({ ipv4, ipv6, enableNfTables, backend }: NetworkConfig): string {
  return JSON.stringify({
    ipv4: ipv4 && planToJson(ipv4, formatPrefix4, formatIpv4),
    ipv6: ipv6 && planToJson(ipv6, formatPrefix6, formatIpv6),
    enableNfTables,
    backendType: backend.type,
    backend: backend.written,
  });
}

/** The text that `parseLastKnown` reads. */
export function formatLastKnown({ source, config, node, external, own, peers }: LastKnown, now: Date): string {
  const head = JSON.stringify({
    ...{ version: VERSION, writtenAt: now.toISOString(), source },
    node: node && nodeToJson(node),
    external: externalToJson(external),
  });
  const parts = [
    `"config":${describeNetworkConfig(config)}`,
    `"own":${leaseText(own)}`,
    `"peers":[${peers.map(leaseText).join(',')}]`,
  ];
  return `${head.slice(0, -1)},${parts.join(',')}}\n`;
}

function nodeToJson({ publicAddresses, internalIps }: NodeAddresses): object {
  return { publicIp: publicAddresses.ipv4, publicIpv6: publicAddresses.ipv6, internalIps };
}

function externalToJson({ name, addresses: { ipv4, ipv6 } }: InterfaceInUse): object {
  return { name, address: ipv4 && formatIpv4(ipv4), addressV6: ipv6 && formatIpv6(ipv6) };
}

/** Never throws. @param source `undefined`: any will do, for whoever only looks. */
export function parseLastKnown(text: string, source: string | undefined, backends: BackendLookup): LastKnownResult {
  try {
    const content = objectOf(parseJsonWithin(text, FILE_BOUNDS), 'the file');
    if (content.version !== VERSION) throw new Error(`version ${String(content.version)} is not ${VERSION}`);
    const written = stringOf(content.source, 'source');
    if (source !== undefined && written !== source) {
      return { kind: 'unusable', reason: `it is about ${written}, not ${source}` };
    }
    const writtenAt = new Date(stringOf(content.writtenAt, 'writtenAt'));
    const own = leaseOf(content.own);
    const unreadable: string[] = [];
    const holders = new Map<LeaseKey, string>();
    const peerOf = (value: unknown): Lease[] => {
      try {
        const lease = leaseOf(value);
        const { holder } = objectOf(value, 'a lease');
        if (holder !== undefined) holders.set(leaseKey(lease), stringOf(holder, 'the name of a node'));
        return [lease];
      } catch (error) {
        unreadable.push((error as Error).message);
        return [];
      }
    };
    const known: LastKnown = {
      source: written,
      config: configOf(content.config, backends),
      node: content.node === undefined ? undefined : nodeOf(content.node),
      external: externalOf(content.external, own),
      own,
      peers: arrayOf(content.peers, 'peers').flatMap(peerOf),
    };
    return { kind: 'read', known, writtenAt, unreadable, holders };
  } catch (error) {
    return { kind: 'unusable', reason: error instanceof Error ? error.message : String(error) };
  }
}

function planToJson<P, A>(plan: AddressPlan<P, A>, prefix: (prefix: P) => string, addr: (addr: A) => string): unknown {
  const { network, subnetLength, subnetMin, subnetMax } = plan;
  return { network: prefix(network), subnetLength, subnetMin: addr(subnetMin), subnetMax: addr(subnetMax) };
}

/** Of thousands of peers a few change between two writes, and leases are never changed in place. */
const leaseTexts = new WeakMap<Lease, string>();

function leaseText(lease: Lease): string {
  let text = leaseTexts.get(lease);
  if (text === undefined) {
    const { attrs, expiresAtMs, origin } = lease;
    const value = encodeLeaseValue(attrs);
    text = JSON.stringify({ key: leaseKey(lease), value, expiresAtMs, holder: origin?.holder });
    leaseTexts.set(lease, text);
  }
  return text;
}

type JsonObject = { readonly [key: string]: unknown };

function configOf(value: unknown, backends: BackendLookup): NetworkConfig {
  const { ipv4, ipv6, enableNfTables, backendType, backend } = objectOf(value, 'config');
  if (typeof enableNfTables !== 'boolean') throw new Error('enableNfTables is no boolean');
  const written = objectOf(backend, 'backend') as { readonly [key: string]: JsonValue };
  const reading = readBackendConfig(stringOf(backendType, 'backendType'), written, backends);
  const [problem] = reading.problems;
  if (problem !== undefined) throw new Error(`${problem.path} ${problem.message}`);
  return Object.freeze({
    ipv4: ipv4 === undefined ? undefined : planOf<Ipv4Prefix, Ipv4Addr>(ipv4, parsePrefix4, parseIpv4),
    ipv6: ipv6 === undefined ? undefined : planOf<Ipv6Prefix, Ipv6Addr>(ipv6, parsePrefix6, parseIpv6),
    enableNfTables,
    backend: reading.config,
  });
}

function planOf<P, A>(
  value: unknown,
  prefix: (text: string) => P | undefined,
  addr: (text: string) => A | undefined,
): AddressPlan<P, A> {
  const plan = objectOf(value, 'an address plan');
  const read = <T>(name: string, parse: (text: string) => T | undefined): T => {
    const parsed = parse(stringOf(plan[name], name));
    if (parsed === undefined) throw new Error(`${name} is ${JSON.stringify(plan[name])}`);
    return parsed;
  };
  if (!Number.isInteger(plan.subnetLength)) throw new Error('subnetLength is no whole number');
  return {
    network: read('network', prefix),
    subnetLength: Number(plan.subnetLength),
    subnetMin: read('subnetMin', addr),
    subnetMax: read('subnetMax', addr),
  };
}

function nodeOf(value: unknown): NodeAddresses {
  const { publicIp, publicIpv6, internalIps } = objectOf(value, 'node');
  return {
    publicAddresses: {
      ipv4: publicIp === undefined ? undefined : stringOf(publicIp, 'publicIp'),
      ipv6: publicIpv6 === undefined ? undefined : stringOf(publicIpv6, 'publicIpv6'),
    },
    internalIps: arrayOf(internalIps, 'internalIps').map((ip) => stringOf(ip, 'an internal IP')),
  };
}

/** Earlier versions did not write it: then it is where the published addresses are. */
function externalOf(value: unknown, own: Lease): InterfaceInUse {
  if (value === undefined) return { name: '', addresses: own.attrs.publicAddresses };
  const { name, address, addressV6 } = objectOf(value, 'external');
  return {
    name: stringOf(name, 'the name of the external interface'),
    addresses: {
      ipv4: address === undefined ? undefined : parseIpv4(stringOf(address, 'its address')),
      ipv6: addressV6 === undefined ? undefined : parseIpv6(stringOf(addressV6, 'its IPv6 address')),
    },
  };
}

function leaseOf(value: unknown): Lease {
  const lease = objectOf(value, 'a lease');
  const key = stringOf(lease.key, 'key');
  const subnets = parseLeaseKey(key);
  const decoded = decodeLeaseValue(stringOf(lease.value, 'value'));
  if (subnets === undefined) throw new Error(`${JSON.stringify(key.slice(0, 100))} is no lease key`);
  if (!decoded.ok) throw new Error(`the lease ${key}: ${decoded.reason}`);
  const expiresAtMs = lease.expiresAtMs === undefined ? undefined : Number(lease.expiresAtMs);
  return { subnets, attrs: decoded.attrs, expiresAtMs };
}

function objectOf(value: unknown, what: string): JsonObject {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw new Error(`${what} is no object`);
  return value as JsonObject;
}

function arrayOf(value: unknown, what: string): readonly unknown[] {
  if (!Array.isArray(value)) throw new Error(`${what} is no list`);
  return value;
}

function stringOf(value: unknown, what: string): string {
  if (typeof value !== 'string') throw new Error(`${what} is no text`);
  return value;
}
