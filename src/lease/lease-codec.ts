import { formatIpv4, type Ipv4Addr, parseIpv4 } from '../ip/ipv4.ts';
import { formatIpv6, type Ipv6Addr, parseIpv6 } from '../ip/ipv6.ts';
import { type Ipv4Prefix, parsePrefix4, parsePrefix6 } from '../ip/prefix.ts';
import { ENTRY_BOUNDS, foldKey, type JsonMember, type JsonNode, jsonValueOf, parseGoJson } from './go-json.ts';
import { type LeaseAttrs, subnetsKey } from './lease.ts';
import type { Subnets } from './subnets.ts';

/** Room for two subnets with any length that somebody padded with zeros. An etcd key may be a megabyte long. */
const MAX_KEY_LENGTH = 128;

/**
 * Reads what `leaseKey` writes: `10.5.1.0-24`, `10.5.1.0-24&fd00::-56`, or `fd00::-56` alone. `undefined` for anything
 * else, other spellings of the same subnets included.
 */
export function parseLeaseKey(key: string): Subnets | undefined {
  if (key.length > MAX_KEY_LENGTH) return undefined;
  const [first = '', second, ...more] = key.split('&');
  if (more.length > 0) return undefined;
  const ipv4 = parsePrefix4(withSlash(first));
  const ipv6 = parsePrefix6(withSlash(ipv4 === undefined ? first : (second ?? '')));
  if ((second !== undefined && (ipv4 === undefined || ipv6 === undefined)) || (ipv4 ?? ipv6) === undefined) {
    return undefined;
  }
  const subnets = { ipv4, ipv6 };
  return subnetsKey(subnets) === key ? subnets : undefined;
}

function withSlash(part: string): string {
  return part.replace(/-(?=\d+$)/, '/');
}

const ETCD_KEY = /(\d+\.\d+\.\d+\.\d+)-(\d+)(?:&([0-9a-f:]+)-(\d+))?$/;

/**
 * The subnets in an etcd key, by flannel's rule: the end must fit, what comes before is not looked at; lengths are 0 to
 * 31 and 0 to 127, IPv6 is lower case. Host bits are masked off. `undefined` when the key names no subnet; such a key must
 * be skipped, flannel's mistake is to drop all peers over it.
 */
export function parseEtcdLeaseKey(key: string): (Subnets & { readonly ipv4: Ipv4Prefix }) | undefined {
  // The expression takes quadratic time over digits that lead to nothing.
  const match = ETCD_KEY.exec(key.slice(-MAX_KEY_LENGTH));
  const [, addr4, length4, addr6, length6] = match ?? [];
  if (addr4 === undefined || length4 === undefined || Number(length4) > 31) return undefined;
  const ipv4 = parsePrefix4(`${addr4}/${Number(length4)}`);
  if (ipv4 === undefined) return undefined;
  if (addr6 === undefined || length6 === undefined) return { ipv4, ipv6: undefined };
  if (Number(length6) > 127) return undefined;
  const ipv6 = parsePrefix6(`${addr6}/${Number(length6)}`);
  return ipv6 && { ipv4, ipv6 };
}

/**
 * A lease's value as flannel's encoder writes it, to the byte: field order, `PublicIPv6` always there, the others left
 * out when empty, and Go's escapes for characters that mean something in HTML.
 */
export function encodeLeaseValue({ publicAddresses: { ipv4, ipv6 }, backendType, backendData }: LeaseAttrs): string {
  const fields = {
    PublicIP: ipv4 === undefined ? '0.0.0.0' : formatIpv4(ipv4),
    PublicIPv6: ipv6 === undefined ? null : formatIpv6(ipv6),
    BackendType: backendType === '' ? undefined : backendType,
    BackendData: backendData.ipv4,
    BackendV6Data: backendData.ipv6,
  };
  // These characters stand only inside strings, so they can be escaped in the text.
  return JSON.stringify(fields).replace(/[<>&\u2028\u2029]/g, (character) => {
    return `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`;
  });
}

export type LeaseValueResult =
  | { readonly ok: true; readonly attrs: LeaseAttrs }
  | { readonly ok: false; readonly reason: string };

/**
 * Reads a lease's value as flannel's decoder does (keys in any case, the last wins, unknown ones are ignored), whoever
 * wrote it. Never throws: what cannot be used comes back as a reason. A value without any public address is refused,
 * because nothing can be sent to such a peer. `data: false` leaves the backend's data out, for a reader that has no use for
 * it.
 */
export function decodeLeaseValue(text: string, { data: keepData = true } = {}): LeaseValueResult {
  const parsed = parseGoJson(text, ENTRY_BOUNDS);
  if (!parsed.ok) return refuse(`not JSON: ${parsed.message}`);
  if (parsed.node.kind !== 'object') return refuse(`not an object but ${parsed.node.kind}`);
  const { members } = parsed.node;
  const publicIp = readAddr(last(members, 'PublicIP'), parseIpv4);
  if (publicIp === INVALID) return refuse('PublicIP is not an IPv4 address');
  const publicIpv6 = readAddr(last(members, 'PublicIPv6'), parseIpv6);
  if (publicIpv6 === INVALID) return refuse('PublicIPv6 is not an IPv6 address');
  if (publicIp === undefined && publicIpv6 === undefined) return refuse('no public address');
  const type = last(members, 'BackendType');
  if (type !== undefined && type.kind !== 'string' && type.kind !== 'null')
    return refuse('BackendType is not a string');
  const data = keepData ? last(members, 'BackendData') : undefined;
  const v6Data = keepData ? last(members, 'BackendV6Data') : undefined;
  return {
    ok: true,
    attrs: {
      publicAddresses: { ipv4: publicIp, ipv6: publicIpv6 },
      backendType: type?.kind === 'string' ? type.value : '',
      backendData: { ipv4: data && jsonValueOf(data), ipv6: v6Data && jsonValueOf(v6Data) },
    },
  };
}

function refuse(reason: string): LeaseValueResult {
  return { ok: false, reason };
}

function last(members: readonly JsonMember[], name: string): JsonNode | undefined {
  const folded = foldKey(name);
  return members.findLast(({ key }) => foldKey(key) === folded)?.value;
}

const INVALID = Symbol('invalid');

/** Absent, null and the zero address all mean "none": that is how Go writes an unset address. */
function readAddr<A extends Ipv4Addr | Ipv6Addr>(
  node: JsonNode | undefined,
  parse: (text: string) => A | undefined,
): A | undefined | typeof INVALID {
  if (node === undefined || node.kind === 'null') return undefined;
  const addr = node.kind === 'string' ? parse(node.value) : undefined;
  if (addr === undefined) return INVALID;
  return addr === 0 || addr === 0n ? undefined : addr;
}
