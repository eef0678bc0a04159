import { isDeepStrictEqual } from 'node:util';
import { containsPrefix, type IpPrefix } from '../../ip/address.ts';
import type { Actual } from '../actual.ts';
import type { Op } from '../op.ts';
import { type ActualIpsecPolicy, POLICY_PRIORITIES, type WantedState } from '../state.ts';
import type { Wanted } from '../wanted.ts';

const OWN_PRIORITIES: ReadonlySet<number> = new Set(Object.values(POLICY_PRIORITIES));
/** What flanneld's policies have, as it gives none. */
const FLANNEL_PRIORITY = 0;

/**
 * What to do about the IPsec policies with these keys; `undefined` is all of them. Somebody else's are left alone, but for one
 * that has the key of a wanted one: the kernel has one policy for it. Additions come before deletions.
 */
export function planPolicies(wanted: Wanted, actual: Actual, keys: Iterable<string> | undefined): readonly Op[] {
  const changes: Op[] = [];
  const deletions: Op[] = [];
  for (const key of keys ?? new Set([...wanted.policies.keys(), ...actual.policies.keys()])) {
    const policy = wanted.policies.get(key);
    const found = actual.policies.get(key);
    if (policy !== undefined) {
      const isThere =
        found?.priority === POLICY_PRIORITIES[policy.verdict.kind] && isDeepStrictEqual(found.verdict, policy.verdict);
      if (!isThere) changes.push({ type: 'policy-set', policy });
    } else if (found !== undefined && isStale(found, wanted.host)) {
      deletions.push({ type: 'policy-delete', policy: found });
    }
  }
  return [...changes, ...deletions];
}

/** Of an earlier run, of a peer that has gone meanwhile, or of flanneld, which takes none away. */
function isStale(
  { src, dst, priority, verdict }: ActualIpsecPolicy,
  { networks, staleRoutes, isPartial }: Pick<WantedState, 'networks' | 'staleRoutes' | 'isPartial'>,
): boolean {
  if (isPartial === true) return false;
  const isOwn = OWN_PRIORITIES.has(priority) || (verdict.kind === 'tunnel' && priority === FLANNEL_PRIORITY);
  if (!isOwn || staleRoutes === 'own-links') return false;
  const isInside = (prefix: IpPrefix): boolean => networks.some((network) => containsPrefix(network, prefix));
  return staleRoutes === 'everywhere' || isInside(src) || isInside(dst);
}
