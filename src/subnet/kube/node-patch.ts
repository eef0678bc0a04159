import { isUnicast } from '../../ip/address.ts';
import { type FamilyKey, type PerFamily, perFamily } from '../../ip/family.ts';
import { formatIpv4, parseIpv4 } from '../../ip/ipv4.ts';
import { formatIpv6, parseIpv6 } from '../../ip/ipv6.ts';
import type { JsonValue, LeaseAttrs } from '../../lease/lease.ts';
import { printable } from '../../printable.ts';
import type { AnnotationKeys } from './annotations.ts';
import type { NodeRecord } from './node-record.ts';

/** People read it in tables. */
const MAX_CONDITION = 2_000;

/** Needed for lists that are merged by key (conditions); a plain object without it would be taken for a JSON patch. */
export const STRATEGIC_MERGE_PATCH = 'application/strategic-merge-patch+json';

/** The addresses that the user's `…-overwrite` annotations give, as far as they can be used. */
export type Overwrites = PerFamily<string | undefined>;

/** An annotation that gives no address under which a host can be reached. */
export interface OverwriteProblem {
  readonly key: string;
  readonly value: string;
  /** What is published in its place; `undefined`: the address of the interface. */
  readonly kept: string | undefined;
}

/**
 * What the user's annotations on the own Node ask for. One that cannot be used counts as `before`, the last good value; where
 * there is none, as what the Node publishes now, if peers can use that.
 */
export function readOverwrites(
  node: NodeRecord,
  before: Overwrites | undefined,
  keys: AnnotationKeys,
): { readonly overwrites: Overwrites; readonly problems: readonly OverwriteProblem[] } {
  const problems: OverwriteProblem[] = [];
  const overwrites = perFamily((family) => {
    const value = node.own?.publicOverwrites[family];
    if (value === undefined || value === '') return undefined;
    if (isUsable(family, value)) return value;
    const published = node.publicAddresses[family];
    const kept = before?.[family] ?? (published !== undefined && isUsable(family, published) ? published : undefined);
    problems.push({ key: keys.publicOverwrites[family], value, kept });
    return kept;
  });
  return { overwrites, problems };
}

function isUsable(family: FamilyKey, text: string): boolean {
  const address = family === 'ipv4' ? parseIpv4(text) : parseIpv6(text);
  return address !== undefined && isUnicast(address);
}

/**
 * The annotations that must change on the own node so that peers see `attrs`; empty when none. The rules give what flannel
 * gives with a switch on the backend's name, and need no name:
 * - an address comes from the user's `…-overwrite` annotation where there is one (readOverwrites);
 * - IPv6 keys are written when there is an IPv6 address: a backend that does not carry IPv6 publishes none;
 * - IPv4 keys are written unless the backend has data for IPv6 alone: then it has nothing to say of IPv4.
 */
export function annotationChanges(
  node: NodeRecord,
  attrs: LeaseAttrs,
  keys: AnnotationKeys,
  overwrites: Overwrites = readOverwrites(node, undefined, keys).overwrites,
): Record<string, string> {
  const { backendType, publicAddresses } = attrs;
  const data = goJson(attrs.backendData.ipv4);
  const v6Data = goJson(attrs.backendData.ipv6);
  const changes: Record<string, string> = {};
  const want = (key: string, value: string, now: string | undefined): void => {
    if (now !== value) changes[key] = value;
  };
  // In the order of the alphabet, as Go writes a map: the request then equals flannel's.
  const v4 = data !== 'null' || v6Data === 'null';
  if (v4) want(keys.backendData.ipv4, data, node.backendData.ipv4);
  want(keys.backendType, backendType, node.backendType);
  const v6 = publicAddresses.ipv6 !== undefined;
  if (v6) want(keys.backendData.ipv6, v6Data, node.backendData.ipv6);
  if (!node.managed) changes[keys.kubeSubnetManager] = 'true';
  if (publicAddresses.ipv4 !== undefined && v4) {
    want(keys.publicAddresses.ipv4, overwrites.ipv4 ?? formatIpv4(publicAddresses.ipv4), node.publicAddresses.ipv4);
  }
  if (v6) {
    want(keys.publicAddresses.ipv6, overwrites.ipv6 ?? formatIpv6(publicAddresses.ipv6), node.publicAddresses.ipv6);
  }
  return changes;
}

/** JSON as Go's encoder writes it: no spaces, `null` for nothing, and characters that mean something in HTML escaped. */
function goJson(value: JsonValue | undefined): string {
  return JSON.stringify(value ?? null).replace(
    /[<>&\u2028\u2029]/g,
    (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`,
  );
}

/** A merge patch of these annotations; others stay. */
export function annotationPatch(changes: Readonly<Record<string, string>>): string {
  return JSON.stringify({ metadata: { annotations: changes } });
}

/** The condition by which a node says that its pod network works; to the byte what flannel sends. */
export function networkAvailablePatch(now: Date): string {
  return networkConditionPatch(now, 'False', 'FlannelIsUp', 'Flannel is running on this node');
}

/**
 * The same condition, saying that it does not and why. Kubernetes then keeps new pods away (it taints the node with
 * node.kubernetes.io/network-unavailable) and `kubectl describe node` has the message. `reason` is one CamelCase word.
 */
export function networkUnavailablePatch(now: Date, reason: string, message: string): string {
  return networkConditionPatch(now, 'True', reason, printable(message, MAX_CONDITION));
}

function networkConditionPatch(now: Date, status: 'True' | 'False', reason: string, message: string): string {
  // Kubernetes times have whole seconds.
  const time = `${now.toISOString().slice(0, 19)}Z`;
  return JSON.stringify({
    status: {
      conditions: [
        { type: 'NetworkUnavailable', status, lastHeartbeatTime: time, lastTransitionTime: time, reason, message },
      ],
    },
  });
}
