import type { Actual } from '../actual.ts';
import type { Op } from '../op.ts';
import type { Wanted } from '../wanted.ts';
import { type LinkPlan, neighbourLinks } from './links.ts';

/** What to do about the forwarding entries with these keys; `undefined` is all of them. */
export function planFdb(
  wanted: Wanted,
  actual: Actual,
  links: LinkPlan,
  keys: Iterable<string> | undefined,
): readonly Op[] {
  const kept = neighbourLinks(wanted.host.links);
  const ops: Op[] = [];
  for (const key of keys ?? new Set([...wanted.fdb.keys(), ...actual.fdb.keys()])) {
    const entry = wanted.fdb.get(key);
    const there = (actual.fdb.get(key) ?? []).filter(({ link }) => !links.fresh.has(link));
    if (entry === undefined || !links.present.has(entry.link)) {
      if (wanted.host.isPartial === true) continue;
      for (const stale of there) if (kept.has(stale.link)) ops.push({ type: 'fdb-delete', entry: stale });
      continue;
    }
    const others = there.filter((other) => other.dst !== entry.dst);
    const isThere = there.length > others.length;
    // The kernel replaces an entry that has a single destination; several are reduced to none first.
    if (isThere || others.length > 1) ops.push(...others.map((other): Op => ({ type: 'fdb-delete', entry: other })));
    if (!isThere) ops.push({ type: 'fdb-replace', entry });
  }
  return ops;
}
